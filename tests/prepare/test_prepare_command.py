"""The stage as a process, and what it leaves when it is stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn import datasets

from teachonce.core import errors
from teachonce.prepare import prepare_shards, split
from teachonce.prepare.image_source import ListedImage
from teachonce.shards import decode, index, sample_reader

ROOT = Path(__file__).parents[2]


def command(config: Path, source: Path, folder: Path) -> list[str]:
    return [
        *(sys.executable, "-W", "error", "-m", "stages.prepare", "--config", str(config), "--source", str(source)),
        *("--out", str(folder / "shards"), "--metrics", str(folder / "prepare.json")),
        *("--cost", str(folder / "cost.json")),
    ]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_digits(tmp_path):
    config = ROOT / "configs" / "dataset" / "digits.yaml"
    done = subprocess.run(command(config, tmp_path, tmp_path), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "prepare: 100%" in done.stderr
    facts = json.loads((tmp_path / "prepare.json").read_text())
    assert (facts["classes"], facts["train"]["samples"], facts["val"]["samples"]) == (10, 600, 1197)
    assert json.loads((tmp_path / "cost.json").read_text())["wall_s"] > 0
    shards = index.read(tmp_path / "shards")
    digits = datasets.load_digits()
    seen = set()
    for shard in shards.index.shardlist:
        for sample in sample_reader.verified_samples(shard, shards.path(shard)):
            row = int(sample.key.removeprefix("digits/"))
            expected = np.floor(digits.images[row] * 255 / 16 + 0.5)
            assert np.array_equal(np.asarray(decode.rgb(sample.image, "x"))[:, :, 1], expected)
            assert sample.label == digits.target[row]
            seen.add(row)
    assert len(seen) == 1797

    # A bad key: one line, and what was made before stays as it was.
    before = contents(tmp_path / "shards")
    bad = tmp_path / "bad.yaml"
    bad.write_text(f"{config.read_text()}rowz: 3\n")
    done = subprocess.run(command(bad, tmp_path, tmp_path), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"error: {bad}: rowz is not a known key. Remove it or correct its spelling\n"
    assert contents(tmp_path / "shards") == before


def test_digits_are_the_same_on_every_machine(tmp_path, parse):
    """Stored, not deflated, so no zlib decides the bytes: the tars' sha256 is a golden value."""
    prepare_shards.prepare(parse("digits", val_fraction=0.666, rows_per_tar=100), tmp_path, tmp_path / "out")
    first = index.read(tmp_path / "out").index.shardlist[0]
    assert first.sha256 == "7dfd3dd7020ce5ef881bb23e1b99aecc0960885a4be6e06f2f90ebf67850d239"


def test_order_is_fixed():
    keys = [
        item.key for item in split.shuffle_by_hash([ListedImage(f"k{row}", 0, "") for row in range(6)], split_seed=0)
    ]
    assert keys == ORDER
    assert keys == [
        item.key for item in split.shuffle_by_hash([ListedImage(f"k{row}", 0, "") for row in range(5, -1, -1)], 0)
    ]


ORDER = ["k2", "k5", "k0", "k4", "k3", "k1"]


@pytest.mark.parametrize("at", [1, 13])
def test_failure_midway_leaves_the_earlier_result(pictures, parse, tmp_path, at):
    pictures.classes(count=10)
    out = tmp_path / "out"
    data = parse("image_folder", val_fraction=0.2, rows_per_tar=3)
    prepare_shards.prepare(data, pictures.root, out)
    before = contents(out)
    (pictures.root / "cat" / f"{at % 10}.png").write_bytes(b"broken")
    with pytest.raises(errors.DataError):
        prepare_shards.prepare(data, pictures.root, out)
    assert contents(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_kill_9_midway_then_the_same_command(pictures, parse, tmp_path):
    pictures.classes(names=tuple("abcdefgh"), count=150)
    config = tmp_path / "data.yaml"
    config.write_text("kind: image_folder\nval_fraction: 0.2\nrows_per_tar: 20\n")
    arguments = command(config, pictures.root, tmp_path)
    with subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        draft = tmp_path / "shards.partial"
        until = time.monotonic() + 60
        while not (draft / "train-000004.tar").exists():
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert draft.is_dir()
    assert not (tmp_path / "shards").exists()
    data = parse("image_folder", val_fraction=0.2, rows_per_tar=20)
    prepare_shards.prepare(data, pictures.root, tmp_path / "shards")
    assert not draft.exists()
    prepare_shards.prepare(data, pictures.root, tmp_path / "straight")
    assert contents(tmp_path / "shards") == contents(tmp_path / "straight")


def test_out_may_not_hold_the_source(pictures, parse, tmp_path):
    pictures.classes()
    data = parse("image_folder", val_fraction=0.2)
    for out in (pictures.root, tmp_path):
        with pytest.raises(errors.ConfigError, match="--out must be a folder that does not hold what the stage needs"):
            prepare_shards.prepare(data, pictures.root, out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("…")
    with pytest.raises(errors.ConfigError, match="--out must be new, empty, or made by this stage"):
        prepare_shards.prepare(data, pictures.root, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").exists()
