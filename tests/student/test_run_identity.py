"""Which change of the code begins a training anew, and which goes on from its checkpoint."""

import shutil
from pathlib import Path

import pytest

from teachonce.core import import_closure
from teachonce.student import run_identity, train_cached
from teachonce.tools.live import train_live

ANOTHER = "\n_ANOTHER = 1\n"
KEEPS = (
    "teachonce/teacher/teacher_training.py",
    "teachonce/cache/unit_computation.py",
    "teachonce/core/command.py",
)
DECIDES = (
    "student/distillation_loss.py",
    "student/student_model.py",
    "format/row_expansion.py",
    "views/draw.py",
    "core/seeding.py",
)


def add(root: Path, name: str, text: str) -> None:
    path = root / name
    path.write_text(path.read_text() + text)


def digest(root: Path) -> str:
    import_closure.code_digest.cache_clear()
    return import_closure.code_digest(train_cached.MODULE, frozenset(run_identity.EXEMPT), root)


@pytest.fixture
def root(tmp_path):
    package = import_closure.ROOT / "teachonce"
    shutil.copytree(package, tmp_path / "teachonce", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_a_statement_that_changes_weights_begins_anew_and_other_changes_do_not(root):
    before = digest(import_closure.ROOT)
    for name in (*KEEPS, *run_identity.EXEMPT):
        add(root, name, ANOTHER)
    for name in DECIDES:
        add(root, f"teachonce/{name}", "\n# Why.\n")
    assert digest(root) == before
    for name in DECIDES:
        add(root, f"teachonce/{name}", ANOTHER)
        after = digest(root)
        assert after != before, name
        before = after


@pytest.mark.parametrize("module", [train_cached.MODULE, train_live.MODULE])
def test_what_is_exempt_is_there_and_says_why(module):
    reached = import_closure.module_files(module)
    assert [name for name in run_identity.EXEMPT if name not in reached] == []
    assert all(run_identity.EXEMPT.values())


def test_a_live_teacher_changes_weights_too():
    assert {"teachonce/teacher/predictor.py", "teachonce/student/distillation_loss.py"} <= import_closure.module_files(
        train_live.MODULE
    )
