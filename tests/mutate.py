"""One change of a folder of files, drawn from a seeded stream; for the tests of what nobody vouches for."""

import json
import os
import random  # noqa: TID251 - a seeded stream of test cases, no view and no order of training
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.base import errors

HUGE = (2**31, 2**53, 2**64, 10**30, -1, 0, 1e308, -(2**63), float("nan"), float("inf"))
ODD = (
    None,
    True,
    "",
    "x",
    [],
    {},
    [[]],
    "../../etc/passwd",
    0.5,
    "NaN",
    "\0",
    "\ud800",
    "a\nb",
    [1] * 9,
    {"a": {"b": 1}},
)
RAW = (
    b"",
    b"{",
    b"[]",
    b"null",
    b"1e999",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"9" * 10_000,
    b'{"a": NaN}',
    b"\xff\xfe\0",
)
LIMIT_S = 20.0
LINKS = ("/dev/zero", "/dev/null", "/nowhere", "/etc")


class Mutation:
    """One change of a folder."""

    def __init__(self, root: Path, other: Path, draw: random.Random, only: str = "") -> None:
        """Take a folder.

        Args:
            root: to be changed.
            other: one of the same files, of another run.
            draw: decides.
            only: the name of the JSON files that are changed; by default all.
        """
        self._root, self._other, self._draw = root, other, draw
        # After a change of others, what is still a file.
        self._files = sorted(path for path in root.rglob("*") if path.is_file() and 0 < path.stat().st_size < 1 << 30)
        self._json = [path for path in self._files if path.suffix == ".json" and only in {"", path.name}]

    def apply(self) -> str:
        """Change it; in words, what was done, its kind first."""
        if not self._files:
            return "nothing"
        kinds: dict[Callable[[], object], int] = {
            self.flip: 6,
            self.cut: 3,
            self.empty: 1,
            self.grow: 2,
            self.delete: 1,
            self.swap: 3,
            self.borrow: 4,
            self.link: 3,
            self.pipe: 2,
            self.folder: 2,
            self.noise: 2,
            self.parent: 1,
        }
        if self._json:
            kinds |= {self.value: 9, self.drop: 4, self.add: 2, self.nudge: 3, self.raw: 3, self.deepen: 1}
        kind = self._draw.choices(list(kinds), list(kinds.values()))[0]
        return f"{kind.__name__} {kind()}"

    def _file(self) -> Path:
        return self._draw.choice(self._files)

    def flip(self) -> Path:
        path = self._file()
        data = bytearray(path.read_bytes())
        # Heads are short, and decide more.
        within = self._draw.choice((len(data), min(len(data), 400)))
        for _ in range(self._draw.choice((1, 1, 1, 8))):
            data[self._draw.randrange(within)] ^= 1 << self._draw.randrange(8)
        path.write_bytes(data)
        return path

    def cut(self) -> Path:
        path = self._file()
        data = path.read_bytes()
        path.write_bytes(data[: self._draw.choice((self._draw.randrange(len(data)), len(data) - 1))])
        return path

    def empty(self) -> Path:
        path = self._file()
        path.write_bytes(b"")
        return path

    def grow(self) -> Path:
        path = self._file()
        with path.open("r+b") as stream:
            stream.truncate(path.stat().st_size + self._draw.choice((1, 4096, 1 << 40)))
        return path

    def delete(self) -> Path:
        path = self._file()
        path.unlink()
        return path

    def swap(self) -> str:
        one, two = self._draw.choice(self._files), self._draw.choice(self._files)
        first = one.read_bytes()
        one.write_bytes(two.read_bytes())
        two.write_bytes(first)
        return f"{one} {two}"

    def borrow(self) -> Path:
        path = self._file()
        path.write_bytes((self._other / path.relative_to(self._root)).read_bytes())
        return path

    def link(self) -> str:
        path = self._file()
        path.unlink()
        to = self._draw.choice((*LINKS, path.name))
        path.symlink_to(to)
        return f"{path} to {to}"

    def pipe(self) -> Path:
        path = self._file()
        path.unlink()
        os.mkfifo(path)
        return path

    def folder(self) -> Path:
        path = self._file()
        path.unlink()
        (path / "deep").mkdir(parents=True)
        return path

    def noise(self) -> Path:
        path = self._file()
        path.write_bytes(self._draw.randbytes(self._draw.choice((1, 8, 64, 5000))))
        return path

    def parent(self) -> Path:
        """A file in place of the folder that it was in."""
        path = self._file().parent
        if path == self._root:
            return self.empty()
        path.rename(path.with_name("away"))
        path.write_bytes(b"x")
        return path

    def raw(self) -> Path:
        path = self._draw.choice(self._json)
        path.write_bytes(self._draw.choice(RAW))
        return path

    def deepen(self) -> str:
        path, data, places = self._places()
        parent, key, where = self._draw.choice(places)
        parent[key] = "HERE"
        depth = self._draw.choice((200, 900, 5000, 200_000))
        path.write_text(json.dumps(data).replace('"HERE"', "[" * depth + "]" * depth))
        return f"{where} by {depth}"

    def value(self) -> str:
        def act(parent, key):
            if isinstance(parent[key], str) and self._draw.random() < 0.3:
                parent[key] = parent[key][::-1]
            else:
                parent[key] = self._draw.choice(HUGE if self._draw.random() < 0.5 else ODD)

        return self.edit(act)

    def drop(self) -> str:
        return self.edit(lambda parent, key: parent.__delitem__(key))

    def add(self) -> str:
        def act(parent, key):
            if isinstance(parent, list):
                parent.append(parent[key])
            else:
                parent[f"{key}_"] = parent[key]

        return self.edit(act)

    def nudge(self) -> str:
        """A number or a letter beside: the smallest lie."""

        def act(parent, key):
            value = parent[key]
            if isinstance(value, bool):
                parent[key] = not value
            elif isinstance(value, int | float):
                parent[key] = value + self._draw.choice((-1, 1, 0.5))
            elif isinstance(value, str) and value:
                parent[key] = value[:-1] + chr(ord(value[-1]) ^ 1)

        return self.edit(act)

    def edit(self, act: Callable[..., object]) -> str:
        """Let `act` change one place of a JSON file; where, and what was there."""
        path, data, places = self._places()
        parent, key, where = self._draw.choice(places)
        before = repr(parent[key])[:40]
        act(parent, key)
        path.write_text(json.dumps(data))
        return f"{where}, was {before}"

    def _places(self) -> tuple[Path, object, list[tuple[object, object, str]]]:
        path = self._draw.choice(self._json)
        data = json.loads(path.read_text())
        places = []

        def walk(node, where):
            for key in list(node) if isinstance(node, dict) else range(len(node)):
                places.append((node, key, f"{where}.{key}"))
                if isinstance(node[key], dict | list):
                    walk(node[key], f"{where}.{key}")

        walk(data, path.name)
        return path, data, places


def draw(*parts: object) -> random.Random:
    """A stream of its own for each change."""
    return random.Random(" ".join(map(str, parts)))  # noqa: S311


class Tally:
    """Outcomes of many changes; a run shows all holes at once."""

    def __init__(self, label: str) -> None:
        self.outcomes: Counter[str] = Counter()
        self._label, self._escaped = label, []

    def take(self, told: str, act: Callable[[], str]) -> None:
        """Count what `act` says came of a change, or that it escaped."""
        try:
            with limit(LIMIT_S):
                self.outcomes[act()] += 1
        except Exception as error:  # collected
            self.outcomes["escaped"] += 1
            self._escaped.append(f"{told}: {type(error).__name__}: {str(error)[:300]}")

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
