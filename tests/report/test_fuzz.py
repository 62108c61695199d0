"""A student's folder, a teacher's and predictions, changed at random: refused in one line, or all is as it was.

python -m pytest tests/report/test_fuzz.py -s      # prints the count of each outcome
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import changes
import pytest
import reseal
import torch

from teachonce.core import hashing, timm_models
from teachonce.evaluate import evaluate_student
from teachonce.report import disagreements, load_metrics
from teachonce.shards import index
from teachonce.store import store_reader
from teachonce.student import fine_tuning, student_model, student_record, student_spec
from teachonce.teacher import teacher_network
from teachonce.views import view_policy

TWIN = student_spec.SoftSpec(model="tiny", kind="soft", alpha=0.5, tau=2.0, seed=1)


@dataclass(frozen=True)
class Consumer:
    """Who reads a folder, and all that it may take from it."""

    folder: Path
    """Sound."""
    other: Path
    """Another of the same files."""
    reads: dict[str, Callable[[Path], object]]
    """By name; what they give is compared."""

    def outcome(self, at: Path, expected: dict[str, object]) -> str:
        """What each meets."""
        texts = []
        for name, read in self.reads.items():
            value, text = changes.refusal(lambda read=read: read(at))
            assert text or value == expected[name], f"{name}: read, and not what was written"
            texts.append(text)
        return "refused" if any(texts) else "harmless"

    def fuzz(self, label: str, place: Path) -> changes.Tally:
        expected = {name: read(self.folder) for name, read in self.reads.items()}
        tally = changes.Tally(label)
        for number in range(changes.COUNT):
            # Of the same name, which messages tell.
            at = place / "copy" / self.folder.name
            shutil.copytree(self.folder, at)
            change = changes.Folder(at, self.other, changes.stream(label, number)).apply()
            tally.take(f"{number}: {change}", lambda: self.outcome(at, expected))  # noqa: B023  called at once
            shutil.rmtree(place / "copy")
        tally.end()
        return tally


@pytest.fixture
def student(whole, tmp_path):
    """Read by evaluate, by export, and by students that begin with its weights."""
    root, folder = whole.root, whole.root / "students/zeal"
    record = student_record.read(folder).record
    digests = {name: hashing.sha256_file(folder / name) for name in (student_model.EMA, student_model.RAW)}
    classes = index.read(root / "shards").index.classes

    def evaluated(at: Path) -> object:
        out = tmp_path / "predictions"
        shutil.rmtree(out, ignore_errors=True)
        paths = evaluate_student.EvaluationPaths(root / "shards", root / "cache/val.zarr", at, out)
        evaluation = evaluate_student.evaluate(record.named("zeal"), view_policy.Policy(center=0.75), paths)
        return evaluation, (out / "predictions.safetensors").read_bytes()

    def begun(name: str, at: Path) -> object:
        evaluation = fine_tuning.read(
            student_spec.StartFile(path=str(at / name), sha256=digests[name]), classes, by_place=False
        )
        return evaluation.record(), {name: tensor.numpy().tobytes() for name, tensor in evaluation.tensors.items()}

    reads = {
        "evaluate": evaluated,
        "export": student_record.read,
        "start": lambda at: begun(student_model.EMA, at),
        "start, raw": lambda at: begun(student_model.RAW, at),
    }
    return Consumer(folder, root / "students/hard-1", reads)


@pytest.fixture
def teacher(whole, tmp_path):
    """Read by the cache stage, the audit and students with a live teacher."""
    folder = whole.root / "teacher"
    identity = teacher_network.read_identity(folder)
    shutil.copytree(folder, tmp_path / "other")
    twin = timm_models.create_network("architecture", identity.architecture, {}, identity.num_classes)
    (tmp_path / "other/model.safetensors").write_bytes(student_model.safetensors.torch.save(twin.state_dict()))
    digest = hashing.sha256_file(tmp_path / "other/model.safetensors")
    reseal.change(tmp_path / "other/teacher.json", weights_sha256=digest, mean=[0.4, 0.5, 0.5])
    images = torch.linspace(-1, 1, 2 * 3 * 24 * 24).view(2, 3, 24, 24)

    def answers(at: Path) -> object:
        # As a worker: an identity says whose answers are wanted, and weights that are not its own are refused.
        network = teacher_network.load(at, torch.device("cpu"))
        with torch.inference_mode():
            return teacher_network.read_identity(at), network(images).numpy().tobytes()

    return Consumer(folder, tmp_path / "other", {"answers": answers})


@pytest.fixture
def predictions(whole, tmp_path):
    """Read by the report, beside the records of the same evaluations."""
    root = whole.root
    students = whole.gather(load_metrics.read_students(root / "params.yaml")).students
    digests = {name: metrics.predictions_sha256 for name, metrics in students.items()}
    origin = disagreements.expected_provenance(index.read(root / "shards"), store_reader.open(root / "cache/val.zarr"))
    # Other answers of the same students to the same images.
    shutil.copytree(root / "predictions", tmp_path / "predictions")
    file = "predictions.safetensors"
    for name, other in (("plain", "zeal"), ("zeal", "hard-1"), ("hard-1", "zeal")):
        shutil.copyfile(root / "predictions" / other / file, tmp_path / "predictions" / name / file)

    def matrix(at: Path) -> object:
        shares = disagreements.compare_predictions(at, digests, origin)
        return shares.names, shares.share_WW.tobytes()

    return Consumer(root / "predictions", tmp_path / "predictions", {"matrix": matrix})


def test_a_changed_student_is_refused_or_the_same(student, tmp_path):
    tally = student.fuzz("students", tmp_path)
    # Of four files, timm alone reads one, and one is read by fine-tuning alone.
    assert tally.outcomes["refused"] > tally.outcomes.total() / 2


def test_a_changed_teacher_is_refused_or_the_same(teacher, tmp_path):
    tally = teacher.fuzz("teachers", tmp_path)
    assert tally.outcomes["refused"] > 0.8 * tally.outcomes.total()


def test_changed_predictions_are_refused_or_the_same(predictions, tmp_path):
    tally = predictions.fuzz("predictions", tmp_path)
    assert tally.outcomes["refused"] > 0.8 * tally.outcomes.total()


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_a_forged_record_ends_in_no_traceback(request, who, tmp_path):
    """With the right digest of what it says: it may say anything, and be believed where that can be."""
    consumer = request.getfixturevalue(who)
    name = {"student": student_record.NAME, "teacher": teacher_network.IDENTITY}[who]
    tally = changes.Tally(f"forged, {who}")
    for number in range(changes.COUNT):
        at = tmp_path / "forged" / consumer.folder.name
        shutil.copytree(consumer.folder, at)
        draw = changes.stream("forged", who, number)
        json = changes.Json(draw)
        change = json.edit(at / name, draw.choice((json.value, json.value, json.drop, json.add, json.nudge)))
        try:
            reseal.change(at / name)
        except ValueError:
            change += ", no plain data"

        def outcome() -> str:
            texts = [changes.refusal(lambda read=read: read(at))[1] for read in consumer.reads.values()]  # noqa: B023
            return "refused" if any(texts) else "believed"

        tally.take(f"{number}: {change}", outcome)
        shutil.rmtree(tmp_path / "forged")
    tally.end()
