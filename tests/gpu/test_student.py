"""A student on the device: killed and resumed, kept from what is not finite, refused without memory, evaluated."""

import hashlib
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import address_space
import feed
import pytest
import torch

from teachonce.core import config, errors, project_params
from teachonce.evaluate import evaluate_student
from teachonce.student import (
    batching,
    checkpoint,
    process_group,
    resume,
    row_source,
    schedule,
    student_run,
    student_spec,
    train_cached,
    trainer,
    training_loop,
)
from teachonce.views import views_config

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).parents[2]
POISONED, RUN_AHEAD = 5, 3


@pytest.fixture
def plan(world) -> feed.Plan:
    return feed.Plan(
        shards=world.shards,
        cache=world.stores("bfloat16", "3") / "train.zarr",
        size=16,
        batch_size=16,
        lanes=4,
        buffer=6,
        passes=4,
        aug_seeds=4,
        seed=3,
        accept=(),
    )


def trained(arguments: list[str]) -> dict[str, object]:
    """The run of a command line, in this process."""
    at = dict(zip((name[2:] for name in arguments[3::2]), arguments[4::2], strict=True))
    choice = project_params.ConfigChoices(Path(at["params"]), Path("configs"))
    done = train_cached.train_from_cache(
        student_spec.read(choice, at["student"], Path(at["config"])),
        config.load(Path(at["views"]), views_config.ViewsConfig),
        Path(at["shards"]),
        Path(at["cache"]),
        student_run.RunFolders(Path(at["scratch"]), Path(at["out"]), Path(at["curves"])),
    )
    assert done
    return done


def digests(folder: Path) -> dict[str, str]:
    paths = [path for part in ("model", "curves") for path in (folder / part).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.mark.slow
def test_killed_and_resumed_it_is_the_straight_run(command, tmp_path):
    """To the byte, curves included: atomics or other algorithms would show here."""
    few = {"epochs": 2, "epoch": "views", "warmup_epochs": 0, "checkpoint_every": 4}
    assert trained(command("straight", **few))["resumed_at_step"] == 0
    arguments = command("killed", **few)
    process = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    loss = next(iter((tmp_path / "killed").glob("scratch/*/curves/plots/metrics/loss.tsv")), None)
    while loss is None or len(loss.read_text().splitlines()) < 7:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)
        loss = next(iter((tmp_path / "killed").glob("scratch/*/curves/plots/metrics/loss.tsv")), None)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert trained(arguments)["resumed_at_step"] > 0
    assert digests(tmp_path / "killed") == digests(tmp_path / "straight")


