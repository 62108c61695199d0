"""Replacing a folder: by several processes at once, and by one that is killed at any moment."""

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from teachonce.core import errors, files, outputs

ROOT = Path(__file__).parents[2]
KIND = outputs.FolderKind("an earlier result", "mark", b"mark of", re.compile(r"part\d+"))


def output(path: Path) -> outputs.Output:
    return outputs.Output(path, KIND, ())


def fill(draft: Path, word: str) -> None:
    (draft / "mark").write_text(f"mark of {word}")
    for part in range(20):
        (draft / f"part{part}").write_text(word)


LOOP = """
import sys
from pathlib import Path
sys.path.insert(0, "tests/core")
from test_outputs import fill, output
print("ready", flush=True)
for turn in range(int(sys.argv[3])):
    with output(Path(sys.argv[1])).draft() as draft:
        fill(draft, sys.argv[2])
"""


def start(path: Path, word: str, turns: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", LOOP, str(path), word, str(turns)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def whole(path: Path) -> str:
    """The one word that all files of an output hold."""
    (word,) = {file.read_text() for file in path.glob("part*")}
    assert (path / "mark").read_text() == f"mark of {word}"
    assert len(list(path.iterdir())) == 21
    return word


def test_several_at_once_end_well(tmp_path):
    processes = [start(tmp_path / "out", word, 40) for word in "abc"]
    for process in processes:
        stdout, stderr = process.communicate(timeout=120)
        # On a busy machine they wait long enough for each other to say so.
        assert not [line for line in stderr.splitlines() if not line.endswith("Waiting until that ends")]
        assert (process.returncode, stdout) == (0, "")
    assert whole(tmp_path / "out") in "abc"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_kill_at_any_moment_is_mended_by_the_next_run(tmp_path):
    path = tmp_path / "out"
    for number in range(25):
        process = start(path, f"killed {number}", 10_000)
        time.sleep(0.002 * number)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if (tmp_path / "out").exists():
            whole(path)
        with pytest.raises(ZeroDivisionError), output(path).draft():
            # A run that fails does not cost what an earlier one has made.
            raise ZeroDivisionError
        if number > 5:
            whole(path)
        with output(path).draft() as draft:
            fill(draft, "mended")
        assert whole(path) == "mended"
        assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_between_its_two_renames_the_old_folder_is_put_back(tmp_path):
    path = tmp_path / "out"
    with output(path).draft() as draft:
        fill(draft, "old")
    # What is left by a kill at that moment.
    path.rename(tmp_path / "out.old.partial")
    (tmp_path / "out.partial").mkdir()
    with pytest.raises(ZeroDivisionError), output(path).draft():
        raise ZeroDivisionError
    assert whole(path) == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_came_there_meanwhile_is_refused_at_the_end(tmp_path):
    path = tmp_path / "out"

    def replace() -> None:
        with output(path).draft() as draft:
            fill(draft, "new")
            path.mkdir()
            (path / "thesis.tex").write_text("…")

    with pytest.raises(
        errors.ConfigError, match=r"out: --out must be new, empty, or an earlier result\. Got a folder "
    ):
        replace()
    assert [path.name for path in path.iterdir()] == ["thesis.tex"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_place_where_a_disk_is_mounted_is_no_output(disk):
    with pytest.raises(errors.ConfigError, match="--out must be a folder, not a disk's root"):
        output(disk.folder).require_replaceable()


@pytest.mark.parametrize("looks", [1, 2, 3])
def test_a_draft_that_another_renames_meanwhile_is_nothing_in_the_way(tmp_path, monkeypatch, looks):
    draft, look, seen = files.partial_path(tmp_path / "file"), os.stat, []
    draft.write_bytes(b"another's")

    def look_before_it_is_renamed(path, *arguments, **options):
        found = look(path, *arguments, **options)
        if str(path) == str(draft):
            seen.append(path)
            if len(seen) == looks:
                with draft.open("rb") as other, contextlib.suppress(BlockingIOError):
                    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    draft.rename(tmp_path / "renamed")
        return found

    monkeypatch.setattr(os, "stat", look_before_it_is_renamed)
    monkeypatch.setattr(files, "remove", lambda path: pytest.fail(f"{path} may be a third one's draft by now"))
    files.write_bytes(tmp_path / "file", b"mine")
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_files_of_one_name_are_written_by_several_at_once(tmp_path):
    code = """
import sys
from pathlib import Path
from teachonce.core import files
for turn in range(100):
    files.write_bytes(Path(sys.argv[1]), sys.argv[2].encode() * 1000)
"""
    words = [[sys.executable, "-c", code, str(tmp_path / "file"), word] for word in "abc"]
    processes = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for command in words]
    for process in processes:
        assert process.communicate(timeout=120)[1] == ""
    assert (tmp_path / "file").read_bytes() in {word * 1000 for word in (b"a", b"b", b"c")}
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_link_in_the_way_of_a_draft_is_not_written_through(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "file.partial").symlink_to("mine")
    files.write_bytes(tmp_path / "file", b"new")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "file").read_bytes() == b"new"
