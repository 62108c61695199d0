"""Laws four and five, with the stage as it is run: killed, grown, damaged, changed."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import reseal

from teachonce.core import errors, files, locks
from teachonce.prepare import tar_writer
from teachonce.shards import index, sample_reader

ROOT = Path(__file__).parents[2]


def work(cost: dict) -> dict[str, tuple[int, int]]:
    """Units computed and reused."""
    return {split: (cost[split]["units_computed"], cost[split]["units_reused"]) for split in ("val", "train")}


def test_an_uninterrupted_run(whole):
    cost = json.loads((whole.root / "cost.json").read_text())
    assert work(cost) == {"val": (1, 0), "train": (6, 0)}
    assert len(whole.units()) == 7
    metrics = json.loads((whole.root / "metrics.json").read_text())
    assert metrics["train"]["views"] == 84
    assert metrics["val"]["views"] == 7
    assert metrics["train"]["files"] == 2 + 3 + 6 + 6
    assert metrics["train"]["fidelity"] == {}
    assert whole.open("val").extent.aug_seeds == 1


@pytest.mark.slow
def test_kill_9_then_the_same_command_gives_the_same_bytes(bench, whole):
    scratch = bench.root / "scratch"

    def within_the_first_unit() -> bool:
        if not any(scratch.glob("*.partial")):
            return False
        assert not locks.folder_lock(scratch).take()
        return True

    bench.kill_when(within_the_first_unit)
    before = len(bench.units())
    bench.kill_when(lambda: len(bench.units()) >= before + 3)
    finished = len(bench.units())
    assert not bench.out.exists()
    cost = work(bench.run())
    assert sum(computed for computed, _ in cost.values()) == 7 - finished
    assert sum(reused for _, reused in cost.values()) == finished
    assert bench.digests() == whole.digests()
    assert (bench.root / "metrics.json").read_bytes() == (whole.root / "metrics.json").read_bytes()
    assert not list(scratch.glob("*.partial"))


def test_growth_computes_the_new_part_alone(bench, make_shards, tmp_path):
    assert work(bench.make()) == {"val": (1, 0), "train": (6, 0)}
    old = {name: digest for name, digest in bench.digests().items() if "/c/" in name}

    again = bench.but(views=bench.views | {"aug_seeds": 6})
    assert work(again.make()) == {"val": (0, 1), "train": (3, 6)}
    assert old.items() <= again.digests().items()

    make_shards(tmp_path / "more", counts=(8, 8, 5))
    # One more tar: the rows of the ragged tar stay what they are, so that the new tar stands behind it.
    more = _with_a_tar(tmp_path / "more")
    longer = bench.but(shards=more)
    assert work(longer.make()) == {"val": (0, 1), "train": (2, 6)}
    assert old.items() <= longer.digests().items()

    assert work(bench.make()) == {"val": (0, 1), "train": (0, 7 - 1)}
    fewer = bench.but(views=bench.views | {"aug_seeds": 2})
    assert work(fewer.make()) == {"val": (0, 1), "train": (0, 3)}
    cache = fewer.open()
    assert cache.extent.aug_seeds == 2
    assert np.isfinite(cache.block(2, 1).logits_BC).all()


def _with_a_tar(folder: Path) -> Path:
    shards = index.read(folder)
    entry = shards.index.shardlist[0]
    rows = [
        tar_writer.EncodedImage(f"new-{sample.row}", "png", sample.image, sample.label)
        for sample in sample_reader.verified_samples(entry, shards.path(entry))
    ]
    (folder / "more").mkdir()
    shard = next(tar_writer.write_samples(rows, folder / "more", split="train", rows_per_tar=8))
    (folder / "more" / shard.url).rename(folder / "train-000009.tar")
    entries = [*shards.index.shardlist, shard.model_copy(update={"url": "train-000009.tar"})]
    index.write(folder, base=folder, classes=shards.index.classes, rows_per_tar=8, shardlist=entries)
    return folder


@pytest.fixture
def copied(bench, whole):
    """A bench that holds the finished run's scratch folder, to be damaged."""
    shutil.copytree(whole.root / "scratch", bench.root / "scratch")
    return bench


def stored(victim: Path) -> Path:
    return victim / "logits/c/0/0/0/0"


def record(victim: Path) -> Path:
    return victim / "unit.json"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    rewrite(path, bytes(data))


