"""Checkpoints, changed at random: the newest whole one is taken, whatever else is there, and nothing else ever.

python -m pytest tests/student/test_fuzz.py -s      # prints the count of each outcome
"""

import hashlib
import os
import random  # noqa: TID251 - a seeded stream of test cases, no view and no order of training
import shutil
from collections.abc import Collection
from pathlib import Path

import changes
import feed
import pytest

from teachonce.core import files, state_files
from teachonce.student import checkpoint, resume, trainer


@pytest.fixture
def made(recipe, student, trainer_of):
    return lambda: trainer_of(recipe(), student())


@pytest.fixture
def pair(world, made, tmp_path):
    """The folder of a run with two checkpoints, and that of another run with others."""
    batches = feed.batches(world.plan(), workers=0)
    for name in ("run", "other"):
        student_trainer = made()
        for step in range(2):
            student_trainer.train_step(next(batches), step)
            student_trainer.save(tmp_path / name, step + 1, [(done, {"loss": 1.5}) for done in range(step + 1)])
    return tmp_path / "run", tmp_path / "other"


def bits(student_trainer: trainer.Trainer) -> dict[str, bytes]:
    """All that goes on from a checkpoint."""
    state = student_trainer.optimizer.state_dict()["state"]
    moments = {f"{n}.{name}": tensor for n, of in state.items() for name, tensor in of.items()}
    parts = {
        "model": student_trainer.network.state_dict(),
        "ema": student_trainer.ema.module.state_dict(),
        "moments": moments,
    }
    return {f"{part}.{name}": t.numpy().tobytes() for part, of in parts.items() for name, t in of.items()}


def gives(student_trainer: trainer.Trainer, at: Path) -> tuple[object, dict[str, bytes]]:
    return resume.from_newest(student_trainer, at), bits(student_trainer)


def content(path: Path) -> bytes | None:
    """Plainly: what stands there, if it is a file."""
    return path.read_bytes() if path.is_file() and path.stat().st_size < 1 << 30 else None


def spoilt(path: Path, whole: Collection[bytes]) -> bool:
    """Plainly: whether something stands there, and is none of the files that were written."""
    return os.path.lexists(path) and content(path) not in whole


def test_a_changed_checkpoint_is_named_and_never_taken(pair, made, tmp_path, caplog):
    run, other = pair
    whole = [(run / name).read_bytes() for name in state_files.NAMES]
    # What each of the two gives alone, and what neither gives.
    wanted = {None: gives(made(), tmp_path / "none")}
    for data in whole:
        files.write_bytes(tmp_path / "alone/run/checkpoint.pt", data)
        wanted[data] = gives(made(), tmp_path / "alone/run")
    assert [found[0][0] for found in wanted.values()] == [0, 2, 1]
    tally = changes.Tally("checkpoints")

    def outcome() -> str:
        # The reference: the first that is byte for byte one that was written.
        sound = next((data for name in state_files.NAMES if (data := content(at / name)) in whole), None)
        silent = not spoilt(at / state_files.NEWEST, whole)
        student_trainer = made()
        found = gives(student_trainer, at)
        assert found == wanted[sound], f"gave {found[0]}"
        assert silent or caplog.records, "passed over in silence"
        assert all("\n" not in line.getMessage() for line in caplog.records), caplog.text
        student_trainer.save(at, 3, [])
        assert checkpoint.load(at).step == 3
        if not caplog.records:
            return "harmless"
        return "named, the one before taken" if sound else "named, begun anew"

    for number in range(changes.COUNT):
        at = tmp_path / "copy/run"
        shutil.copytree(run, at)
        caplog.clear()
        draw = changes.stream("checkpoint", number)
        # Of two, one alone mostly means that the other serves.
        told = [changes.Folder(at, other, draw).apply() for _ in range(draw.choice((1, 2)))]
        tally.take(f"{number}: {told}", outcome)
        shutil.rmtree(tmp_path / "copy")
    tally.end()
    assert tally.outcomes["harmless"] < tally.outcomes.total() / 2


def forged(data: bytes, draw: random.Random) -> bytes:
    """Some bits flipped where no tensor lies, at the front and at the back, and the right digest of that."""
    at = len(state_files.MAGIC) + 32
    payload = bytearray(data[at + 32 :])
    for _ in range(draw.choice((1, 2, 8))):
        where = draw.randrange(8000)
        payload[draw.choice((where, len(payload) - 1 - where))] ^= 1 << draw.randrange(8)
    return data[:at] + hashlib.sha256(payload).digest() + payload


def test_a_forged_checkpoint_is_a_state_that_fits_or_named(pair, made, tmp_path, caplog):
    """Whoever can write a right digest may; it must end no run in a traceback."""
    data = (pair[0] / state_files.NEWEST).read_bytes()
    tally = changes.Tally("forged checkpoints")

    def outcome() -> str:
        student_trainer = made()
        step, _ = resume.from_newest(student_trainer, tmp_path / "forged/run")
        assert caplog.records or 0 < step <= 70
        assert all(bool(tensor.isfinite().all()) for tensor in student_trainer.network.state_dict().values())
        return "taken" if step else "named"

    for number in range(changes.COUNT):
        files.write_bytes(tmp_path / "forged/run" / state_files.NEWEST, forged(data, changes.stream("forged", number)))
        caplog.clear()
        tally.take(str(number), outcome)
    tally.end()
