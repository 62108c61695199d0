import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipeline.base import errors, files, waiting

ROOT = Path(__file__).parents[2]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_write_bytes_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "deep" / "file"
    files.write_bytes(path, b"one")
    files.write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert names(path.parent) == ["file"]


def test_write_bytes_does_not_touch_the_old_inode(tmp_path):
    path, other = tmp_path / "file", tmp_path / "link"
    files.write_bytes(path, b"one")
    os.link(path, other)
    files.write_bytes(path, b"two")
    assert other.read_bytes() == b"one"


def test_write_json_is_sorted_and_refuses_nan(tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, {"b": 1, "a": "é"})
    assert path.read_bytes() == b'{\n  "a": "\xc3\xa9",\n  "b": 1\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": "é", "b": 1}


def test_new_folder_replaces_the_old_one(tmp_path):
    out = tmp_path / "out"
    for name in ("old", "new"):
        with files.new_folder(out) as draft:
            (draft / name).write_text(name)
            assert not (out / "new").exists()
    assert names(out) == ["new"]
    assert names(tmp_path) == ["out"]


def test_new_folder_keeps_the_old_one_on_failure(tmp_path):
    out = tmp_path / "out"
    with files.new_folder(out) as draft:
        (draft / "old").write_text("old")

    def interrupted() -> None:
        with files.new_folder(out) as draft:
            (draft / "new").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(out) == ["old"]
    assert names(tmp_path) == ["out"]


def test_new_folder_starts_empty_after_a_crash(tmp_path):
    left = files.partial(tmp_path / "out")
    left.mkdir()
    (left / "half").write_text("x")
    with files.new_folder(tmp_path / "out"):
        pass
    assert names(tmp_path / "out") == []


def test_link_shares_the_inode(tmp_path):
    (tmp_path / "a").write_bytes(b"data")
    files.link(tmp_path / "a", tmp_path / "deep" / "b")
    assert (tmp_path / "deep" / "b").samefile(tmp_path / "a")


def test_link_copies_across_file_systems(tmp_path):
    other = Path("/dev/shm")  # noqa: S108
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("one file system only")
    (tmp_path / "a").write_bytes(b"data")
    with tempfile.TemporaryDirectory(dir=other) as folder:
        target = Path(folder) / "b"
        files.link(tmp_path / "a", target)
        assert target.read_bytes() == b"data"
        assert target.stat().st_mode & 0o777 == 0o444


HOLD = """
import sys, time
from pathlib import Path
from pipeline.base import files
with files.lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "scratch")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_lock_refuses_a_second_process_and_survives_a_killed_one(tmp_path, holder):
    scratch = tmp_path / "scratch"
    with pytest.raises(errors.LockedError) as caught, files.lock(scratch):
        pass
    assert str(caught.value) == (
        f"{scratch}: is in use by process {holder.pid}. Wait for it, or end it: kill {holder.pid}"
    )
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with files.lock(scratch):
        assert (scratch / "lock").read_text() == str(os.getpid())


def test_lock_is_free_again_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), files.lock(tmp_path):
        raise ZeroDivisionError
    with files.lock(tmp_path):
        pass


def test_only_regular_files_are_opened(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match="is no regular file"):
            files.open_regular(path)
    path = tmp_path / "file"
    path.write_bytes(b"four")
    assert files.read_bytes(path, 4) == b"four"
    with pytest.raises(ValueError, match="has 4 bytes, may have 3"):
        files.read_bytes(path, 3)


TURN = HOLD.replace("files.lock(Path(sys.argv[1]))", "files.turn(Path(sys.argv[1]), 'abc')")


def test_a_turn_that_is_long_in_coming_names_who_has_it(tmp_path, caplog, monkeypatch):
    turns = tmp_path / "turns"
    holder = subprocess.Popen([sys.executable, "-c", TURN, str(turns)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with files.turn(turns, "another name"):
            pass
        assert not caplog.records
        monkeypatch.setattr(waiting, "watched", functools.partial(waiting.watched, after_s=0.05))
        # It is killed as soon as it has been named.
        monkeypatch.setattr(waiting._LOG, "warning", lambda form, text: (said.append(form % text), holder.kill()))
        said: list[str] = []
        with files.turn(turns, "abc"):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    cure = f"To go on before it is done, end it: kill {holder.pid}"
    assert said == [f"abc: waiting for process {holder.pid}, which works on the same. {cure}"]
