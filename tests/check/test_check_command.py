"""The stage as DVC runs it: first, for every student, and for nothing downstream."""

import json
import shutil

import clones
import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(1200)]


@pytest.fixture
def project(tmp_path):
    return clones.start(tmp_path / "project")


def refused(done) -> list[str]:
    """The lines of a run that was refused by `check`, before anything else ran."""
    assert done.returncode != 0
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout.count("Running stage") == 1
    assert "Running stage 'check'" in done.stdout
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


def test_a_name_that_a_shell_would_run_is_refused_before_anything_ran(project):
    name = "a;touch x"
    project.edit("params.yaml", lambda data: data["students"].update({name: {"model": "deit_micro", "kind": "none"}}))
    (line,) = refused(project.run("dvc", "repro"))
    assert line.endswith("Got 'a;touch x'. Rename it, for instance: a-touch-x")
    assert not (project.folder / "x").exists()
    # What skips the check does not reach a shell either.
    done = project.run("dvc", "repro", "--single-item", f"train@{name}")
    assert done.returncode != 0
    assert not (project.folder / "x").exists()


def test_a_misspelt_kind_is_refused_before_the_teacher(project):
    project.edit("params.yaml", lambda data: data["students"]["soft"].update(kind="nnone"))
    (line,) = refused(project.run("dvc", "repro"))
    assert "students.soft.kind is refused: input should be 'none', 'soft' or 'hard'. Got 'nnone'" in line
    assert not (project.folder / "artifacts/shards").exists()


@pytest.mark.parametrize("name", ["my photos & (more)", "it's $HOME;`id`"])
def test_images_in_a_folder_of_any_name(project, name):
    grey = np.full((32, 32, 3), 128, np.uint8)
    for split in ("train", "val"):
        for label in ("a cat", "b"):
            folder = project.folder / name / split / label
            folder.mkdir(parents=True)
            for number in range(3):
                Image.fromarray(grey + number).save(folder / f"{number}.png")
    project.edit("params.yaml", lambda data: data.update(source=name, dataset="image_folder"))
    assert project.ran("dvc", "repro", "prepare") == {"prepare"}
    facts = json.loads((project.folder / "artifacts/records/prepare.json").read_text())
    assert (facts["classes"], facts["train"]["samples"]) == (2, 6)


def stages(project, *command: str) -> list[str]:
    """Every line in which DVC tells of a stage."""
    said = project.do(*command)
    return [line.partition(":")[0] for line in said.splitlines() if "Running stage" in line or "is cached" in line]


def test_it_runs_first_and_nothing_runs_for_it(project):
    first = stages(project, "dvc", "repro", "prepare")
    assert first == ["Running stage 'check'", "Running stage 'prepare'"]
    assert stages(project, "dvc", "repro", "prepare") == []
    with (project.folder / "configs/student/deit_micro.yaml").open("a", encoding="utf-8") as stream:
        stream.write("# a remark\n")
    assert stages(project, "dvc", "repro", "prepare") == ["Running stage 'check'"]
    project.do("git", "checkout", "-q", "configs/student/deit_micro.yaml")
    (said,) = stages(project, "dvc", "repro", "prepare")
    assert said == "Stage 'check' is cached - skipping run, checking out outputs"


def test_a_small_rate_that_dvc_writes_is_read(project):
    done = project.run("dvc", "exp", "run", "-S", "configs/student/deit_micro.yaml:lr=0.00005", "check")
    assert done.returncode == 0, done.stderr
    assert "lr: 5e-05" in (project.folder / "configs/student/deit_micro.yaml").read_text()


def test_k_is_refused_as_soon_as_classes_are_counted_and_before_the_teacher(project):
    project.edit("params.yaml", lambda data: data.update(dataset="image_folder", source="images"))
    project.edit("configs/cache/whole.yaml", lambda data: data.update(k=2))
    for split in ("train", "val"):
        for label in ("a", "b"):
            folder = project.folder / "images" / split / label
            folder.mkdir(parents=True)
            Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / "0.png")
    done = project.run("dvc", "repro")
    assert "configs/cache/whole.yaml: k must be below the 2 classes, or all. Got 2" in done.stderr
    assert "Running stage 'check_shards'" in done.stdout
    assert "Running stage 'teacher'" not in done.stdout


@pytest.fixture
def team_b(tmp_path, finished_project):
    """A clone with shards and cache of another team, and no images."""
    project = clones.start(tmp_path / "project", finished_project)
    project.edit("params.yaml", lambda data: data.update(students={"soft": data["students"]["soft"]}))
    project.do("dvc", "remote", "add", "-q", "-d", "local", str(project.folder.parent / "remote"))
    project.do("dvc", "repro")
    project.commit("all")
    project.do("dvc", "push", "-q")
    project.do("git", "clone", "-q", ".", str(project.folder.parent / "b"))
    there = clones.Project(project.folder.parent / "b")
    shutil.rmtree(there.folder / "data")
    there.do("dvc", "pull", "-q", "artifacts/records/teacher.json", "prepare", "cache", "evaluate")
    return there


@pytest.mark.nightly
def test_a_missing_source_is_a_warning_for_those_who_pulled_the_shards(team_b):
    run = ("dvc", "exp", "run", "--allow-missing")
    done = team_b.run(*run, "-S", "students.soft.tau=4.0")
    assert done.returncode == 0, done.stderr
    assert "warning: params.yaml: source must be the folder of the images. Got data, which is not there." in done.stderr
    assert "Running stage 'prepare'" not in done.stdout
    done = team_b.run("dvc", "repro", "--allow-missing")
    assert done.returncode == 0, done.stderr
    team_b.do(*run, "--queue", "-S", "students.soft.tau=5.0")
    done = team_b.run("dvc", "queue", "start", "-j", "1")
    said = team_b.do("dvc", "queue", "logs", "--follow", queued(team_b))
    assert "Running stage 'train@soft'" in said
    assert "error: " not in said
    # Where prepare would have to run, it is refused.
    (line,) = refused(team_b.run(*run, "-S", "source=elsewhere"))
    assert "source must be the folder of the images. Got elsewhere, which is not there" in line


def queued(project) -> str:
    """The one experiment in the queue, by its name."""
    rows = [line.split() for line in project.do("dvc", "queue", "status").splitlines()]
    return next(row[1] for row in rows if len(row) > 2 and row[0] not in {"Task", "Worker"})
