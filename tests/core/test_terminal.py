"""Texts of others, terminals of few letters, pipes that nobody reads: real processes and real streams."""

import ast
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from teachonce.core import terminal

ROOT = Path(__file__).parents[2]
HOSTILE = "\x1b[2J\x1b]0;title\x07\r\b\x00\x7f\x9b1A\u202e\u2066\u2028\u200f\ufeff\udce9"
"""Clears a screen, names a window, rubs out, turns around, and is no text."""
POSIX = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


IMPORTS = "import argparse, logging, sys, warnings\nfrom teachonce.core import command, errors, progress, terminal\n"


def program(body: str) -> str:
    """A stage whose main is the body."""
    lines = "\n    ".join(body.splitlines())
    return f"{IMPORTS}def main():\n    {lines}\ncommand.run_stage(main)\n"


def run(body: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", program(body)],
        cwd=ROOT,
        env={**base_environment(), **environment},
        capture_output=True,
        check=False,
    )


def ended(body: str, **environment: str) -> tuple[int, bytes]:
    """Exit code and stderr where nobody reads stdout."""
    process = subprocess.Popen(
        [sys.executable, "-c", program(body)],
        cwd=ROOT,
        env={**base_environment(), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    with process.stderr as stream:
        text = stream.read()
    return process.wait(), text


def base_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in {"PYTHONUNBUFFERED", "PYTHONIOENCODING"}}


def is_harmless(data: bytes) -> bool:
    """No control but the line's end, no mark of direction, nothing that is no text."""
    return not {unicodedata.category(letter) for letter in data.decode() if letter != "\n"} & {
        "Cc",
        "Cf",
        "Cs",
        "Co",
        "Cn",
        "Zl",
        "Zp",
    }


@pytest.mark.parametrize(
    "body",
    [
        f"terminal.write_line({HOSTILE!r})",
        f"terminal.write_line({HOSTILE!r}, sys.stderr)",
        f"print({HOSTILE!r})",
        f"sys.stdout.write({HOSTILE!r})",
        f"sys.stderr.writelines([{HOSTILE!r}])",
        f"raise errors.DataError('', {HOSTILE!r})",
        f"raise RuntimeError({HOSTILE!r})",
        f"logging.getLogger('x').warning('%s', {HOSTILE!r})",
        f"warnings.warn({HOSTILE!r})",
        f"import argparse\nargparse.ArgumentParser(prog='x').error({HOSTILE!r})",
    ],
)
def test_nothing_leaves_that_a_terminal_obeys(body):
    done = run(body)
    assert is_harmless(done.stdout + done.stderr), done
    assert "�[2J".encode() in done.stdout + done.stderr or b"\\x1b[2J" in done.stderr


def test_a_logger_that_has_its_stream_already_is_clean_too():
    code = f"import logging\nlogging.basicConfig()\n{program(f'logging.warning({HOSTILE!r})')}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert is_harmless(done.stderr)
    assert "�[2J".encode() in done.stderr


def test_a_refusal_is_one_line_whatever_is_refused():
    assert run("raise errors.DataError('', 'a\\nerror: b')").stderr.decode() == "error: a�error: b\n"
    assert run("raise errors.UnitsError('', '2 units\\n  a\\n  b')").stderr == b"error: 2 units\n  a\n  b\n"


def test_a_progress_bar_moves_the_cursor_and_no_label_does():
    done = run(f"list(progress.bar(range(3), label={HOSTILE!r}, total=3, unit='view'))")
    assert done.stderr.startswith("\r�[2J".encode())
    assert is_harmless(done.stderr.replace(b"\r", b""))


def test_what_a_person_can_read_is_left_as_it_is():
    text = "é ß 数字 ελ 🙂 ± τ\n\n  two lines  "
    assert terminal.printable_lines(text) == text
    assert run(f"terminal.write_line({text!r})").stdout.decode() == f"{text}\n"
    assert terminal.printable("a\nb") == "a�b"


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "ascii:strict"}, POSIX])
def test_a_terminal_of_few_letters_gets_those(environment):
    body = f"terminal.write_line({'τ 3: ± 2 ─── é'!a})\nprint({'é'!a})\nlogging.warning({'ü…'!a})"
    done = run(body, **environment)
    assert (done.stdout, done.stderr, done.returncode) == (
        b"tau 3: +- 2 --- ?\n?\n",
        b"WARNING:root:?...\n",
        0,
    )


