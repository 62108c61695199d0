"""What runs when a module runs, and a digest of what it does."""

import subprocess
import sys

import pytest

from teachonce.core import import_closure

SOURCES = {
    "stages/start.py": "from teachonce.a import one\n\n\ndef main():\n    from teachonce.a import late\n",
    "teachonce/a/one.py": '"""Docs."""\nimport teachonce.b\nimport teachonce.b.two as two\nimport json\n\nX = two\n',
    "teachonce/a/late.py": "from teachonce.a.one import X\n",
    "teachonce/b/two.py": "from teachonce.a import late, one\n",
    "teachonce/b/other.py": "Y = 1\n",
}


@pytest.fixture
def root(tmp_path):
    for name, text in SOURCES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_imports_are_followed_wherever_they_stand(root):
    assert import_closure.module_files("stages/start.py", root) == set(SOURCES) - {"teachonce/b/other.py"}
    assert import_closure.module_files("teachonce/b/other.py", root) == {"teachonce/b/other.py"}
    assert import_closure.direct_imports("stages/start.py", root) == {"teachonce/a/one.py", "teachonce/a/late.py"}


def test_a_relative_import_is_refused_not_missed(root):
    (root / "teachonce/b/two.py").write_text("from . import other\n")
    with pytest.raises(ValueError, match=r"teachonce/b/two\.py: relative import"):
        import_closure.module_files("stages/start.py", root)


BEFORE = '''
"""Module."""
import json


class A:
    """Class."""

    size: int = 8
    """Field."""

    def grow(self, more: int = 1, *, twice: bool = False) -> int:
        """Method."""
        return self.size + more if twice else self.size
'''
KEEPS = {
    "a comment": BEFORE + "\n# Why.\n",
    "docstrings": BEFORE.replace('."""', ', other."""'),
    "no docstring": BEFORE.replace('        """Method."""\n', ""),
    "layout": BEFORE.replace("more: int = 1, *, twice", "\n        more: int=1,\n        *,\n        twice"),
    "blank lines": "\n\n" + BEFORE.replace("import json\n", "import json\n\n\n"),
}
CHANGES = {
    "a number": BEFORE.replace("= 8", "= 9"),
    "its type": BEFORE.replace("= 8", "= 8.0"),
    "an annotation": BEFORE.replace("size: int", "size: float"),
    "a default": BEFORE.replace("False", "True"),
    "an operator": BEFORE.replace("+", "-"),
    "a name": BEFORE.replace("grow", "grown"),
    "an order": BEFORE.replace("more: int = 1, *, ", "*, more: int = 1, "),
    "an import": BEFORE.replace("import json", "import json as j"),
    "a string that is used": BEFORE.replace("self.size + more", "'a'"),
}


def test_the_digest_is_of_statements(root):
    def digest(text: str) -> str:
        (root / "teachonce/b/other.py").write_text(text)
        import_closure.code_digest.cache_clear()
        return import_closure.code_digest("teachonce/b/other.py", root=root)

    before = digest(BEFORE)
    assert {name: digest(text) == before for name, text in KEEPS.items()} == dict.fromkeys(KEEPS, True)
    assert len({before, *(digest(text) for text in CHANGES.values())}) == 1 + len(CHANGES)


def test_golden_digest(root):
    """Finished work is named by it: it may change where a Python parses otherwise, not by itself."""
    (root / "teachonce/b/other.py").write_text(BEFORE)
    assert import_closure.code_digest("teachonce/b/other.py", root=root) == "b23d1920d795e0a062675e069c24e3f1"


def test_an_exempt_module_is_left_out_and_what_it_imports_is_not(root):
    def digests() -> tuple[str, str]:
        import_closure.code_digest.cache_clear()
        exempt = frozenset({"teachonce/a/late.py"})
        return import_closure.code_digest("stages/start.py", root=root), import_closure.code_digest(
            "stages/start.py", exempt, root
        )

    first = digests()
    late = root / "teachonce/a/late.py"
    late.write_text(late.read_text() + "from teachonce.b import other\n")
    second = digests()
    late.write_text(late.read_text() + "Z = 1\n")
    third = digests()
    assert len({first[0], second[0], third[0]}) == 3
    assert first[1] != second[1] == third[1]


def test_the_name_of_a_module_counts(root):
    before = import_closure.code_digest("teachonce/a/late.py", root=root)
    (root / "teachonce/b/two.py").rename(root / "teachonce/b/three.py")
    importer = root / "teachonce/a/one.py"
    importer.write_text(importer.read_text().replace("b.two", "b.three"))
    import_closure.code_digest.cache_clear()
    assert import_closure.code_digest("teachonce/a/late.py", root=root) != before


def test_another_process_agrees():
    start = "teachonce/cache/unit_worker.py"
    code = f"from teachonce.core import import_closure; print(import_closure.code_digest({start!r}))"
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=import_closure.ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert printed == f"{import_closure.code_digest(start)}\n"
