"""What a command may write its one-file outputs onto, and where its scratch folder may be."""

import argparse
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from teachonce.core import errors, files, output_files

ROOT = Path(__file__).parents[2]
METRICS = output_files.FileKind("earlier facts", ("count", "train.tars"))
TEXT = output_files.FileKind("what an earlier check left", text=b"well\n")
COST = {"wall_s": 1.5, "cpus": 2}


def require(**paths: object) -> None:
    """As a command with these options."""
    args = argparse.Namespace(**{name: Path(value) for name, value in paths.items()})
    kinds = {"metrics": METRICS, "cost": output_files.COST, "text": TEXT}
    output_files.require_overwritable(args, kinds, folders=("out", "curves"), parts={"facts": ("cost", "a.json")})


def refusal(**paths: object) -> str:
    before = {path: path.lstat().st_mtime_ns for path in Path().rglob("*")}
    with pytest.raises((errors.ConfigError, errors.DiskError)) as caught:
        require(**paths)
    assert {path: path.lstat().st_mtime_ns for path in Path().rglob("*")} == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def null(path: str) -> None:
    """A device like /dev/null, which can be lost."""
    try:
        os.mknod(path, 0o20666, os.makedev(1, 3))
        Path(path).write_bytes(b"")
    except PermissionError:
        pytest.skip("a device of one's own needs root")


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("cost", "lr: 0.1\n"),
        ("cost", "[1]"),
        ("cost", '{"wall_s": 1.5}'),
        ("cost", '{"wall_s": 1.5, "cpus": 2'),
        ("metrics", '{"count": 1, "train": 5}'),
        ("metrics", json.dumps(COST)),
        ("text", "well\nand more\n"),
        ("text", json.dumps(COST)),
    ],
)
def test_a_file_of_another_kind_is_not_replaced(option, text):
    Path("mine").write_text(text)
    assert re.fullmatch(
        rf"mine: --{option} must be new, empty, or .+\. Got a file of another kind\. Name another file; or, .+",
        refusal(**{option: "mine"}),
    )


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("cost", json.dumps({**COST, "steps": 4})),
        ("metrics", '{"count": 1, "train": {"tars": 2}, "more": 3}'),
        ("text", "well\n"),
        ("cost", ""),
        ("text", ""),
    ],
)
def test_an_earlier_one_is_replaced(option, text):
    Path("mine").write_text(text)
    require(**{option: "mine"})
    require(**{option: "deep/new"})
    assert not Path("deep").exists()


def test_what_is_no_regular_file_is_not_replaced():
    Path("earlier").write_text(json.dumps(COST))
    Path("link").symlink_to("earlier")
    Path("dangling").symlink_to("nowhere")
    Path("loop").symlink_to("loop")
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
    for name, got in (
        ("link", "a link to earlier"),
        ("dangling", "a link to nowhere"),
        ("loop", "a link to loop"),
        ("pipe", "a pipe, a socket or a disk"),
        ("socket", "a pipe, a socket or a disk"),
    ):
        assert f"--cost must be new, empty, or an earlier record of cost. Got {got}. " in refusal(cost=name)
    for name in (".", "..", "/", "new/.."):
        assert "--cost must be a file. Got a folder. Name another place" in refusal(cost=name)
    assert "loop is no folder" in refusal(cost="loop/new")
    assert "earlier is no folder" in refusal(cost="earlier/new")


def test_a_link_into_the_cache_of_dvc_is_replaced():
    """As a finished output is, where that cache lies on another disk; what lies there must be of the kind."""
    stored = Path("disk/files/md5/1f") / ("0" * 30)
    stored.parent.mkdir(parents=True)
    stored.write_text(json.dumps(COST))
    Path("mine").symlink_to(stored.absolute())
    require(cost="mine")
    assert "Got a file of another kind" in refusal(metrics="mine")
    stored.unlink()
    assert "Got a file of another kind" in refusal(cost="mine")
    stored.mkdir()
    assert "--cost must be a file. Got a folder" in refusal(cost="mine")


