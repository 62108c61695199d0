import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
import zarr

from teachonce.audit import audit_cache
from teachonce.cache import basis_fit
from teachonce.core import hashing

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session", params=["all", 3])
def made(request, tmp_path_factory, shards, teacher):
    bench = sys.modules["teacher_conftest"].Bench(tmp_path_factory.mktemp("made"), shards.base, teacher)
    bench = bench.but(cache={"k": request.param, "seeds_per_unit": 2, "workers": 0})
    bench.make()
    return bench


@pytest.fixture
def own(made, tmp_path):
    """Cache and shards to be damaged."""
    for name, source in (("cache", made.out), ("shards", made.shards)):
        shutil.copytree(source, tmp_path / name)
    for path in tmp_path.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return audit_cache.AuditPaths(tmp_path / "cache", tmp_path / "shards")


def audit(paths, tmp_path, rows=999):
    return audit_cache.audit(paths, out=tmp_path / "out", rows=rows, seed=0)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def row_object(paths, tar=0) -> Path:
    store = paths.cache / "train.zarr"
    return next(path for name in ("logits", "logp") for path in store.glob(f"{name}/c/{tar}/0/0/0"))


def test_a_sound_cache_has_no_findings(made, teacher, tmp_path):
    found = audit(audit_cache.AuditPaths(made.out, made.shards, teacher), tmp_path)
    assert found.findings == []
    assert [facts["canaries"] for facts in found.facts.values()] == [6, 1]
    assert found.facts["train"]["teacher"]["views"] == 84
    assert found.facts["train"]["teacher"]["stored_live"]["max"] < 1e-3
    assert (tmp_path / "out" / audit_cache.FIGURE).read_text().startswith("<?xml")


def test_a_store_of_another_renderer_is_one_finding_and_its_tars_are_still_checked(own, tmp_path):
    path = own.cache / "train.zarr/zarr.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written["attributes"]["teachonce"]["recipe"]["policy"].pop("renderer")
    path.write_text(json.dumps(written), encoding="utf-8")
    flip(own.shards / "train-000001.tar")
    first, second = audit(own, tmp_path).findings
    assert (first.file, first.cure) == (str(own.cache / "train.zarr"), "Make it again: dvc repro cache")
    assert first.what == "policy.renderer must be 1, the renderer of this release (0 is Pillow's). Got 0"
    assert second.file == str(own.shards / "train-000001.tar")


def test_every_damage_is_listed(own, tmp_path):
    flip(row_object(own, 0))
    row_object(own, 1).unlink()
    flip(own.cache / "train.zarr/key/c/2/0")
    (own.cache / "val.zarr/notes.txt").write_text("x")
    (own.cache / "val.zarr/link").symlink_to("/etc/hostname")
    flip(own.shards / "val-000000.tar")
    (own.cache / "more").mkdir()
    found = {Path(one.file).relative_to(tmp_path).as_posix(): one for one in audit(own, tmp_path).findings}
    name = row_object(own, 0).relative_to(own.cache / "train.zarr").parts[0]
    assert set(found) == {
        f"cache/train.zarr/{name}/c/0/0/0/0",
        f"cache/train.zarr/{name}/c/1/0/0/0",
        "cache/train.zarr/key/c/2/0",
        "cache/val.zarr/notes.txt",
        "cache/val.zarr/link",
        "shards/val-000000.tar",
        "cache/more",
    }
    assert all(one.what and one.cure for one in found.values())


def test_rows_of_another_teacher_are_found_although_every_digest_fits(own, teacher, tmp_path):
    """Two tars' rows change places together with their records: only the teacher can tell."""
    store = own.cache / "train.zarr"
    one, two = row_object(own, 0), row_object(own, 1)
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    digests = hashing.sha256(first), hashing.sha256(second)
    text = (store / "units.json").read_text().replace(digests[0], "?").replace(digests[1], digests[0])
    (store / "units.json").write_text(text.replace("?", digests[1]))
    assert audit(own, tmp_path).findings == []
    found = audit(audit_cache.AuditPaths(own.cache, own.shards, teacher), tmp_path).findings
    assert {one.file for one in found} == {str(one), str(two)}
    assert all("rows must be the teacher's answers within" in one.what for one in found)


