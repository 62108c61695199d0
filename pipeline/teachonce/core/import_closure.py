"""The modules that run when one of them runs, found by their imports, and a digest of what they do.

A list kept by hand forgets a module, and what was made by other code passes for made by this one.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from teachonce.core import hashing

ROOT = Path(__file__).parents[2]
"""Source root: the folder that the package lies in."""
_PACKAGE = "teachonce"


def module_files(start: str, root: Path = ROOT) -> frozenset[str]:
    """Files of the modules that a file imports, and of those that they import, itself included.

    An import counts wherever in a file it stands: also within a function.

    Args:
        start: the file, relative to the root.
        root: the source root.

    Returns:
        Paths relative to the root, with forward slashes.

    Raises:
        ValueError: an import is relative; its module would be missed.
    """
    return frozenset(_trees(start, root))


def direct_imports(name: str, root: Path = ROOT) -> frozenset[str]:
    """Files of the modules that one file imports; arguments and result as those of `module_files`."""
    return _imports(name, _tree(name, root), root)


@cache
def code_digest(start: str, exempt: frozenset[str] = frozenset(), root: Path = ROOT) -> str:
    """Digest of the code of `module_files`: of its statements, not of comments, docstrings and layout.

    Python's own dump of a syntax tree differs from release to release; this one names only fields that hold something,
    so that 3.11, 3.12 and 3.13 agree. Where one parses otherwise, the digest is another, and work is done again.

    Args:
        start: the file, relative to the root.
        exempt: files to leave out, relative to the root; what they import is not left out.
        root: the source root.

    Returns:
        BLAKE2b-128, as 32 hex digits.
    """
    code = [[name, _plain(tree)] for name, tree in sorted(_trees(start, root).items()) if name not in exempt]
    return hashing.json_digest(code)


def _trees(start: str, root: Path) -> dict[str, ast.Module]:
    pending, trees = [start], dict[str, ast.Module]()
    while pending:
        name = pending.pop()
        if name not in trees:
            trees[name] = _tree(name, root)
            pending += _imports(name, trees[name], root)
    return trees


def _tree(name: str, root: Path) -> ast.Module:
    return ast.parse((root / name).read_bytes())


def _imports(name: str, tree: ast.Module, root: Path) -> frozenset[str]:
    candidates: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            candidates |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{name}: relative import")
            candidates |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    # `from a import b` may name a module b or a thing in module a: both are tried, and what is no file is no module.
    ours = (module for module in candidates if module.split(".")[0] == _PACKAGE)
    files = (f"{module.replace('.', '/')}.py" for module in ours)
    return frozenset(file for file in files if (root / file).is_file())


def _plain(value: object) -> object:
    """A part of a syntax tree as plain data, without positions and docstrings."""
    if isinstance(value, ast.AST):
        return [type(value).__name__, *_fields(value)]
    if isinstance(value, list):
        return [_plain(item) for item in value if not _is_docstring(item)]
    # By repr, which tells 1 from True and from a string.
    return repr(value)


def _fields(node: ast.AST) -> Iterator[object]:
    for name, value in ast.iter_fields(node):
        # Left out where empty: Python 3.12 gives each function a list of type parameters, which 3.11 does not have.
        if value is not None and value != []:
            yield [name, _plain(value)]


def _is_docstring(node: object) -> bool:
    """Whether it is a string that stands alone: the text of a module, a function, or a field above it."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
