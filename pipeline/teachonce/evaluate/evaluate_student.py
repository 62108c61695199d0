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
from teachonce.evaluate import evaluation_record, heads, metrics, predictions, token_similarity, validation_batches
from teachonce.format import schema
from teachonce.shards import index
from teachonce.store import compatibility, store_reader
from teachonce.student import student_model, student_record, student_spec, train_config
from teachonce.views import view_policy

BATCH_SIZE = 256
_KIND = outputs.FolderKind("earlier predictions", predictions.NAME, predictions.METADATA.encode(), re.compile(""))
_TOP = 5
_FIRST_TARS = 2
"""Tars whose canaries replay before the first batch; the others' do as they stream by."""


@dataclass(frozen=True, slots=True)
class EvaluationPaths:
    """Where evaluation reads and writes."""

    shards: str | Path
    """Folder of shards, or its URL."""
    cache: str | Path
    """Store of the validation split, or its URL."""
    weights: Path
    """The student's folder."""
    out: Path
    """Folder of predictions."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What a pass over the split collected."""

    keys: list[str]
    """N keys in row order."""
    answers: predictions.ClassPredictions
    """Classes by way to answer."""
    kl: dict[str, npt.NDArray[np.float64]]
    """KL(teacher ‖ student) by reading, (N,)."""
    hits: dict[str, npt.NDArray[np.bool_]]
    """Whether the label is among the five likeliest, by reading and for `teacher`, (N,)."""
    cosines: list[float]
    """Of the two tokens, by layer."""


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
        student: its entry and its training, which its record must tell.
        evaluation: the view policy the store must have been made for.
        paths: where.
        batch_size: images of a forward pass.
        device: where; by default the first GPU, or else the CPU.

    Returns:
        Its metrics.

    Raises:
        IdentityError: shards, store, student and views do not belong together.
        DataError: the student's folder is damaged, or was trained with other settings.
    """
    out = outputs.Output(paths.out, _KIND, (paths.shards, paths.cache, paths.weights))
    out.require_replaceable()
    shards = index.read(paths.shards)
    cache = store_reader.open(paths.cache)
    trained = _require_trained(paths.weights, student, cache)
    accept = student.spec.accept
    accepted = trained.record.accepted
    accepted += compatibility.require_compatible(
        cache, shards, validation_batches.SPLIT, compatibility.Requirements(evaluation, 1), accept
    )
    shards = compatibility.restrict_to_cached(cache, shards, validation_batches.SPLIT)
    network = student_model.load(trained.weights, student, cache.recipe.teacher.num_classes, folder=paths.weights)
    stream = validation_batches.BatchStream(
        validation_batches.EvaluationData(shards, cache, student.config.size, accept), batch_size
    )
    stream.check_drift(
        *compatibility.replay_first_canaries(cache, shards, validation_batches.SPLIT, _FIRST_TARS, accept)
    )
    arithmetic.use_exact_float32()
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = _forward(network.to(device), stream, student.config, shards.index.nsamples(validation_batches.SPLIT))
    origin = predictions.Provenance(
        keys_crc32=hashing.keys_crc32(found.keys),
        classes_sha256=schema.classes_sha256(shards.index.classes),
        teacher_sha256=cache.recipe.teacher.weights_sha256,
    )
    with out.draft() as draft:
        sha256 = predictions.save(draft, found.answers, origin)
    return _evaluation(
        trained.record, found, network, predictions_sha256=sha256, accepted=(*accepted, *stream.accepted)
    )


def _require_trained(
    folder: Path, student: student_spec.Student, cache: store_reader.Cache
) -> student_record.TrainedStudent:
    """A student's folder; weights of another student or of another teacher are refused."""
    trained = student_record.read(folder)
    recorded = trained.record.named(student.name)
    path, cure = folder / student_record.NAME, "Train it again: dvc repro train; or restore it: dvc checkout"
    for wanted, present in (
        (student_spec.all_keys(student.spec), student_spec.all_keys(recorded.spec)),
        (student.config.model_dump(mode="json"), recorded.config.model_dump(mode="json")),
    ):
        for name, value in wanted.items():
            if name not in {"accept", *train_config.OPERATIONAL} and value != present[name]:
                raise errors.DataError.for_value(path, name, f"as asked, {value}", present[name], cure)
    here = cache.recipe.teacher
    taught = trained.record.cache.teacher
    if taught != here:
        raise errors.IdentityError.for_value(
            cache.path,
            "teacher",
            f"the one that taught {folder.name}, {taught.weights_sha256[:12]}…",
            f"{here.weights_sha256[:12]}…",
            "Make both stores with one teacher: dvc repro cache",
        )
    return trained


