"""float32 on the device, rows packed there, and work that never waits for it.

Shapes: B views, C classes.
"""

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import replace

import feed
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from teachonce.cache import cache_config, renderer_choice, run_units, unit_computation, unit_plan
from teachonce.core import arithmetic
from teachonce.format import basis, codec, torch_codec
from teachonce.shards import index
from teachonce.student import process_group, schedule, student_spec, trainer
from teachonce.teacher import predictor, teacher_network

pytestmark = pytest.mark.gpu


@contextlib.contextmanager
def never_waiting(device: torch.device) -> Iterator[None]:
    """Whatever waits for the device raises; on a CPU nothing can."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        with warnings.catch_warnings():
            # Of itself, that it does not see everything.
            warnings.simplefilter("ignore", UserWarning)
            torch.cuda.set_sync_debug_mode("error")
        with pytest.raises(RuntimeError, match="synchronizing"):
            torch.ones((), device=device).item()
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def relative(computed: torch.Tensor, exact: torch.Tensor) -> float:
    return float((computed - exact).abs().max() / exact.abs().max())


def test_float32_is_float32_in_products_and_convolutions(device):
    arithmetic.use_exact_float32()
    random = np.random.Generator(np.random.Philox(key=2))
    left, right, image, weight = (
        torch.from_numpy(random.standard_normal(shape, np.float32)).to(device)
        for shape in ((512, 512), (512, 512), (8, 64, 9, 9), (16, 64, 3, 3))
    )
    product = relative(left @ right, left.double() @ right.double())
    narrow = relative(left[:, :8] @ right[:8], left[:, :8].double() @ right[:8].double())
    convolved = relative(F.conv2d(image, weight), F.conv2d(image.double(), weight.double()))
    figures = f"product {product:.2g}, of rank 8 {narrow:.2g}, convolution {convolved:.2g}"
    print(f"figure: relative error of float32: {figures}")
    assert max(product, narrow, convolved) < 1e-5


@pytest.mark.parametrize("k", [1, 10, 99])
def test_rows_packed_on_the_device_are_those_of_the_codec(device, k):
    """bfloat16 logits have ties among the first eleven in most rows, and zeros of both signs are equal."""
    random = np.random.Generator(np.random.Philox(key=k))
    logits = torch.from_numpy(2 * random.standard_normal((512, 100), np.float32)).bfloat16().float()
    logits[:, ::7], logits[:, 3::7] = 0.0, -0.0
    components_RC = np.linalg.qr(random.standard_normal((100, 8)))[0].T.astype(np.float32).copy()
    tail = codec.TailCoding(basis.Basis(np.full(100, -4, np.float32), np.ones(100, np.float32), components_RC), 0.5)
    expected = codec.pack(logits.numpy(), k, tail)
    packed = torch_codec.pack_on_device(logits.to(device), k, torch_codec.prepare_tail(tail, device))
    rows = torch_codec.to_rows({name: tensor.cpu() for name, tensor in packed.items()}, 100)
    assert np.array_equal(rows.class_id_BK, expected.class_id_BK)
    assert rows.class_id_BK.dtype == expected.class_id_BK.dtype
    np.testing.assert_allclose(rows.logp_BK, expected.logp_BK, rtol=2.0**-10, atol=2.0**-24)
    np.testing.assert_allclose(rows.lse_B, expected.lse_B, rtol=2.0**-22)
    apart = np.abs(basis.unfold(rows.tail_BR) - basis.unfold(expected.tail_BR))
    assert apart.max() <= 1
    assert (apart != 0).mean() < 0.01


@pytest.mark.parametrize("k", [3, "all"])
@pytest.mark.parametrize("render", ["threads", "processes"])
def test_a_unit_is_the_same_side_by_side_and_in_turn_and_never_waits(world, views, device, tmp_path, *, k, render):
    teacher = world.teacher("bfloat16")
    job = run_units.create_job(
        index.read(world.shards),
        "train",
        teacher_network.read_identity(teacher),
        views.policy,
        aug_seeds=4,
        settings=cache_config.CacheConfig(k=k, seeds_per_unit=2),
        scratch=tmp_path / "units",
        batch_size=16,
        device=device.type,
    )
    answering = predictor.Predictor(teacher_network.load(teacher, device), job.recipe.teacher, device)
    first, second, *_ = unit_plan.enumerate_units(3, 4, 2)
    pool = renderer_choice.start_pool(render, 2)
    try:
        unit_computation.compute(job, first, answering, pool, overlapped=True)
        with never_waiting(device):
            beside = unit_computation.compute(job, second, answering, pool, overlapped=True)
        turn = unit_computation.compute(
            replace(job, scratch=tmp_path / "turn"), second, answering, pool, overlapped=False
        )
    finally:
        pool.shutdown(cancel_futures=True)
    assert (beside.correct, beside.canary, beside.objects["key"]) == (turn.correct, turn.canary, turn.objects["key"])
    name = "logits" if k == "all" else "class_id"
    assert beside.objects[name] == turn.objects[name]


@pytest.mark.parametrize("k", ["all", "3"])
def test_a_student_s_steps_never_wait(world, recipe, student, device, k):
    store = world.stores("bfloat16", k) / "train.zarr"
    settings = recipe(accumulate=2)
    plan_ = feed.Plan(
        shards=world.shards,
        cache=store,
        size=16,
        batch_size=16,
        lanes=4,
        buffer=6,
        passes=2,
        aug_seeds=4,
        seed=3,
        accept=(),
    )
    student_trainer = trainer.Trainer(
        student_spec.Student("x", student, settings),
        num_classes=10,
        length=schedule.Schedule(8, 32, 0),
        world=replace(process_group.single_process(), device=device),
        tail=plan_.source().tail,
        run_ahead=3,
    )
    batches = [batch for _, batch in zip(range(4), feed.batches(plan_, workers=0, device=device), strict=False)]
    student_trainer.train_step(batches[0], 0)
    with never_waiting(device):
        for number, batch in enumerate(batches[1:], 1):
            student_trainer.train_step(batch, number)
    assert not float(student_trainer.gate.shut)
