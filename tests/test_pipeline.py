"""The whole pipeline through DVC, on real data made small: what runs, what runs again, and what does not."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import clones
import pytest

from teachonce.core import hashing

STUDENTS = ("plain", "soft", "hard")
EVERYTHING = {
    "prepare",
    "teacher",
    "cache",
    "audit",
    "report",
    *(f"{stage}@{name}" for stage in ("train", "evaluate") for name in STUDENTS),
}

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def project(tmp_path_factory, finished_project):
    here = clones.Project(tmp_path_factory.mktemp("clone") / "project")
    shutil.copytree(finished_project.folder, here.folder, symlinks=True)
    here.commit("everything has run")
    return here


def test_everything_ran(finished_project):
    said = (finished_project.folder.parent / "done").read_text()
    assert clones.stages(said) == EVERYTHING


def test_the_report_names_every_student(project):
    page = (project.folder / "artifacts/report/index.html").read_text(encoding="utf-8")
    assert all(name in page for name in STUDENTS)


def test_a_second_repro_does_nothing(project):
    assert project.ran("dvc", "repro") == set()


def test_a_changed_tau_runs_its_student_alone_and_changing_back_restores(project):
    before = (project.folder / "artifacts/students/soft/model.safetensors").read_bytes()
    one_student = {"train@soft", "evaluate@soft", "report"}
    assert project.ran("dvc", "exp", "run", "-S", "students.soft.tau=4.0") == one_student
    assert (project.folder / "artifacts/students/soft/model.safetensors").read_bytes() != before
    assert project.ran("dvc", "exp", "run", "-S", "students.soft.tau=3.0") == set()
    assert (project.folder / "artifacts/students/soft/model.safetensors").read_bytes() == before


def test_a_sweep_is_shown_by_what_was_set_and_what_came_of_it(project):
    """The two runs of the test above, on their commit."""

    def columns(*words: str) -> list[str]:
        header, *rows = project.do("dvc", "exp", "show", "--only-changed", "--csv", *words).splitlines()
        assert len(rows) == 4, "the working folder, the commit and two runs"
        return header.split(",")

    whole = columns()
    assert {"students.soft.tau", "artifacts/students/soft"} <= set(whole)
    # A student as small as this one may answer alike at any tau.
    answers = {"top1.soft", "top1_se"}
    assert len({*whole, *answers, "artifacts/predictions"}) <= 20
    assert not any(name.startswith("pipeline/") for name in whole)
    short = columns("--drop", r".*/.*|params\.yaml")
    assert set(short) - answers == {"Experiment", "rev", "typ", "Created", "students.soft.tau"}
    kept = project.do("dvc", "exp", "show", "--csv", "--drop", ".*", "--keep", r"dataset|data|top1\.soft")
    assert set(kept.splitlines()[0].split(",")) == {"dataset", "data", "top1.soft"}


@pytest.mark.nightly
def test_a_student_more_and_a_student_less(project):
    hot = "+students.hot={model: deit_micro, kind: soft, alpha: 0.9, tau: 8.0, seed: 0}"
    assert project.ran("dvc", "exp", "run", "-S", hot) == {"train@hot", "evaluate@hot", "report"}
    project.edit("params.yaml", lambda data: data["students"].pop("hot"))
    assert project.ran("dvc", "repro") <= {"report"}
    assert "hot" not in json.loads((project.folder / "metrics/top1.json").read_text())["top1"]


@pytest.mark.nightly
def test_a_student_is_fine_tuned_from_another_at_another_size(project):
    digest = hashing.sha256_file(project.folder / "artifacts/students/soft/model.safetensors")
    project.edit(
        "configs/student/deit_micro_48.yaml",
        lambda data: (
            data.update(epochs=1, warmup_epochs=0, batch_size=20, log_every=1)
            or data["arguments"].update(embed_dim=24, depth=2)
        ),
    )
    start = f"{{path: artifacts/students/soft, sha256: '{digest}'}}"
    fine = f"+students.fine={{model: deit_micro_48, kind: soft, alpha: 0.9, tau: 3.0, seed: 0, start: {start}}}"
    assert project.ran("dvc", "exp", "run", "-S", fine) == {"train@fine", "evaluate@fine", "report"}
    record = json.loads((project.folder / "artifacts/students/fine/record.json").read_text())
    assert record["start"] == {"sha256": digest, "heads": "kept"}
    done = project.run("dvc", "exp", "run", "-S", f"students.fine.start.sha256='{'f' * 64}'")
    assert f"params.yaml: students.fine: start.sha256 must be {digest}. Got {'f' * 64}. " in done.stderr
    assert "Running stage 'train@fine'" not in done.stdout
    project.edit("params.yaml", lambda data: data["students"].pop("fine"))
    assert project.ran("dvc", "repro") <= {"report"}


def test_a_comment_in_a_config_runs_nothing(project):
    with (project.folder / "configs/student/deit_micro.yaml").open("a", encoding="utf-8") as stream:
        stream.write("# a remark\n")
    assert project.ran("dvc", "repro") == set()


@pytest.mark.nightly
def test_student_code_never_runs_the_teacher(project):
    with (project.folder / "pipeline/teachonce/student/distillation_loss.py").open("a", encoding="utf-8") as stream:
        stream.write("# a remark\n")
    ran = project.ran("dvc", "repro")
    assert {f"train@{name}" for name in STUDENTS} <= ran
    assert not ran & {"prepare", "teacher", "cache"}


def test_more_aug_seeds_compute_only_the_new_ones(project):
    project.edit("configs/views/digits.yaml", lambda data: data.update(aug_seeds=3))
    assert "cache" in project.ran("dvc", "repro", "cache")
    assert project.teacher_runs() == 3, "one new unit for each of the three tars"


def test_after_growth_the_old_settings_come_from_the_run_cache(project):
    grown = stored(project)
    project.edit("configs/views/digits.yaml", lambda data: data.update(aug_seeds=2))
    assert project.ran("dvc", "repro", "cache") == set()
    less = stored(project)
    # Growth adds objects and changes none.
    objects = {name: digest for name, digest in less.items() if "/c/" in name}
    assert objects.items() < grown.items()
    project.edit("configs/views/digits.yaml", lambda data: data.update(aug_seeds=3))
    assert project.ran("dvc", "repro", "cache") == set()
    assert stored(project) == grown


def stored(project) -> dict[str, str]:
    """SHA-256 of every file of the stores."""
    folder = project.folder / "artifacts/cache"
    return {
        path.relative_to(folder).as_posix(): hashing.sha256_file(path) for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize(
    "whole_group",
    [pytest.param(True, id="dvc and its stage", marks=pytest.mark.nightly), pytest.param(False, id="dvc alone")],
)
def test_kill_9_of_repro_then_the_same_command_gives_the_same_bytes(project, whole_group):
    """Where DVC alone dies, its stage goes on: the next one waits for it, and repeats nothing that it has done."""
    seeds = 9 if whole_group else 15
    project.edit("configs/views/digits.yaml", lambda data: data.update(aug_seeds=seeds))
    units = project.folder / ".teachonce/units"
    before = set(units.iterdir())
    running = subprocess.Popen(
        ["dvc", "repro", "cache"],
        cwd=project.folder,
        env=project.environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    limit_s = time.monotonic() + 120
    while len(finished(units) - before) < 2:
        assert running.poll() is None
        assert time.monotonic() < limit_s
        time.sleep(0.002)
    os.killpg(running.pid, signal.SIGKILL) if whole_group else running.kill()
    running.wait()
    project.do("dvc", "repro", "cache")
    kept = len(finished(units) - before) - project.teacher_runs()
    assert kept >= 2
    assert project.teacher_runs() <= 3 * 6 - 2
    interrupted = stored(project)
    shutil.rmtree(units)
    project.do("dvc", "repro", "-f", "-s", "cache")
    assert project.teacher_runs() == 3 * seeds
    assert stored(project) == interrupted


def finished(units: Path) -> set[Path]:
    return {path.parent for path in units.glob("*/unit.json") if path.parent.suffix == ""}


def test_a_wrong_key_is_one_line_and_nothing_is_lost(project):
    kept = (project.folder / "configs/cache/whole.yaml").read_text(encoding="utf-8")
    project.edit("configs/cache/whole.yaml", lambda data: data.update(kk=3))
    done = project.run("dvc", "repro", "cache")
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors == ["error: configs/cache/whole.yaml: kk is not a known key. Remove it or correct its spelling"]
    assert "Traceback" not in done.stderr, done.stderr
    (project.folder / "configs/cache/whole.yaml").write_text(kept, encoding="utf-8")
    assert project.ran("dvc", "repro", "cache") == set()