def rewrite(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def edit(path: Path, change: Callable[[dict], object]) -> None:
    """Change a record whose digest stays."""
    data = json.loads(path.read_text())
    change(data)
    rewrite(path, json.dumps(data).encode())


def instead(path: Path, make: Callable[[Path], object]) -> None:
    files.remove(path)
    make(path)


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


def become_another(victim: Path) -> None:
    """Stand under the name of a unit, sound, but not that one."""
    other = next(path for path in sorted(victim.parent.glob("*/unit.json")) if path.parent != victim).parent
    instead(victim, lambda path: shutil.copytree(other, path))


DAMAGES = {
    "a cut object": (lambda at: rewrite(stored(at), stored(at).read_bytes()[:-20]), "sha256 must be as in its record"),
    "a flipped bit": (lambda at: flip(stored(at)), "sha256 must be as in its record"),
    "no object": (lambda at: stored(at).unlink(), "No such file or directory"),
    "a pipe for an object": (lambda at: instead(stored(at), os.mkfifo), "is no regular file"),
    "a device for an object": (
        lambda at: instead(stored(at), lambda path: path.symlink_to("/dev/zero")),
        "is no regular file",
    ),
    "a huge object": (lambda at: instead(stored(at), huge), "has 1,099,511,627,776 bytes, may have "),
    "a cut record": (lambda at: rewrite(record(at), record(at).read_bytes()[:50]), "cannot be read"),
    "no record": (lambda at: record(at).unlink(), "No such file or directory"),
    "a record without end": (lambda at: rewrite(record(at), b"[" * 100_000), "is nested too deeply"),
    "a record of no digest": (lambda at: edit(record(at), lambda data: data.pop("digest")), "digest is missing"),
    "a pipe for a record": (lambda at: instead(record(at), os.mkfifo), "is no regular file"),
    "a folder for a record": (lambda at: instead(record(at), Path.mkdir), "is no regular file"),
    "another canary": (
        lambda at: edit(record(at), lambda data: data["canary"].update(sha256="0" * 64)),
        "digest must be that of what it holds",
    ),
    "another tar": (lambda at: edit(record(at), lambda data: data.update(tar_sha256="0" * 64)), "digest must be"),
    "other counts": (lambda at: edit(record(at), lambda data: data.update(correct=0, views=9)), "digest must be"),
    "another unit": (become_another, "folder must be "),
    "a file for a unit": (lambda at: instead(at, Path.touch), "Not a directory"),
    "a pipe for a unit": (lambda at: instead(at, os.mkfifo), "Not a directory"),
    "a link to nothing": (lambda at: instead(at, lambda path: path.symlink_to("nothing")), "No such file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_unit_is_named_and_computed_again(copied, whole, caplog, damage):
    act, reason = DAMAGES[damage]
    victim = copied.units()[0]
    act(victim)
    assert sum(computed for computed, _ in work(copied.make()).values()) == 1
    assert copied.digests() == whole.digests()
    (line,) = caplog.messages
    assert line.startswith(str(victim))
    assert reason in line
    assert line.endswith(". It is removed, and computed again")
    assert "\n" not in line
    assert work(copied.make()) == {"val": (0, 1), "train": (0, 6)}
    assert len(caplog.messages) == 1


@pytest.mark.slow
def test_damage_is_a_line_on_stderr_and_no_end(copied, whole):
    edit(record(copied.units()[0]), lambda data: data["canary"].update(sha256="0" * 64))
    flip(stored(copied.units()[1]))
    process = copied.start()
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert sum(line.endswith("It is removed, and computed again") for line in stderr.splitlines()) == 2
    assert copied.digests() == whole.digests()


def test_nothing_lies_in_a_unit_that_no_digest_covers(whole):
    for unit in whole.units():
        objects = json.loads(record(unit).read_text())["objects"]
        names = {path.relative_to(unit).parts[0] for path in unit.rglob("*") if path.is_file()}
        assert names == {"unit.json", *objects}
        assert not list(unit.rglob("zarr.json"))


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo, lambda path: path.symlink_to("nothing")])
def test_what_stands_where_a_unit_is_drafted_or_stepped_aside_goes(bench, whole, make):
    first = whole.units()[0].name
    (bench.root / "scratch").mkdir(parents=True)
    for suffix in (".partial", ".old.partial"):
        make(bench.root / "scratch" / f"{first}{suffix}")
    bench.make()
    assert bench.digests() == whole.digests()
    assert not list((bench.root / "scratch").glob("*.partial"))


@pytest.mark.parametrize("name", ["lock", "turns"])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("elsewhere")])
def test_what_is_no_file_of_locks_is_refused(bench, name, make):
    (bench.root / "scratch").mkdir(parents=True)
    make(bench.root / "scratch" / name)
    with pytest.raises(errors.DiskError, match=rf"/{name}: it must be a regular file\. .* Remove it, and run the same"):
        bench.make()
    assert not (bench.root / "scratch/elsewhere").exists()


def test_units_of_a_form_without_a_digest_are_computed_again(copied, whole, caplog):
    """As they were before records carried one; their names are others, too."""
    for unit in copied.units():
        edit(record(unit), lambda data: (data.pop("digest"), data.pop("folder")))
    assert work(copied.make()) == {"val": (1, 0), "train": (6, 0)}
    assert copied.digests() == whole.digests()
    assert len(caplog.messages) == 7