def test_names_of_files_are_read_in_utf_8_whatever_the_locale(tmp_path):
    (tmp_path / "é").touch()
    body = f"import os\nterminal.write_line(ascii(os.listdir({str(tmp_path)!r})) + sys.getfilesystemencoding())"
    assert run(body, **POSIX).stdout == run(body).stdout == b"['\\xe9']utf-8\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("count", [1, 100_000])
def test_a_pipe_that_nobody_reads_ends_it_quietly(count, unbuffered):
    body = f"for _ in range({count}): terminal.write_line('x' * 99)"
    assert ended(body, PYTHONUNBUFFERED=unbuffered) == (141, b"")


WORK = """
for _ in progress.bar(range(50), label='work', total=50, unit='step'):
    terminal.write_line('x' * 999, sys.stderr)
    logging.warning('x')
print('y', file=sys.stderr, flush=True)
open(sys.argv[1], 'w', encoding='utf-8').write('done')
"""


def worked(tmp_path: Path, stderr: int | None) -> int:
    """Exit code of a run that tells much on stderr; its work must be done."""
    command = [sys.executable, "-c", program(WORK), str(tmp_path / "made")]
    done = subprocess.run(
        command, cwd=ROOT, env=base_environment(), stdout=subprocess.DEVNULL, stderr=stderr, check=False
    )
    assert (tmp_path / "made").exists(), "it ended before its work was done"
    return done.returncode


def test_a_closed_stderr_ends_no_run(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    assert worked(tmp_path, writing) == 0
    os.close(writing)


def test_a_full_disk_behind_stderr_ends_no_run(tmp_path):
    with Path("/dev/full").open("wb") as full:
        assert worked(tmp_path, full.fileno()) == 0


def test_a_slow_reader_of_stderr_ends_no_run(tmp_path):
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    assert worked(tmp_path, writing) == 0
    os.close(reading)
    os.close(writing)


def test_a_refusal_with_a_closed_stderr_keeps_its_exit_code():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", program("raise errors.DataError('', 'x')")]
    done = subprocess.run(command, cwd=ROOT, env=base_environment(), stderr=writing, check=False)
    os.close(writing)
    assert done.returncode == 1


def test_a_refusal_before_a_closed_pipe_stays_a_refusal():
    assert ended("terminal.write_line('x')\nraise errors.DataError('', 'y')") == (1, b"error: y\n")


def test_a_broken_pipe_that_is_not_the_outputs_is_a_bug():
    done = run("raise BrokenPipeError('a socket')")
    assert done.returncode == 1
    assert done.stderr.startswith(b"Traceback")


def test_a_full_disk_behind_the_output_is_one_line():
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", program("terminal.write_line('x')")],
            cwd=ROOT,
            env=base_environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: the output: cannot be written (No space left on device)")
    assert done.stderr.count(b"\n") == 1


def test_a_process_may_have_no_streams():
    code = program("terminal.write_line('x')\nlist(progress.bar(range(3), label='', total=3, unit=''))")
    done = subprocess.run(["sh", "-c", 'exec "$0" "$@" >&- 2>&-', sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == 0


def calls() -> list[tuple[str, ast.Call, str]]:
    """Every call in the project's code: where, the node, what is called."""
    paths = [path for folder in ("pipeline", "stages") for path in (ROOT / folder).rglob("*.py")]
    return [
        (f"{path.relative_to(ROOT).as_posix()}:{node.lineno}", node, ast.unparse(node.func))
        for path in paths
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]


def test_text_leaves_by_one_module():
    streams = ("print", "sys.stdout.write", "sys.stderr.write", "os.write", "traceback.print", "tqdm.write")
    for where, _, called in calls():
        assert where.startswith("pipeline/teachonce/core/terminal.py") or not called.startswith(streams), (
            f"{where}: {called}"
        )


def test_every_text_file_is_opened_in_utf_8():
    """The locale decides no byte."""
    for where, node, called in calls():
        mode = next((part.value for part in node.args if isinstance(part, ast.Constant)), "r")
        is_text = called.endswith((".read_text", ".write_text")) or (called.endswith("path.open") and "b" not in mode)
        assert not is_text or "encoding" in {word.arg for word in node.keywords}, f"{where}: {called}"