def test_more_right_answers_than_labelled_views_are_found(own, tmp_path):
    path = own.cache / "train.zarr/units.json"
    units = json.loads(path.read_text())
    first = next(unit for unit in units if unit["correct"])
    first["unlabelled"] = first["views"]
    path.write_text(json.dumps(units))
    (found,) = audit(own, tmp_path).findings
    counts = f"Got {first['correct']} of {first['views']}, {first['views']} without a label"
    assert found.what.endswith(f", must be {first['views']}. {counts}")


def test_an_index_that_is_wrong_about_the_labels_is_found(own, tmp_path):
    path = own.shards / "index.json"
    data = json.loads(path.read_text())
    data["shardlist"][0]["unlabelled"] = 1
    path.write_text(json.dumps(data))
    (found,) = audit(own, tmp_path).findings
    assert found.file == str(own.shards / data["shardlist"][0]["url"])
    assert found.what == "samples without a label must be as indexed, 1. Got 0"


def test_labels_beyond_the_classes_are_found(own, tmp_path):
    """Everything follows from the tars but the classes, whose list is shortened."""
    path = own.shards / "index.json"
    data = json.loads(path.read_text())
    data["classes"] = data["classes"][:1]
    path.write_text(json.dumps(data))
    whats = {Path(one.file).name: one.what for one in audit(own, tmp_path).findings}
    assert all(" must be below 1, the classes. Got " in whats[shard["url"]] for shard in data["shardlist"])


def test_another_teacher_is_named_by_its_weights(own, tmp_path):
    other = sys.modules["teacher_conftest"].save_teacher(tmp_path / "other", scale=20.0)
    found = audit(audit_cache.AuditPaths(own.cache, own.shards, other), tmp_path).findings
    assert len(found) == 2
    assert all(one.what.startswith("teacher.weights_sha256 must be that of") for one in found)


def test_the_stage_ends_in_one_line_and_a_report(own, tmp_path):
    flip(own.shards / "train-000001.tar")
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-m",
            "stages.audit",
            "--cache",
            own.cache,
            "--shards",
            own.shards,
            "--out",
            tmp_path / "out",
            "--report",
            tmp_path / "audit.json",
        ],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: {own.cache}: has 1 findings. Read them: ")
    assert json.loads((tmp_path / "audit.json").read_text())["findings"][0]["file"].endswith("train-000001.tar")


@pytest.fixture
def coded(tmp_path, shards, teacher):
    """A cache with a coded tail, to be forged."""
    bench = sys.modules["teacher_conftest"].Bench(tmp_path / "bench", shards.base, teacher)
    tail = {"rank": 6, "step": 0.25, "fit_tars": 2}
    bench.but(cache={"k": 2, "seeds_per_unit": 2, "workers": 0, "tail": tail}).make()
    for path in bench.out.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return audit_cache.AuditPaths(bench.out, bench.shards, bench.teacher)


def test_a_sound_tail_has_no_findings_and_a_forged_one_has(coded, tmp_path):
    found = audit(coded, tmp_path)
    assert found.findings == []
    assert found.facts["train"]["teacher"]["stored_live"]["max"] < 1e-3
    store = coded.cache / "train.zarr"
    array = zarr.open_array(str(store / "tail"), mode="r+")
    array[1, 2, :, 3] = (array[1, 2, :, 3] + 8) % 255
    path = store / "tail/c/1/1/0/0"
    records = json.loads((store / "units.json").read_text())
    next(one for one in records if (one["tar"], one["group"]) == (1, 1))["objects"]["tail"] = hashing.sha256_file(path)
    (store / "units.json").write_text(json.dumps(records))
    (only,) = audit(coded, tmp_path).findings
    assert only.file == str(store / "logp/c/1/1/0/0")
    assert "Got 1 of 16 rows asked that differ by up to" in only.what


