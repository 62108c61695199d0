"""From which step a run goes on: that of its newest sound checkpoint, which all ranks must see."""

import logging
from pathlib import Path

from teachonce.core import errors, files
from teachonce.student import checkpoint, curve, state_checks, trainer

_LOG = logging.getLogger(__name__)


def from_newest(student_trainer: trainer.Trainer, folder: Path) -> tuple[int, list[tuple[int, curve.Point]]]:
    """Go back to the newest sound checkpoint, if there is one: steps done, and the curves so far.

    One that is damaged is named and removed, and the one before it is taken; with neither, the run begins.

    Raises:
        ConfigError: the ranks see different checkpoints.
    """
    network, world, total = student_trainer.network, student_trainer.world, student_trainer.length.total
    recovered = checkpoint.read(
        folder,
        lambda state: state_checks.first_mismatch(state, network, student_trainer.optimizer, total),
        sum(tensor.nbytes for tensor in network.state_dict().values()),
    )
    state = recovered.state
    steps_done, points = (state.step, state.points) if state else (0, [])
    # In float64, so many bits of a digest add up exactly.
    mark = [steps_done, int(recovered.sha256[:8] or "0", 16)]
    is_unlike = world.all_sum(mark) != [value * world.size for value in mark]
    cure = "Use one that all machines share"
    world.raise_first(
        errors.ConfigError.for_value("train", "--scratch", "a folder that all ranks see", folder, cure)
        if is_unlike
        else None
    )
    if world.is_main:
        _drop(recovered, f"The run goes on from {folder / checkpoint.BEFORE}, after {steps_done} of {total} steps")
    if state:
        student_trainer.load(state)
    return steps_done, points


def _drop(recovered: checkpoint.ReadResult, consequence: str) -> None:
    """Name what is damaged, and remove it: it must not be stepped aside onto a sound one."""
    if not recovered.state:
        consequence = "The run begins anew"
    for path, reason in recovered.damaged:
        _LOG.warning("%s: %s. It is removed. %s", path, reason, consequence)
        files.remove(path)
