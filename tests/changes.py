"""Random changes of files, from a seeded stream: what the fuzz suites of several folders share.

Each suite makes 60 changes by default; `make fuzz` makes 500 (TEACHONCE_FUZZ).
"""

import collections
import json
import os
import random  # noqa: TID251 - a seeded stream of test cases, no view and no order of training
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

COUNT = int(os.environ.get("TEACHONCE_FUZZ", "60"))
"""Changes that a suite makes."""
LIMIT_S = 10.0
"""For one change, what an honest file takes being far less: more is a hang."""

HUGE = (2**31, 2**32 - 1, 2**53, 2**63, 2**64, 10**30, -1, 0, 1e308, -(2**63))
ODD = (None, True, "", "x", [], {}, [[]], "../../etc/passwd", 0.5, "NaN", "\u0000", [1] * 9, {"a": {"b": 1}})
RAW = (b"", b"{", b"[]", b"null", b"1e999", b"[" * 100_000, b"9" * 10_000, b'{"a": NaN}', b"\xff\xfe\x00")


class Bytes:
    """Changes that suit any file."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw

    def flip(self, path: Path) -> None:
        """Some bits."""
        data = bytearray(path.read_bytes())
        for _ in range(self.draw.choice((1, 1, 1, 8)) if data else 0):
            data[self.draw.randrange(len(data))] ^= 1 << self.draw.randrange(8)
        path.write_bytes(bytes(data))

    def cut(self, path: Path) -> None:
        """Lose the end."""
        data = path.read_bytes()
        path.write_bytes(data[: self.draw.randrange(max(1, len(data)))])

    def repeat(self, path: Path) -> None:
        """Have a part twice."""
        data = path.read_bytes()
        first, last = sorted(self.draw.randrange(len(data) + 1) for _ in range(2))
        path.write_bytes(data[:last] + data[first:])

    def blank(self, path: Path) -> None:
        """Have zeros in place of a part, as after a crash of a file system."""
        data = bytearray(path.read_bytes())
        first, last = sorted(self.draw.randrange(len(data) + 1) for _ in range(2))
        data[first:last] = bytes(last - first)
        path.write_bytes(bytes(data))

    def raw(self, path: Path) -> None:
        """Have other content."""
        path.write_bytes(self.draw.choice(RAW))

    def delete(self, path: Path) -> None:
        """Be missing."""
        path.unlink()

    def pipe(self, path: Path) -> None:
        """Be what would be waited for."""
        path.unlink()
        os.mkfifo(path)

    def folder(self, path: Path) -> None:
        """Be a folder."""
        path.unlink()
        path.mkdir()

    def link(self, path: Path) -> None:
        """Be a link to what is read without end, to nothing, or to itself."""
        path.unlink()
        path.symlink_to(self.draw.choice(("/dev/zero", "/dev/null", "/nowhere", "/etc", path.name)))

    def any(self, path: Path) -> str:
        """One of them."""
        often = (self.flip,) * 4 + (self.cut,) * 2
        rarely = (self.delete, self.pipe, self.folder, self.link)
        kind = self.draw.choice((*often, self.repeat, self.blank, self.raw, *rarely))
        kind(path)
        return f"{kind.__name__} {path.name}"


class Json:
    """Changes of plain data."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw

    def any(self, data: object) -> str:
        """Change the data in one place."""
        places: list[tuple[object, object, str]] = []

        def walk(node: object, where: str) -> None:
            for key in list(node) if isinstance(node, dict) else range(len(node)):
                places.append((node, key, f"{where}.{key}"))
                if isinstance(node[key], dict | list):
                    walk(node[key], f"{where}.{key}")

        walk(data, "")
        parent, key, where = self.draw.choice(places)
        before = repr(parent[key])[:40]
        kind = self.draw.choice((self.value, self.value, self.value, self.drop, self.add, self.swap, self.move))
        kind(parent, key)
        return f"{kind.__name__} {where}, was {before}"

    def value(self, parent, key) -> None:
        """Another value."""
        value = parent[key]
        if isinstance(value, str) and self.draw.random() < 0.3:
            parent[key] = value[::-1]
        else:
            parent[key] = self.draw.choice(HUGE if self.draw.random() < 0.6 else ODD)

    def drop(self, parent, key) -> None:
        """No value."""
        del parent[key]

    def add(self, parent, key) -> None:
        """One more."""
        if isinstance(parent, list):
            parent.append(parent[key])
        else:
            parent[f"{key}_"] = parent[key]

    def swap(self, parent, key) -> None:
        """Two neighbours change places."""
        other = self.draw.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
        parent[key], parent[other] = parent[other], parent[key]

    def move(self, parent, key) -> None:
        """A number one higher or lower, the smallest lie."""
        if isinstance(parent[key], int | float):
            parent[key] += self.draw.choice((-1, 1))

    def file(self, path: Path) -> str:
        """Change the data of a JSON file in one place."""
        data = json.loads(path.read_text())
        what = self.any(data)
        path.write_text(json.dumps(data))
        return f"{path.name}: {what}"


def streams(seed: str) -> Iterator[tuple[int, random.Random]]:
    """A number and a stream of its own for each change."""
    for number in range(COUNT):
        yield number, random.Random(f"{seed} {number}")  # noqa: S311


@contextmanager
def fresh(source: Path, root: Path) -> Iterator[Path]:
    """A writable copy of a folder, removed at the end."""
    shutil.copytree(source, root)
    for path in root.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    try:
        yield root
    finally:
        shutil.rmtree(root)


class Outcomes:
    """How often each outcome was met."""

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()

    def of(self, what: str, act: Callable[[], str]) -> None:
        """Note what became of a change, which must be quick."""
        began = time.perf_counter()
        try:
            outcome = act()
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
        assert time.perf_counter() - began < LIMIT_S, f"{what}: took {time.perf_counter() - began:.1f} s"
        self.counts[outcome] += 1
