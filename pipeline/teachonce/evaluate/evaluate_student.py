"""Evaluate one student: its averaged weights on every validation image, beside the teacher's cached answers.

Shapes: B images of a batch, N of the split, C classes.
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from teachonce.core import arithmetic, errors, hashing, outputs, progress
from teachonce.evaluate import (
    evaluation_record,
    heads,
    metrics,
    pass_accuracy,
    predictions,
    token_similarity,
    validation_batches,
)
from teachonce.format import schema
from teachonce.shards import index
from teachonce.store import compatibility, store_reader
from teachonce.student import student_model, student_record, student_spec, train_config
from teachonce.views import view_policy

BATCH_SIZE = 256
_KIND = outputs.FolderKind("earlier predictions", predictions.NAME, predictions.METADATA.encode(), re.compile(""))
_TOP = 5
_SUREST = 12
_FIRST_TARS = 2
"""Tars whose canaries replay before the first batch; the others' do as they stream by."""


@dataclass(frozen=True, slots=True)
class EvaluationPaths:
    """What an evaluation reads, and where it writes."""

    shards: str | Path
    """Folder of shards, or its URL."""
    cache: str | Path
    """Store of the validation split, or its URL."""
    weights: Path
    """Folder of the trained student: its averaged weights and its record."""
    out: Path
    """Folder that receives the predictions."""


@dataclass(frozen=True, slots=True)
class _SplitResults:
    """What one pass over the split gives: a few numbers for each image, no logits."""

    keys: list[str]
    """N keys in row order."""
    answers: predictions.ClassPredictions
    """Predicted class of each image, by `label`, `teacher` and reading."""
    kl: dict[str, npt.NDArray[np.float64]]
    """KL(teacher ‖ student) by reading, (N,)."""
    probability: dict[str, npt.NDArray[np.float32]]
    """What the student holds its answer for, by reading, (N,)."""
    hits: dict[str, npt.NDArray[np.bool_]]
    """Whether the label is among the five likeliest, by reading and for `teacher`, (N,)."""
    cosines: list[float]
    """Mean cosine of the two tokens, by layer; empty for a student with one token."""


def evaluate(
    student: student_spec.Student,
    evaluation: view_policy.Policy,
    paths: EvaluationPaths,
    *,
    batch_size: int = BATCH_SIZE,
    device: torch.device | None = None,
) -> evaluation_record.Evaluation:
    """Score a student and write its predictions.

    Args:
        student: its entry in params.yaml and its training configuration, both of which its record must repeat.
        evaluation: the view policy that the store must have been made for.
        paths: what is read, and where predictions are written.
        batch_size: images of a forward pass.
        device: where the student computes; by default the first GPU, or else the CPU.

    Returns:
        The record of the stage: accuracy, agreement with the teacher, and what they were measured on.

    Raises:
        IdentityError: shards, store, student and views do not belong together.
        DataError: the student's folder is damaged, or was trained with other settings.
    """
    out = outputs.Output(paths.out, _KIND, (paths.shards, paths.cache, paths.weights))
    # Before anything is computed: an output that may not be replaced would waste the whole pass.
    out.require_replaceable()
    shards = index.read(paths.shards)
    cache = store_reader.open(paths.cache)
    trained = _require_trained(paths.weights, student, cache)
    accept = student.spec.accept
    accepted = trained.record.accepted
    accepted += compatibility.require_compatible(
        cache, shards, validation_batches.SPLIT, compatibility.Requirements(evaluation, 1), accept
    )
    # Tars without rows have been refused above, unless the student accepts them; then they are left out for all that
    # is counted, since agreement with the teacher needs a row for each image.
    shards = compatibility.restrict_to_cached(cache, shards, validation_batches.SPLIT)
    classes = cache.recipe.teacher.num_classes
    network = student_model.load(trained.weights, student, classes, folder=paths.weights)
    stream = validation_batches.BatchStream(
        validation_batches.EvaluationData(shards, cache, student.config.size, accept), batch_size
    )
    # Drift of the first tars shows in seconds; without this look it would end the pass wherever a tar differs.
    stream.check_drift(
        *compatibility.replay_first_canaries(cache, shards, validation_batches.SPLIT, _FIRST_TARS, accept)
    )
    # With TF32 a GPU could rank two close classes otherwise than a CPU, and predictions would depend on the machine.
    arithmetic.use_exact_float32()
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    way = pass_accuracy.KeptNetworks(paths.weights, trained.record, student, classes, device)
    total = shards.index.nsamples(validation_batches.SPLIT)
    results = _forward(network.to(device), way, stream, student.config, total)
    origin = predictions.Provenance(
        keys_crc32=hashing.keys_crc32(results.keys),
        classes_sha256=schema.classes_sha256(shards.index.classes),
        teacher_sha256=cache.recipe.teacher.weights_sha256,
    )
    with out.draft() as draft:
        sha256 = predictions.save(draft, results.answers, origin)
    record = _evaluation(
        trained.record, results, network, predictions_sha256=sha256, accepted=(*accepted, *stream.accepted)
    )
    top1 = record.heads.get("both", record.heads["class"]).top1
    return record.model_copy(update={"accuracy_by_pass": way.curve(record.images - record.unlabelled, top1)})