@contextmanager
def little_memory(device: torch.device) -> Iterator[None]:
    """So little that a large batch does not fit, and a small one does."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(0.002)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return
    with address_space.limited(384 << 20):
        yield


def test_out_of_memory_is_one_line_that_names_what_to_lower(command, device):
    large = {"size": 96, "arguments": {"img_size": 96, "patch_size": 4, "embed_dim": 384, "depth": 16, "num_heads": 3}}
    with (
        little_memory(device),
        pytest.raises(errors.ConfigError, match=r"student: batch_size must be one that .* Got 64\. .* accumulate$"),
    ):
        trained(command("large", **large, batch_size=64))


def everything(student_trainer: trainer.Trainer) -> list[bytes]:
    """Weights, average, moments and counts of steps."""
    moments = [tensor for state in student_trainer.optimizer.state.values() for tensor in state.values()]
    tensors = [
        *student_trainer.network.state_dict().values(),
        *student_trainer.ema.module.state_dict().values(),
        *moments,
    ]
    return [tensor.detach().cpu().numpy().tobytes() for tensor in tensors]


class Poisoned(row_source.CachedRows):
    """A teacher whose answer to one batch is not a number; after it, a tar may be refused."""

    number = -1
    keys: tuple[str, ...] = ()
    is_damaged = False

    def answer(self, batch: batching.Batch) -> batching.Batch:
        if self.is_damaged and self.number == POISONED + 1:
            raise errors.DataError("a tar", "is damaged")
        self.number += 1
        if self.number != POISONED:
            return batch
        self.keys = batch.keys
        logp = batch.rows["logp"].clone()
        logp[3, 1] = float("nan")
        return replace(batch, rows={**batch.rows, "logp": logp})


def poisoned(plan: feed.Plan) -> Poisoned:
    return Poisoned(plan.shards, plan.cache, aug_seeds=plan.aug_seeds)


def make_trainer(settings, student, device, plan, run_ahead: int | None = None, *, steps: int = 32) -> trainer.Trainer:
    return trainer.Trainer(
        student_spec.Student("x", student, settings),
        num_classes=10,
        length=schedule.Schedule(8, steps, 0),
        world=replace(process_group.single_process(), device=device),
        tail=plan.source().tail,
        run_ahead=run_ahead,
    )


def test_a_nan_never_reaches_weights_average_moments_or_a_checkpoint(recipe, student, device, plan, tmp_path):
    """Though the host reads of it some steps later, and steps are taken meanwhile."""
    settings = recipe(checkpoint_every=4)
    student_trainer, good = (make_trainer(settings, student, device, plan, RUN_AHEAD) for _ in range(2))
    for number, batch in zip(range(POISONED), feed.batches(plan, workers=0, device=device), strict=False):
        good.train_step(batch, number)
    poison = poisoned(plan)
    with pytest.raises(errors.NumericsError, match=f"the loss of step {POISONED} is nan, on samples train/") as caught:
        training_loop.train_to_end(student_trainer, poison, tmp_path, "poisoned")
    assert POISONED < poison.number <= POISONED + RUN_AHEAD
    assert all(key in str(caught.value) for key in poison.keys if key)
    assert everything(student_trainer) == everything(good)
    saved = checkpoint.load(tmp_path)
    assert saved
    assert saved.step == 4
    assert [step for step, _ in saved.points] == [0, 1, 2, 3]


def test_what_went_wrong_first_is_what_is_told(recipe, student, device, plan, tmp_path):
    """A tar that is refused while the host has not read of the step yet."""
    student_trainer, poison = make_trainer(recipe(), student, device, plan, RUN_AHEAD), poisoned(plan)
    poison.is_damaged = True
    with pytest.raises(errors.NumericsError, match=f"the loss of step {POISONED} is nan"):
        training_loop.train_to_end(student_trainer, poison, tmp_path, "two")


def test_the_gate_changes_no_curve(recipe, student, device, plan, tmp_path):
    """A host that is behind reads the same numbers; fused arithmetic differs in the last bits."""
    points = {}
    for run_ahead in (0, RUN_AHEAD):
        student_trainer = make_trainer(recipe(drop_path=0.0), student, device, plan, run_ahead, steps=16)
        folder = tmp_path / f"{run_ahead}"
        training_loop.train_to_end(student_trainer, plan.source(), folder, "run")
        state = checkpoint.load(folder)
        assert state
        points[run_ahead] = state.points
        assert bool(student_trainer.gate) == bool(run_ahead)
    for (step, point), (gated_step, gated_point) in zip(*points.values(), strict=True):
        assert step == gated_step
        assert point["lr"] == gated_point["lr"]
        assert gated_point["loss"] == pytest.approx(point["loss"], rel=1e-3)


def test_a_run_goes_on_with_another_form_of_the_optimiser(recipe, student, device, plan, tmp_path):
    """As when its checkpoint came from a machine without a GPU."""
    settings = recipe(precision="float32", drop_path=0.0)
    batches = list(zip(range(4), feed.batches(plan, workers=0, device=device), strict=False))
    first = make_trainer(settings, student, device, plan, 0)
    for number, batch in batches[:2]:
        first.train_step(batch, number)
    first.save(tmp_path, 2, [])
    then = make_trainer(settings, student, device, plan, RUN_AHEAD)
    assert resume.from_newest(then, tmp_path)[0] == 2
    assert everything(then) == everything(first)
    for number, batch in batches[2:]:
        for student_trainer in (first, then):
            student_trainer.train_step(batch, number)
    moved = [(weight - other).abs().mean() for weight, other in zip(weights(first), weights(then), strict=True)]
    assert float(torch.stack(moved).max()) < 1e-5


def weights(student_trainer: trainer.Trainer) -> list[torch.Tensor]:
    return [weight.detach() for weight in student_trainer.network.parameters()]


def test_evaluation_on_the_device_is_that_of_the_cpu(world, recipe, student, *, command, device, views, tmp_path):
    """Within what another batch size changes on the CPU, and a little for where a head is nearly undecided."""
    arguments = command("straight", epochs=1, warmup_epochs=0, epoch="views")
    trained(arguments)
    evaluations = {}
    cpu = torch.device("cpu")
    for name, where, size in (("device", device, 64), ("cpu", cpu, 64), ("other", cpu, 7)):
        paths = evaluate_student.EvaluationPaths(
            shards=world.shards,
            cache=world.stores("bfloat16", "3") / "val.zarr",
            weights=tmp_path / "straight/model",
            out=tmp_path / name,
        )
        whole = student_spec.Student("x", student, recipe(epochs=1, warmup_epochs=0, epoch="views"))
        evaluations[name] = evaluate_student.evaluate(whole, views.evaluation, paths, batch_size=size, device=where)
    for name, head in evaluations["cpu"].heads.items():
        on_device, in_batches = evaluations["device"].heads[name], evaluations["other"].heads[name]
        control = abs(in_batches.kl - head.kl)
        difference = abs(on_device.kl - head.kl)
        print(f"figure: evaluate, {name}: KL on the device differs by {difference:.3g}, in other batches {control:.3g}")
        assert difference <= 2 * control + 1e-5
        assert on_device.top1 == pytest.approx(head.top1, abs=1e-3)
        assert on_device.agreement == pytest.approx(head.agreement, abs=1e-3)


# Inductor advises TF32, tells which of its own steps it leaves out, and imports what torch 2.11 calls deprecated.
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.slow
@pytest.mark.nightly
def test_compiled_it_learns_the_same_and_is_a_run_of_its_own(recipe, student, device, *, plan, command, tmp_path):
    if device.type == "cpu" and not shutil.which("g++"):
        pytest.skip("no C++ compiler, which compiling for a CPU needs")
    batch = next(feed.batches(plan, workers=0, device=device))
    losses = {}
    for compiled in (False, True):
        settings = recipe(compile=compiled, drop_path=0.0, precision="float32")
        student_trainer = make_trainer(settings, student, device, plan)
        losses[compiled] = [float(student_trainer.train_step(batch, number)["loss"]) for number in range(3)]
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)
    assert len(set(losses[True])) == 3
    few = {"epochs": 1, "epoch": "views", "warmup_epochs": 0}
    trained(command("plain", **few))
    trained(command("compiled", **few, compile=True))
    names = [next(iter((tmp_path / name / "scratch").iterdir())).name for name in ("plain", "compiled")]
    assert names[0] != names[1]
    state = {name: (tmp_path / name / "model/model.safetensors").stat().st_size for name in ("plain", "compiled")}
    assert state["plain"] == state["compiled"]