def test_a_tail_that_says_less_than_the_store_tells_is_found(tmp_path, shards, teacher, monkeypatch):
    """The coefficients are those of the teacher's answers; the mean that they stand on is not."""
    fit = basis_fit.principal_components

    def forged(*arguments):
        found = fit(*arguments)
        return dataclasses.replace(
            found, mean_C=np.where(np.arange(len(found.mean_C)) % 2, -1000, 0).astype(np.float32)
        )

    monkeypatch.setattr(basis_fit, "principal_components", forged)
    bench = sys.modules["teacher_conftest"].Bench(tmp_path / "bench", shards.base, teacher)
    tail = {"rank": 6, "step": 0.25, "fit_tars": 2}
    bench.but(cache={"k": 2, "seeds_per_unit": 2, "workers": 0, "tail": tail}).make()
    paths = audit_cache.AuditPaths(bench.out, bench.shards, bench.teacher)
    assert audit(paths, tmp_path).findings == [], "it loses much, and tells so"
    for path in bench.out.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for store in bench.out.glob("*.zarr"):
        for name in ("units.json", "zarr.json"):
            text = (store / name).read_text()
            (store / name).write_text(re.sub(r'"(tv|tv_mean)": [0-9.e-]+', r'"\1": 0.0', text))
    (found,) = audit(paths, tmp_path).findings
    assert found.file == str(bench.out / "train.zarr"), "of the other store too few rows are there to tell"
    assert re.match("mean total variation of rows to the teacher's softmax must be 0, as told for k=1", found.what)


def test_a_sound_mix_has_no_findings_and_one_of_other_pairs_has(tmp_path, shards, teacher):
    bench = sys.modules["teacher_conftest"].Bench(tmp_path / "bench", shards.base, teacher)
    mixed = {**bench.views, "policy": {**bench.views["policy"], "mix": {}, "repeats": 2}}
    bench.but(views=mixed).make()
    paths = audit_cache.AuditPaths(bench.out, bench.shards, bench.teacher)
    found = audit(paths, tmp_path)
    assert found.findings == []
    assert found.facts["train"]["teacher"]["views"] == 84
    assert found.facts["train"]["teacher"]["stored_live"]["max"] < 1e-3
    for path in bench.out.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    group = bench.out / "train.zarr/zarr.json"
    data = json.loads(group.read_text())
    del data["attributes"]["teachonce"]["recipe"]["policy"]["repeats"]
    group.write_text(json.dumps(data))
    findings = audit(paths, tmp_path).findings
    assert findings
    assert any("views no longer replay" in one.what for one in findings)
    assert any("rows must be the teacher's answers" in one.what for one in findings)


@pytest.mark.parametrize("kind", ["empty", "deep", "pipe", "folder"])
def test_beside_the_stores_only_a_sound_frontier_may_lie(own, tmp_path, kind):
    note = own.cache / "frontier.json"
    if kind == "pipe":
        os.mkfifo(note)
    elif kind == "folder":
        note.mkdir()
    else:
        note.write_text("{}" if kind == "empty" else "[" * 100_000)
    (own.cache / "notes.txt").write_text("x")
    whats = {Path(one.file).name: one.what for one in audit(own, tmp_path).findings}
    assert whats.keys() == {"frontier.json", "notes.txt"}
    assert whats["notes.txt"] == "is no store of these shards"


def test_a_cache_behind_a_url_is_audited_where_it_lies(own, tmp_path, monkeypatch):
    """What is listed there counts, not what has been copied before."""
    monkeypatch.setenv("TEACHONCE_COPIES", str(tmp_path / "copies"))
    memory, root = fsspec.filesystem("memory"), f"/{tmp_path.name}"
    for name in ("cache", "shards"):
        memory.put(str(tmp_path / name), f"{root}/{name}", recursive=True)
    there = audit_cache.AuditPaths(f"memory:/{root}/cache", f"memory:/{root}/shards")
    assert audit(there, tmp_path).facts == audit(own, tmp_path).facts
    assert audit(there, tmp_path).findings == []
    object_ = row_object(own, 0).relative_to(tmp_path).as_posix()
    memory.pipe(f"{root}/{object_}", b"changed")
    memory.rm(f"{root}/cache/val.zarr/key/c/0/0")
    memory.pipe(f"{root}/cache/train.zarr/x", b"stray")
    memory.pipe(f"{root}/cache/other", b"stray")
    memory.rm(f"{root}/shards/train-000001.tar")
    shutil.rmtree(tmp_path / "copies")
    found = {Path(one.file).name: one.what for one in audit(there, tmp_path).findings}
    assert found["x"] == "is no file of the format (FORMAT.md)"
    assert found["other"] == "is no store of these shards"
    assert found["train-000001.tar"].startswith("is missing")
    assert {"0"} == found.keys() - {"x", "other", "train-000001.tar"}, "both objects are named 0"
