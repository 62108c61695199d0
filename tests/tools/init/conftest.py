import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from teachonce.core import config
from teachonce.prepare import dataset_config
from teachonce.tools.init import init_command

ROOT = Path(__file__).parents[3]


class Project:
    """A clone as far as `init` looks at it, the working folder, with someone's images beside it."""

    def __init__(self, folder: Path, images: Path) -> None:
        self.folder = folder
        self.images = images
        self._count = 0

    def picture(self, ending: str = "JPEG", *, grey: bool = False, size: tuple[int, int] = (48, 40)) -> bytes:
        """An encoded image, another one each time."""
        self._count += 1
        count = size[0] * size[1] * 3
        raw = np.random.Philox(key=self._count).random_raw(count // 8 + 1).tobytes()
        pixels = np.frombuffer(raw, np.uint8)[:count].reshape(size[1], size[0], 3)
        buffer = io.BytesIO()
        Image.fromarray(pixels[..., 0] if grey else pixels).save(buffer, ending)
        return buffer.getvalue()

    def put(self, name: str, data: bytes | None = None) -> Path:
        """A file below the folder of the images."""
        path = self.images / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.picture() if data is None else data)
        return path

    def classes(self, *names: str, count: int = 6) -> None:
        """A folder of images for each name."""
        for name in names:
            for number in range(count):
                self.put(f"{name}/{number}.jpg")

    def tar(self, name: str, count: int = 6, *, label: bool = True, first_label: int = 0, json: str = "") -> None:
        """A tar of three classes in turn, as WebDataset has them."""
        path = self.put(name, b"")
        with tarfile.open(path, "w") as archive:
            for number in range(count):
                members = {"jpg": self.picture()}
                if label:
                    members["cls"] = str(number % 3 + first_label).encode()
                if json:
                    members["json"] = (json % (number % 3)).encode()
                for ending, data in members.items():
                    member = tarfile.TarInfo(f"{path.stem}_{number:03d}.{ending}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))

    def init(self, *words: str) -> None:
        """Run the command on the images, from within the project."""
        init_command.main([str(self.images), *words])

    def dataset(self, name: str = "images") -> dataset_config.Data:
        """The configuration of the images that was written."""
        return dataset_config.load(self.folder / f"configs/dataset/{name}.yaml")

    def params(self) -> dict[str, object]:
        """params.yaml as plain data."""
        data = config.read(self.folder / "params.yaml")
        assert isinstance(data, dict)
        return data


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "configs", folder / "configs")
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, folder)
    (folder / "stages").mkdir()
    monkeypatch.chdir(folder)
    return Project(folder, tmp_path / "images")
