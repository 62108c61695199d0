"""A student's accuracy on its way."""

import shutil

import pytest
import reseal
import stage_outputs

from teachonce.core import errors
from teachonce.evaluate import evaluate_student, evaluation_record
from teachonce.student import student_model, student_record, student_spec

whole, bare = stage_outputs.whole, stage_outputs.bare


def evaluate(here: stage_outputs.World, name: str, weights, tmp_path) -> evaluation_record.Evaluation:
    student = student_spec.Student(name, student_record.read(weights).record.student, stage_outputs.SETTINGS)
    paths = evaluate_student.EvaluationPaths(
        here.root / "shards", here.root / "cache/val.zarr", weights, tmp_path / "predictions"
    )
    return evaluate_student.evaluate(student, stage_outputs.VIEWS.evaluation, paths)


def test_it_is_that_of_the_weights_of_then_and_last_of_the_student_itself(whole, tmp_path):
    folder = whole.root / "students/zeal"
    record = student_record.read(folder).record
    assert [(kept.passes, kept.step) for kept in record.kept_weights] == [(1, 2), (2, 4), (3, 6)]
    assert record.kept_weights[-1].sha256 == record.weights_sha256
    evaluation = whole.gather(["zeal"]).students["zeal"]
    curve = evaluation.accuracy_by_pass
    assert [(point.passes, point.step) for point in curve] == [(1, 2), (2, 4), (3, 6)]
    assert curve[-1].top1 == evaluation.heads["both"].top1
    # Those weights by themselves, as if they were a student's.
    early = tmp_path / "early"
    shutil.copytree(folder, early)
    (early / student_model.EMA).unlink()
    shutil.copyfile(early / "passes/0001.safetensors", early / student_model.EMA)
    reseal.change(early / student_record.NAME, weights_sha256=record.kept_weights[0].sha256, kept_weights=[])
    alone = evaluate(whole, "zeal", early, tmp_path)
    assert alone.heads["both"].top1 == curve[0].top1
    assert alone.accuracy_by_pass == (), "a student of before they were kept has no curve"


def test_weights_that_were_changed_are_refused(whole, tmp_path):
    folder = tmp_path / "student"
    shutil.copytree(whole.root / "students/zeal", folder)
    (folder / "passes/0002.safetensors").write_bytes((folder / "passes/0001.safetensors").read_bytes())
    with pytest.raises(errors.DataError, match=r"passes/0002\.safetensors: sha256 must be that of its record"):
        evaluate(whole, "zeal", folder, tmp_path)


def test_without_labels_there_is_none(bare):
    assert bare.gather(["twin"]).students["twin"].accuracy_by_pass == ()
