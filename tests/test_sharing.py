"""One team runs the teacher, others train: clones of a git repository, and remotes of DVC, local and S3."""

import hashlib
import json
import shutil
from pathlib import Path

import bench_push
import clones
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(1200)]

ONE_TO_FOUR = {"prepare", "teacher", "cache", "audit"}


class Team:
    """A server of git, a remote of DVC beside it, and whoever clones."""

    def __init__(self, folder: Path, finished: clones.Project) -> None:
        self.folder = folder
        self.git = folder / "server.git"
        self.remote = folder / "remote"
        self.first = clones.start(folder / "first", finished)

    def clone(self, name: str) -> clones.Project:
        """A clone that has nothing but what git has; the images are gone."""
        self.first.do("git", "clone", "-q", str(self.git), str(self.folder / name))
        project = clones.Project(self.folder / name)
        shutil.rmtree(project.folder / "data")
        return project


def keep_the_teacher(graph: dict) -> None:
    outs = graph["stages"]["teacher"]["outs"]
    outs[outs.index("artifacts/teacher")] = {"artifacts/teacher": {"push": False}}


@pytest.fixture(scope="module")
def team(tmp_path_factory, finished_project):
    """Team A has run everything, has kept the teacher to itself, and has pushed."""
    team = Team(tmp_path_factory.mktemp("team"), finished_project)
    first = team.first
    first.edit("params.yaml", lambda data: data.update(students={"soft": data["students"]["soft"]}))
    first.edit("dvc.yaml", keep_the_teacher)
    first.do("dvc", "remote", "add", "-q", "-d", "local", str(team.remote))
    first.do("dvc", "repro", "audit", "evaluate@soft")
    first.commit("what team A made")
    first.do("dvc", "push", "-q")
    first.do("git", "clone", "-q", "--bare", ".", str(team.git))
    first.do("git", "remote", "add", "origin", str(team.git))
    return team


def stored(folder: Path) -> set[str]:
    """MD5 of what a remote, or a clone's cache, holds."""
    root = folder / "files" / "md5"
    return {path.relative_to(root).as_posix().replace("/", "") for path in root.rglob("*") if path.is_file()}


def md5s(folder: Path) -> dict[str, str]:
    """MD5 of each file of a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_teacher_was_not_pushed(team):
    teacher = md5s(team.first.folder / "artifacts/teacher")
    assert "model.safetensors" in teacher
    assert not set(teacher.values()) & stored(team.remote)
    assert set(md5s(team.first.folder / "artifacts/cache").values()) <= stored(team.remote)


def test_team_b_trains_another_student_with_neither_images_nor_teacher(team):
    there = team.clone("b")
    # The report compares the students: it needs the predictions of those that were evaluated elsewhere.
    # An output before the stages: DVC 3.67 passes over the stages but the last one where an output comes behind them.
    there.do("dvc", "pull", "-q", "artifacts/records/teacher.json", "prepare", "cache", "evaluate")
    hot = "+students.hot={model: deit_micro, kind: soft, alpha: 0.9, tau: 8.0, seed: 0}"
    ran = there.ran("dvc", "exp", "run", "-S", hot, "--allow-missing")
    assert ran == {"train@hot", "evaluate@hot", "report"}
    assert not (there.folder / "artifacts/teacher").exists()
    assert not (there.folder / "artifacts/students/soft").exists()
    assert not (there.folder / "data").exists()
    page = (there.folder / "artifacts/report/index.html").read_text(encoding="utf-8")
    assert "Ran elsewhere, and what they cost was not fetched: teacher, train soft." in page
    assert set(json.loads((there.folder / "metrics/top1.json").read_text())["top1"]) == {"soft", "hot"}


def test_team_b_over_s3(team, s3):
    first = team.first
    s3.client().create_bucket(Bucket="dvc-remote")
    first.do("dvc", "remote", "add", "-q", "s3", "s3://dvc-remote/teachonce")
    first.do("dvc", "remote", "modify", "-q", "s3", "endpointurl", s3.url)
    first.environment |= s3.environment
    first.do("dvc", "push", "-q", "-r", "s3")
    there = team.clone("b-s3")
    shutil.copyfile(first.folder / ".dvc/config", there.folder / ".dvc/config")
    there.environment |= s3.environment
    there.do("dvc", "pull", "-q", "-r", "s3", "artifacts/shards", "artifacts/cache")
    assert {path.name for path in (there.folder / "artifacts").iterdir()} == {"shards", "cache"}
    there.edit("params.yaml", lambda data: data["students"]["soft"].update(tau=5.0))
    assert there.ran("dvc", "repro", "--allow-missing", "train@soft") == {"train@soft"}
    objects = {key.removeprefix("teachonce/files/md5/").replace("/", "") for key in s3.keys("dvc-remote")}
    assert objects == stored(team.remote)


@pytest.mark.nightly
def test_growth_travels_alone(team):
    """More aug seeds: pushed, pulled and imported without anything that was there before."""
    first, there = team.first, team.clone("c")
    shared = ("artifacts/shards", "artifacts/cache")
    there.do("dvc", "pull", "-q", *shared)
    other = clones.Project(team.folder / "other")
    other.folder.mkdir()
    for command in ("git init -q", "dvc init -q", f"dvc import -q {team.git} artifacts/cache -o cache"):
        other.do(*command.split())
    old = {name: stored(folder) for name, folder in places(team, there, other).items()}
    before = md5s(first.folder / "artifacts/cache")
    first.edit("configs/views/digits.yaml", lambda data: data.update(aug_seeds=3))
    assert first.ran("dvc", "repro", "cache") == {"cache"}
    first.commit("a third aug seed")
    first.do("dvc", "push", "-q", *shared)
    first.do("git", "push", "-q", "origin", "HEAD")
    after = md5s(first.folder / "artifacts/cache")
    new = set(after.values()) - set(before.values())
    grown = {name for name in after if after[name] in new}
    assert {name for name in grown if "/c/" in name} == {f"train.zarr/logits/c/{tar}/2/0/0" for tar in range(3)}
    assert {Path(name).name for name in grown if "/c/" not in name} == {"zarr.json", "units.json"}
    there.do("git", "pull", "-q")
    there.do("dvc", "pull", "-q", *shared)
    other.do("dvc", "update", "-q", "cache.dvc")
    assert md5s(there.folder / "artifacts/cache") == md5s(other.folder / "cache") == after
    for name, folder in places(team, there, other).items():
        arrived = stored(folder) - old[name]
        assert {md5 for md5 in arrived if not md5.endswith(".dir")} == new, name


def places(team: Team, there: clones.Project, other: clones.Project) -> dict[str, Path]:
    return {"remote": team.remote, "pull": there.folder / ".dvc/cache", "import": other.folder / ".dvc/cache"}


def test_a_tar_more_pushes_no_other_tars_data(tmp_path):
    first, second = bench_push.measure(tmp_path, tars=3, rows=4)
    assert {name for name in first.data if name.startswith("shards/")} == {f"shards/train-00000{n}.tar" for n in (0, 1)}
    arrays = ("canary/c/2/0/0/0", "class_id/c/2/0/0/0", "key/c/2/0", "logp/c/2/0/0/0", "lse/c/2/0/0")
    assert set(second.data) == {"shards/train-000002.tar", *(f"cache/{name}" for name in arrays)}
