"""Evaluation of real, tiny students on real stores."""

import json
import shutil

import fsspec
import numpy as np
import pytest
import safetensors.torch
import torch
import yaml

from teachonce.core import errors, hashing
from teachonce.evaluate import evaluate_command, evaluate_student, evaluation_record, predictions, validation_batches
from teachonce.shards import decode, sample_reader
from teachonce.store import store_reader
from teachonce.student import student_model, student_record, student_spec
from teachonce.views import draw, render, view_policy


def named(spec, settings) -> student_spec.Student:
    return student_spec.Student("soft", spec, settings)


def by_hand(world, settings) -> tuple[list[str], np.ndarray, torch.Tensor, np.ndarray]:
    """Keys, labels, normalised images and the teacher's logits of the validation split."""
    cache = store_reader.open(world.root / "cache" / "val.zarr")
    samples = [
        sample
        for entry in world.shards.index.of_split("val")
        for sample in sample_reader.verified_samples(entry, world.shards.path(entry))
    ]
    keys = [sample.key for sample in samples]
    views = [
        render.to_pixels(
            decode.rgb_pixels(sample.image, "x"), draw.view_params(view_policy.Policy(center=0.75), sample.key, 0), 16
        )
        for sample in samples
    ]
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (settings.mean, settings.std))
    images = (torch.from_numpy(np.stack(views)).float() / 255 - mean) / std
    return keys, np.array([s.label for s in samples]), images, cache.rows(keys, 0).logits_BC


@torch.no_grad()
def test_predictions_are_those_of_timm_itself_in_row_order(world, settings, tmp_path):
    evaluation = world.evaluate("soft", tmp_path / "out")
    arrays, origin = predictions.read(tmp_path / "out", evaluation.predictions_sha256)
    keys, labels, images, teacher = by_hand(world, settings)
    network = world.networks["soft"]
    network.set_distilled_training(enable=False)
    tokens = network.forward_features(images)
    class_, dist = network.head(tokens[:, 0]), network.head_dist(tokens[:, 1])
    wanted = {
        "label": labels,
        "teacher": teacher.argmax(1),
        "class": class_.argmax(1),
        "dist": dist.argmax(1),
        "both": network(images).argmax(1),
        "sum_softmax": (class_.softmax(1) + dist.softmax(1)).argmax(1),
    }
    assert set(arrays) == set(wanted)
    for name, array in wanted.items():
        assert arrays[name].dtype == np.int32
        assert arrays[name].tolist() == list(array), name
    assert origin.keys_crc32 == hashing.keys_crc32(keys)
    p = torch.from_numpy(teacher).double().log_softmax(1)
    kl = (p.exp() * (p - network(images).double().log_softmax(1))).sum(1).mean()
    assert evaluation.heads["both"].kl == pytest.approx(float(kl), rel=1e-4)
    assert evaluation.heads["dist"].agreement == pytest.approx((arrays["dist"] == arrays["teacher"]).mean())
    assert evaluation.teacher.top1 == pytest.approx((labels == teacher.argmax(1)).mean())
    assert evaluation.heads["class"].top1_se == pytest.approx(
        np.sqrt(evaluation.heads["class"].top1 * (1 - evaluation.heads["class"].top1) / 13)
    )
    assert [point.layer for point in evaluation.token_cosine] == [0, 1, 2]
    assert evaluation.images == 13
    assert evaluation.heads["both"].top5 is not None


def test_batch_size_and_repetition_change_no_byte(world, tmp_path):
    files = []
    for batch_size in (1, 2, 3, 256, 256):
        world.evaluate("soft", tmp_path / "out", batch_size=batch_size)
        files.append((tmp_path / "out" / predictions.NAME).read_bytes())
    assert len(set(files)) == 1


def test_shards_and_store_may_lie_behind_urls(world, tmp_path, monkeypatch):
    monkeypatch.setenv("TEACHONCE_COPIES", str(tmp_path / "copies"))
    for name in ("shards", "cache"):
        fsspec.filesystem("memory").put(str(world.root / name), f"/evaluated/{name}", recursive=True)
    at = {"shards": "memory://evaluated/shards", "cache": "memory://evaluated/cache/val.zarr"}
    assert world.evaluate("soft", tmp_path / "a", **at) == world.evaluate("soft", tmp_path / "b")
    assert (tmp_path / "a" / predictions.NAME).read_bytes() == (tmp_path / "b" / predictions.NAME).read_bytes()


def test_a_student_without_token_has_the_class_head_alone(world, tmp_path):
    evaluation = world.evaluate("plain", tmp_path / "out")
    assert list(evaluation.heads) == ["class"]
    assert evaluation.token_cosine == ()
    assert set(predictions.read(tmp_path / "out", evaluation.predictions_sha256)[0]) == {"label", "teacher", "class"}


