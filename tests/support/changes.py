"""Random changes of files, from seeded streams, and what becomes of them; for what nobody vouches for.

Each suite makes 30 changes by default; `make fuzz` makes 500 (TEACHONCE_FUZZ).
"""

import json
import operator
import os
import random  # noqa: TID251 - a seeded stream of test cases, no view and no order of training
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from teachonce.core import errors

COUNT = int(os.environ.get("TEACHONCE_FUZZ", "30"))
"""Changes that a suite makes."""
LIMIT_S = 20.0
"""For one change, what an honest file takes being far less: more is a hang."""

HUGE = (2**31, 2**32 - 1, 2**53, 2**63, 2**64, 10**30, -1, 0, 1e308, -(2**63), float("nan"), float("inf"))
ODD = (None, True, "", "x", [], {}, [[]], "../../etc/passwd", 0.5, "NaN", "\0", "\ud800", "a\nb", [1] * 9, {"a": {}})
RAW = (b"", b"{", b"[]", b"null", b"1e999", b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000, b'{"a": NaN}', b"\xff\0")
LINKS = ("/dev/zero", "/dev/null", "/nowhere", "/etc")
MOST_BYTES = 1 << 30
"""Of a file that is changed once more."""

Edit = Callable[..., object]
Place = tuple[object, object, str]


def stream(*parts: object) -> random.Random:
    """A stream of its own for each change."""
    return random.Random(" ".join(map(str, parts)))  # noqa: S311


class Bytes:
    """Changes that suit any file."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw

    def any(self, path: Path, *, grow: bool = True) -> str:
        """One of them; in words, what was done, its kind first. `grow=False` leaves files that take long to read."""
        often = (self.flip,) * 4 + (self.cut,) * 2
        rarely = (*((self.grow,) if grow else ()), self.delete, self.pipe, self.folder, self.link)
        kind = self._draw.choice((*often, self.repeat, self.blank, self.noise, self.raw, *rarely))
        kind(path)
        return f"{kind.__name__} {path}"

    def flip(self, path: Path) -> None:
        """Some bits."""
        data = bytearray(path.read_bytes())
        # Heads are short, and decide more.
        within = self._draw.choice((len(data), min(len(data), 400)))
        for _ in range(self._draw.choice((1, 1, 1, 8)) if data else 0):
            data[self._draw.randrange(within)] ^= 1 << self._draw.randrange(8)
        path.write_bytes(data)

    def cut(self, path: Path) -> None:
        """Lose the end, or its last byte."""
        data = path.read_bytes()
        path.write_bytes(data[: self._draw.choice((self._draw.randrange(len(data) + 1), max(0, len(data) - 1)))])

    def grow(self, path: Path) -> None:
        """Have zeros behind its end, up to a terabyte of them."""
        os.truncate(path, path.stat().st_size + self._draw.choice((1, 4096, 1 << 40)))

    def repeat(self, path: Path) -> None:
        """Have a part twice."""
        data = path.read_bytes()
        first, last = sorted(self._draw.randrange(len(data) + 1) for _ in range(2))
        path.write_bytes(data[:last] + data[first:])

    def blank(self, path: Path) -> None:
        """Have zeros in place of a part, as after a crash of a file system."""
        data = bytearray(path.read_bytes())
        first, last = sorted(self._draw.randrange(len(data) + 1) for _ in range(2))
        data[first:last] = bytes(last - first)
        path.write_bytes(data)

    def noise(self, path: Path) -> None:
        """Have any content."""
        path.write_bytes(self._draw.randbytes(self._draw.choice((1, 8, 64, 5000))))

    def raw(self, path: Path) -> None:
        """Have content that parsers stumble over."""
        path.write_bytes(self._draw.choice(RAW))

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
        (path / "deep").mkdir(parents=True)

    def link(self, path: Path) -> None:
        """Be a link to what is read without end, to nothing, or to itself."""
        path.unlink()
        path.symlink_to(self._draw.choice((*LINKS, path.name)))


class Json:
    """Changes of plain data in one place."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw

    def any(self, path: Path) -> str:
        """One of them; in words, what was done, its kind first."""
        if self._draw.random() < 0.05:
            return f"deepen {self.deepen(path)}"
        often = (self.value,) * 4 + (self.drop,) * 2
        kind = self._draw.choice((*often, self.add, self.swap, self.nudge, self.nudge))
        return f"{kind.__name__} {self.edit(path, kind)}"

    def edit(self, path: Path, act: Edit) -> str:
        """Let `act` change one place, given by its parent and key; where, and what was there."""
        data = json.loads(path.read_text())
        parent, key, where = self._draw.choice(list(places(data, path.name)))
        before = repr(parent[key])[:40]
        act(parent, key)
        path.write_text(json.dumps(data))
        return f"{where}, was {before}"

    def deepen(self, path: Path) -> str:
        """Lists in lists, too many of them."""
        depth = self._draw.choice((200, 900, 5000, 200_000))
        where = self.edit(path, lambda parent, key: operator.setitem(parent, key, "HERE"))
        path.write_text(path.read_text().replace('"HERE"', "[" * depth + "]" * depth))
        return f"{where}, by {depth}"

    def value(self, parent, key) -> None:
        """Another value."""
        if isinstance(parent[key], str) and self._draw.random() < 0.3:
            parent[key] = parent[key][::-1]
        else:
            parent[key] = self._draw.choice(HUGE if self._draw.random() < 0.5 else ODD)

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
        """Two neighbours change places: two tars, two units, two digests."""
        other = self._draw.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
        parent[key], parent[other] = parent[other], parent[key]

    def nudge(self, parent, key) -> None:
        """A number or a letter beside: the smallest lie."""
        value = parent[key]
        if isinstance(value, bool):
            parent[key] = not value
        elif isinstance(value, int | float):
            parent[key] = value + self._draw.choice((-1, 1, 0.5))
        elif isinstance(value, str) and value:
            parent[key] = value[:-1] + chr(ord(value[-1]) ^ 1)


