import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from teachonce.core import config
from teachonce.prepare import dataset_config


class Pictures:
    """Real image files of a known picture each, below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @staticmethod
    def pixels(seed: int, size: tuple[int, int] = (6, 5)) -> np.ndarray:
        """uint8 (H, W, 3), another one for each seed."""
        count = size[0] * size[1] * 3
        raw = np.random.Philox(key=seed).random_raw(count // 8 + 1).tobytes()
        return np.frombuffer(raw, np.uint8)[:count].reshape(size[1], size[0], 3)

    def encode(self, seed: int, form: str = "PNG") -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(self.pixels(seed)).save(buffer, form)
        return buffer.getvalue()

    def put(self, name: str, data: bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def classes(self, prefix: str = "", names: tuple[str, ...] = ("cat", "dog"), count: int = 5) -> None:
        """`count` images for each class: prefix/cat/0.png, …"""
        for label, name in enumerate(names):
            for row in range(count):
                self.put(f"{prefix}{name}/{row}.png", self.encode(100 * label + row))


@pytest.fixture
def pictures(tmp_path):
    return Pictures(tmp_path / "source")


@pytest.fixture
def parse():
    def parsed(kind: str, **values: object):
        return config.parse({"kind": kind, **values}, dataset_config._KINDS[kind], "configs/dataset/x.yaml")

    return parsed


@pytest.fixture
def tar_of():
    def make(path: Path, *members: tuple[str, bytes]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return path

    return make
