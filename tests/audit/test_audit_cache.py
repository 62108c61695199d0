import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cache_bench
import fsspec
import numpy as np
import pytest
import zarr

from teachonce.audit import audit_cache
from teachonce.cache import basis_fit
from teachonce.core import hashing

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session", params=["all", 3])
def finished(request, tmp_path_factory, shards, teacher):
    bench = cache_bench.Bench(tmp_path_factory.mktemp("made"), shards.base, teacher)
    bench = bench.but(cache={"k": request.param, "seeds_per_unit": 2, "workers": 0})
    bench.make()
    return bench


@pytest.fixture
def copied(finished, tmp_path):
    """Cache and shards to be damaged."""
    for name, source in (("cache", finished.out), ("shards", finished.shards)):
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


def test_a_sound_cache_has_no_findings(finished, teacher, tmp_path):
    result = audit(audit_cache.AuditPaths(finished.out, finished.shards, teacher), tmp_path)
    assert result.findings == []
    assert [facts["canaries"] for facts in result.facts.values()] == [6, 1]
    assert result.facts["train"]["teacher"]["views"] == 84
    assert result.facts["train"]["teacher"]["stored_live"]["max"] < 1e-3
    assert (tmp_path / "out" / audit_cache.FIGURE).read_text().startswith("<?xml")


def test_a_store_of_another_renderer_is_one_finding_and_its_tars_are_still_checked(copied, tmp_path):
    path = copied.cache / "train.zarr/zarr.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written["attributes"]["teachonce"]["recipe"]["policy"].pop("renderer")
    path.write_text(json.dumps(written), encoding="utf-8")
    flip(copied.shards / "train-000001.tar")
    first, second = audit(copied, tmp_path).findings
    assert (first.file, first.cure) == (str(copied.cache / "train.zarr"), "Make it again: dvc repro cache")
    assert first.what == "policy.renderer must be 2, the renderer of this release (0 is Pillow's). Got 0"
    assert second.file == str(copied.shards / "train-000001.tar")


def test_every_damage_is_listed(copied, tmp_path):
    flip(row_object(copied, 0))
    row_object(copied, 1).unlink()
    flip(copied.cache / "train.zarr/key/c/2/0")
    (copied.cache / "val.zarr/notes.txt").write_text("x")
    (copied.cache / "val.zarr/link").symlink_to("/etc/hostname")
    flip(copied.shards / "val-000000.tar")
    (copied.cache / "more").mkdir()
    findings = {
        Path(finding.file).relative_to(tmp_path).as_posix(): finding for finding in audit(copied, tmp_path).findings
    }
    name = row_object(copied, 0).relative_to(copied.cache / "train.zarr").parts[0]
    assert set(findings) == {
        f"cache/train.zarr/{name}/c/0/0/0/0",
        f"cache/train.zarr/{name}/c/1/0/0/0",
        "cache/train.zarr/key/c/2/0",
        "cache/val.zarr/notes.txt",
        "cache/val.zarr/link",
        "shards/val-000000.tar",
        "cache/more",
    }
    assert all(finding.what and finding.cure for finding in findings.values())


def test_rows_of_another_teacher_are_found_although_every_digest_fits(copied, teacher, tmp_path):
    """Two tars' rows change places together with their records: only the teacher can tell."""
    store = copied.cache / "train.zarr"
    paths = row_object(copied, 0), row_object(copied, 1)
    first, second = (path.read_bytes() for path in paths)
    paths[0].write_bytes(second)
    paths[1].write_bytes(first)
    digests = hashing.sha256(first), hashing.sha256(second)
    text = (store / "units.json").read_text().replace(digests[0], "?").replace(digests[1], digests[0])
    (store / "units.json").write_text(text.replace("?", digests[1]))
    assert audit(copied, tmp_path).findings == []
    findings = audit(audit_cache.AuditPaths(copied.cache, copied.shards, teacher), tmp_path).findings
    assert {finding.file for finding in findings} == set(map(str, paths))
    assert all("rows must be the teacher's answers within" in finding.what for finding in findings)


