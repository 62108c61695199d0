"""The command `teachonce`: what people run, with the paths of dvc.yaml where none are given."""

import subprocess
import sys
from pathlib import Path

import pytest

from teachonce import cli
from teachonce.core import errors

ROOT = Path(__file__).parents[1]
DATA = "--shards artifacts/shards --cache artifacts/cache/"


def test_the_help_lists_every_command_with_a_line(capsys):
    cli.main([])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == list(cli._COMMANDS)
    assert all(30 < len(line) < 120 for line in lines[2:])


@pytest.mark.parametrize("name", cli._COMMANDS)
def test_each_command_names_its_arguments(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["teachonce"])
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: teachonce {name} [-h]")


def test_a_misspelt_command_is_one_line():
    done = subprocess.run([sys.executable, "-m", "teachonce", "exprot"], capture_output=True, text=True, check=False)
    line = "error: teachonce: exprot is none of its commands. Did you mean export? List them: teachonce --help\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)


@pytest.mark.parametrize(
    ("words", "module", "handed_on"),
    [
        (["inspect"], "tools.inspect.inspect_command", "artifacts/cache"),
        (["inspect", "other", "--json"], "tools.inspect.inspect_command", "other --json"),
        (["prune", "--dry-run"], "cache.prune_command", "--scratch .teachonce/units --dry-run"),
        (
            ["estimate", "--seconds", "1"],
            "tools.estimate.estimate_command",
            "--params params.yaml --configs configs --shards artifacts/shards --seconds 1",
        ),
        (
            ["audit", "--rows", "3"],
            "audit.audit_command",
            (
                "--cache artifacts/cache --shards artifacts/shards --out artifacts/audit"
                " --report artifacts/audit.json --rows 3"
            ),
        ),
        (
            ["compare", "tau5", "--out", "x"],
            "tools.compare.compare_command",
            (
                "--records artifacts/records --costs artifacts/costs --curves metrics/train"
                " --predictions artifacts/predictions --out artifacts/compare tau5 --out x"
            ),
        ),
        (
            ["export", "soft", "--out", "x"],
            "tools.export.export_command",
            (
                f"--student soft {DATA}val.zarr --weights artifacts/students/soft"
                " --metrics artifacts/records/evaluate/soft.json --out exports/soft --out x"
            ),
        ),
        (
            ["train", "soft", "--cache", "s3://bucket/x"],
            "student.train_command",
            (
                f"--student soft --params params.yaml --configs configs {DATA}train.zarr --scratch .teachonce/train"
                " --out artifacts/students/soft --curves metrics/train/soft --cost artifacts/costs/train/soft.json"
                " --cache s3://bucket/x"
            ),
        ),
        (
            ["train-live", "soft"],
            "tools.live.train_live_command",
            (
                "--student soft --params params.yaml --configs configs --shards artifacts/shards"
                " --scratch .teachonce/train"
                " --teacher artifacts/teacher --out artifacts/live/soft/student --curves artifacts/live/soft/curves"
                " --cost artifacts/live/soft/cost.json"
            ),
        ),
        (["train", "--student", "soft"], "student.train_command", "--student soft"),
    ],
)
def test_paths_are_those_of_dvc_yaml(words, module, handed_on, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())
    lines = []
    monkeypatch.setattr(f"teachonce.{module}.main", lambda argv: lines.append(" ".join(argv)))
    cli.main(words)
    assert lines == [handed_on]


def test_the_teacher_is_asked_where_it_is_there(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())
    (tmp_path / "artifacts/teacher").mkdir(parents=True)
    lines = []
    monkeypatch.setattr("teachonce.audit.audit_command.main", lambda argv: lines.append(" ".join(argv)))
    cli.main(["audit"])
    assert lines[0].endswith("--teacher artifacts/teacher")


@pytest.mark.parametrize("text", [None, "stages: {}\n", "stages: {audit: {cmd: [a, b]}}\n", "- 1\n"])
def test_elsewhere_all_paths_are_given(text, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    if text:
        (tmp_path / "dvc.yaml").write_text(text)
    with pytest.raises(errors.ConfigError, match="arguments are required: --cache, --shards, --out, --report"):
        cli.main(["audit"])


@pytest.mark.parametrize("command", ["train", "train-live", "export"])
@pytest.mark.parametrize(
    ("text", "names"),
    [("students: {plain: {}, soft: {}}\n", "plain, soft"), ("students: {}\n", "none yet"), ("a: 1", "none yet")],
)
def test_a_command_of_one_student_without_its_name_lists_them(command, text, names, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(errors.ConfigError) as refused:
        cli.main([command])
    assert str(refused.value) == f"teachonce {command}: names no student. Students of params.yaml: {names}"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("audit --rwos 3", "--rwos is none of its arguments. Did you mean --rows?"),
        ("audit --rwos=3", "--rwos is none of its arguments. Did you mean --rows?"),
        ("compare --tua 3", "--tua is none of its arguments. List them: teachonce compare --help"),
        ("inspect a b", "b is none of its arguments. List them: teachonce inspect --help"),
        ("audit --rows x", "argument --rows: invalid int value: 'x'. See teachonce audit --help"),
        ("init", "the following arguments are required: FOLDER. See teachonce init --help"),
    ],
)
def test_a_misspelt_argument_is_one_line(words, line):
    command = [sys.executable, "-m", "teachonce", *words.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: teachonce {words.split()[0]}: {line}\n"


def test_a_damaged_dvc_yaml_is_one_line(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text("a: [\n")
    with pytest.raises(errors.ConfigError, match=r"dvc\.yaml: is not YAML"):
        cli.main(["audit"])
