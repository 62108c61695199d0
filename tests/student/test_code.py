"""Which change of the code begins a training anew, and which goes on from its checkpoint."""

import shutil
from pathlib import Path

import pytest

from teachonce.base import closure
from teachonce.live import train as live_train
from teachonce.student import run, train

ANOTHER = "\n_ANOTHER = 1\n"
KEEPS = ("teachonce/teacher/fit.py", "teachonce/teacher/unit.py", "teachonce/base/entry.py", "stages/train.py")
DECIDES = ("student/loss.py", "student/model.py", "cache/target.py", "views/draw.py", "base/seeding.py")


def add(root: Path, name: str, text: str) -> None:
    path = root / name
    path.write_text(path.read_text() + text)


def digest(root: Path) -> str:
    closure.digest.cache_clear()
    return closure.digest(train.MODULE, frozenset(run.EXEMPT), root)


@pytest.fixture
def root(tmp_path):
    for package in ("pipeline", "stages"):
        shutil.copytree(closure.ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_a_statement_that_changes_weights_begins_anew_and_other_changes_do_not(root):
    before = digest(closure.ROOT)
    for name in (*KEEPS, *run.EXEMPT):
        add(root, name, ANOTHER)
    for name in DECIDES:
        add(root, f"pipeline/{name}", "\n# Why.\n")
    assert digest(root) == before
    for name in DECIDES:
        add(root, f"pipeline/{name}", ANOTHER)
        after = digest(root)
        assert after != before, name
        before = after


@pytest.mark.parametrize("module", [train.MODULE, live_train.MODULE])
def test_what_is_exempt_is_there_and_says_why(module):
    reached = closure.modules(module)
    assert [name for name in run.EXEMPT if name not in reached] == []
    assert all(run.EXEMPT.values())


def test_a_live_teacher_changes_weights_too():
    assert {"teachonce/teacher/predict.py", "teachonce/student/loss.py"} <= closure.modules(live_train.MODULE)
