"""Which change of the code computes units again, and which keeps them."""

import shutil
from pathlib import Path

import pytest

from teachonce.cache import unit_code
from teachonce.core import import_closure

ANOTHER = "\n_ANOTHER = 1\n"
KEEPS = (
    "teachonce/teacher/teacher_training.py",
    "teachonce/cache/executors.py",
    "teachonce/cache/basis_fit.py",
    "teachonce/core/progress.py",
    "teachonce/core/command.py",
    "teachonce/student/distillation_loss.py",
    *unit_code.EXEMPT,
)
DECIDES = {
    "teachonce/format/schema.py": ('"uint16": 65_535', '"uint16": 65_534'),
    "teachonce/shards/sample_reader.py": ("row", "place"),
    "teachonce/core/hashing.py": ('kind="stable"', 'kind="quicksort"'),
    "teachonce/core/arithmetic.py": ("False", "True"),
    "teachonce/teacher/teacher_network.py": ("torch.channels_last", "torch.contiguous_format"),
    "teachonce/teacher/pretrained_weights.py": ("load_state_dict(tensors)", "load_state_dict(own)"),
    "teachonce/cache/unit_computation.py": ("correct", "right"),
    "teachonce/views/draw.py": ("", ANOTHER),
}


def edit(root: Path, name: str, before: str, after: str) -> None:
    path = root / name
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after) if before else text + after)


@pytest.fixture
def root(tmp_path):
    package = import_closure.ROOT / "teachonce"
    shutil.copytree(package, tmp_path / "teachonce", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def digest(root: Path) -> str:
    import_closure.code_digest.cache_clear()
    return unit_code.closure_digest(root)


def test_what_decides_no_byte_keeps_units(root):
    before = unit_code.closure_digest()
    assert digest(root) == before
    for name in KEEPS:
        edit(root, name, "", ANOTHER)
    assert digest(root) == before


@pytest.mark.parametrize("name", DECIDES)
def test_what_decides_bytes_computes_units_again(root, name):
    edit(root, name, "", "\n# Why.\n")
    assert digest(root) == unit_code.closure_digest()
    edit(root, name, *DECIDES[name])
    assert digest(root) != unit_code.closure_digest()


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.nightly
def test_no_module_that_computes_a_unit_is_forgotten(root):
    """Each in turn, but for those that are exempt."""
    before = unit_code.closure_digest()
    for name in sorted(import_closure.module_files(unit_code.COMPUTES, root) - unit_code.EXEMPT.keys()):
        edit(root, name, "", ANOTHER)
        after = digest(root)
        assert after != before, name
        before = after


def test_a_module_that_is_imported_late_counts(root):
    (root / "teachonce/views/late.py").write_text("X = 1\n")
    edit(
        root,
        "teachonce/cache/unit_computation.py",
        "",
        "\ndef f():\n    from teachonce.views import late\n    return late\n",
    )
    before = digest(root)
    edit(root, "teachonce/views/late.py", "1", "2")
    assert digest(root) != before


def test_what_is_exempt_is_there_and_says_why():
    reached = import_closure.module_files(unit_code.COMPUTES)
    assert [name for name in unit_code.EXEMPT if name not in reached] == []
    assert all(unit_code.EXEMPT.values())
