"""Someone's folder of images, from `teachonce init` to the page, through DVC."""

import json
import unicodedata
from pathlib import Path

import clones
import numpy as np
import pytest
from PIL import Image

from teachonce.shards import index

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(600)]

CLASSES = ("Bäume & Blätter", unicodedata.normalize("NFD", "Küste"), "weites Land")


def draw(folder: Path) -> None:
    """Thirty images in three colours, with endings in any case, and a grey one."""
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(10):
            raw = np.random.Philox(key=10 * label + number).random_raw(48 * 40 * 3 // 8).tobytes()
            pixels = np.frombuffer(raw, np.uint8).reshape(40, 48, 3) // 2
            pixels[..., label] += 127
            image = Image.fromarray(pixels)
            ending = (".jpg", ".JPG", ".Png")[number % 3]
            (image.convert("L") if number == 9 else image).save(folder / name / f"Bild {number} ü{ending}")


def test_a_folder_of_images_becomes_students_and_a_page(tmp_path):
    project = clones.start(tmp_path / "project")
    draw(tmp_path / "Meine Bilder")
    said = project.do(
        "env", "PYTHONPATH=pipeline", "python", "-m", "teachonce", "init", str(tmp_path / "Meine Bilder"), "--yes"
    )
    assert "30 images, 24 to learn from and 6 to measure on" in said
    # As chosen, the published weights among it, but for lengths and sizes: those are of a laptop's hour.
    project.edit("configs/views/meine_bilder.yaml", lambda data: data.update(aug_seeds=12))
    project.edit(
        "configs/student/meine_bilder.yaml",
        lambda data: (
            data.update(epochs=6, warmup_epochs=1, batch_size=24, log_every=1)
            or data["arguments"].update(embed_dim=24, depth=2)
        ),
    )
    project.edit("params.yaml", lambda data: [data["students"].pop(name) for name in ("soft", "hard")])
    project.edit("configs/teacher/photos_64.yaml", lambda data: data["weights"].update(head_epochs=1, epochs=2))
    assert project.ran("dvc", "repro") >= {"prepare", "teacher", "cache", "train@plain", "evaluate@soft1", "report"}
    made = index.read(project.folder / "artifacts/shards").index
    assert sorted(made.classes) == sorted(CLASSES)
    page = (project.folder / "artifacts/report/index.html").read_text(encoding="utf-8")
    assert all(name in page for name in ("plain", "soft1"))
    top1 = json.loads((project.folder / "metrics/top1.json").read_text())
    assert top1["top1"].keys() >= {"plain", "soft1"}
    assert project.ran("dvc", "repro") == set()