def _require_trained(
    folder: Path, student: student_spec.Student, cache: store_reader.Cache
) -> student_record.TrainedStudent:
    """A student's folder; weights of another student or of another teacher are refused."""
    trained = student_record.read(folder)
    recorded = trained.record.named(student.name)
    path, cure = folder / student_record.NAME, "Train it again: dvc repro train; or restore it: dvc checkout"
    for expected_settings, recorded_settings in (
        (student_spec.all_keys(student.spec), student_spec.all_keys(recorded.spec)),
        (student.config.model_dump(mode="json"), recorded.config.model_dump(mode="json")),
    ):
        # By value, not by a digest of the files: a comment or another count of loader workers trains the same student.
        for name, value in expected_settings.items():
            if name not in {"accept", *train_config.OPERATIONAL} and value != recorded_settings[name]:
                raise errors.DataError.for_value(path, name, f"as asked, {value}", recorded_settings[name], cure)
    cache_teacher = cache.recipe.teacher
    student_teacher = trained.record.cache.teacher
    # Agreement and KL are with this teacher: of another one they would be numbers of nothing.
    if student_teacher != cache_teacher:
        raise errors.IdentityError.for_value(
            cache.path,
            "teacher",
            f"the one that taught {folder.name}, {student_teacher.weights_sha256[:12]}…",
            f"{cache_teacher.weights_sha256[:12]}…",
            "Make both stores with one teacher: dvc repro cache",
        )
    return trained


def _forward(
    network: torch.nn.Module,
    way: pass_accuracy.KeptNetworks,
    stream: validation_batches.BatchStream,
    config: train_config.TrainConfig,
    total: int,
) -> _SplitResults:
    device = next(network.parameters()).device
    # Times 255: they are configured for pixels from 0 to 1, and views come as levels from 0 to 255.
    mean, std = (torch.tensor(value, device=device).view(3, 1, 1) * 255 for value in (config.mean, config.std))
    keys: list[str] = []
    parts: dict[str, dict[str, list[npt.NDArray[np.generic]]]] = defaultdict(lambda: defaultdict(list))
    with (
        torch.inference_mode(),
        token_similarity.collect_cosines(network.eval()) as cosines,
        progress.bar(range(total), label="evaluate", total=total, unit="image") as bar,
    ):
        for batch in stream.batches():
            images = (torch.from_numpy(batch.pixels).to(device).float() - mean) / std
            class_BC, dist_BC = student_model.head_logits(network, images)
            way.add(images, batch.label)
            keys.extend(batch.keys)
            _collect(parts, batch, heads.read(class_BC.cpu(), None if dist_BC is None else dist_BC.cpu()))
            bar.update(len(batch.keys))
    joined = {kind: {name: np.concatenate(part) for name, part in arrays.items()} for kind, arrays in parts.items()}
    return _SplitResults(
        keys=keys,
        answers=joined["answers"],
        kl=joined["kl"],
        probability=joined["probability"],
        hits=joined.get("hits", {}),
        cosines=[] if cosines is None else cosines.means(),
    )


