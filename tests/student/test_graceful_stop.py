"""Within a pass: a run is asked to stop, or killed, and goes on with the same bytes; numbers that are not finite."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import feed
import pytest
import runs
import torch

from teachonce.core import errors

STEPS = 7
EVERY_THREE = {"checkpoint_every": 3, "epochs": 6}
END = STEPS * 6


def signalled(arguments: list[str], number: signal.Signals, reached: Callable[[], bool]) -> tuple[int, str]:
    """Start a run, send a signal once something is there; its exit code and what it wrote on stderr."""
    process = runs.start(arguments)
    limit_s = time.monotonic() + 200
    while not reached():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit_s
        time.sleep(0.002)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=200)
    assert not stdout
    return process.returncode, stderr


@pytest.fixture(scope="module")
def straight(world):
    """Files of a run that nothing disturbed; made by the first test that asks."""
    made: dict[str, str] = {}

    def run(command, tmp_path: Path) -> dict[str, str]:
        if not made:
            runs.in_process(command(world, settings=EVERY_THREE, out="straight"))
            made.update(runs.digests(tmp_path / "straight"))
        return made

    return run


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_asked_to_stop_it_saves_its_last_step_and_goes_on_there(world, command, straight, tmp_path, number):
    first = straight(command, tmp_path)
    arguments, folder = command(world, settings=EVERY_THREE, out="asked"), tmp_path / "asked"
    # Neither the end of a pass nor a third step.
    code, stderr = signalled(arguments, number, lambda: runs.logged(folder) % STEPS == 4)
    assert code == os.EX_TEMPFAIL, stderr
    done = runs.saved_steps(folder)
    line = f"stopped: saved after {done} of {END} steps. Run the same command again to go on from there"
    assert stderr.strip().splitlines()[-1] == line
    assert "Traceback" not in stderr, stderr
    assert 4 <= done < END
    assert not (folder / "model").exists()
    assert runs.in_process(arguments)["resumed_at_step"] == done
    assert runs.digests(folder) == first


@pytest.mark.slow
def test_killed_within_a_pass_it_repeats_less_than_three_steps(world, command, straight, tmp_path):
    first = straight(command, tmp_path)
    arguments, folder = command(world, settings=EVERY_THREE, out="killed"), tmp_path / "killed"
    for steps in (10, 23):
        runs.kill_when(arguments, lambda least=steps: runs.logged(folder) >= least)
        assert runs.logged(folder) - runs.saved_steps(folder) <= 3
    kept = runs.saved_steps(folder)
    assert kept % 3 == 0 or kept % STEPS == 0
    assert runs.in_process(arguments)["resumed_at_step"] == kept
    assert runs.digests(folder) == first


@pytest.mark.slow
def test_a_signal_to_its_loaders_too_is_no_failure(world, command, straight, tmp_path):
    """As a scheduler sends it, to every process of the job."""
    first = straight(command, tmp_path)
    folder = tmp_path / "group"
    arguments = command(world, settings={**EVERY_THREE, "workers": 2}, out="group")
    process = runs.start(arguments, start_new_session=True)
    while runs.logged(folder) < 2:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGTERM)
    _, stderr = process.communicate(timeout=200)
    assert process.returncode == os.EX_TEMPFAIL, stderr
    assert "Traceback" not in stderr, stderr
    assert runs.in_process(command(world, settings=EVERY_THREE, out="group"))["resumed_at_step"] > 0
    found = runs.digests(folder)
    assert {name: digest for name, digest in found.items() if name != "model/record.json"} == {
        name: digest for name, digest in first.items() if name != "model/record.json"
    }


def test_a_checkpoint_of_any_cadence_is_of_the_same_run(world, command, tmp_path):
    short = {"epochs": 2, "warmup_epochs": 0}
    runs.in_process(command(world, settings=short))
    done = runs.in_process(command(world, settings={**short, "checkpoint_every": 5, "workers": 0}))
    assert done["resumed_at_step"] == 2 * STEPS


@pytest.fixture
def student_trainer(recipe, student, trainer_of):
    return trainer_of(recipe(), student())


def bits(network: torch.nn.Module) -> list[bytes]:
    return [tensor.numpy().tobytes() for tensor in network.state_dict().values()]


def test_a_gradient_that_is_not_finite_never_reaches_a_weight(world, student_trainer):
    """Though the loss is."""
    batch = next(feed.batches(world.plan(), workers=0))
    student_trainer.train_step(batch, 0)
    before = bits(student_trainer.network), bits(student_trainer.ema.module)
    student_trainer.network.head.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(
        errors.NumericsError, match="the gradient of step 1 is not finite, on samples digits/"
    ) as caught:
        student_trainer.train_step(batch, 1)
    assert all(key in str(caught.value) for key in batch.keys)
    assert (bits(student_trainer.network), bits(student_trainer.ema.module)) == before


def test_a_target_that_is_not_finite_never_reaches_a_weight(world, recipe, student, trainer_of):
    student_trainer = trainer_of(recipe(accumulate=4), student())
    batch = next(feed.batches(world.plan(), workers=0))
    before = bits(student_trainer.network)
    batch.rows["logits"][3, 4] = float("nan")
    with pytest.raises(errors.NumericsError, match="the loss of step 0 is nan, on samples digits/"):
        student_trainer.train_step(batch, 0)
    assert bits(student_trainer.network) == before


@pytest.fixture
def stepped(world, student_trainer):
    """After one step."""
    student_trainer.train_step(next(feed.batches(world.plan(), workers=0)), 0)
    return student_trainer


@pytest.mark.parametrize("part", ["weights", "average", "moments"])
def test_what_is_not_finite_is_not_saved(stepped, tmp_path, part):
    student_trainer = stepped
    student_trainer.save(tmp_path, 1, [])
    before = (tmp_path / "checkpoint.pt").read_bytes()
    moments = next(iter(student_trainer.optimizer.state.values()))["exp_avg_sq"]
    spoilt = {
        "weights": student_trainer.network.cls_token.data,
        "average": student_trainer.ema.module.cls_token.data,
        "moments": moments,
    }[part]
    spoilt.view(-1)[0] = float("inf")
    with pytest.raises(errors.NumericsError, match="not all weights are finite after 2 steps"):
        student_trainer.save(tmp_path, 2, [])
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
