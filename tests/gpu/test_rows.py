"""Cached = live on the device: rows of a store against the teacher called on the same views, and their targets.

Shapes: B views, C classes, K kept classes.
"""

from dataclasses import replace

import feed
import numpy as np
import pytest
import torch

from teachonce.format import basis, codec, row_expansion, schema
from teachonce.store import store_reader
from teachonce.student import batch_mix
from teachonce.teacher import predictor, teacher_network
from teachonce.tools.live import live_rows

pytestmark = pytest.mark.gpu


@pytest.fixture
def plan(world) -> feed.Plan:
    return feed.Plan(
        shards=world.shards,
        cache=world.stores("float32") / "train.zarr",
        size=16,
        batch_size=16,
        lanes=2,
        buffer=8,
        passes=2,
        aug_seeds=4,
        seed=0,
        accept=(),
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_cached_rows_are_the_live_answers(world, plan, device, views, precision):
    """Within what the teacher's own answers differ by from one batch size to another."""
    identity = teacher_network.read_identity(world.teacher(precision))
    teacher = predictor.Predictor(teacher_network.load(world.teacher(precision), device), identity, device)
    recipe = schema.Recipe(teacher=identity, policy=views.policy, k="all", tail="none")
    source = live_rows.LiveRows(world.shards, recipe, aug_seeds=4, teacher=teacher)
    cached = replace(plan, cache=world.stores(precision) / "train.zarr")
    bare = replace(plan, cache=feed.Live(views.policy, identity.size))
    rows, live, pixels = [], [], []
    for from_cache, unanswered in zip(
        *(feed.batches(each, workers=0, device=device) for each in (cached, bare)), strict=True
    ):
        assert from_cache.keys == unanswered.keys
        there = from_cache.weight.bool()
        rows.append(from_cache.rows["logits"][there])
        live.append(source.answer(unanswered).rows["logits"][there])
        pixels.append(
            (
                batch_mix.mix_pixels(unanswered.teacher_pixels, unanswered.mix)
                if unanswered.mix
                else unanswered.teacher_pixels
            )[there]
        )
    rows_BC, live_BC, pixels_B3HW = (torch.cat(parts) for parts in (rows, live, pixels))
    others = [torch.cat([teacher.answer(part) for part in pixels_B3HW.split(size)]) for size in (5, 64, 100)]
    difference = (live_BC - rows_BC).abs().double().mean().item()
    control = max((live_BC - other_BC).abs().double().mean().item() for other_BC in others)
    same = (rows_BC.argmax(dim=1) == live_BC.argmax(dim=1)).double().mean().item()
    print(
        f"figure: {precision}: cached against live {difference:.3g}, live against live in other batches {control:.3g}"
        f" nats of {live_BC.std().item():.3g}; top-1 equal on {100 * same:.3f} % of {len(rows_BC)} views"
    )
    assert difference <= 2 * control
    assert same >= 0.999


def test_targets_of_rows_on_the_device_are_those_of_the_cpu(device):
    logits_BC = 4 * np.random.Generator(np.random.Philox(key=1)).standard_normal((64, 50), np.float32)
    components_RC = np.linalg.qr(logits_BC[:50].T)[0][:, :8].T.astype(np.float32).copy()
    fitted = basis.Basis(logits_BC.mean(axis=0), np.ones(50, np.float32), components_RC)
    sketch = row_expansion.TailDecoder(torch.from_numpy(fitted.mean_C), torch.from_numpy(fitted.components_RC) * 0.5)
    row = row_expansion.to_tensors(codec.pack(logits_BC, 10, codec.TailCoding(fitted, 0.5)))
    moved = {name: tensor.to(device) for name, tensor in row.items()}
    for tail in (None, sketch):
        for k in (3, 10):
            on_cpu = row_expansion.full_logp(row, 50, tail, k)
            on_device = row_expansion.full_logp(moved, 50, tail.to(device) if tail else None, k)
            # As probabilities: what likely classes leave over is a difference of nearly equal numbers.
            for tau in (1, 3, 10):
                near, far = ((logq_BC / tau).softmax(dim=1) for logq_BC in (on_cpu, on_device.cpu()))
                torch.testing.assert_close(far, near, rtol=1e-4, atol=1e-6)


def test_a_store_of_the_device_says_so(world, device):
    cache = store_reader.open(world.stores("bfloat16") / "train.zarr")
    assert {unit.device.split(",")[0] for unit in cache.units()} == {device.type}