def test_more_right_answers_than_labelled_views_are_found(copied, tmp_path):
    path = copied.cache / "train.zarr/units.json"
    units = json.loads(path.read_text())
    first = next(unit for unit in units if unit["correct"])
    first["unlabelled"] = first["views"]
    path.write_text(json.dumps(units))
    (finding,) = audit(copied, tmp_path).findings
    counts = f"Got {first['correct']} of {first['views']}, {first['views']} without a label"
    assert finding.what.endswith(f", must be {first['views']}. {counts}")


def test_an_index_that_is_wrong_about_the_labels_is_found(copied, tmp_path):
    path = copied.shards / "index.json"
    data = json.loads(path.read_text())
    data["shardlist"][0]["unlabelled"] = 1
    path.write_text(json.dumps(data))
    (finding,) = audit(copied, tmp_path).findings
    assert finding.file == str(copied.shards / data["shardlist"][0]["url"])
    assert finding.what == "samples without a label must be as indexed, 1. Got 0"


def test_labels_beyond_the_classes_are_found(copied, tmp_path):
    """Everything follows from the tars but the classes, whose list is shortened."""
    path = copied.shards / "index.json"
    data = json.loads(path.read_text())
    data["classes"] = data["classes"][:1]
    path.write_text(json.dumps(data))
    whats = {Path(finding.file).name: finding.what for finding in audit(copied, tmp_path).findings}
    assert all(" must be below 1, the classes. Got " in whats[shard["url"]] for shard in data["shardlist"])


def test_another_teacher_is_named_by_its_weights(copied, tmp_path):
    other = cache_bench.save_teacher(tmp_path / "other", scale=20.0)
    findings = audit(audit_cache.AuditPaths(copied.cache, copied.shards, other), tmp_path).findings
    assert len(findings) == 2
    assert all(finding.what.startswith("teacher.weights_sha256 must be that of") for finding in findings)


def test_the_stage_ends_in_one_line_and_a_report(copied, tmp_path):
    flip(copied.shards / "train-000001.tar")
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-m",
            "stages.audit",
            "--cache",
            copied.cache,
            "--shards",
            copied.shards,
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
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: {copied.cache}: has 1 findings. Read them: ")
    assert json.loads((tmp_path / "audit.json").read_text())["findings"][0]["file"].endswith("train-000001.tar")


@pytest.fixture
def coded(tmp_path, shards, teacher):
    """A cache with a coded tail, to be forged."""
    bench = cache_bench.Bench(tmp_path / "bench", shards.base, teacher)
    tail = {"rank": 6, "step": 0.25, "fit_tars": 2}
    bench.but(cache={"k": 2, "seeds_per_unit": 2, "workers": 0, "tail": tail}).make()
    for path in bench.out.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return audit_cache.AuditPaths(bench.out, bench.shards, bench.teacher)


def test_a_sound_tail_has_no_findings_and_a_forged_one_has(coded, tmp_path):
    result = audit(coded, tmp_path)
    assert result.findings == []
    assert result.facts["train"]["teacher"]["stored_live"]["max"] < 1e-3
    store = coded.cache / "train.zarr"
    array = zarr.open_array(str(store / "tail"), mode="r+")
    array[1, 2, :, 3] = (array[1, 2, :, 3] + 8) % 255
    path = store / "tail/c/1/1/0/0"
    records = json.loads((store / "units.json").read_text())
    next(record for record in records if (record["tar"], record["group"]) == (1, 1))["objects"]["tail"] = (
        hashing.sha256_file(path)
    )
    (store / "units.json").write_text(json.dumps(records))
    (only,) = audit(coded, tmp_path).findings
    assert only.file == str(store / "logp/c/1/1/0/0")
    assert "Got 1 of 16 rows asked that differ by up to" in only.what