def forget_versions(bench, **canary: str) -> None:
    """Let all units claim to be made by an older Pillow."""
    for folder in bench.units():
        data = json.loads(record(folder).read_text())
        versions = data["versions"] | {"pillow": "11.0.0"}
        reseal.change(record(folder), versions=versions, canary=data["canary"] | canary)


def test_units_of_other_versions_are_proved_before_they_are_reused(copied):
    forget_versions(copied)
    assert work(copied.make()) == {"val": (0, 1), "train": (0, 6)}
    assert {unit.versions["pillow"] for unit in copied.open().units()} == {"11.0.0"}


def test_units_of_other_versions_that_do_not_replay_are_computed_again(copied, whole):
    forget_versions(copied, sha256="f" * 64)
    assert work(copied.make()) == {"val": (1, 0), "train": (6, 0)}
    assert copied.digests() == whole.digests()


@pytest.mark.slow
def test_a_statement_that_decides_bytes_reuses_nothing_and_other_changes_everything(copied, tmp_path):
    for name in ("pipeline", "stages"):
        shutil.copytree(ROOT / name, tmp_path / "code" / name, ignore=shutil.ignore_patterns("__pycache__"))

    def add(name: str, text: str) -> None:
        path = tmp_path / "code/pipeline/teachonce" / name
        path.write_text(path.read_text() + text)

    for name in (
        "format/schema.py",
        "shards/sample_reader.py",
        "core/hashing.py",
        "views/draw.py",
        "cache/unit_lookup.py",
    ):
        add(name, "# another line\n")
    for name in ("teacher/teacher_training.py", "cache/executors.py", "core/progress.py", "core/files.py"):
        add(name, "\n_ANOTHER = 1\n")
    elsewhere = copied.but(code=tmp_path / "code")
    assert work(elsewhere.run()) == {"val": (0, 1), "train": (0, 6)}
    add("format/schema.py", "\n_ANOTHER = 1\n")
    assert work(elsewhere.run()) == {"val": (1, 0), "train": (6, 0)}


def test_no_weights_are_needed_where_nothing_is_missing(copied, tmp_path, whole):
    shutil.copytree(copied.teacher, tmp_path / "teacher")
    (tmp_path / "teacher" / "model.safetensors").unlink()
    assert work(copied.but(teacher=tmp_path / "teacher").make()) == {"val": (0, 1), "train": (0, 6)}
    assert copied.digests() == whole.digests()


@pytest.mark.slow
def test_logits_that_are_no_numbers_stop_the_stage_and_keep_the_old_output(copied, make_teacher, tmp_path, whole):
    shutil.copytree(whole.out, copied.out)
    make_teacher(tmp_path / "nan", scale=None)
    line = copied.but(teacher=tmp_path / "nan").refused()
    assert line == (
        "  train-000002.tar, aug seeds 2…3: train-000002.tar: the teacher's logits of 'train-016', aug seed 2, are not "
        "finite, or beyond 2^100 (6 views of the batch). Try precision: float32, or check the teacher's weights"
    )
    assert copied.digests() == whole.digests()


def test_a_teacher_of_other_classes_is_refused(bench, make_teacher, tmp_path):
    make_teacher(tmp_path / "other", classes=tuple("abc"))
    with pytest.raises(
        errors.ConfigError, match=r"teacher\.classes must be the 10 classes of the shards\. Got 3 others"
    ):
        bench.but(teacher=tmp_path / "other").make()


def test_units_too_large_for_their_readers_are_refused(bench):
    cache = bench.cache | {"seeds_per_unit": 128, "rows_per_tar": 2**20}
    with pytest.raises(errors.ConfigError, match=r"bytes of an object of logits must be at most .* Use fewer rows_per"):
        bench.but(cache=cache, views=bench.views | {"aug_seeds": 128}).make()


def test_other_weights_under_the_same_identity_are_refused(bench, tmp_path):
    shutil.copytree(bench.teacher, tmp_path / "teacher")
    with (tmp_path / "teacher" / "model.safetensors").open("r+b") as stream:
        stream.seek(-4, 2)
        stream.write(b"\0\0\0\0")
    with pytest.raises(errors.ConfigError, match=r"model\.safetensors: sha256 must be .* restore it: dvc checkout"):
        bench.but(teacher=tmp_path / "teacher").make()


def test_a_tar_that_is_not_the_indexed_one_is_refused(bench, make_shards, tmp_path):
    make_shards(tmp_path / "shards")
    shutil.copy(tmp_path / "shards" / "train-000000.tar", tmp_path / "shards" / "train-000001.tar")
    with pytest.raises(errors.UnitsError, match=r"^2 units failed; the others are kept.*:\n.*must be as indexed"):
        bench.but(shards=tmp_path / "shards").make()
    assert not bench.out.exists()
