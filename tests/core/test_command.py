import copy
import subprocess
import sys
from pathlib import Path

import pytest

from teachonce.core import errors

ROOT = Path(__file__).parents[2]


def ended(body: str) -> subprocess.CompletedProcess[str]:
    imports = "import os, signal\nfrom teachonce.core import command, errors\n"
    code = f"{imports}def main():\n    {body}\ncommand.run_stage(main)\n"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("kind", ["ConfigError", "DataError", "CacheError", "ViewDriftError", "LockedError"])
def test_a_refusal_is_one_line(kind):
    process = ended(f"raise errors.{kind}('file', 'key must be 1. Got 2', 'Correct it')")
    assert (process.returncode, process.stdout) == (1, "")
    assert process.stderr == "error: file: key must be 1. Got 2. Correct it\n"


def test_a_refusal_gives_a_terminal_no_orders():
    assert ended(r"raise errors.DataError('', '\x1b[2Jtar\r\x07')").stderr == "error: �[2Jtar��\n"


def test_a_bug_keeps_its_traceback():
    process = ended("raise KeyError('bug')")
    assert process.returncode == 1
    assert process.stderr.startswith("Traceback")
    assert process.stderr.endswith("KeyError: 'bug'\n")


def test_an_interrupt_says_how_to_go_on():
    # A test run started in the background inherits SIGINT as ignored.
    handle = "signal.signal(signal.SIGINT, signal.default_int_handler)"
    process = ended(f"{handle}; os.kill(os.getpid(), signal.SIGINT)")
    assert process.returncode == 130
    assert process.stderr == "interrupted: run the same command again to go on from here\n"


@pytest.mark.parametrize(("kind", "code", "word"), [("StoppedError", 75, "stopped"), ("PeerError", 76, "error")])
def test_an_end_after_which_the_same_command_goes_on_has_a_code_of_its_own(kind, code, word):
    process = ended(f"raise errors.{kind}('', 'saved', 'Run the same command again')")
    assert (process.returncode, process.stdout) == (code, "")
    assert process.stderr == f"{word}: saved. Run the same command again\n"


def test_success_is_quiet():
    process = ended("pass")
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")


def test_an_error_keeps_its_parts_from_process_to_process():
    error = errors.IdentityError.for_value(Path("a/b"), "k", "below 10", 12, "Lower it").accepted_by("policy")
    there = copy.copy(error)  # by the parts that travel, too
    assert str(there) == "a/b: k must be below 10. Got 12. Lower it"
    assert (there.where, there.what, there.cure) == ("a/b", "k must be below 10. Got 12", "Lower it")
    assert (there.key, there.condition, there.value, there.accept) == ("k", "below 10", 12, "policy")
