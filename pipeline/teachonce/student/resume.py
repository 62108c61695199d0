"""From which step a run goes on: that of its newest sound checkpoint, which all ranks must see."""

from pathlib import Path

from teachonce.core import errors, state_files
from teachonce.student import checkpoint, curve, state_checks, trainer


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
        consequence = f"goes on from {folder / state_files.BEFORE}, after {steps_done} of {total} steps"
        state_files.remove_damaged(recovered.damaged, f"The run {consequence if state else 'begins anew'}")
    if state:
        student_trainer.load(state)
    return steps_done, points