@torch.no_grad()
def test_top_k_rows_give_the_same_predictions_and_the_kl_of_the_flat_tail(world, make, settings, tmp_path):
    cache = make["stores"](tmp_path, world.shards, k=3)
    out = tmp_path / "out"
    whole = world.evaluate("soft", out)
    before, _ = predictions.read(out, whole.predictions_sha256)
    evaluation = world.evaluate("soft", out, cache=cache / "val.zarr")
    after, _ = predictions.read(out, evaluation.predictions_sha256)
    assert all((before[name] == after[name]).all() for name in before)
    _, _, images, teacher = by_hand(world, settings)
    p = np.exp(teacher.astype(np.float64) - np.logaddexp.reduce(teacher.astype(np.float64), axis=1)[:, None])
    for row in p:
        rest = np.argsort(-row)[3:]
        row[rest] = row[rest].mean()
    network = world.networks["soft"]
    network.set_distilled_training(enable=False)
    q = network(images).double().log_softmax(1).numpy()
    assert evaluation.heads["both"].kl == pytest.approx((p * (np.log(p) - q)).sum(1).mean(), rel=1e-2)
    assert evaluation.teacher.top5 is None
    assert evaluation.heads["both"].top5 == whole.heads["both"].top5


def test_few_classes_have_no_top5(make, settings, tmp_path):
    shards = make["shards"](tmp_path / "shards", classes=tuple("abcde"))
    cache = make["stores"](tmp_path, shards)
    make["student"](tmp_path / "plain", make["kinds"]["plain"], cache)
    paths = evaluate_student.EvaluationPaths(
        tmp_path / "shards", cache / "val.zarr", tmp_path / "plain", tmp_path / "out"
    )
    evaluation = evaluate_student.evaluate(named(make["kinds"]["plain"], settings), make["views"].evaluation, paths)
    assert evaluation.teacher.top5 is None
    assert evaluation.heads["class"].top5 is None


def test_a_store_of_another_teacher_is_refused(world, make, tmp_path):
    cache = make["stores"](tmp_path, world.shards, seed=7)
    with pytest.raises(errors.IdentityError, match="teacher must be the one that taught soft"):
        world.evaluate("soft", tmp_path / "out", cache=cache / "val.zarr")
    assert not (tmp_path / "out").exists()


def test_a_store_of_another_policy_is_refused(world, make, settings, tmp_path):
    with pytest.raises(errors.IdentityError, match=r"policy\.center must be as asked, 0\.5"):
        evaluate_student.evaluate(
            named(make["kinds"]["soft"], settings), view_policy.center_crop(0.5), world.paths("soft", tmp_path / "out")
        )


def test_the_training_store_is_refused(world, tmp_path):
    with pytest.raises(errors.IdentityError):
        world.evaluate("soft", tmp_path / "out", cache=world.root / "cache" / "train.zarr")


def test_other_shards_are_refused(world, make, tmp_path):
    make["shards"](tmp_path / "shards", first=5000)
    with pytest.raises(errors.IdentityError, match="has no rows of"):
        world.evaluate("soft", tmp_path / "out", shards=tmp_path / "shards")


def test_weights_trained_with_other_knobs_are_refused(world, make, settings, tmp_path):
    other = make["kinds"]["soft"].model_copy(update={"tau": 5.0})
    with pytest.raises(errors.DataError, match=r"tau must be as asked, 5\.0\. Got 2\.0"):
        evaluate_student.evaluate(
            named(other, settings), make["views"].evaluation, world.paths("soft", tmp_path / "out")
        )
    with pytest.raises(errors.DataError, match=r"depth"):
        evaluate_student.evaluate(
            named(make["kinds"]["soft"], settings.model_copy(update={"arguments": {**settings.arguments, "depth": 3}})),
            make["views"].evaluation,
            world.paths("soft", tmp_path / "out"),
        )


def test_a_folder_without_record_is_refused(world, tmp_path):
    with pytest.raises(
        errors.DataError, match=r"record\.json: cannot be read \(No such file or directory\)\. Train it again"
    ):
        world.evaluate("soft", tmp_path / "out", weights=tmp_path / "none")


def test_views_that_do_not_replay_are_refused_or_said(world, make, settings, tmp_path, caplog):
    cache = tmp_path / "cache"
    _copy_with_drift(world.root / "cache" / "val.zarr", cache / "val.zarr")
    with pytest.raises(errors.ViewDriftError, match="2 of 2 canaries differ"):
        world.evaluate("soft", tmp_path / "out", cache=cache / "val.zarr")
    lenient = make["kinds"]["soft"].model_copy(update={"accept": ("view_drift",)})
    paths = world.paths("soft", tmp_path / "out", cache=cache / "val.zarr")
    evaluation = evaluate_student.evaluate(named(lenient, settings), make["views"].evaluation, paths)
    assert all("views no longer replay" in line for line in evaluation.accepted)
    assert evaluation.accepted
    assert "views no longer replay" in caplog.text


def _copy_with_drift(source, target) -> None:
    """A store whose units remember other pixels."""
    shutil.copytree(source, target)
    path = target / "units.json"
    units = json.loads(path.read_text())
    for unit in units:
        unit["canary"]["sha256"] = "0" * 64
    path.write_text(json.dumps(units))


