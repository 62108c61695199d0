"""Averaged weights that a run keeps on its way: for a curve to look at, by which nothing is chosen.

They are scored when the student is evaluated, not while it trains: so another evaluation crop trains no student again.
"""

from pathlib import Path

import safetensors.torch
import torch

from teachonce.core import files, hashing, sealed_files
from teachonce.student import schedule, student_model, student_record

POINTS = 8
"""Most points of the curve; the last of them is the finished student."""
_FOLDER = "passes"
FILE = rf"{_FOLDER}/\d+\.safetensors"
"""Names of the files in a student's folder, as a pattern."""


def kept_passes(length: schedule.Schedule) -> tuple[int, ...]:
    """Passes at whose end weights are kept: evenly spaced, all where there are few; without the end of the run."""
    whole = (length.total - 1) // length.steps_a_pass
    if whole < POINTS:
        return tuple(range(1, whole + 1))
    passes = length.total / length.steps_a_pass
    return tuple(min(round(point * passes / POINTS), whole) for point in range(1, POINTS))


def save(run: Path, length: schedule.Schedule, steps_done: int, average: torch.nn.Module) -> None:
    """Keep the average in the run's folder, where a kept pass ends with these steps.

    Args:
        run: folder of the run.
        length: of the run.
        steps_done: how many steps made these weights.
        average: of the weights so far.
    """
    passes, step = length.position(steps_done)
    if step or passes not in kept_passes(length):
        return
    # Half the bytes: float16 rounds a weight by a part in two thousand, which moves no accuracy that a curve shows.
    state = {name: tensor.detach().cpu().half().contiguous() for name, tensor in average.state_dict().items()}
    path = _path(run, passes)
    path.parent.mkdir(exist_ok=True)
    files.write_bytes(path, safetensors.torch.save(state))


def hand_over(run: Path, draft: Path, length: schedule.Schedule) -> tuple[student_record.KeptWeights, ...]:
    """Copy what a run kept into the student's folder, and the record of it, the finished student last.

    Args:
        run: folder of the run.
        draft: the student's folder, with its averaged weights.
        length: of the run.
    """
    kept = []
    for passes in kept_passes(length):
        # Someone may have cleared them away meanwhile: a curve with a point less is no reason to train again.
        if _path(run, passes).exists():
            _path(draft, passes).parent.mkdir(exist_ok=True)
            files.write_bytes(_path(draft, passes), _path(run, passes).read_bytes())
            kept.append((passes, passes * length.steps_a_pass, _path(draft, passes)))
    kept.append((length.passes, length.total, draft / student_model.EMA))
    return tuple(
        student_record.KeptWeights(passes=passes, step=step, sha256=hashing.sha256_file(path))
        for passes, step, path in kept
    )


def read(folder: Path, kept: student_record.KeptWeights, refusal: sealed_files.Refusal) -> tuple[str, bytes]:
    """Name in the student's folder of a file of kept weights, and its verified bytes.

    Args:
        folder: the student's.
        kept: which.
        refusal: how a file is refused that is missing or another.

    Raises:
        TeachonceError: it is.
    """
    path = _path(folder, kept.passes)
    data = sealed_files.read_verified(path, kept.sha256, "that of its record, ", refusal)
    return path.relative_to(folder).as_posix(), data


def _path(folder: Path, passes: int) -> Path:
    return folder / _FOLDER / f"{passes:04d}.safetensors"
