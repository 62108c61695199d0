"""What a stage's `--out` and `--curves` may replace: an earlier output of the same stage, and nothing else."""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import clones
import pytest

from teachonce.audit import audit_command
from teachonce.cache import cache_command
from teachonce.core import errors, files
from teachonce.evaluate import evaluate_command
from teachonce.prepare import prepare_command
from teachonce.report import report_command
from teachonce.student import train_command
from teachonce.teacher import teacher_command
from teachonce.tools.export import export_command
from teachonce.tools.live import train_live_command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CONFIGS = {
    "views": "configs/views/digits.yaml",
    "params": "params.yaml",
    "shards": "artifacts/shards",
    "student": "soft",
    "config": "configs/student/deit_micro.yaml",
    "cost": "cost.json",
}
OF_SHARDS = {name: CONFIGS[name] for name in ("views", "shards", "cost")}


@dataclass(frozen=True)
class Stage:
    """A stage as it is called."""

    main: object
    made: str
    """What it has made."""
    reads: str
    """A folder that it reads."""
    arguments: dict[str, str] = field(default_factory=dict)
    option: str = "out"

    def run(self, out: str, **arguments: str) -> None:
        words = {**self.arguments, **arguments, self.option: out}
        self.main([part for name, value in words.items() for part in (f"--{name}", value)])


