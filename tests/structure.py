"""Figures of the code's structure against their limits; `make lint` runs it.

    python tests/structure.py [--names]

Names that several modules share are counted at the top level and public; `main`, `read`, `load` and `save` may be
shared. Comment lines are those that hold a comment alone, among all lines that are not empty. `--names` lists what is
shared.
"""

import argparse
import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHARED_BY_RIGHT = {"main", "read", "load", "save"}
CONVENTIONAL = {"np", "npt", "F", "mpl"}
"""Aliases by which everybody calls numpy, its typing, torch's functions and matplotlib."""


@dataclass(frozen=True)
class Figure:
    """One figure and the range it must be in."""

    title: str
    value: float
    most: float
    least: float = 0.0

    def is_met(self) -> bool:
        """Whether it is."""
        return self.least <= self.value <= self.most

    def line(self) -> str:
        """The figure as text."""
        limits = f"{self.least:g} to {self.most:g}" if self.least else f"at most {self.most:g}"
        return f"{self.title:56} {self.value:7.4g}   {limits}{'' if self.is_met() else '   MISSED'}"


def sources(*folders: str) -> Iterator[Path]:
    """The Python files of some folders."""
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def shared(kinds: tuple[type, ...]) -> tuple[dict[str, list[str]], float]:
    """Public names that several modules give, with the modules; and their share of all in percent."""
    names: defaultdict[str, list[str]] = defaultdict(list)
    for path in sources("pipeline", "stages"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, kinds) and not node.name.startswith("_") and node.name not in SHARED_BY_RIGHT:
                names[node.name].append(path.stem)
    several = {name: modules for name, modules in names.items() if len(modules) > 1}
    return several, 100 * sum(map(len, several.values())) / sum(map(len, names.values()))


def aliases(paths: Iterable[Path]) -> int:
    """Count of `import … as …`, but for those that everybody writes."""
    nodes = (node for path in paths for node in ast.walk(ast.parse(path.read_text())))
    imports = (node.names for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))
    return sum(bool(name.asname) and name.asname not in CONVENTIONAL for names in imports for name in names)


def comments(paths: Iterable[Path]) -> float:
    """Lines of comment in percent."""
    lines = [line.strip() for path in paths for line in path.read_text().splitlines() if line.strip()]
    return 100 * sum(line.startswith("#") for line in lines) / len(lines)


def unformatted(paths: Iterable[Path]) -> int:
    """Places that the formatter must pass over."""
    return sum(path.read_text().count("fmt: " + word) for path in paths for word in ("skip", "off"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", action="store_true")
    args = parser.parse_args()
    functions, share_functions = shared((ast.FunctionDef, ast.AsyncFunctionDef))
    classes, share_classes = shared((ast.ClassDef,))
    code = list(sources("pipeline", "stages"))
    figures = [
        Figure("functions whose name another module's has, %", share_functions, 10),
        Figure("classes whose name another module's has, %", share_classes, 4),
        Figure("import … as", aliases(code), 16),
        Figure("comments, % of lines", comments(code), 8, least=3),
        Figure("fmt: skip, tests too", unformatted([*code, *sources("tests")]), 2),
        Figure("lines of dvc.yaml", len((ROOT / "dvc.yaml").read_text().splitlines()), 245),
    ]
    for figure in figures:
        print(figure.line())
    for name, modules in sorted({**functions, **classes}.items()) if args.names else ():
        print(f"{name}: {', '.join(modules)}")
    sys.exit(not all(figure.is_met() for figure in figures))


if __name__ == "__main__":
    main()
