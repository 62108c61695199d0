"""A good folder of images, changed at random: refused in one line, or each image that is taken is a file there, once.

python -m pytest tests/prepare/test_fuzz.py -s      # prints the count of each outcome
"""

import collections
import os
import random  # noqa: TID251 - a seeded stream of test cases, no view and no order of training
import shutil
import time
from pathlib import Path

import changes
import pytest

from teachonce.core import errors
from teachonce.prepare import prepare_shards
from teachonce.shards import index, sample_keys, sample_reader

LIMIT_S = 10.0
"""For one change; an honest folder takes a hundredth of it."""
NAMES = (
    *("train", "val", "test", "@eaDir", "__MACOSX", ".hidden", "cat", "dog", "a.b", "ü", "x\ny", "100%", "_x", "a/b"),
    *(os.fsdecode(b"\xe9"), "0.png", "1.JPG", "n" * 200, "img.png.txt", "\x1b[31m"),
)


def place(draw: random.Random, root: Path) -> Path:
    """A path of which nothing is there."""
    folders = [root, *(path for path in sorted(root.rglob("*")) if path.is_dir() and not path.is_symlink())]
    path = draw.choice(folders) / draw.choice(NAMES)
    return path if not os.path.lexists(path) else path.with_name(f"{path.stem}_{draw.randrange(10**6)}{path.suffix}")


def move(there: Path, path: Path, draw: random.Random) -> None:
    there.rename(path)


def link(there: Path, path: Path, draw: random.Random) -> None:
    path.symlink_to(draw.choice((there, there.parent, Path(".."), Path(), Path(path.name))))


def outside(there: Path, path: Path, draw: random.Random) -> None:
    path.symlink_to(draw.choice(("/dev/null", "/dev/zero", "/nowhere")))


def copy(there: Path, path: Path, draw: random.Random) -> None:
    shutil.copyfile(there, path)


def pipe(there: Path, path: Path, draw: random.Random) -> None:
    os.mkfifo(path)


def empty(there: Path, path: Path, draw: random.Random) -> None:
    path.touch()


def folder(there: Path, path: Path, draw: random.Random) -> None:
    path.mkdir()


def remove(there: Path, path: Path, draw: random.Random) -> None:
    shutil.rmtree(there) if there.is_dir() and not there.is_symlink() else there.unlink()


def cut(there: Path, path: Path, draw: random.Random) -> None:
    os.truncate(there, draw.randrange(60))


def change(draw: random.Random, root: Path) -> str:
    """One change; OSError where it is none that a file system allows."""
    there = draw.choice(sorted(path for path in root.rglob("*") if Path(os.path.realpath(path)).is_relative_to(root)))
    path = place(draw, root)
    path.parent.mkdir(exist_ok=True)
    act = draw.choice((move, link, outside, copy, pipe, empty, folder, remove, cut))
    act(there, path, draw)
    return f"{act.__name__} {there.relative_to(root)} {path.relative_to(root)}"


def taken(data, root: Path, out: Path) -> str:
    """What became of a folder; AssertionError where an image is none there, or counted twice."""
    try:
        facts = prepare_shards.prepare(data, root, out)
    except errors.TeachonceError as error:
        text, kind = str(error), type(error).__name__
    else:
        text, kind = "", "taken"
    assert "\n" not in text
    assert len(text) < 3000
    if text:
        return kind
    shards = index.read(out)
    names = [
        s.key for shard in shards.index.shardlist for s in sample_reader.verified_samples(shard, shards.path(shard))
    ]
    assert facts["train"]["samples"] + facts["val"]["samples"] == len(names) == len(set(names))
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    by_key = {sample_keys.from_path(path.relative_to(root)): path.stat().st_ino for path in files}
    # Through a link, a file has another path than `rglob` gives.
    direct = [by_key[name] for name in names if name in by_key]
    assert len(set(direct)) == len(direct)
    return kind


@pytest.mark.parametrize(
    "config", [{}, {"classes": ["cat", "dog"], "labels": "optional"}], ids=["required", "optional"]
)
def test_a_changed_folder_is_taken_or_refused(pictures, parse, tmp_path, config):
    pictures.classes(count=4)
    pictures.put("cat/deep/er/1.png", pictures.encode(7))
    data = parse("image_folder", val_fraction=0.3, on_bad_image="skip", **config)
    outcomes: collections.Counter[str] = collections.Counter()
    escaped = []
    for seed in range(changes.COUNT):
        root, out = tmp_path / f"{seed}", tmp_path / f"out{seed}"
        shutil.copytree(pictures.root, root)
        draw = random.Random(seed)  # noqa: S311
        changed, began = "", time.perf_counter()
        try:
            for _ in range(draw.choice((1, 1, 2))):
                changed += f"{change(draw, root)!r} "
        except OSError:
            continue
        try:
            outcomes[taken(data, root, out)] += 1
        except Exception as error:  # collected: a run shows all holes at once
            escaped.append(f"{seed}: {changed}: {type(error).__name__}: {error}")
        if time.perf_counter() - began > LIMIT_S:
            escaped.append(f"{seed}: {changed}: took too long")
        shutil.rmtree(root)
        shutil.rmtree(out, ignore_errors=True)
    print(f"\n{outcomes.total()} changes: {dict(outcomes)}")
    assert not escaped, "\n".join(escaped)
    assert outcomes["taken"] > outcomes.total() / 5