def test_a_tail_that_says_less_than_the_store_tells_is_found(tmp_path, shards, teacher, monkeypatch):
    """The coefficients are those of the teacher's answers; the mean that they stand on is not."""
    fit = basis_fit.principal_components

    def forged(*arguments):
        fitted = fit(*arguments)
        return dataclasses.replace(
            fitted, mean_C=np.where(np.arange(len(fitted.mean_C)) % 2, -1000, 0).astype(np.float32)
        )

    monkeypatch.setattr(basis_fit, "principal_components", forged)
    bench = cache_bench.Bench(tmp_path / "bench", shards.base, teacher)
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
    (finding,) = audit(paths, tmp_path).findings
    assert finding.file == str(bench.out / "train.zarr"), "of the other store too few rows are there to tell"
    assert re.match("mean total variation of rows to the teacher's softmax must be 0, as told for k=1", finding.what)


def test_a_sound_mix_has_no_findings_and_one_of_other_pairs_has(tmp_path, shards, teacher):
    bench = cache_bench.Bench(tmp_path / "bench", shards.base, teacher)
    mixed = {**bench.views, "policy": {**bench.views["policy"], "mix": {}, "repeats": 2}}
    bench.but(views=mixed).make()
    paths = audit_cache.AuditPaths(bench.out, bench.shards, bench.teacher)
    result = audit(paths, tmp_path)
    assert result.findings == []
    assert result.facts["train"]["teacher"]["views"] == 84
    assert result.facts["train"]["teacher"]["stored_live"]["max"] < 1e-3
    for path in bench.out.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    group = bench.out / "train.zarr/zarr.json"
    data = json.loads(group.read_text())
    del data["attributes"]["teachonce"]["recipe"]["policy"]["repeats"]
    group.write_text(json.dumps(data))
    findings = audit(paths, tmp_path).findings
    assert findings
    assert any("views no longer replay" in finding.what for finding in findings)
    assert any("rows must be the teacher's answers" in finding.what for finding in findings)


@pytest.mark.parametrize("kind", ["empty", "deep", "pipe", "folder"])
def test_beside_the_stores_only_a_sound_frontier_may_lie(copied, tmp_path, kind):
    note = copied.cache / "frontier.json"
    if kind == "pipe":
        os.mkfifo(note)
    elif kind == "folder":
        note.mkdir()
    else:
        note.write_text("{}" if kind == "empty" else "[" * 100_000)
    (copied.cache / "notes.txt").write_text("x")
    whats = {Path(finding.file).name: finding.what for finding in audit(copied, tmp_path).findings}
    assert whats.keys() == {"frontier.json", "notes.txt"}
    assert whats["notes.txt"] == "is no store of these shards"


def test_a_cache_behind_a_url_is_audited_where_it_lies(copied, tmp_path, monkeypatch):
    """What is listed there counts, not what has been copied before."""
    monkeypatch.setenv("TEACHONCE_COPIES", str(tmp_path / "copies"))
    memory, root = fsspec.filesystem("memory"), f"/{tmp_path.name}"
    for name in ("cache", "shards"):
        memory.put(str(tmp_path / name), f"{root}/{name}", recursive=True)
    there = audit_cache.AuditPaths(f"memory:/{root}/cache", f"memory:/{root}/shards")
    assert audit(there, tmp_path).facts == audit(copied, tmp_path).facts
    assert audit(there, tmp_path).findings == []
    object_ = row_object(copied, 0).relative_to(tmp_path).as_posix()
    memory.pipe(f"{root}/{object_}", b"changed")
    memory.rm(f"{root}/cache/val.zarr/key/c/0/0")
    memory.pipe(f"{root}/cache/train.zarr/x", b"stray")
    memory.pipe(f"{root}/cache/other", b"stray")
    memory.rm(f"{root}/shards/train-000001.tar")
    shutil.rmtree(tmp_path / "copies")
    whats = {Path(finding.file).name: finding.what for finding in audit(there, tmp_path).findings}
    assert whats["x"] == "is no file of the format (FORMAT.md)"
    assert whats["other"] == "is no store of these shards"
    assert whats["train-000001.tar"].startswith("is missing")
    assert {"0"} == whats.keys() - {"x", "other", "train-000001.tar"}, "both objects are named 0"
