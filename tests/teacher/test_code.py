"""Which change of the code computes units again, and which keeps them."""

import shutil
from pathlib import Path

import pytest

from teachonce.base import closure
from teachonce.teacher import code

ANOTHER = "\n_ANOTHER = 1\n"
KEEPS = (
    "teachonce/teacher/fit.py",
    "teachonce/teacher/cluster.py",
    "teachonce/teacher/tail.py",
    "teachonce/base/progress.py",
    "teachonce/base/entry.py",
    "teachonce/student/loss.py",
    "stages/cache.py",
    *code.EXEMPT,
)
DECIDES = {
    "teachonce/cache/schema.py": ('"uint16": 65_535', '"uint16": 65_534'),
    "teachonce/shards/read.py": ("row", "place"),
    "teachonce/base/hashing.py": ('kind="stable"', 'kind="quicksort"'),
    "teachonce/base/arithmetic.py": ("False", "True"),
    "teachonce/teacher/model.py": ("torch.channels_last", "torch.contiguous_format"),
    "teachonce/teacher/weights.py": ("load_state_dict(tensors)", "load_state_dict(own)"),
    "teachonce/teacher/unit.py": ("correct", "right"),
    "teachonce/views/draw.py": ("", ANOTHER),
}


def edit(root: Path, name: str, before: str, after: str) -> None:
    path = root / name
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after) if before else text + after)


@pytest.fixture
def root(tmp_path):
    for package in ("pipeline", "stages"):
        shutil.copytree(closure.ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def digest(root: Path) -> str:
    closure.digest.cache_clear()
    return code.digest(root)


def test_what_decides_no_byte_keeps_units(root):
    before = code.digest()
    assert digest(root) == before
    for name in KEEPS:
        edit(root, name, "", ANOTHER)
    assert digest(root) == before


@pytest.mark.parametrize("name", DECIDES)
def test_what_decides_bytes_computes_units_again(root, name):
    edit(root, name, "", "\n# Why.\n")
    assert digest(root) == code.digest()
    edit(root, name, *DECIDES[name])
    assert digest(root) != code.digest()


@pytest.mark.slow
def test_no_module_that_computes_a_unit_is_forgotten(root):
    """Each in turn, but for those that are exempt."""
    before = code.digest()
    for name in sorted(closure.modules(code.COMPUTES, root) - code.EXEMPT.keys()):
        edit(root, name, "", ANOTHER)
        after = digest(root)
        assert after != before, name
        before = after


def test_a_module_that_is_imported_late_counts(root):
    (root / "teachonce/views/late.py").write_text("X = 1\n")
    edit(root, "teachonce/teacher/unit.py", "", "\ndef f():\n    from teachonce.views import late\n    return late\n")
    before = digest(root)
    edit(root, "teachonce/views/late.py", "1", "2")
    assert digest(root) != before


def test_what_is_exempt_is_there_and_says_why():
    reached = closure.modules(code.COMPUTES)
    assert [name for name in code.EXEMPT if name not in reached] == []
    assert all(code.EXEMPT.values())