def _forward(
    network: torch.nn.Module, stream: validation_batches.BatchStream, config: train_config.TrainConfig, total: int
) -> _Found:
    device = next(network.parameters()).device
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
            keys.extend(batch.keys)
            _collect(parts, batch, heads.read(class_BC.cpu(), None if dist_BC is None else dist_BC.cpu()))
            bar.update(len(batch.keys))
    joined = {what: {name: np.concatenate(part) for name, part in of.items()} for what, of in parts.items()}
    return _Found(
        keys=keys,
        answers=joined["answers"],
        kl=joined["kl"],
        hits=joined.get("hits", {}),
        cosines=[] if cosines is None else cosines.means(),
    )


def _collect(
    parts: dict[str, dict[str, list[npt.NDArray[np.generic]]]],
    batch: validation_batches.EvaluationBatch,
    readings: dict[str, heads.HeadPrediction],
) -> None:
    """Add what a batch tells; only classes and numbers are kept, never its logits."""
    parts["answers"]["label"].append(batch.label)
    parts["answers"]["teacher"].append(batch.teacher)
    ranked = {"teacher": batch.teacher_logp} if batch.ranked >= _TOP else {}
    for name, reading in readings.items():
        scores_BC = reading.scores_BC.numpy()
        if not np.isfinite(scores_BC).all():
            raise errors.NumericsError(
                "evaluate", "the student's logits are not finite", "Train it again with a lower lr"
            )
        ranked[name] = scores_BC
        parts["answers"][name].append(metrics.top1_class(scores_BC))
        parts["kl"][name].append(metrics.kl_divergence(batch.teacher_logp, reading.logp_BC.numpy()))
    if batch.teacher_logp.shape[1] > _TOP:
        for name, scores_BC in ranked.items():
            parts["hits"][name].append(metrics.in_top_k(scores_BC, batch.label, _TOP))


def _evaluation(
    record: student_record.StudentRecord,
    found: _Found,
    network: torch.nn.Module,
    *,
    predictions_sha256: str,
    accepted: tuple[str, ...],
) -> evaluation_record.Evaluation:
    label, teacher = found.answers["label"], found.answers["teacher"]
    knobs = record.student.model_dump(mode="json", include={"model", "kind", "alpha", "tau", "seed"})
    return evaluation_record.Evaluation(
        student=evaluation_record.Knobs(**knobs, token=record.student.has_token),
        architecture=record.architecture,
        weights_sha256=record.weights_sha256,
        predictions_sha256=predictions_sha256,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        images=len(label),
        unlabelled=int((label == index.UNLABELLED).sum()),
        classes=int(network.num_classes),  # type: ignore[arg-type]
        heads={
            name: evaluation_record.HeadMetrics(
                **_score(found, name), agreement=metrics.agreement(found.answers[name], teacher), kl=float(kl_N.mean())
            )
            for name, kl_N in found.kl.items()
        },
        teacher=evaluation_record.Accuracy(**_score(found, "teacher")),
        token_cosine=tuple(
            evaluation_record.LayerCosine(layer=layer, cosine=cosine) for layer, cosine in enumerate(found.cosines)
        ),
        accepted=accepted,
    )


def _score(found: _Found, name: str) -> dict[str, float]:
    label = found.answers["label"]
    known = label != index.UNLABELLED
    if not known.any():
        return {}
    share = metrics.agreement(found.answers[name][known], label[known])
    scores = {"top1": share, "top1_se": metrics.standard_error(share, int(known.sum()))}
    return {**scores, "top5": float(found.hits[name][known].mean())} if name in found.hits else scores
