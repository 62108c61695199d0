"""The transform tail through the cache stage: one basis for good, no view forwarded twice."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import reseal
import torch
from safetensors import numpy

from teachonce.cache import basis_fit, basis_reader
from teachonce.core import errors, files, hashing
from teachonce.format import row_expansion, row_frontier
from teachonce.prepare import tar_writer
from teachonce.shards import index, sample_reader


def computed(work: dict) -> tuple[int, int]:
    return work["val"]["units_computed"], work["train"]["units_computed"]


def test_no_view_is_forwarded_twice(coded, forwarded):
    assert computed(coded.make()) == (1, 6)
    assert forwarded() == 84 + 7
    coded.make()
    assert forwarded() == 84 + 7


def test_rows_come_nearer_to_the_teacher_than_a_flat_tail(coded, whole):
    coded.make()
    for split in ("train", "val"):
        cache, full = coded.open(split), whole.open(split)
        assert cache.recipe.format == 2
        sketch = row_expansion.tail_decoder(cache.recipe, cache.basis)
        row = row_expansion.to_tensors(cache.block(0, 0))
        logits_BC = torch.from_numpy(full.block(0, 0).logits_BC)
        for tau in (1, 2, 5):
            p_BC = (logits_BC / tau).softmax(dim=1)
            flat, near = (
                float((p_BC - (row_expansion.full_logp(row, 10, how) / tau).softmax(dim=1)).abs().sum(dim=1).mean() / 2)
                for how in (None, sketch)
            )
            assert near < 0.5 * flat
            recorded = cache.fidelity[f"k=2,tau={tau}"]["tv_mean"]
            assert recorded < 0.5 * flat
    assert coded.open("val").basis.sha256(1) == coded.open("train").basis.sha256(1)


@pytest.mark.slow
def test_kill_9_then_the_same_command_gives_the_same_bytes(coded, tmp_path):
    straight = coded.but(root=tmp_path / "straight")
    straight.make()
    scratch = coded.root / "scratch"
    coded.kill_when(lambda: any(scratch.glob("basis-*/basis.json")))
    coded.kill_when(lambda: len(coded.units()) >= 5)
    coded.make()
    assert coded.digests() == straight.digests()


def test_growth_keeps_the_basis(coded, make_shards, tmp_path, forwarded):
    coded.make()
    old = {name: digest for name, digest in coded.digests().items() if "/c/" in name}
    before = forwarded()
    more = coded.but(views=coded.views | {"aug_seeds": 6})
    assert computed(more.make()) == (0, 3)
    assert forwarded() - before == 2 * 21
    assert old.items() <= more.digests().items()

    make_shards(tmp_path / "more")
    shards = index.read(tmp_path / "more")
    rows = [
        tar_writer.EncodedImage(f"new-{s.row}", "png", s.image, s.label)
        for s in sample_reader.verified_samples(shards.index.shardlist[0], shards.path(shards.index.shardlist[0]))
    ]
    (tmp_path / "new").mkdir()
    entry = next(tar_writer.write_samples(rows, tmp_path / "new", split="train", rows_per_tar=8))
    (tmp_path / "new" / entry.url).rename(tmp_path / "more" / "train-000009.tar")
    entries = [*shards.index.shardlist, entry.model_copy(update={"url": "train-000009.tar"})]
    index.write(
        tmp_path / "more", base=tmp_path / "more", classes=shards.index.classes, rows_per_tar=8, shardlist=entries
    )
    longer = more.but(shards=tmp_path / "more")
    assert computed(longer.make()) == (0, 3)
    assert old.items() <= longer.digests().items()


def test_a_finer_step_needs_no_forward_of_the_fitted_units(coded, forwarded):
    coded.make()
    before = forwarded()
    coded.but(cache=coded.cache | {"tail": coded.cache["tail"] | {"step": 0.125}}).make()
    # Group 0 of the two tars of 8 rows is packed again from its logits.
    assert forwarded() - before == 84 + 7 - 2 * 8 * 2
    assert row_frontier.read(coded.out).chosen.step == 0.125


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"fit_tars": 4}, r"tail\.fit_tars must be at most the 3 tars of the training split\. Got 4\. Lower it"),
        (
            {"rank": 10},
            r"tail\.rank must be below the 10 classes and the 32 views that it is fitted on\. Got 10\. Lower it",
        ),
    ],
)
def test_a_basis_that_cannot_be_fitted_is_refused(coded, change, line, forwarded):
    with pytest.raises(errors.ConfigError, match=line):
        coded.but(cache=coded.cache | {"tail": coded.cache["tail"] | change}).make()
    assert forwarded() == 0


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)


def instead(path: Path, make: Callable[[Path], object]) -> None:
    files.remove(path)
    make(path)


def another(folder: Path, *, sealed: bool, **arrays: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change tensors, and give them a right sha256 again."""
    tensors = folder / "basis.safetensors"
    changed = {name: arrays.get(name, np.copy)(array) for name, array in numpy.load_file(tensors).items()}
    numpy.save_file(changed, tensors)
    if sealed:
        reseal.change(folder / "basis.json", sha256=hashing.sha256_file(tensors))