def test_a_drift_in_a_later_tar_is_found_as_it_streams(world, tmp_path):
    target = tmp_path / "val.zarr"
    _copy_with_drift(world.root / "cache" / "val.zarr", target)
    units = json.loads((target / "units.json").read_text())
    sound = json.loads((world.root / "cache" / "val.zarr" / "units.json").read_text())
    (target / "units.json").write_text(json.dumps([*sound[:2], units[2]]))
    with pytest.raises(errors.ViewDriftError, match="1 of 1 canaries"):
        world.evaluate("soft", tmp_path / "out", cache=target)
    assert not (tmp_path / "out").exists()


def test_predictions_that_are_cut_or_foreign_are_refused(world, tmp_path):
    evaluation = world.evaluate("plain", tmp_path / "out")
    with pytest.raises(errors.DataError, match="cannot be read"):
        predictions.read(tmp_path, evaluation.predictions_sha256)
    path = tmp_path / "out" / predictions.NAME
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(errors.DataError, match=f"sha256 must be that of its metrics, {evaluation.predictions_sha256}"):
        predictions.read(tmp_path / "out", evaluation.predictions_sha256)
    with pytest.raises(errors.DataError, match="cannot be read"):
        predictions.read(tmp_path / "out", hashing.sha256_file(path))
    import safetensors.numpy

    whole = {name: np.zeros(3, np.int32) for name in ("label", "teacher", "class")}
    forms = ({"label": whole["label"]}, whole | {"class": np.zeros(3)}, whole | {"class": np.zeros((3, 1), np.int32)})
    for arrays in forms:
        safetensors.numpy.save_file(arrays, path)
        with pytest.raises(errors.DataError, match="must hold label, teacher and class"):
            predictions.read(tmp_path / "out", hashing.sha256_file(path))
    for metadata in (None, {"teachonce": "{"}, {"teachonce": "3"}, {"teachonce": "[" * 100_000}):
        safetensors.numpy.save_file(whole, path, metadata)
        with pytest.raises(errors.DataError, match="does not say what it was made on"):
            predictions.read(tmp_path / "out", hashing.sha256_file(path))


@pytest.mark.parametrize("factor", [-1, 3])
def test_weights_that_are_not_those_of_the_record_are_refused(world, tmp_path, factor):
    shutil.copytree(world.root / "soft", tmp_path / "soft")
    path = tmp_path / "soft" / student_model.EMA
    before = hashing.sha256_file(path)
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file({**tensors, "head.weight": factor * tensors["head.weight"]}, path)
    with pytest.raises(errors.DataError) as caught:
        world.evaluate("soft", tmp_path / "out", weights=tmp_path / "soft")
    assert str(caught.value) == (
        f"{path}: sha256 must be that of its record, {before}. Got {hashing.sha256_file(path)}. "
        "Train it again: dvc repro train; or restore it: dvc checkout"
    )
    assert not (tmp_path / "out").exists()


def test_a_record_that_was_changed_is_refused(world, tmp_path):
    shutil.copytree(world.root / "soft", tmp_path / "soft")
    path = tmp_path / "soft" / student_record.NAME
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "accepted": ["anything"]}))
    with pytest.raises(
        errors.DataError, match=r"record\.json: digest must be that of what it holds, [0-9a-f]{32}\. Got"
    ):
        world.evaluate("soft", tmp_path / "out", weights=tmp_path / "soft")


def test_the_teachers_answer_of_top_k_rows_keeps_their_first_class(world, make, tmp_path):
    cache = store_reader.open(make["stores"](tmp_path, world.shards, k=2) / "val.zarr")
    rows = cache.block(0, 0)
    teacher, logp = validation_batches.teacher_predictions(rows, 8)
    assert teacher.tolist() == rows.class_id_BK[:, 0].tolist()
    assert np.exp(logp).sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_the_stage_writes_metrics_that_its_schema_reads(world, make, settings, tmp_path):
    params = {"students": {"soft": make["kinds"]["soft"].model_dump(mode="json", exclude_none=True)}}
    named = {
        "params": params,
        "config": settings.model_dump(mode="json"),
        "views": make["views"].model_dump(mode="json"),
    }
    for name, data in named.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(data))
    words = [
        "--student",
        "soft",
        *(word for name in named for word in (f"--{name}", tmp_path / f"{name}.yaml")),
        "--shards",
        world.root / "shards",
        "--cache",
        world.root / "cache" / "val.zarr",
        "--weights",
        world.root / "soft",
        "--out",
        tmp_path / "out",
        "--metrics",
        tmp_path / "metrics.json",
        "--cost",
        tmp_path / "cost.json",
    ]
    evaluate_command.main([*map(str, words)])
    evaluation = evaluation_record.Evaluation.model_validate_json((tmp_path / "metrics.json").read_text(), strict=True)
    assert evaluation == world.evaluate("soft", tmp_path / "again", batch_size=256)
    assert json.loads((tmp_path / "cost.json").read_text())["images"] == 13
