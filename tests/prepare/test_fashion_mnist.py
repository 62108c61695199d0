import gzip
import os
import socket
import struct

import numpy as np
import pytest

from teachonce.core import errors
from teachonce.prepare import fashion_mnist, prepare_shards
from teachonce.shards import decode, index, sample_reader

TRAIN = (np.arange(20 * 28 * 28) * 31 % 256).astype(np.uint8).reshape(20, 28, 28)
TEST = 255 - TRAIN[:5]


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">{values.ndim + 1}I", 0x0800 | values.ndim, *values.shape) + values.astype(np.uint8).tobytes()


# These bytes are part of a test's name, which two workers must find the same: no time of day.
CUT = gzip.compress(idx(TEST), mtime=0)[:-20]


@pytest.fixture
def folder(tmp_path):
    """Four small IDX files, two of them gzipped."""
    root = tmp_path / "source"
    root.mkdir()
    (root / "train-images-idx3-ubyte").write_bytes(idx(TRAIN))
    (root / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.arange(20) % 10)))
    (root / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(TEST)))
    (root / "t10k-labels-idx1-ubyte").write_bytes(idx(np.arange(5)))
    return root


def test_images_and_labels(folder, parse, tmp_path):
    facts = prepare_shards.prepare(parse("fashion_mnist", rows_per_tar=8), folder, tmp_path / "out")
    assert (facts["train"]["samples"], facts["train"]["tars"], facts["val"]["samples"]) == (20, 3, 5)
    shards = index.read(tmp_path / "out")
    assert shards.index.classes[0] == "t-shirt_top"
    for split, pixels in (("train", TRAIN), ("val", TEST)):
        for shard in shards.index.of_split(split):
            for sample in sample_reader.verified_samples(shard, shards.path(shard)):
                row = int(sample.key.removeprefix(f"{split}/"))
                assert sample.label == row % 10
                image = np.asarray(decode.rgb(sample.image, "x"))
                assert np.array_equal(image, pixels[row][:, :, None].repeat(3, 2))


def test_torchvision_folder(folder, parse, tmp_path):
    place = tmp_path / "data" / "FashionMNIST" / "raw"
    place.parent.mkdir(parents=True)
    folder.rename(place)
    assert prepare_shards.prepare(parse("fashion_mnist"), tmp_path / "data", tmp_path / "out")["train"]["samples"] == 20


@pytest.mark.skipif(not fashion_mnist.DEBIAN.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_debian_package(parse, tmp_path):
    data = parse("fashion_mnist", train_images=50, val_images=20)
    (source := tmp_path / "source").mkdir()
    assert prepare_shards.prepare(data, source, tmp_path / "out")["train"]["samples"] == 50
    assert len(fashion_mnist.list_idx_files(source).splits["train"]) == 60_000


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("train-images-idx3-ubyte", idx(TRAIN)[:-1], "size must be 15,696 bytes for [20, 28, 28]. Got 15,695."),
        ("train-images-idx3-ubyte", b"abc", "cannot be read (unpack_from requires a buffer"),
        ("train-images-idx3-ubyte", idx(np.arange(9)) + bytes(9), "magic number must be 0x00000803. Got 0x00000801."),
        ("t10k-images-idx3-ubyte.gz", CUT, "t10k-images-idx3-ubyte.gz: cannot be read ("),
        ("t10k-images-idx3-ubyte.gz", b"not gzip", "cannot be read (Not a gzipped file"),
        ("t10k-labels-idx1-ubyte", idx(np.arange(4)), "number of labels must be 5. Got 4."),
        ("t10k-labels-idx1-ubyte", idx(np.arange(6, 11)), "a label must be below 10. Got 10."),
        ("t10k-labels-idx1-ubyte", None, "t10k-labels-idx1-ubyte: is missing, also as .gz. Install Debian's"),
    ],
)
def test_damaged_files(folder, parse, tmp_path, *, name, data, message):
    if data is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(data)
    with pytest.raises(errors.DataError) as caught:
        prepare_shards.prepare(parse("fashion_mnist"), folder, tmp_path / "out")
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_download_without_network_ends_in_one_line(tmp_path, monkeypatch):
    with socket.socket() as unused:  # a port nobody listens on: the proxy refuses at once, with or without a network
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        monkeypatch.setenv(name.upper(), f"http://127.0.0.1:{port}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert os.environ["http_proxy"]
    with pytest.raises(errors.DataError, match=r"^fashion_mnist: cannot be downloaded \(.+\)\. Install Debian's"):
        fashion_mnist._download(str(tmp_path))
