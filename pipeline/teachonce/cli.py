"""The command `teachonce`, for people; DVC runs the files of stages/.

In a project, the paths that are not given are those of dvc.yaml's own commands; elsewhere all of them are given.
"""

import itertools
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from teachonce.core import command, errors, project_params, spelling, terminal, yaml_reader

_PROJECT = Path("dvc.yaml")


def entry_point() -> None:
    """Where the console script begins: a command's refusal ends in one line and its exit code."""
    command.run_stage(main)


def main(argv: Sequence[str] | None = None) -> None:
    """Hand the words of a command line on to one of the commands.

    Raises:
        ConfigError: there is no such command.
    """
    name, *words = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    if name in {"-h", "--help"}:
        terminal.write_line(_help())
        return
    if name not in _COMMANDS:
        near = spelling.did_you_mean(name, _COMMANDS)
        raise errors.ConfigError("teachonce", f"{name} is none of its commands.{near} List them: teachonce --help")
    # argparse shows it as the name of the program.
    sys.argv[0] = f"teachonce {name}"
    _COMMANDS[name](words)


def _help() -> str:
    lines = [f"  {name:<12}{str(call.__doc__).splitlines()[0]}" for name, call in _COMMANDS.items()]
    return "\n".join(["usage: teachonce COMMAND [...]; teachonce COMMAND --help", "", *lines])


# Each command imports its part when it is called: torch takes seconds to load, and some of the commands need none.
# Defaults stand before the words that were typed: argparse takes the last value of an option, so that those win.


def _init(words: list[str]) -> None:
    """Your own images: looks at FOLDER, writes params.yaml and configurations for it."""
    from teachonce.tools.init import init_command

    init_command.main(words)


def _check(words: list[str]) -> None:
    """params.yaml and all that it names, read whole and against each other."""
    from teachonce.check import check_command

    check_command.main(words)


def _estimate(words: list[str]) -> None:
    """Hours and bytes of a whole run on this machine, from a short measurement."""
    from teachonce.tools.estimate import estimate_command

    estimate_command.main([*_defaults("cache", "params", "configs", "shards"), *words])


def _inspect(words: list[str]) -> None:
    """What a cache is, what it takes on disk, and the taus it carries: [CACHE]."""
    from teachonce.tools.inspect import inspect_command

    named = any(not word.startswith("-") for word in words)
    inspect_command.main([*([] if named else _defaults("audit", "cache")[1:]), *words])


def _audit(words: list[str]) -> None:
    """May a cache be trusted: every object, row, tar and canary; with a teacher, some rows again."""
    from teachonce.audit import audit_command

    paths = _defaults("audit", "cache", "shards", "out", "report")
    # A clone that fetched the cache alone has no teacher: all but the repeated rows can be audited there.
    teacher = _defaults("audit", "teacher")
    audit_command.main([*paths, *(teacher if teacher and Path(teacher[1]).is_dir() else []), *words])


def _train(words: list[str]) -> None:
    """Train a student from shards and cached rows: [STUDENT]."""
    from teachonce.student import train_command

    student, rest = _student(words)
    train_command.main([*_defaults("train", student=student), *rest])


def _train_live(words: list[str]) -> None:
    """Train a student with the teacher in the loop, to compare with: [STUDENT]."""
    from teachonce.tools.live import train_live_command

    student, rest = _student(words)
    paths = _defaults("train", "student", "params", "configs", "shards", "scratch", student=student)
    if paths:
        # Not where DVC keeps the students: one in their place would be evaluated as if the cache had taught it.
        folder = f"artifacts/live/{student}"
        paths += _defaults("cache", "teacher")
        paths += ["--out", f"{folder}/student", "--curves", f"{folder}/curves", "--cost", f"{folder}/cost.json"]
    train_live_command.main([*paths, *rest])


def _report(words: list[str]) -> None:
    """One page and one table of all students."""
    from teachonce.report import report_command

    report_command.main([*_defaults("report"), *words])


def _compare(words: list[str]) -> None:
    """Students of DVC's experiments, branches and the working folder, side by side: [REV...]."""
    streams = sys.stdout, sys.stderr
    from teachonce.tools.compare import compare_command

    # DVC's libraries wrap them as they are imported, and `… | head` would end in a traceback.
    sys.stdout, sys.stderr = streams
    paths = _defaults("report", "records", "costs", "curves", "predictions")
    compare_command.main([*paths, *(["--out", "artifacts/compare"] if paths else []), *words])


def _export(words: list[str]) -> None:
    """A student as a folder for timm, a hub and ONNX Runtime, with a model card: [STUDENT]."""
    from teachonce.tools.export import export_command

    student, rest = _student(words)
    paths = _defaults("evaluate", "student", "weights", "shards", "cache", "metrics", student=student)
    export_command.main([*paths, *(["--out", f"exports/{student}"] if paths else []), *rest])


def _prune(words: list[str]) -> None:
    """Remove finished units that no run has use for, and say how much it freed."""
    from teachonce.cache import prune_command

    prune_command.main([*_defaults("cache", "scratch"), *words])


_COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "init": _init,
    "check": _check,
    "estimate": _estimate,
    "inspect": _inspect,
    "audit": _audit,
    "train": _train,
    "train-live": _train_live,
    "report": _report,
    "compare": _compare,
    "export": _export,
    "prune": _prune,
}


def _student(words: list[str]) -> tuple[str | None, list[str]]:
    """The student that the first word names, and the other words."""
    if words and not words[0].startswith("-"):
        return words[0], words[1:]
    if not words and _PROJECT.is_file():
        students = _below(project_params.read(Path("params.yaml")), "students")
        names = ", ".join(students) if isinstance(students, dict) else ""
        raise errors.ConfigError(sys.argv[0], "names no student", f"Students of params.yaml: {names or 'none yet'}")
    return None, words


def _defaults(stage: str, *options: str, student: str | None = None) -> list[str]:
    """Options of a stage's command in dvc.yaml, with their values.

    Args:
        stage: name of the stage.
        options: names of the options to take, without dashes; all where none is given.
        student: whose paths, where the stage runs once for each student.

    Returns:
        An empty list outside a project, or where the stage runs for each student and none is named.
    """
    # Read from dvc.yaml rather than listed here: a path that is changed there would be missed by a second list.
    data = yaml_reader.read(_PROJECT) if _PROJECT.is_file() else None
    body = _below(_below(data, "stages"), stage)
    cmd = _below(_below(body, "do") or body, "cmd")
    if not isinstance(cmd, str) or ("${key}" in cmd and student is None):
        return []
    variables = _below(data, "vars")
    values = {key: value for entry in variables for key, value in entry.items()} if isinstance(variables, list) else {}
    values["key"] = student or ""
    text = re.sub(r"\$\{(\w+)\}", lambda match: str(values.get(match[1], match[0])), cmd)
    # As a shell reads the command: the student's name stands in quotes there.
    words = shlex.split(text)
    pairs = [(word, value) for word, value in itertools.pairwise(words) if word.startswith("--")]
    return [part for name, value in pairs if not options or name[2:] in options for part in (name, value)]


def _below(data: object, key: str) -> object:
    return data.get(key) if isinstance(data, dict) else None