TRAIN = {**CONFIGS, "cache": "artifacts/cache/train.zarr", "scratch": ".teachonce/train"}
STAGES = {
    "prepare": Stage(
        prepare_command.main,
        "artifacts/shards",
        "images",
        {"config": "folder.yaml", "source": "images", "metrics": "m.json", "cost": "cost.json"},
    ),
    "teacher": Stage(
        teacher_command.main,
        "artifacts/teacher",
        "artifacts/shards",
        {**OF_SHARDS, "config": "configs/teacher/resnet_small.yaml", "metrics": "m.json"},
    ),
    "cache": Stage(
        cache_command.main,
        "artifacts/cache",
        "artifacts/teacher",
        {
            **OF_SHARDS,
            "config": "configs/cache/whole.yaml",
            "teacher": "artifacts/teacher",
            "teacher-config": "configs/teacher/resnet_small.yaml",
            "scratch": ".teachonce/units",
            "metrics": "m.json",
        },
    ),
    "audit": Stage(
        audit_command.main,
        "artifacts/audit",
        "artifacts/cache",
        {"cache": "artifacts/cache", "shards": "artifacts/shards", "report": "m.json"},
    ),
    "train": Stage(
        train_command.main,
        "artifacts/students/soft",
        "artifacts/cache/train.zarr",
        {**TRAIN, "curves": "metrics/train/soft"},
    ),
    "train --curves": Stage(
        train_command.main,
        "metrics/train/soft",
        "artifacts/shards",
        {**TRAIN, "out": "artifacts/students/soft"},
        "curves",
    ),
    "train_live": Stage(
        train_live_command.main,
        "artifacts/students/soft",
        "artifacts/teacher",
        {**CONFIGS, "teacher": "artifacts/teacher", "scratch": ".teachonce/train", "curves": "metrics/train/soft"},
    ),
    "evaluate": Stage(
        evaluate_command.main,
        "artifacts/predictions/soft",
        "artifacts/students/soft",
        {
            **CONFIGS,
            "cache": "artifacts/cache/val.zarr",
            "weights": "artifacts/students/soft",
            "metrics": "m.json",
        },
    ),
    "report": Stage(
        report_command.main,
        "artifacts/report",
        "artifacts/predictions",
        {
            "params": "params.yaml",
            "metrics": "metrics",
            "shards": "artifacts/shards",
            "cache": "artifacts/cache",
            "predictions": "artifacts/predictions",
            "summary": "m.json",
        },
    ),
    "export": Stage(
        export_command.main,
        "exports/soft",
        "artifacts/students/soft",
        {
            "student": "soft",
            "weights": "artifacts/students/soft",
            "shards": "artifacts/shards",
            "cache": "artifacts/cache/val.zarr",
            "metrics": "metrics/evaluate/soft.json",
        },
    ),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, finished_project):
    """A project in which everything has run; not to be changed."""
    here = clones.start(tmp_path_factory.mktemp("clone") / "project", finished_project)
    here.edit("params.yaml", lambda data: data["students"].pop("plain"))
    here.do("dvc", "repro", "-q")
    digits = here.folder / "images"
    shutil.copytree(here.folder / "artifacts/shards", digits / "0")
    (here.folder / "folder.yaml").write_text("kind: image_folder\nval_fraction: 0.2\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here.folder)
        STAGES["export"].run("exports/soft")
    return here.folder


@pytest.fixture
def project(finished, monkeypatch):
    """It, as the working folder; what a test adds goes again."""
    monkeypatch.chdir(finished)
    before = set(finished.iterdir())
    yield finished
    for path in set(finished.iterdir()) - before:
        files.remove(path)


def state(folder: Path) -> dict[str, tuple[int, ...]]:
    """Every file, folder and link of a folder, which changes with any change to it."""
    found = {path.relative_to(folder).as_posix(): path.lstat() for path in folder.rglob("*")}
    return {name: (stat.st_ino, stat.st_mode, stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}


def other_content(stage: Stage) -> str:
    shutil.copytree(stage.made, "mine")
    Path("mine/thesis.tex").write_text("…")
    return "mine"


def other_content_below(stage: Stage) -> str:
    shutil.copytree(stage.made, "mine")
    Path("mine/notes/2026").mkdir(parents=True)
    Path("mine/notes/2026/model.safetensors").write_text("…")
    return "mine"


def nothing_of_this_kind(stage: Stage) -> str:
    """The names are right, and nothing else is."""
    Path("mine").mkdir()
    for path in Path(stage.made).rglob("*"):
        target = "mine" / path.relative_to(stage.made)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("mine")
    return "mine"


def parent(stage: Stage) -> str:
    return str(Path(stage.reads).parent)


def input_itself(stage: Stage) -> str:
    return stage.reads


def inside_an_input(stage: Stage) -> str:
    return f"{stage.reads}/new"


def file(_: Stage) -> str:
    Path("mine").write_text("mine")
    return "mine"


def link_to_a_folder(stage: Stage) -> str:
    shutil.copytree(stage.made, "elsewhere")
    Path("mine").symlink_to("elsewhere")
    return "mine"


def link_to_a_file(_: Stage) -> str:
    Path("elsewhere").write_text("mine")
    Path("mine").symlink_to("elsewhere")
    return "mine"


def dangling_link(_: Stage) -> str:
    Path("mine").symlink_to("nowhere")
    return "mine"


def another_kind(stage: Stage) -> str:
    shutil.copytree("artifacts/report" if stage.made != "artifacts/report" else "artifacts/audit", "mine")
    return "mine"


def two_students(_: Stage) -> str:
    shutil.copytree("artifacts/students", "mine")
    return "mine"


def pipe(_: Stage) -> str:
    os.mkfifo("mine")
    return "mine"


def working_folder(_: Stage) -> str:
    return "."


def below_a_file(_: Stage) -> str:
    Path("mine").write_text("mine")
    return "mine/new"


TARGETS = [
    other_content,
    other_content_below,
    nothing_of_this_kind,
    parent,
    input_itself,
    inside_an_input,
    file,
    link_to_a_folder,
    link_to_a_file,
    dangling_link,
    another_kind,
    two_students,
    pipe,
    working_folder,
    below_a_file,
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", STAGES)
def test_nothing_else_is_replaced(project, monkeypatch, name, target):
    stage = STAGES[name]
    out = target(stage)
    before = state(project)
    with pytest.raises((errors.ConfigError, errors.DiskError)) as caught:
        stage.run(out)
    assert str(caught.value).startswith(f"{Path(out)}: ")
    assert "\n" not in str(caught.value)
    assert state(project) == before, "nothing was written, not even into the scratch folder"


@pytest.mark.parametrize("name", [name for name in STAGES if name != "prepare"])
@pytest.mark.parametrize("earlier", ["none", "empty", "of the same kind", "links"])
def test_an_earlier_output_is_replaced(project, monkeypatch, name, earlier):
    stage = STAGES[name]
    out = Path("deep/mine")
    if earlier == "empty":
        out.mkdir(parents=True)
    elif earlier != "none":
        shutil.copytree(stage.made, out)
    if earlier == "links":
        # As `dvc checkout` leaves them where its cache is on another disk.
        for path in [path for path in out.rglob("*") if path.is_file()]:
            path.unlink()
            path.symlink_to(Path(stage.made).resolve() / path.relative_to(out))
    made = state(Path(stage.made))
    stage.run(str(out))
    assert set(state(out)) == set(made) or (name, set(state(out))) == ("audit", set())
    assert not any(path.is_symlink() for path in out.rglob("*"))
    assert state(Path(stage.made)) == made
    assert not list(project.rglob("*.partial"))
