"""Cached = live: a step from the cache is the step with the teacher called on the same views.

A network's logits of a view depend, in the last bits, on the batch it stands in: kernels block the sums by the size of
the batch. So the live teacher is called here in the batches of the cache's units, where equal means equal to the bit:
then everything behind it, loss and gradients, must be equal to the bit too. Called in the student's batches instead,
its logits differ by rounding, which the last test bounds.

Shapes: B samples, C classes, K kept classes.
"""

from concurrent.futures import ThreadPoolExecutor

import feed
import numpy as np
import pytest
import torch

from teachonce.cache import rendered_batches
from teachonce.format import row_expansion
from teachonce.shards import index, sample_reader
from teachonce.store import store_reader
from teachonce.student import batch_mix, batching, distillation_loss, student_model, student_spec
from teachonce.teacher import predictor as predict
from teachonce.teacher import teacher_network

EPOCHS = (0, 2)
"""The first aug seeds of the two units of a tar: those whose fidelity the cache has measured."""


@pytest.fixture(scope="module")
def predictor(world):
    device = torch.device("cpu")
    return predict.Predictor(
        teacher_network.load(world.teacher, device), teacher_network.read_identity(world.teacher), device
    )


@pytest.fixture(scope="module")
def live(world, predictor):
    """The teacher's logits of every view, computed now, in the batches in which the cache's units were: (key, seed)."""
    cache = store_reader.open(world.cache())
    recipe, extent = cache.recipe, cache.extent
    shards = index.read(world.shards)
    answers = {}
    with ThreadPoolExecutor(2) as pool:
        for shard in shards.index.of_split("train"):
            for seeds in ((0, 1), (2, 3)):
                samples = sample_reader.verified_samples(shard, shards.path(shard))
                tar = next(tar for tar in extent.tars if tar.sha256 == shard.sha256)
                atoms = rendered_batches.mix_groups(samples, recipe, tar, seeds)
                for batch in rendered_batches.render_ahead(atoms, recipe, batch_size=16, pool=pool):
                    logits = predictor.logits(batch.views)
                    views = [(sample.key, seed) for atom in batch.groups for sample, seed in atom.views()]
                    answers.update(zip(views, logits, strict=True))
    return answers


@pytest.fixture(scope="module")
def key_of(world):
    """Whose view it is, by the student's pixels and aug seed."""
    views = {
        (world.view(sample, seed).tobytes(), seed): key for key, sample in world.samples().items() for seed in range(4)
    }
    assert len(views) == 4 * len(world.samples())
    return views


@pytest.fixture(scope="module")
def teacher(live, key_of):
    """The live teacher's logits of a batch; padding, which no teacher sees, is zero as in the feed."""

    def rows(batch: batching.Batch, seed: int) -> torch.Tensor:
        found = [
            live[key_of[pixels.tobytes(), seed], seed] if weight else np.zeros(10, np.float32)
            for pixels, weight in zip(batch.pixels.numpy(), batch.weight, strict=True)
        ]
        return torch.from_numpy(np.stack(found))

    return rows


def step(network, batch, answer, *, student, settings) -> tuple[distillation_loss.LossParts, list[torch.Tensor]]:
    """Loss and gradients of all weights."""
    torch.manual_seed(0)  # noqa: TID251 (stochastic depth, alike in both)
    network.zero_grad(set_to_none=True)
    class_BC, dist_BC = student_model.head_logits(network.train(), (batch.pixels.float() - 127) / 64)
    label_BC = batch_mix.mix_labels(batch.label, 10, settings.smoothing, None)
    found = distillation_loss.weighted_total(
        class_BC, dist_BC, label_BC, answer, batch.weight / batch.weight.sum(), spec=student
    )
    found.total.backward()
    return found, [weight.grad for weight in network.parameters() if weight.grad is not None]


