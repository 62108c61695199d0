"""A good store, changed at random: refused in one line, or nothing of what it says has changed.

python -m pytest tests/cache/test_fuzz.py -s      # prints the count of each outcome
"""

import base64
import collections
import json
import random  # noqa: TID251 - a seeded stream of test cases, no view and no order of training
import resource
import shutil
import time
import tracemalloc
from pathlib import Path

import changes
import numpy as np
import pytest

from pipeline.audit import run
from pipeline.base import errors, hashing
from pipeline.cache import basis, identity, read, schema, target

MUTATIONS = changes.COUNT
LIMIT_S = 5.0
"""For one mutation; an honest store takes a fiftieth of it."""
LIMIT_BYTES = 8 << 20
"""Allocated at a time by Python and NumPy for one mutation; an honest store takes a seventh of it."""
HEADROOM_BYTES = 1 << 30
"""Of address space, whoever asks for it."""

HUGE = (2**31, 2**32 - 1, 2**53, 2**63, 2**64, 10**30, -1, 0, 1e308, -(2**63))
ODD = (None, True, "", "x", [], {}, [[]], "../../etc/passwd", 0.5, "NaN", "\u0000", [1] * 9, {"a": {"b": 1}})
RAW = (b"", b"{", b"[]", b"null", b"1e999", b"[" * 100_000, b"9" * 10_000, b'{"a": NaN}', b"\xff\xfe\x00")
BASIS = basis.Basis(np.linspace(-3, 0, 12, dtype=np.float32), np.ones(12, np.float32), np.eye(4, 12, dtype=np.float32))


def everything(made, path: Path) -> list[np.ndarray]:
    """All that a consumer may take from a store, after all that it must check."""
    cache = read.open(path)
    ask = identity.Ask(made.recipe.policy, 4)
    identity.require(cache, made.shards, "train", ask)
    drifts, checked = identity.first_canaries(cache, made.shards, "train", 99)
    if drifts:
        raise errors.ViewDriftError(identity.drift_message(cache, drifts, checked))
    found = [np.array(checked), *(cache.basis.arrays().values() if cache.basis else ())]
    sketch = target.sketch(cache.recipe, cache.basis)
    for shard in made.shards.index.of_split("train"):
        tar = cache.tar(shard.sha256)
        found += [np.array(cache.keys(tar)), cache.canary(tar)]
        for seed in range(4):
            rows = cache.block(tar, seed)
            found += rows.arrays().values()
            if cache.recipe.k != "all":
                found.append(target.full(target.tensors(rows), len(made.shards.index.classes), sketch).numpy())
        for group in (0, 1):
            found += [array for rows in cache.blocks(tar, group) for array in rows.arrays().values()]
    return found


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True)
    )


class Mutation:
    """One change of a store, drawn from a seeded stream."""

    def __init__(self, root: Path, other: Path, draw: random.Random) -> None:
        self._root = root
        self._other_store = other
        self._draw = draw
        self._files = sorted(path for path in root.rglob("*") if path.is_file())

    def apply(self) -> str:
        kinds = {
            self.flip: 5, self.cut: 3, self.delete: 2, self.rename: 2, self.swap: 4, self.replace: 2, self.raw: 3,
            self.link: 1, self.borrow: 4, self.value: 12, self.drop: 3, self.add: 2, self.forge: 3, self.shuffle: 2,
            self.move: 2,
        }  # fmt: skip
        kind = self._draw.choices(list(kinds), list(kinds.values()))[0]
        return f"{kind.__name__} {kind()}"

    def _file(self, *, json_only: bool = False) -> Path:
        return self._draw.choice([path for path in self._files if path.suffix == ".json" or not json_only])

    def flip(self) -> Path:
        path = self._file()
        data = bytearray(path.read_bytes())
        for _ in range(self._draw.choice((1, 1, 1, 8))):
            data[self._draw.randrange(len(data))] ^= 1 << self._draw.randrange(8)
        path.write_bytes(bytes(data))
        return path

    def cut(self) -> Path:
        path = self._file()
        data = path.read_bytes()
        path.write_bytes(data[: self._draw.randrange(len(data))])
        return path

    def delete(self) -> Path:
        path = self._file()
        path.unlink()
        return path

    def rename(self) -> Path:
        path = self._draw.choice(sorted(self._root.rglob("*")))
        path.rename(path.with_name(path.name + self._draw.choice(("0", ".bak"))))
        return path

    def swap(self) -> Path:
        one, other = self._draw.sample(self._files, 2)
        first = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(first)
        return one

    def replace(self) -> Path:
        path = self._file()
        path.write_bytes(self._draw.choice(self._files).read_bytes())
        return path

    def borrow(self) -> Path:
        """The same file of another teacher's store of the same shape."""
        path = self._file()
        path.write_bytes((self._other_store / path.relative_to(self._root)).read_bytes())
        return path

    def raw(self) -> Path:
        path = self._file(json_only=True)
        path.write_bytes(self._draw.choice(RAW))
        return path

    def link(self) -> Path:
        path = self._file()
        path.unlink()
        path.symlink_to(self._draw.choice(("/dev/zero", "/dev/null", "/nowhere", "/etc", path.name)))
        return path

    def forge(self) -> Path:
        """An object changed together with its sha256."""
        path = self._file()
        before = hashing.sha256_file(path)
        self._files = [path]
        self.flip() if self._draw.random() < 0.7 else self.cut()
        records = self._root / "units.json"
        text = records.read_bytes().replace(before.encode(), hashing.sha256_file(path).encode())
        records.write_bytes(text)
        return path

    def value(self) -> str:
        return self._edit(lambda parent, key: parent.__setitem__(key, self._other(parent[key])))

    def drop(self) -> str:
        return self._edit(lambda parent, key: parent.__delitem__(key))

    def add(self) -> str:
        def act(parent, key):
            if isinstance(parent, list):
                parent.append(parent[key])
            else:
                parent[f"{key}_"] = parent[key]

        return self._edit(act)

    def shuffle(self) -> str:
        """Two neighbours change places: two tars, two units, two digests."""

        def act(parent, key):
            other = self._draw.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
            parent[key], parent[other] = parent[other], parent[key]

        return self._edit(act)

    def move(self) -> str:
        """A number one higher or lower, the smallest lie."""
        numbers = (int, float)
        return self._edit(
            lambda parent, key: parent.__setitem__(
                key, parent[key] + self._draw.choice((-1, 1)) if isinstance(parent[key], numbers) else parent[key]
            )
        )

    def _other(self, value: object) -> object:
        if isinstance(value, str) and self._draw.random() < 0.3:
            return value[::-1]
        if isinstance(value, str) and self._draw.random() < 0.2:
            return base64.b64encode(value.encode()).decode() * 3
        return self._draw.choice(HUGE if self._draw.random() < 0.6 else ODD)

    def _edit(self, act) -> str:
        path = self._file(json_only=True)
        data = json.loads(path.read_text())
        places = []

        def walk(node, where):
            for key in list(node) if isinstance(node, dict) else range(len(node)):
                places.append((node, key, f"{where}.{key}"))
                if isinstance(node[key], dict | list):
                    walk(node[key], f"{where}.{key}")

        walk(data, path.relative_to(self._root).as_posix())
        parent, key, where = self._draw.choice(places)
        before = repr(parent[key])[:40]
        act(parent, key)
        path.write_text(json.dumps(data))
        return f"{where}, was {before}"


