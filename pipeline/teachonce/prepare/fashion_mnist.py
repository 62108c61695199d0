"""Fashion-MNIST as a source, read from its four IDX files.

Source: Xiao, Rasul, Vollgraf, "Fashion-MNIST", 2017; the IDX form is that of LeCun's MNIST page.
"""

import gzip
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np

from teachonce.core import errors
from teachonce.prepare import encode
from teachonce.prepare.image_source import ListedImage, ListedSource

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
CLASSES = (
    "t-shirt_top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle_boot",
)
_PREFIXES = {"train": "train", "val": "t10k"}
_MOST_BYTES = 1 << 28
"""Bytes of a file that are unpacked at most: a longer one is cut there, and refused for its size."""
_CURE = "Install Debian's dataset-fashion-mnist, or put the four IDX files into the source folder"


def list_idx_files(folder: Path) -> ListedSource:
    """List the training and the test images of the first folder that has the files.

    Args:
        folder: looked into first, then Debian's; where neither has the files, torchvision downloads them.

    Raises:
        DataError: a file is missing, damaged, or not what its header says, or the download fails.
    """
    for idx_folder in (folder, folder / "FashionMNIST" / "raw", DEBIAN):
        if any(_find_file(idx_folder, f"{prefix}-images-idx3-ubyte") for prefix in _PREFIXES.values()):
            return _read_all(idx_folder)
    # Downloaded files are not kept: the tars of this stage hold the images, and later stages read those.
    with tempfile.TemporaryDirectory() as scratch:
        _download(scratch)
        return _read_all(Path(scratch) / "FashionMNIST" / "raw")


def _download(root: str) -> None:
    # torchvision takes seconds to import, and only the download needs it.
    from torchvision.datasets import FashionMNIST  # noqa: PLC0415

    try:
        FashionMNIST(root, download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise errors.DataError("fashion_mnist", f"cannot be downloaded ({reason})", _CURE) from error


def _read_all(idx_folder: Path) -> ListedSource:
    pixels: dict[str, np.ndarray] = {}
    splits: dict[str, list[ListedImage]] = {}
    for split, prefix in _PREFIXES.items():
        pixels[split] = _read_idx(idx_folder, f"{prefix}-images-idx3-ubyte", dimensions=3)
        labels = _read_idx(idx_folder, f"{prefix}-labels-idx1-ubyte", dimensions=1)
        _require_labels(idx_folder, prefix, labels, len(pixels[split]))
        splits[split] = [
            ListedImage(f"{split}/{row:05d}", int(label), f"{split}/{row}") for row, label in enumerate(labels)
        ]

    def read(name: str) -> bytes:
        split, _, row = name.partition("/")
        return encode.uncompressed_png(pixels[split][int(row)])

    return ListedSource(classes=CLASSES, splits=splits, read=read)


def _find_file(idx_folder: Path, name: str) -> Path | None:
    # Debian and torchvision write "-idx3", some mirrors ".idx3".
    names = (name, name.replace("-idx", ".idx"))
    return next(
        (path for stem in names for path in (idx_folder / stem, idx_folder / f"{stem}.gz") if path.is_file()), None
    )


def _read_idx(idx_folder: Path, name: str, dimensions: int) -> np.ndarray:
    path = _find_file(idx_folder, name)
    if path is None:
        raise errors.DataError(idx_folder / name, "is missing, also as .gz", _CURE)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            data = stream.read(_MOST_BYTES)
        magic, *shape = struct.unpack_from(f">{dimensions + 1}I", data)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise errors.DataError(path, f"cannot be read ({error})", _CURE) from error
    expected_magic = 0x0800 | dimensions  # 08 is uint8
    if magic != expected_magic:
        raise errors.DataError.for_value(path, "magic number", f"{expected_magic:#010x}", f"{magic:#010x}", _CURE)
    # The header is compared with what is there before it shapes an array: it may claim any number of images.
    start = 4 * (dimensions + 1)
    expected_bytes = start + int(np.prod(shape, dtype=np.uint64))
    if len(data) != expected_bytes:
        raise errors.DataError.for_value(path, "size", f"{expected_bytes:,} bytes for {shape}", f"{len(data):,}", _CURE)
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _require_labels(idx_folder: Path, prefix: str, labels: np.ndarray, count: int) -> None:
    where = idx_folder / f"{prefix}-labels-idx1-ubyte"
    if len(labels) != count:
        raise errors.DataError.for_value(where, "number of labels", f"{count:,}", f"{len(labels):,}", _CURE)
    if count and labels.max() >= len(CLASSES):
        raise errors.DataError.for_value(where, "a label", f"below {len(CLASSES)}", labels.max(), _CURE)