def renamed(folder: Path) -> None:
    reseal.change(folder / "basis.json", folder="basis-" + "0" * 32)


DAMAGES = {
    "a flipped bit": (lambda at: flip(at / "basis.safetensors"), "sha256 must be as in its record"),
    "a cut file": (lambda at: os.truncate(at / "basis.safetensors", 300), "sha256 must be as in its record"),
    "no file": (lambda at: (at / "basis.safetensors").unlink(), "No such file"),
    "a pipe": (lambda at: instead(at / "basis.safetensors", os.mkfifo), "is no regular file"),
    "a folder": (lambda at: instead(at / "basis.safetensors", Path.mkdir), "is no regular file"),
    "doubled values": (
        lambda at: another(at, sealed=False, tail_components=lambda array: 2 * array),
        "sha256 must be as in its record",
    ),
    "fewer components": (
        lambda at: another(at, sealed=True, tail_components=lambda array: array[:3]),
        "its arrays must",
    ),
    "other classes": (
        lambda at: another(at, sealed=True, **{name: lambda array: array[..., :4] for name in ARRAYS}),
        "its arrays must be finite float32 of ",
    ),
    "no numbers": (
        lambda at: another(at, sealed=True, tail_mean=lambda array: array * np.float32("nan")),
        "its arrays must be finite float32 of ",
    ),
    "another type": (
        lambda at: another(at, sealed=True, tail_mean=lambda array: array.astype(np.float16)),
        "its arrays must be finite float32 of ",
    ),
    "no tensors": (
        lambda at: (
            (at / "basis.safetensors").write_bytes(b"x"),
            reseal.change(at / "basis.json", sha256=hashing.sha256(b"x")),
        ),
        "cannot be read (",
    ),
    "no record": (lambda at: (at / "basis.json").unlink(), "No such file"),
    "a record without end": (lambda at: (at / "basis.json").write_bytes(b"[" * 100_000), "nested too deeply"),
    "another's record": (renamed, "folder must be basis-"),
    "a file for its folder": (lambda at: instead(at, Path.touch), "Not a directory"),
}
ARRAYS = ("tail_mean", "tail_scale", "tail_components")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_basis_is_named_and_fitted_again(coded, damage, caplog, forwarded):
    act, reason = DAMAGES[damage]
    coded.make()
    before, views = coded.digests(), forwarded()
    (folder,) = (coded.root / "scratch").glob("basis-*")
    act(folder)
    assert computed(coded.make()) == (0, 0)
    assert (coded.digests(), forwarded()) == (before, views)
    (line,) = caplog.messages
    assert line.startswith(f"{folder}")
    assert reason in line
    assert line.endswith(". It is removed, and fitted again")
    assert "\n" not in line
    coded.make()
    assert len(caplog.messages) == 1


def test_damaged_logits_below_a_basis_are_named_and_computed_again(coded, caplog, forwarded):
    """Only a finer step asks for them."""
    coded.make()
    before = forwarded()
    whole_units = [path.parents[5] for path in (coded.root / "scratch").glob("*/logits/c/0/0/0/0")]
    flip(whole_units[0] / "logits/c/0/0/0/0")
    finer = coded.but(cache=coded.cache | {"tail": coded.cache["tail"] | {"step": 0.125}})
    finer.make()
    # That tar's views, and what a finer step always forwards.
    assert forwarded() - before == 84 + 7 - 2 * 8 * 2 + 8 * 2
    (line,) = caplog.messages
    assert line.startswith(f"{whole_units[0]}/logits")
    straight = finer.but(root=coded.root.parent / "straight")
    straight.make()
    assert finer.digests() == straight.digests()


def test_a_basis_that_changes_while_units_are_made_is_refused(coded, monkeypatch):
    obtain = basis_fit.load_or_fit

    def then_flip(*arguments):
        fitted = obtain(*arguments)
        flip(fitted.path)
        return fitted

    monkeypatch.setattr(basis_fit, "load_or_fit", then_flip)
    basis_reader.read.cache_clear()
    with pytest.raises(errors.CacheError, match=r"sha256 of the basis must be .* Run the same command again"):
        coded.make()


def test_the_components_are_orthonormal_where_scaled_and_of_fixed_sign():
    logits_NC = (np.random.Philox(key=0).random_raw(1800).reshape(200, 9) / 2**60).astype(np.float32)
    fitted = basis_fit.principal_components(logits_NC, 4)
    scaled_RC = fitted.components_RC * fitted.scale_C
    assert np.allclose(scaled_RC @ scaled_RC.T, np.eye(4), atol=1e-5)
    largest_R = np.abs(scaled_RC).argmax(axis=1)
    assert (scaled_RC[np.arange(4), largest_R] > 0).all()
    assert np.array_equal(basis_fit.principal_components(logits_NC, 2).components_RC, fitted.components_RC[:2])