@pytest.fixture
def bounded():
    """Less memory than a store could claim."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + HEADROOM_BYTES, before[1]))
    tracemalloc.start()
    yield
    tracemalloc.stop()
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(params=[3, "all", "coded"])
def pair(request, recipe, shards, write_store_at, tmp_path):
    """A store, and that of another teacher: the same tars, views and shapes."""
    stores = []
    for name in ("one", "other"):
        row = recipe(3 if request.param == "coded" else request.param)
        teacher = row.teacher.model_copy(update={"weights_sha256": hashing.sha256(name.encode())})
        row = row.model_copy(update={"teacher": teacher})
        tail = None
        if request.param == "coded":
            coded = schema.TransformTail(rank=4, step=0.5, basis_sha256=BASIS.sha256(0.5))
            row, tail = row.model_copy(update={"tail": coded}), BASIS
        path = tmp_path / name / "train.zarr"
        salt = 100 * len(stores)
        stores.append(write_store_at(path, shards, row, aug_seeds=4, seeds_per_unit=2, tail=tail, salt=salt))
    return stores


def outcome(made, path: Path, expected: list[np.ndarray]) -> str:
    """What a consumer meets, and whether the audit knew."""
    try:
        found = everything(made, path)
    except errors.TeachonceError as error:
        text, kind = str(error), type(error).__name__
    else:
        assert same(found, expected), "read, and not what was written"
        text, kind = "", "harmless"
    assert "\n" not in text, f"not one line: {text}"
    assert len(text) < 2000, f"long: {text}"
    assert not any(word in text for word in ("MemoryError", "allocate")), f"memory ran out: {text}"
    paths = run.Paths(path.parent, made.shards.base)
    audited = run.audit(paths, out=path.parents[1] / "out", rows=1, seed=0)
    assert audited.findings or not text, f"refused, and the audit has no findings: {text}"
    return kind


def test_the_bounds_are_felt(bounded):
    with pytest.raises(MemoryError):
        bytes(2 * HEADROOM_BYTES)
    with pytest.raises(MemoryError):
        np.empty(2 * HEADROOM_BYTES, np.uint8)
    tracemalloc.reset_peak()
    np.empty(2 * LIMIT_BYTES, np.uint8)
    assert tracemalloc.get_traced_memory()[1] > LIMIT_BYTES


def test_a_changed_store_is_refused_or_says_the_same(pair, tmp_path, bounded, request):
    made, other = pair
    expected = everything(made, made.path)
    assert not same(everything(other, other.path), expected)
    outcomes: collections.Counter[str] = collections.Counter()
    escaped = []
    most_bytes = 0
    for number in range(MUTATIONS):
        path = tmp_path / "cache/train.zarr"
        shutil.copytree(made.path, path)
        for item in path.rglob("*"):
            item.chmod(0o755 if item.is_dir() else 0o644)
        told = Mutation(path, other.path, random.Random(f"{request.node.name}-{number}")).apply()  # noqa: S311
        began = time.perf_counter()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        try:
            found = outcome(made, path, expected)
        except Exception as error:  # collected: a run shows all holes at once
            found = "escaped"
            escaped.append(f"{number}: {told.replace(str(tmp_path), '')}: {type(error).__name__}: {str(error)[:300]}")
        took_s = time.perf_counter() - began
        took_bytes = tracemalloc.get_traced_memory()[1] - before
        most_bytes = max(most_bytes, took_bytes)
        if took_s > LIMIT_S or took_bytes > LIMIT_BYTES:
            escaped.append(f"{number}: {told}: took {took_s:.1f} s, {took_bytes:,} bytes")
        outcomes[found] += 1
        shutil.rmtree(path)
    print(f"\n{request.node.name}: {outcomes.total()} mutations: {dict(outcomes.most_common())}, {most_bytes:,} bytes")
    assert not escaped, "\n".join(escaped)
    assert outcomes["harmless"] < outcomes.total() / 3