def places(node: object, where: str) -> Iterator[Place]:
    """Parent, key and path of everything in plain data."""
    for key in list(node) if isinstance(node, dict) else range(len(node)):
        yield node, key, f"{where}.{key}"
        if isinstance(node[key], dict | list):
            yield from places(node[key], f"{where}.{key}")


class Folder:
    """One change of a folder of files."""

    def __init__(self, root: Path, other: Path, draw: random.Random) -> None:
        """Take a folder.

        Args:
            root: to be changed.
            other: one of the same files, of another run.
            draw: decides.
        """
        self._root, self._other, self._draw = root, other, draw
        # After a change of others, what is still a file.
        self._files = sorted(
            path for path in root.rglob("*") if path.is_file() and 0 < path.stat().st_size < MOST_BYTES
        )

    def apply(self) -> str:
        """Change it; in words, what was done, its kind first."""
        if not self._files:
            return "nothing"
        path = self._draw.choice(self._files)
        if path.suffix == ".json" and self._draw.random() < 0.6:
            return Json(self._draw).any(path)
        if self._draw.random() < 0.7:
            return Bytes(self._draw).any(path)
        kind = self._draw.choice((self._swap, self._borrow, self._borrow, self._parent))
        kind(path)
        return f"{kind.__name__[1:]} {path}"

    def _swap(self, path: Path) -> None:
        other = self._draw.choice(self._files)
        first = path.read_bytes()
        path.write_bytes(other.read_bytes())
        other.write_bytes(first)

    def _borrow(self, path: Path) -> None:
        path.write_bytes((self._other / path.relative_to(self._root)).read_bytes())

    def _parent(self, path: Path) -> None:
        """A file in place of the folder that it was in."""
        folder = path.parent
        if folder == self._root:
            path.write_bytes(b"")
            return
        folder.rename(folder.with_name("away"))
        folder.write_bytes(b"x")


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


class Tally:
    """Outcomes of many changes; a run shows all holes at once."""

    def __init__(self, label: str) -> None:
        self.outcomes: Counter[str] = Counter()
        self._label, self._escaped = label, []

    def take(self, change: str, act: Callable[[], str]) -> None:
        """Count what `act` says came of a change, or that it escaped."""
        try:
            with limit(LIMIT_S):
                self.outcomes[act()] += 1
        except Exception as error:  # collected
            self.outcomes["escaped"] += 1
            self._escaped.append(f"{change}: {type(error).__name__}: {str(error)[:300]}")

    def end(self) -> None:
        """Print the counts; fail where anything escaped."""
        print(f"\n{self._label}: {self.outcomes.total()} changes: {dict(self.outcomes.most_common())}")
        assert not self._escaped, "\n".join(self._escaped)


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """TimeoutError where it takes longer: a hang must be counted, not waited for."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def refusal(act: Callable[[], object]) -> tuple[object, str]:
    """What it gives and no text, or nothing and the one line by which it is refused."""
    try:
        return act(), ""
    except errors.TeachonceError as error:
        text = str(error)
    assert "\n" not in text, f"not one line: {text}"
    assert 0 < len(text) < 2000, f"long: {text}"
    return None, text