def test_what_is_read_is_not_written_to():
    Path("read.json").write_text(json.dumps(COST))
    Path("in/deep").mkdir(parents=True)
    Path("also").symlink_to("in")
    assert "--cost must be outside what the command reads. Got what is read" in refusal(
        cost="read.json", any="read.json"
    )
    for cost in ("in/new", "in/deep/new", "also/new", "in/deep/../new"):
        assert "--cost must be outside what the command reads. Got a place in in" in refusal(cost=cost, any="in")
    require(cost="in/new", any="elsewhere")
    # Of a folder that is read in parts, the rest.
    require(metrics="in/new", facts="in")
    assert "Got a place in in/cost" in refusal(metrics="in/cost/new", facts="in")
    assert "Got what is read" in refusal(metrics="in/a.json", facts="in")


@pytest.mark.parametrize(
    "paths",
    [
        {"cost": "o", "out": "o"},
        {"cost": "o/x", "out": "o"},
        {"cost": "o", "out": "o/x"},
        {"cost": "o", "curves": "o"},
        {"cost": "o", "scratch": "o"},
        {"cost": "o/x", "scratch": "o"},
        {"cost": "o", "metrics": "o"},
        {"cost": "o", "metrics": "o/x"},
        {"cost": "a/../o", "out": "o"},
    ],
)
def test_outputs_lie_apart(paths):
    Path("a").mkdir()
    assert re.search(r"^\S+: --\w+ must be apart from --\w+\. Got \S+\. Name another place$", refusal(**paths))


def test_scratch_is_a_folder_outside_of_what_is_read():
    Path("file").write_text("mine")
    Path("loop").symlink_to("loop")
    Path("shards").mkdir()
    for name in ("file", "loop"):
        assert refusal(scratch=name) == f"{name}: --scratch must be a folder. Got something else. Name another place"
    for name in ("file/new", "loop/new"):
        assert "is no folder. Name another place" in refusal(scratch=name)
    for name in ("shards", "shards/new"):
        assert "--scratch must be outside what the command reads" in refusal(scratch=name, shards="shards")
    require(scratch="new/deep", shards="shards")
    require(scratch=".", shards="shards")


def test_a_name_is_refused_at_once_where_its_draft_would_be_too_long():
    for paths in ({"cost": "x" * 250}, {"cost": f"{'x' * 256}/new"}, {"scratch": "x" * 256}):
        assert "cannot be opened or written (File name too long). Use shorter names" in refusal(**paths)
    require(cost="x" * 200)


def test_a_device_is_written_to_and_stays():
    null("null")
    Path("link").symlink_to("null")
    require(cost="null", metrics="null", out="null/x")
    files.write_json(Path("null"), COST)
    assert Path("null").is_char_device()
    assert "a link" in refusal(cost="link")
    assert sorted(map(str, Path().iterdir())) == ["link", "null"]


PROGRAM = """
import argparse, sys
from pathlib import Path
from teachonce.core import command, files, output_files
def main():
    args = argparse.Namespace(cost=Path(sys.argv[1]))
    output_files.require_overwritable(args, {"cost": output_files.COST})
    files.write_json(args.cost, {"wall_s": 1, "name": "\\x1b\\u202e\\x9b"})
command.run_stage(main)
"""
WRITTEN = b'{\n  "name": "\\u001b\\u202e\\u009b",\n  "wall_s": 1\n}\n'


@pytest.mark.parametrize("where", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_an_open_descriptor_is_written_to_in_letters_that_no_terminal_obeys(where, tmp_path):
    command = [sys.executable, "-c", PROGRAM, where]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout == WRITTEN
    with (tmp_path / "log").open("wb") as log:
        log.write(b"before\n")
        log.flush()
        subprocess.run(command, cwd=ROOT, stdout=log, check=True)
    assert (tmp_path / "log").read_bytes() == b"before\n" + WRITTEN


def test_a_closed_descriptor_is_refused():
    assert refusal(cost="/dev/fd/987654") == (
        "/dev/fd/987654: --cost must be a device or a descriptor that is open. Got Bad file descriptor. "
        "Name another place"
    )
