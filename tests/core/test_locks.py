import functools
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from teachonce.core import errors, locks, waiting

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from pathlib import Path
from teachonce.core import locks
with locks.hold_folder(Path(sys.argv[1])):
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


def test_a_second_process_waits_says_for_whom_and_goes_on_when_that_is_killed(tmp_path, holder, caplog):
    scratch = tmp_path / "scratch"
    lock = locks.folder_lock(scratch)
    assert not lock.take()
    end = threading.Timer(2, holder.send_signal, [signal.SIGKILL])
    end.start()
    with locks.hold_folder(scratch):
        assert (scratch / "lock").read_text().startswith(f"{os.getpid()} on ")
        assert not lock.take()
    [line] = caplog.messages
    assert line.startswith(f"{scratch}: is in use by process {holder.pid} on ")
    assert line.endswith(". Waiting until that ends")
    end.join()


def test_a_wait_with_a_limit_ends_without_the_lock(tmp_path, holder):
    lock = locks.folder_lock(tmp_path / "scratch")
    assert not lock.wait("it", limit_s=0.1)
    holder.kill()
    holder.wait()
    assert lock.wait("it", limit_s=60)
    lock.close()


def test_lock_is_free_again_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), locks.hold_folder(tmp_path):
        raise ZeroDivisionError
    with locks.hold_folder(tmp_path):
        pass


def test_a_lock_that_was_removed_meanwhile_is_no_lock(tmp_path):
    """Two processes must not hold two files of one name."""
    first, second = locks.Lock(tmp_path / "x"), locks.Lock(tmp_path / "x")
    assert first.take()
    first.remove()
    assert second.take()
    first.close()
    assert not first.take()
    second.close()
    assert first.take()
    first.close()


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(path))


OTHER_THINGS = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a link": lambda path: path.symlink_to("victim"),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a socket": bound,
}


@pytest.mark.parametrize("thing", OTHER_THINGS)
def test_what_is_no_regular_file_is_refused_in_a_line_and_left(tmp_path, thing, monkeypatch):
    # The name of a socket must be short.
    monkeypatch.chdir(tmp_path)
    path = Path("lock")
    Path("victim").write_text("mine")
    OTHER_THINGS[thing](path)
    line = r"^lock: it must be a regular file\. Got another thing .*\. Remove it, and run the same command again$"
    with pytest.raises(errors.DiskError, match=line):
        locks.Lock(path).take()
    with pytest.raises(errors.DiskError, match=line), locks.hold_name(path, "abc"):
        pass
    assert Path("victim").read_text() == "mine"
    assert not Path("nothing").exists()
    assert os.path.lexists(path)


TURN = HOLD.replace("locks.hold_folder(Path(sys.argv[1]))", "locks.hold_name(Path(sys.argv[1]), 'abc')")


def test_a_turn_that_is_long_in_coming_names_who_has_it(tmp_path, caplog, monkeypatch):
    turns = tmp_path / "turns"
    holder = subprocess.Popen([sys.executable, "-c", TURN, str(turns)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with locks.hold_name(turns, "another name"):
            pass
        assert not caplog.records
        monkeypatch.setattr(waiting, "report_if_slow", functools.partial(waiting.report_if_slow, after_s=0.05))
        # It is killed as soon as it has been named.
        monkeypatch.setattr(waiting._LOG, "warning", lambda form, text: (said.append(form % text), holder.kill()))
        said: list[str] = []
        with locks.hold_name(turns, "abc"):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    cure = f"To go on before it is done, end it: kill {holder.pid}"
    assert said == [f"abc: waiting for process {holder.pid}, which works on the same. {cure}"]
