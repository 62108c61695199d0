"""What a stage's outputs may replace: an earlier output of the same stage, and nothing else."""

import contextlib
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import clones
import pytest

from teachonce.audit import audit_command
from teachonce.cache import cache_command
from teachonce.check import check_command
from teachonce.core import errors, files
from teachonce.evaluate import evaluate_command
from teachonce.prepare import prepare_command
from teachonce.report import report_command
from teachonce.student import train_command
from teachonce.teacher import teacher_command
from teachonce.tools.export import export_command
from teachonce.tools.live import train_live_command

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(600)]

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
    output: str
    """What it has made."""
    reads: str
    """A folder that it reads."""
    arguments: dict[str, str] = field(default_factory=dict)
    option: str = "out"
    files: tuple[str, ...] = ("cost",)
    """Options of what it writes in a file each."""

    def run(self, output: str | None = None, **arguments: str) -> None:
        words = {**self.arguments, **arguments, **({self.option: output} if output else {})}
        self.main([part for name, value in words.items() for part in (f"--{name}", value)])


TRAIN = {**CONFIGS, "cache": "artifacts/cache/train.zarr", "scratch": ".teachonce/train"}
STAGES = {
    "prepare": Stage(
        prepare_command.main,
        "artifacts/shards",
        "images",
        {"config": "folder.yaml", "source": "images", "metrics": "m.json", "cost": "cost.json"},
        files=("metrics", "cost"),
    ),
    "teacher": Stage(
        teacher_command.main,
        "artifacts/teacher",
        "artifacts/shards",
        {
            **OF_SHARDS,
            "config": "configs/teacher/resnet_small.yaml",
            "scratch": ".teachonce/teacher",
            "metrics": "m.json",
        },
        files=("metrics", "cost"),
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
        files=("metrics", "cost"),
    ),
    "audit": Stage(
        audit_command.main,
        "artifacts/audit",
        "artifacts/cache",
        {"cache": "artifacts/cache", "shards": "artifacts/shards", "report": "m.json"},
        files=("report",),
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
        files=("metrics", "cost"),
    ),
    "report": Stage(
        report_command.main,
        "artifacts/report",
        "artifacts/predictions",
        {
            "params": "params.yaml",
            "records": "artifacts/records",
            "costs": "artifacts/costs",
            "curves": "metrics/train",
            "shards": "artifacts/shards",
            "cache": "artifacts/cache",
            "predictions": "artifacts/predictions",
            "metrics": "m.json",
        },
        files=("metrics",),
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
            "metrics": "artifacts/records/evaluate/soft.json",
        },
        files=(),
    ),
}
CHECK = Stage(check_command.main, "artifacts/checked", "configs", {"shards": "artifacts/shards"}, files=("out",))
FILES = [(name, option) for name, stage in {**STAGES, "check": CHECK}.items() for option in stage.files]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, finished_project):
    """A project in which everything has run; not to be changed."""
    project = clones.start(tmp_path_factory.mktemp("clone") / "project", finished_project)
    project.edit("params.yaml", lambda data: data["students"].pop("plain"))
    project.do("dvc", "repro", "-q")
    digits = project.folder / "images"
    shutil.copytree(project.folder / "artifacts/shards", digits / "0")
    (project.folder / "folder.yaml").write_text("kind: image_folder\nval_fraction: 0.2\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.folder)
        STAGES["export"].run("exports/soft")
    return project.folder


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
    states = {path.relative_to(folder).as_posix(): path.lstat() for path in folder.rglob("*")}
    return {name: (stat.st_ino, stat.st_mode, stat.st_size, stat.st_mtime_ns) for name, stat in states.items()}


def other_content(stage: Stage) -> str:
    shutil.copytree(stage.output, "mine")
    Path("mine/thesis.tex").write_text("…")
    return "mine"


def other_content_below(stage: Stage) -> str:
    shutil.copytree(stage.output, "mine")
    Path("mine/notes/2026").mkdir(parents=True)
    Path("mine/notes/2026/model.safetensors").write_text("…")
    return "mine"


def nothing_of_this_kind(stage: Stage) -> str:
    """The names are right, and nothing else is."""
    Path("mine").mkdir()
    for path in Path(stage.output).rglob("*"):
        target = "mine" / path.relative_to(stage.output)
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
    shutil.copytree(stage.output, "elsewhere")
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
    shutil.copytree("artifacts/report" if stage.output != "artifacts/report" else "artifacts/audit", "mine")
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


def null(path: str) -> str:
    """A device like /dev/null, which can be lost; without the right to make one, an open descriptor."""
    with contextlib.suppress(PermissionError):
        os.mknod(path, 0o20666, os.makedev(1, 3))
        return path
    return "/dev/fd/1"


@pytest.mark.parametrize("name", [name for name in STAGES if name != "prepare"])
@pytest.mark.parametrize("earlier", ["none", "empty", "of the same kind", "links"])
def test_an_earlier_output_is_replaced(project, monkeypatch, name, earlier):
    stage = STAGES[name]
    out = Path("deep/mine")
    if earlier == "empty":
        out.mkdir(parents=True)
    elif earlier != "none":
        shutil.copytree(stage.output, out)
    if earlier == "links":
        # As `dvc checkout` leaves them where its cache is on another disk.
        for path in [path for path in out.rglob("*") if path.is_file()]:
            path.unlink()
            path.symlink_to(Path(stage.output).resolve() / path.relative_to(out))
    before = state(Path(stage.output))
    devices = {option: null(f"deep/{option}") for option in stage.files} if earlier == "empty" else {}
    stage.run(str(out), **devices)
    assert not any(Path(path).is_file() for path in devices.values() if path.startswith("deep/"))
    assert set(state(out)) == set(before) or (name, set(state(out))) == ("audit", set())
    assert not any(path.is_symlink() for path in out.rglob("*"))
    assert state(Path(stage.output)) == before
    assert not list(project.rglob("*.partial"))


def the_settings(_: Stage) -> str:
    return "params.yaml"


def a_setting(_: Stage) -> str:
    return "configs/dataset/digits.yaml"


def the_lock(_: Stage) -> str:
    return "dvc.lock"


def the_index(_: Stage) -> str:
    return "artifacts/shards/index.json"


def the_store(_: Stage) -> str:
    return "artifacts/cache/train.zarr/zarr.json"


def the_weights(_: Stage) -> str:
    return "artifacts/students/soft/model.safetensors"


def the_record(_: Stage) -> str:
    return "artifacts/students/soft/record.json"


def link_to_an_earlier_file(_: Stage) -> str:
    Path("mine").symlink_to("artifacts/costs/cache.json")
    return "mine"


def inside_scratch(stage: Stage) -> str:
    return f"{stage.arguments.get('scratch', '.teachonce')}/new"


def a_long_name(_: Stage) -> str:
    return "x" * 253


def the_folder(_: Stage) -> str:
    return "new"


def inside_the_folder(_: Stage) -> str:
    return "new/x"


FILE_TARGETS = [
    parent,
    input_itself,
    inside_an_input,
    file,
    link_to_a_folder,
    link_to_an_earlier_file,
    dangling_link,
    pipe,
    working_folder,
    below_a_file,
    the_settings,
    a_setting,
    the_lock,
    the_index,
    the_store,
    the_weights,
    the_record,
    inside_scratch,
    a_long_name,
    the_folder,
    inside_the_folder,
]


@pytest.mark.parametrize("target", FILE_TARGETS)
@pytest.mark.parametrize(("name", "option"), FILES)
def test_no_other_file_is_replaced(project, name, option, target):
    stage = {**STAGES, "check": CHECK}[name]
    path = target(stage)
    needless = {inside_scratch} if "scratch" not in stage.arguments else set()
    needless |= {the_folder, inside_the_folder} if name == "check" else set()
    if target in needless:
        pytest.skip("it has none")
    before = state(project)
    with pytest.raises((errors.ConfigError, errors.DiskError)) as caught:
        stage.run(**{stage.option: "new", option: path})
    # Of two that overlap, the folder is named first.
    assert str(caught.value).startswith(f"{Path(path)}: ") or f" Got {path}. " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert state(project) == before, "nothing was written, not even into the scratch folder"


@pytest.mark.parametrize("name", [name for name, stage in STAGES.items() if len(stage.files) > 1])
def test_two_files_of_one_stage_lie_apart(project, name):
    with pytest.raises(errors.ConfigError, match=r"m\.json: --(metrics|cost) must be apart from"):
        STAGES[name].run("new", metrics="m.json", cost="m.json")
    assert not Path("new").exists()


@pytest.mark.parametrize("name", [name for name, stage in STAGES.items() if "scratch" in stage.arguments])
@pytest.mark.parametrize(
    "scratch", ["artifacts/shards", "artifacts/shards/new", "params.yaml", "params.yaml/x", "loop"]
)
def test_scratch_is_refused_where_it_would_do_harm(project, name, scratch):
    Path("loop").symlink_to("loop")
    before = state(project)
    with pytest.raises((errors.ConfigError, errors.DiskError)) as caught:
        STAGES[name].run("new", scratch=scratch)
    assert str(caught.value).startswith(f"{scratch}")
    assert state(project) == before


def test_a_check_is_repeated_onto_what_an_earlier_one_left(project):
    CHECK.run("artifacts/checked/params.txt")
    CHECK.run("deep/new.txt")
    assert Path("deep/new.txt").read_bytes() == Path("artifacts/checked/params.txt").read_bytes()
