"""A good store, changed at random: refused in one line, or nothing of what it says has changed.

python -m pytest tests/store/test_fuzz.py -s      # prints the count of each outcome
"""

import collections
import resource
import shutil
import time
import tracemalloc
from pathlib import Path

import address_space
import changes
import numpy as np
import pytest

from teachonce.audit import audit_cache
from teachonce.core import errors, hashing
from teachonce.format import basis, row_expansion, schema
from teachonce.store import compatibility, store_reader

MUTATIONS = changes.COUNT
LIMIT_S = 5.0
"""For one mutation; an honest store takes a fiftieth of it."""
LIMIT_BYTES = 8 << 20
"""Allocated at a time by Python and NumPy for one mutation; an honest store takes a seventh of it."""
HEADROOM_BYTES = 1 << 30
"""Of address space, whoever asks for it."""

BASIS = basis.Basis(np.linspace(-3, 0, 12, dtype=np.float32), np.ones(12, np.float32), np.eye(4, 12, dtype=np.float32))


def everything(store, path: Path) -> list[np.ndarray]:
    """All that a consumer may take from a store, after all that it must check."""
    cache = store_reader.open(path)
    ask = compatibility.Requirements(store.recipe.policy, 4)
    compatibility.require_compatible(cache, store.shards, "train", ask)
    drifts, checked = compatibility.replay_first_canaries(cache, store.shards, "train", 99)
    if drifts:
        raise compatibility.drift_error(cache, drifts, checked)
    arrays = [np.array(checked), *(cache.basis.arrays().values() if cache.basis else ())]
    sketch = row_expansion.tail_decoder(cache.recipe, cache.basis)
    for shard in store.shards.index.of_split("train"):
        tar = cache.tar(shard.sha256)
        arrays += [np.array(cache.keys(tar)), cache.canary(tar)]
        for seed in range(4):
            rows = cache.block(tar, seed)
            arrays += rows.arrays().values()
            if cache.recipe.k != "all":
                arrays.append(
                    row_expansion.full_logp(
                        row_expansion.to_tensors(rows), len(store.shards.index.classes), sketch
                    ).numpy()
                )
        for group in (0, 1):
            arrays += [array for rows in cache.blocks(tar, group) for array in rows.arrays().values()]
    return arrays


def same(arrays: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(arrays) == len(other) and all(
        np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(arrays, other, strict=True)
    )


class Store(changes.Folder):
    """One change of a store."""

    def apply(self) -> str:
        odds = self._draw.random()
        if odds < 0.05:
            return f"rename {self.rename()}"
        return f"forge {self.forge()}" if odds < 0.12 else super().apply()

    def rename(self) -> Path:
        path = self._draw.choice(sorted(self._root.rglob("*")))
        path.rename(path.with_name(path.name + self._draw.choice(("0", ".bak"))))
        return path

    def forge(self) -> Path:
        """An object changed together with its sha256."""
        path, edit = self._draw.choice(self._files), changes.Bytes(self._draw)
        before = hashing.sha256_file(path)
        (edit.flip if self._draw.random() < 0.7 else edit.cut)(path)
        records = self._root / "units.json"
        text = records.read_bytes().replace(before.encode(), hashing.sha256_file(path).encode())
        records.write_bytes(text)
        return path


@pytest.fixture
def bounded():
    """Less memory than a store could claim."""
    with address_space.limited(HEADROOM_BYTES):
        tracemalloc.start()
        yield
        tracemalloc.stop()


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


def outcome(store, path: Path, expected: list[np.ndarray]) -> str:
    """What a consumer meets, and whether the audit knew."""
    try:
        arrays = everything(store, path)
    except errors.TeachonceError as error:
        text, kind = str(error), type(error).__name__
    else:
        assert same(arrays, expected), "read, and not what was written"
        text, kind = "", "harmless"
    assert "\n" not in text, f"not one line: {text}"
    assert len(text) < 2000, f"long: {text}"
    assert not any(word in text for word in ("MemoryError", "allocate")), f"memory ran out: {text}"
    paths = audit_cache.AuditPaths(path.parent, store.shards.base)
    audited = audit_cache.audit(paths, out=path.parents[1] / "out", rows=1, seed=0)
    assert audited.findings or not text, f"refused, and the audit has no findings: {text}"
    return kind


def test_the_bounds_are_felt(bounded):
    # More than all of it, so that no memory freed before can serve it.
    limit_bytes = resource.getrlimit(resource.RLIMIT_AS)[0]
    with pytest.raises(MemoryError):
        bytes(limit_bytes)
    with pytest.raises(MemoryError):
        np.empty(limit_bytes, np.uint8)
    tracemalloc.reset_peak()
    np.empty(2 * LIMIT_BYTES, np.uint8)
    assert tracemalloc.get_traced_memory()[1] > LIMIT_BYTES


def test_a_changed_store_is_refused_or_says_the_same(pair, tmp_path, bounded, request):
    store, other = pair
    expected = everything(store, store.path)
    assert not same(everything(other, other.path), expected)
    outcomes: collections.Counter[str] = collections.Counter()
    escaped = []
    most_bytes = 0
    for number in range(MUTATIONS):
        path = tmp_path / "cache/train.zarr"
        shutil.copytree(store.path, path)
        for item in path.rglob("*"):
            item.chmod(0o755 if item.is_dir() else 0o644)
        change = Store(path, other.path, changes.stream(request.node.name, number)).apply()
        began = time.perf_counter()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        try:
            result = outcome(store, path, expected)
        except Exception as error:  # collected: a run shows all holes at once
            result = "escaped"
            escaped.append(f"{number}: {change.replace(str(tmp_path), '')}: {type(error).__name__}: {str(error)[:300]}")
        took_s = time.perf_counter() - began
        took_bytes = tracemalloc.get_traced_memory()[1] - before
        most_bytes = max(most_bytes, took_bytes)
        if took_s > LIMIT_S or took_bytes > LIMIT_BYTES:
            escaped.append(f"{number}: {change}: took {took_s:.1f} s, {took_bytes:,} bytes")
        outcomes[result] += 1
        shutil.rmtree(path)
    print(f"\n{request.node.name}: {outcomes.total()} mutations: {dict(outcomes.most_common())}, {most_bytes:,} bytes")
    assert not escaped, "\n".join(escaped)
    assert outcomes["harmless"] < outcomes.total() / 3
