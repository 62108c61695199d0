"""The optimiser and the schedule of a student, as its recipe asks for them."""

from pathlib import Path

import feed
import pytest
import torch

from teachonce.core import config
from teachonce.student import process_group, schedule, student_spec, train_config, trainer

ROOT = Path(__file__).parents[2]
LENGTH = schedule.Schedule(steps_a_pass=100, total=1000, warmup=50)


def made(settings, student):
    student = student_spec.Student("x", student, settings)
    return trainer.Trainer(student, num_classes=1000, length=LENGTH, world=process_group.single_process())


def rates(student_trainer: trainer.Trainer, *numbers: int) -> list[float]:
    found = []
    for number in numbers:
        student_trainer.scheduler.step_update(number)
        assert len({group["lr"] for group in student_trainer.optimizer.param_groups}) == 1
        found.append(student_trainer.optimizer.param_groups[0]["lr"])
    return found


def test_the_rate_begins_peaks_and_ends_where_the_recipe_says(recipe, student):
    settings = recipe(lr=0.0005, lr_batch=512, batch_size=1008, lanes=8)
    first, peak, last = rates(made(settings, student("none")), 0, LENGTH.warmup, LENGTH.total)
    assert first == settings.warmup_lr
    # The cosine counts from step 0, as timm's does by default: a thousandth is gone when the warm-up ends.
    assert peak == pytest.approx(0.0005 * 1008 / 512, rel=1e-2)
    assert last == pytest.approx(settings.min_lr)
    assert rates(made(recipe(lr=0.0005, batch_size=1008, lanes=8), student("none")), LENGTH.warmup)[0] == (
        pytest.approx(0.0005, rel=1e-2)
    )


def test_biases_norms_tokens_and_positions_do_not_decay(student):
    settings = config.load(ROOT / "configs/student/deit_tiny.yaml", train_config.TrainConfig)
    student_trainer = made(settings, student("hard"))
    decay = {
        id(one): group["weight_decay"] for group in student_trainer.optimizer.param_groups for one in group["params"]
    }
    found: dict[float, set[str]] = {}
    for name, weights in student_trainer.network.named_parameters():
        found.setdefault(decay.pop(id(weights)), set()).add(name)
    assert not decay
    assert set(found) == {0.0, settings.weight_decay}
    assert {"cls_token", "dist_token", "pos_embed"} < found[0.0]
    assert all(
        name.endswith(".bias") or "norm" in name for name in found[0.0] - {"cls_token", "dist_token", "pos_embed"}
    )
    # What decays: the patch embedding, four matrices of each of twelve blocks, two heads.
    assert len(found[settings.weight_decay]) == 1 + 4 * 12 + 2
    assert all(name.endswith(".weight") and "norm" not in name for name in found[settings.weight_decay])


@pytest.mark.parametrize("kind", ["none", "soft", "hard"])
def test_a_step_in_bfloat16_is_near_one_in_float32(world, recipe, student, *, trainer_of, kind):
    batch, knobs = next(feed.batches(world.plan(), workers=0)), student(kind)
    found = {}
    for precision in ("float32", "bfloat16"):
        settings = recipe(precision=precision, drop_path=0.0, accumulate=2)
        student_trainer = trainer_of(settings, knobs, length=schedule.Schedule(7, 70, 0))
        found[precision] = student_trainer.train_step(batch, 0)
        assert {weights.dtype for weights in student_trainer.network.state_dict().values()} == {torch.float32}
        assert all(mean.dtype == torch.float32 for mean in found[precision].values())
    for name, mean in found["float32"].items():
        assert float(found["bfloat16"][name]) == pytest.approx(float(mean), rel=2e-2)
    assert found["bfloat16"]["loss"] != found["float32"]["loss"]
