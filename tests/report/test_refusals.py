"""What a report must not be made of."""

import json
import os
import shutil

import numpy as np
import pytest

from teachonce.core import errors
from teachonce.evaluate import predictions
from teachonce.report import gallery, report_table, write_report
from teachonce.shards import index


def rewrite(world, name: str, **changes) -> None:
    folder = world.root / "predictions" / name
    arrays, origin = predictions.read(folder, world.predictions_sha256(name))
    arrays |= {key: value for key, value in changes.items() if key in arrays}
    fields = {key: value for key, value in changes.items() if key in predictions.Provenance.model_fields}
    sha256 = predictions.save(folder, arrays, origin.model_copy(update=fields))
    path = world.root / "records" / "evaluate" / f"{name}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "predictions_sha256": sha256}))


@pytest.mark.parametrize(
    ("field", "value"), [("keys_crc32", 1), ("classes_sha256", "0" * 64), ("teacher_sha256", "0" * 64)]
)
def test_predictions_on_other_data_are_refused(copied, field, value):
    rewrite(copied, "zeal", **{field: value})
    shutil.rmtree(copied.root / "report", ignore_errors=True)
    with pytest.raises(errors.DataError, match=rf"zeal/predictions\.safetensors: {field} must be that of these shards"):
        write_report.build_page(copied.paths())
    assert not (copied.root / "report").exists()


def test_predictions_beside_other_labels_are_refused(copied):
    rewrite(copied, "hard-1", label=np.zeros(13, np.int32))
    with pytest.raises(errors.DataError, match="crc32 of label"):
        write_report.build_page(copied.paths())


def test_predictions_that_are_not_those_of_the_record_are_refused(copied):
    """Of another student, on the same data."""
    folder = copied.root / "predictions"
    shutil.copyfile(folder / "zeal" / predictions.NAME, folder / "hard-1" / predictions.NAME)
    wanted, foreign = (copied.predictions_sha256(name) for name in ("hard-1", "zeal"))
    with pytest.raises(errors.DataError) as caught:
        write_report.build_page(copied.paths())
    assert str(caught.value) == (
        f"{folder}/hard-1/{predictions.NAME}: sha256 must be that of its metrics, {wanted}. Got {foreign}. "
        "Make it again: dvc repro evaluate; or fetch it: dvc pull evaluate"
    )


def test_missing_predictions_are_refused(copied):
    shutil.rmtree(copied.root / "predictions" / "plain")
    with pytest.raises(errors.DataError, match="dvc repro evaluate"):
        write_report.build_page(copied.paths())


@pytest.mark.parametrize(
    "name",
    [
        "records/prepare.json",
        "records/teacher.json",
        "records/cache.json",
        "records/evaluate/zeal.json",
        "curves/zeal/plots/metrics/teacher_loss.tsv",
    ],
)
def test_each_missing_file_is_named(copied, name):
    (copied.root / name).unlink()
    with pytest.raises(errors.DataError, match=f"{name}: .*dvc repro"):
        write_report.build_page(copied.paths())


def test_what_ran_elsewhere_is_left_out_of_the_costs_and_named(copied):
    """A clone that fetched results alone: nothing is added up that is not there as a whole."""
    shutil.rmtree(copied.root / "costs/train")
    (copied.root / "costs/teacher.json").unlink()
    numbers, costs = write_report.build_page(copied.paths())
    page = (copied.root / "report" / write_report.PAGE).read_text(encoding="utf-8")
    assert [cost.stage for cost in costs] == ["prepare", "cache", *(f"evaluate {name}" for name in numbers.order)]
    for text in (report_table.format_summary(numbers, costs), page):
        line = "Ran elsewhere, and what they cost was not fetched: teacher, train plain, train zeal, train hard-1."
        assert line in " ".join(text.split())
        assert "Training all students took" not in text
    shutil.rmtree(copied.root / "costs")
    assert write_report.build_page(copied.paths())[1] == ()
    assert "Wall time" not in (copied.root / "report" / write_report.PAGE).read_text(encoding="utf-8")


def test_a_student_that_does_not_distil_needs_no_curve_of_the_teachers_part(copied):
    assert not (copied.root / "curves/plain/plots/metrics/teacher_loss.tsv").exists()
    write_report.build_page(copied.paths())


def test_records_of_another_data_set_are_refused(copied):
    path = copied.root / "records/evaluate/plain.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "images": 99}))
    with pytest.raises(errors.DataError, match=r"images and classes must be those of the shards, \(13, 8\)"):
        write_report.build_page(copied.paths())


def test_damaged_records_are_refused(copied):
    for name, text in (
        ("costs/teacher.json", "{}"),
        ("records/evaluate/plain.json", "{"),
        ("records/cache.json", '{"train": 3}'),
    ):
        path = copied.root / name
        sound = path.read_text()
        path.write_text(text)
        with pytest.raises(errors.DataError, match=name):
            write_report.build_page(copied.paths())
        path.write_text(sound)


@pytest.mark.parametrize("text", ["dataset: digits\n", "students: {}\n", "students: [a]\n", "students: {a b: {}}\n"])
def test_params_without_proper_students_are_refused(copied, text):
    copied.paths().params.write_text(text)
    with pytest.raises(errors.ConfigError, match="students"):
        write_report.build_page(copied.paths())


def test_views_that_no_longer_replay_are_said(copied):
    from teachonce.store import store_reader

    path = copied.root / "cache" / "train.zarr" / "units.json"
    units = json.loads(path.read_text())
    for unit in units:
        unit["canary"]["sha256"] = "0" * 64
    path.chmod(0o644)
    path.write_text(json.dumps(units))
    cache, shards = store_reader.open(copied.root / "cache" / "train.zarr"), index.read(copied.root / "shards")
    views = gallery.collect_views(shards, cache, shards.index.classes)
    assert views.drift is not None
    write_report.build_page(copied.paths())
    assert "not exactly what the teacher saw" in (copied.root / "report" / write_report.PAGE).read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize(
    "name", ["records/evaluate/zeal.json", "costs/cache.json", "curves/zeal/plots/metrics/loss.tsv"]
)
@pytest.mark.parametrize("kind", ["pipe", "device", "nul"])
def test_what_is_no_file_of_a_stage_is_refused_at_once(copied, name, kind):
    path = copied.root / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(b"step\tloss\n1\t\0\n")
    with pytest.raises(errors.DataError, match=rf"{name}: (cannot be read|is not a curve of DVCLive) \("):
        write_report.build_page(copied.paths())