@pytest.mark.parametrize(
    "knobs",
    [{}, {"tau": 1.0, "kl_scale": "numel"}, {"token": False}, {"kind": "hard"}],
    ids=["soft", "numel", "one head", "hard"],
)
def test_whole_rows_give_the_very_step(world, teacher, recipe, student, knobs):
    spec, settings = student(**knobs), recipe()
    network = student_model.create_model(student_spec.Student("x", spec, settings), 10)
    batches = list(feed.batches(world.plan(passes=3), workers=0))
    for number, batch in enumerate(batches):
        answers = teacher(batch, number // 7)
        assert torch.equal(batch.rows["logits"], answers)
        cached = step(
            network, batch, distillation_loss.teacher_target(batch.rows, spec, 10), student=spec, settings=settings
        )
        target_B = answers.argmax(dim=1) if spec.kind == "hard" else answers
        called = step(network, batch, target_B, student=spec, settings=settings)
        assert torch.equal(cached[0].total, called[0].total)
        assert len(cached[1]) == sum(weight.requires_grad for weight in network.parameters())
        for one, two in zip(cached[1], called[1], strict=True):
            assert torch.equal(one, two)
    assert len(batches) == 21


def total_variation(p_BC: torch.Tensor, q_BC: torch.Tensor) -> torch.Tensor:
    return (p_BC - q_BC).abs().sum(dim=1) / 2


def plain_loss(learner_BC, batch, answer_BC, student) -> distillation_loss.LossParts:
    """In float64, of a model of one head."""
    label_BC = batch_mix.mix_labels(batch.label, 10, 0.1, None).double()
    share_B = batch.weight.double() / batch.weight.sum()
    return distillation_loss.weighted_total(learner_BC, None, label_BC, answer_BC, share_B, spec=student)


@pytest.mark.parametrize("name", ["top3", "coded"])
@pytest.mark.parametrize("tau", [1.0, 3.0, 10.0])
def test_kept_classes_give_a_step_within_the_measured_error(world, teacher, student, tau, name):
    """What a row of K classes can do to a step, from its total variation TV to the full softmax at tau.

    With p the teacher's softmax at tau, q the row's, s the student's, w weights and W their sum:

    Gradient: of tau² · KL(p ‖ s) with respect to the logits it is tau · (s − p), so that the two gradients differ by
    alpha · tau · (q − p) · w / W, whose 1-norm is alpha · tau · 2 TV · w / W: the bound is an equality.

    Loss: KL(p ‖ s) − KL(q ‖ s) = H(q) − H(p) + Σ (q − p) · log s. The sum is at most TV · (max log s − min log s),
    since q − p sums to 0; the entropies differ by at most TV · log(C − 1) + h(TV), h the binary entropy (Audenaert
    2007, after Fannes). All of it times alpha · tau² · w / W.
    """
    spec = student("soft", tau=tau, alpha=0.6)
    cache = store_reader.open(world.cache(name))
    measured, sketch = cache.fidelity[f"k=3,tau={tau:.0f}"], row_expansion.tail_decoder(cache.recipe, cache.basis)
    moved, views, largest = 0.0, 0, 0.0
    for epoch in EPOCHS:
        plan = world.plan(name, passes=epoch + 1)
        for batch in feed.batches(plan, workers=0, number=epoch):
            answers = teacher(batch, epoch).double()
            kept = distillation_loss.teacher_target(batch.rows, spec, 10, sketch).double()
            learner = (batch.pixels.double().flatten(1)[:, :10] / 50).requires_grad_()
            losses, gradients = [], []
            for answer in (kept, answers):
                learner.grad = None
                found = plain_loss(learner, batch, answer, spec)
                found.total.backward()
                losses.append(found.total.detach())
                gradients.append(learner.grad.clone())
            share_B = spec.alpha * batch.weight.double() / batch.weight.sum()
            tv_B = total_variation((answers / tau).softmax(1), (kept / tau).softmax(1))
            moved_B = (gradients[0] - gradients[1]).abs().sum(dim=1)
            torch.testing.assert_close(moved_B, share_B * tau * 2 * tv_B, rtol=1e-6, atol=1e-12)
            span_B = (learner.detach().amax(1) - learner.detach().amin(1)) / tau
            mixed_B = -torch.xlogy(tv_B, tv_B) - torch.xlogy(1 - tv_B, 1 - tv_B)
            bound = (share_B * tau**2 * (tv_B * span_B + tv_B * np.log(9) + mixed_B)).sum()
            assert abs(losses[0] - losses[1]) <= bound + 1e-12
            real = batch.weight > 0
            moved += float((moved_B / share_B.clamp(min=1e-9))[real].sum())
            views += int(real.sum())
            largest = max(largest, float(tv_B[real].max()))
    # What the cache says of itself is what its rows do to a gradient.
    assert views == 106
    assert moved / views == pytest.approx(2 * tau * measured["tv_mean"], rel=1e-3)
    assert 1e-4 < measured["tv_mean"] <= largest


def test_hard_distillation_loses_nothing_to_kept_classes(world, teacher, recipe, student):
    spec, settings = student("hard"), recipe()
    network = student_model.create_model(student_spec.Student("x", spec, settings), 10)
    for batch in feed.batches(world.plan("top3", passes=1), workers=0):
        called = teacher(batch, 0).argmax(dim=1)
        cached = distillation_loss.teacher_target(batch.rows, spec, 10)
        assert torch.equal(cached, called)
        one = step(network, batch, cached, student=spec, settings=settings)
        two = step(network, batch, called, student=spec, settings=settings)
        assert torch.equal(one[0].total, two[0].total)
        assert all(torch.equal(a, b) for a, b in zip(one[1], two[1], strict=True))


def test_a_smaller_k_is_a_prefix(world, student):
    spec = student("soft", k=1)
    batch = next(feed.batches(world.plan("top3"), workers=0))
    one = row_expansion.expand_flat_tail(batch.rows["class_id"][:, :1], batch.rows["logp"][:, :1], 10)
    assert torch.equal(distillation_loss.teacher_target(batch.rows, spec, 10), one)
    assert not torch.equal(one, distillation_loss.teacher_target(batch.rows, student("soft"), 10))


def test_a_smaller_k_of_whole_rows_is_that_of_kept_classes(world, student):
    """But for the float16 of kept classes: half a step of 2^-10 of a log-probability, and what it leaves the tail."""
    spec = student("soft", k=3)
    for whole, kept in zip(
        feed.batches(world.plan(), workers=0), feed.batches(world.plan("top3"), workers=0), strict=True
    ):
        real = whole.weight > 0
        one, two = (
            distillation_loss.teacher_target(batch.rows, spec, 10)[real].softmax(dim=1) for batch in (whole, kept)
        )
        torch.testing.assert_close(one, two, rtol=0, atol=2e-3)
        assert (
            one - distillation_loss.teacher_target(whole.rows, student("soft"), 10)[real].softmax(dim=1)
        ).abs().max() > 2e-3


def test_no_kind_asks_for_what_it_does_not_use(world, student):
    batch = next(feed.batches(world.plan(), workers=0))
    assert distillation_loss.teacher_target(batch.rows, student("none"), 10) is None
    assert distillation_loss.teacher_target(batch.rows, student("hard"), 10).dtype == torch.int64


def test_another_batch_composition_differs_by_rounding_alone(world, teacher, key_of, predictor):
    samples = world.samples()
    for batch in feed.batches(world.plan(passes=1), workers=0):
        rows = teacher(batch, 0)
        keys = [key_of.get((pixels.tobytes(), 0)) for pixels in batch.pixels.numpy()]
        views = np.stack([world.view(samples[key], 0, size=24) for key in keys if key is not None])
        called = torch.from_numpy(predictor.logits(views))
        torch.testing.assert_close(called, rows[batch.weight > 0], rtol=1e-4, atol=1e-4)
