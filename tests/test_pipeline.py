"""The whole pipeline through DVC, on real data made small: what runs, what runs again, and what does not."""

import json

import clones
import pytest

STUDENTS = ("plain", "soft", "hard")
EVERYTHING = {
    "prepare", "teacher", "cache", "audit", "report",
    *(f"{stage}@{name}" for stage in ("train", "evaluate") for name in STUDENTS),
}  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    here = clones.start(tmp_path_factory.mktemp("clone") / "project")
    assert here.ran("dvc", "repro") == EVERYTHING
    return here


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


def test_a_student_more_and_a_student_less(project):
    hot = "+students.hot={model: deit_micro, kind: soft, alpha: 0.9, tau: 8.0, seed: 0}"
    assert project.ran("dvc", "exp", "run", "-S", hot) == {"train@hot", "evaluate@hot", "report"}
    project.edit("params.yaml", lambda data: data["students"].pop("hot"))
    assert project.ran("dvc", "repro") <= {"report"}
    assert "hot" not in json.loads((project.folder / "metrics/report.json").read_text())["students"]


def test_a_comment_in_a_config_runs_nothing(project):
    with (project.folder / "configs/student/deit_micro.yaml").open("a", encoding="utf-8") as stream:
        stream.write("# a remark\n")
    assert project.ran("dvc", "repro") == set()


def test_student_code_never_runs_the_teacher(project):
    with (project.folder / "pipeline/student/loss.py").open("a", encoding="utf-8") as stream:
        stream.write("# a remark\n")
    ran = project.ran("dvc", "repro")
    assert {f"train@{name}" for name in STUDENTS} <= ran
    assert not ran & {"prepare", "teacher", "cache"}


def test_more_aug_seeds_compute_only_the_new_ones(project):
    project.edit("configs/views/digits.yaml", lambda data: data.update(aug_seeds=3))
    assert "cache" in project.ran("dvc", "repro", "cache")
    assert project.teacher_runs() == 3, "one new unit for each of the three tars"


def test_a_wrong_key_is_one_line_and_nothing_is_lost(project):
    kept = (project.folder / "configs/cache/whole.yaml").read_text(encoding="utf-8")
    project.edit("configs/cache/whole.yaml", lambda data: data.update(kk=3))
    done = project.run("dvc", "repro", "cache")
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors == ["error: configs/cache/whole.yaml: kk is not a known key. Remove it or correct its spelling"]
    assert "Traceback" not in done.stderr
    (project.folder / "configs/cache/whole.yaml").write_text(kept, encoding="utf-8")
    assert project.ran("dvc", "repro", "cache") == set()