def _collect(
    parts: dict[str, dict[str, list[npt.NDArray[np.generic]]]],
    batch: validation_batches.EvaluationBatch,
    readings: dict[str, heads.HeadPrediction],
) -> None:
    """Add what a batch tells; only classes and numbers are kept, never its logits.

    Args:
        parts: arrays of the batches so far, by kind and way to answer; extended in place.
        batch: labels and the teacher's answers.
        readings: the student's answers by name.

    Raises:
        NumericsError: a logit is not finite.
    """
    # Logits of a whole split would take 200 MB a reading, with 50,000 images of 1,000 classes.
    parts["answers"]["label"].append(batch.label)
    parts["answers"]["teacher"].append(batch.teacher)
    # A cache that keeps fewer classes tells the others by its tail alone, at most by a few coefficients: their order,
    # and so a top-5, would be made up.
    ranked = {"teacher": batch.teacher_logp} if batch.ranked >= _TOP else {}
    for name, reading in readings.items():
        scores_BC = reading.scores_BC.numpy()
        # The place of a NaN would pass for the likeliest class, and broken weights for a bad student.
        if not np.isfinite(scores_BC).all():
            raise errors.NumericsError(
                "evaluate", "the student's logits are not finite", "Train it again with a lower lr"
            )
        ranked[name] = scores_BC
        parts["answers"][name].append(metrics.top1_class(scores_BC))
        parts["probability"][name].append(np.exp(reading.logp_BC.numpy().max(axis=1)))
        parts["kl"][name].append(metrics.kl_divergence(batch.teacher_logp, reading.logp_BC.numpy()))
    if batch.teacher_logp.shape[1] > _TOP:
        for name, scores_BC in ranked.items():
            parts["hits"][name].append(metrics.in_top_k(scores_BC, batch.label, _TOP))


def _evaluation(
    record: student_record.StudentRecord,
    results: _SplitResults,
    network: torch.nn.Module,
    *,
    predictions_sha256: str,
    accepted: tuple[str, ...],
) -> evaluation_record.Evaluation:
    label_N, teacher_N = results.answers["label"], results.answers["teacher"]
    knobs = record.student.model_dump(mode="json", include={"model", "kind", "alpha", "tau", "seed"})
    return evaluation_record.Evaluation(
        student=evaluation_record.Knobs(**knobs, token=record.student.has_token),
        architecture=record.architecture,
        weights_sha256=record.weights_sha256,
        predictions_sha256=predictions_sha256,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        images=len(label_N),
        unlabelled=int((label_N == index.UNLABELLED).sum()),
        classes=int(network.num_classes),  # type: ignore[arg-type]
        heads={
            name: evaluation_record.HeadMetrics(
                **_score(results, name),
                agreement=metrics.agreement(results.answers[name], teacher_N),
                kl=float(kl_N.mean()),
            )
            for name, kl_N in results.kl.items()
        },
        teacher=evaluation_record.Accuracy(**_score(results, "teacher")),
        token_cosine=tuple(
            evaluation_record.LayerCosine(layer=layer, cosine=cosine) for layer, cosine in enumerate(results.cosines)
        ),
        surest_errors=_surest_errors(results),
        accepted=accepted,
    )


def _surest_errors(results: _SplitResults) -> tuple[evaluation_record.SureError, ...]:
    name = heads.main_reading(results.probability)
    answers_N, truth_N, probability_N = results.answers[name], results.answers["label"], results.probability[name]
    is_labelled_N = truth_N != index.UNLABELLED
    # Nobody knows what is wrong without a label, but what is not the teacher's is worth a look.
    is_wrong_N = (
        (answers_N != truth_N) & is_labelled_N if is_labelled_N.any() else answers_N != results.answers["teacher"]
    )
    return tuple(
        # Rounding can lift a softmax over 1.
        evaluation_record.SureError(
            row=row, answer=int(answers_N[row]), probability=min(float(probability_N[row]), 1.0)
        )
        for row in metrics.surest_rows(is_wrong_N, probability_N, _SUREST)
    )


def _score(results: _SplitResults, name: str) -> dict[str, float]:
    label_N = results.answers["label"]
    is_labelled_N = label_N != index.UNLABELLED
    if not is_labelled_N.any():
        return {}
    share = metrics.agreement(results.answers[name][is_labelled_N], label_N[is_labelled_N])
    scores = {"top1": share, "top1_se": metrics.standard_error(share, int(is_labelled_N.sum()))}
    return {**scores, "top5": float(results.hits[name][is_labelled_N].mean())} if name in results.hits else scores
