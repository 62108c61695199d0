"""Units that no run uses: removed on demand, counted by what that frees, and never one that is in use."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import reseal

from teachonce.cache import prune
from teachonce.core import errors, files, locks

ROOT = Path(__file__).parents[2]


def computed(work: dict) -> int:
    return work["val"]["units_computed"] + work["train"]["units_computed"]


def size(folders: list[Path]) -> int:
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def scratch(bench) -> Path:
    return bench.root / bench.scratch


def test_only_units_of_earlier_settings_go(bench, scratch):
    bench.make()
    old = set(bench.units())
    other = bench.but(views=bench.views | {"policy": {"flip": 0.5}})
    other.make()
    both = set(bench.units())
    pruned = prune.remove_unused(scratch, dry_run=True)
    assert set(bench.units()) == both
    # Of the validation images the policy is the same.
    assert (pruned.removed, pruned.in_use) == (6, 7)
    assert pruned == prune.remove_unused(scratch)
    assert both - old <= set(bench.units())
    assert len(bench.units()) == 7
    # The store that these were linked into has been replaced: nothing else holds them.
    assert pruned.linked_bytes == 0
    assert pruned.freed_bytes > 0
    assert computed(other.make()) == 0


def test_bytes_that_a_store_still_holds_are_not_said_to_be_freed(bench, scratch):
    bench.make()
    before = bench.digests()
    bench.out.rename(bench.root / "elsewhere")
    bench.but(views=bench.views | {"policy": {"flip": 0.5}}).make()
    pruned = prune.remove_unused(scratch)
    objects = (bench.root / "elsewhere/train.zarr").glob("*/c/**/*")
    assert pruned.linked_bytes == sum(path.stat().st_size for path in objects if path.is_file())
    bench.out.rename(bench.root / "new")
    (bench.root / "elsewhere").rename(bench.out)
    assert bench.digests() == before
    bench.open()


def test_shrunk_seeds_leave_their_units_unused(bench, scratch):
    bench.make()
    bench.but(views=bench.views | {"aug_seeds": 2}).make()
    assert prune.remove_unused(scratch).removed == 3
    assert computed(bench.make()) == 3


def test_what_a_killed_run_finished_is_in_use(bench, scratch):
    bench.kill_when(lambda: len(bench.units()) >= 2)
    finished = bench.units()
    (scratch / f"{'0' * 32}").mkdir()
    (scratch / f"{'1' * 32}.partial").mkdir()
    (scratch / "mine.txt").write_text("not ours")
    assert prune.remove_unused(scratch).removed >= 2
    assert bench.units() == finished
    assert (scratch / "mine.txt").is_file()
    assert not (scratch / f"{'1' * 32}.partial").exists()


def test_the_fit_of_a_tail_is_in_use(bench, scratch):
    tail = {"rank": 6, "step": 0.25, "fit_tars": 2}
    coded = bench.but(cache={"k": 2, "seeds_per_unit": 2, "workers": 0, "tail": tail})
    coded.make()
    assert prune.remove_unused(scratch).removed == 0
    bench.make()
    pruned = prune.remove_unused(scratch)
    # The basis and the coded units; whole ones serve the store of whole rows too.
    assert pruned.removed == 1 + 7
    assert not list(scratch.glob("basis-*/basis.json"))
    assert computed(bench.make()) == 0


def test_nothing_is_removed_where_nothing_is_known_or_a_run_is_at_work(bench, scratch):
    scratch.mkdir(parents=True)
    (scratch / f"{'0' * 32}").mkdir()
    with pytest.raises(errors.ConfigError, match="says nothing of what is in use"):
        prune.remove_unused(scratch)
    bench.make()
    with locks.hold_folder(scratch), pytest.raises(errors.LockedError, match="is in use by process"):
        prune.remove_unused(scratch)


def instead(path: Path, make: Callable[[Path], object]) -> None:
    files.remove(path)
    make(path)


NOTES = {
    "no JSON": (lambda path: path.write_text("{"), "cannot be read"),
    "JSON without end": (lambda path: path.write_bytes(b"[" * 100_000), "nested too deeply"),
    "a pipe": (lambda path: instead(path, os.mkfifo), "is no regular file"),
    "a folder": (lambda path: instead(path, Path.mkdir), "is no regular file"),
    "a device": (lambda path: instead(path, lambda place: place.symlink_to("/dev/zero")), "is no regular file"),
    "another name": (
        lambda path: path.write_text(re.sub(r'"[0-9a-f]{32}",', f'"{"0" * 32}",', path.read_text(), count=1)),
        "digest must be",
    ),
    "other keys": (lambda path: reseal.change(path, drop=["names"]), "names"),
    "names that are none": (lambda path: reseal.change(path, names=[1]), "names"),
}


@pytest.mark.parametrize("damage", NOTES)
def test_a_damaged_note_is_refused_and_costs_no_unit(bench, scratch, damage):
    act, reason = NOTES[damage]
    bench.make()
    act(next((scratch / "uses").glob("*.json")))
    with pytest.raises(errors.ConfigError, match=reason) as caught:
        prune.remove_unused(scratch)
    assert "\n" not in str(caught.value)
    assert len(bench.units()) == 7
    assert computed(bench.make()) == 0
    assert prune.remove_unused(scratch).removed == 0


@pytest.mark.parametrize("damage", NOTES)
def test_a_damaged_note_stands_in_no_runs_way(coded, damage, caplog):
    coded.make()
    before = coded.digests()
    (note,) = (coded.root / "scratch/uses").glob("*.json")
    NOTES[damage][0](note)
    coded.make()
    assert coded.digests() == before
    (line,) = caplog.messages
    assert line.startswith(f"{note}: ")
    assert prune.remove_unused(coded.root / "scratch").removed == 0


def test_a_run_whose_working_folder_is_gone_uses_nothing(bench, scratch, tmp_path, monkeypatch):
    """DVC runs its queue in copies of the project, and removes them."""
    bench.make()
    copy = tmp_path / "copy"
    copy.mkdir()
    with monkeypatch.context() as patch:
        patch.chdir(copy)
        bench.but(root=tmp_path / "other", scratch=str(scratch), views=bench.views | {"policy": {"flip": 0.5}}).make()
    assert prune.remove_unused(scratch, dry_run=True).removed == 0
    copy.rmdir()
    assert prune.remove_unused(scratch, dry_run=True).removed == 6
    pruned = prune.remove_unused(scratch)
    assert (pruned.removed, pruned.in_use) == (6, 7)
    assert len(list((scratch / "uses").glob("*.json"))) == 1


@pytest.mark.slow
def test_the_command_says_how_much_it_freed(bench, scratch):
    bench.make()
    (scratch / f"{'0' * 32}").mkdir()
    (scratch / f"{'0' * 32}" / "x").write_bytes(b"x" * 2_000_000)
    command = [sys.executable, "-m", "teachonce", "prune", "--scratch", str(scratch)]
    for words, line in (
        (["--dry-run"], "would remove 1 of 8 units: 2.00MB to free\n"),
        ([], "removed 1 of 8 units: 2.00MB freed\n"),
    ):
        done = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout == line
