"""A folder of images that nobody labelled, through every stage, with a teacher that was trained elsewhere."""

import io
import json
import shutil

import clones
import numpy as np
import pytest
from PIL import Image
from sklearn import datasets

from teachonce.core import hashing

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(600)]

STAGES = {"prepare", "cache", "audit", "train@soft", "evaluate@soft", "report"}


@pytest.fixture(scope="module")
def project(tmp_path_factory, finished_project):
    """A clone with 80 photographs to learn from and 40 to be measured on, and weights that know the digits."""
    project = clones.start(tmp_path_factory.mktemp("clone") / "project")
    shutil.copyfile(
        finished_project.folder / "artifacts/teacher/model.safetensors", project.folder / "digits.safetensors"
    )
    images = datasets.load_digits().images
    for row in range(120):
        buffer = io.BytesIO()
        Image.fromarray((images[row] * 15).astype(np.uint8)).save(buffer, "PNG")
        path = project.folder / "photos" / ("train" if row < 80 else "val") / f"roll{row % 3}" / f"{row:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.getvalue())
    shutil.copyfile(
        project.folder / "configs/dataset/image_folder.yaml", project.folder / "configs/dataset/photos.yaml"
    )
    project.edit(
        "configs/dataset/photos.yaml",
        lambda data: data.update(classes=list("0123456789"), labels="optional", rows_per_tar=30),
    )
    digest = hashing.sha256_file(project.folder / "digits.safetensors")
    shutil.copyfile(project.folder / "configs/teacher/resnet_small.yaml", project.folder / "configs/teacher/given.yaml")
    weights = {"kind": "checkpoint", "path": "digits.safetensors", "sha256": digest}
    project.edit("configs/teacher/given.yaml", lambda data: data.update(weights=weights))
    soft = {"model": "deit_micro", "kind": "soft", "alpha": 1.0, "tau": 3.0, "seed": 0, "token": False}
    project.edit(
        "params.yaml",
        lambda data: data.update(dataset="photos", source="photos", teacher="given", students={"soft": soft}),
    )
    return project


def test_every_stage_works_without_a_label(project):
    assert project.ran("dvc", "repro") >= STAGES
    facts = json.loads((project.folder / "artifacts/records/prepare.json").read_text())
    assert [(facts[split]["samples"], facts[split]["unlabelled"]) for split in ("train", "val")] == [(80, 80), (40, 40)]
    evaluation = json.loads((project.folder / "artifacts/records/evaluate/soft.json").read_text())
    assert evaluation["unlabelled"] == 40
    assert set(evaluation["heads"]["class"]) == {"agreement", "kl"}
    assert not json.loads((project.folder / "artifacts/audit.json").read_text())["findings"]
    page = (project.folder / "artifacts/report/index.html").read_text(encoding="utf-8")
    assert "No validation image has a label" in page
    assert "soft" in project.do("dvc", "metrics", "show")
    assert project.ran("dvc", "repro") == set()


def test_a_student_that_would_learn_from_labels_ends_in_one_line(project):
    project.edit("params.yaml", lambda data: data["students"]["soft"].update(alpha=0.5))
    done = project.run("dvc", "repro", "train@soft")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(
        "error: params.yaml: students.soft: alpha must be 1 where no training image has a label. Got"
    )
