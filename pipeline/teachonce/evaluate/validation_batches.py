"""The validation images in row order, each batch joined with the teacher's answers to these very views.

Shapes: B images, C classes, K kept classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from teachonce.format import codec, row_expansion
from teachonce.shards import decode, index, sample_reader
from teachonce.store import compatibility, joined_samples, store_reader
from teachonce.views import draw, render

SPLIT = "val"
_AUG_SEED = 0
"""The store of the validation split holds one view of each image, under this seed."""


@dataclass(frozen=True, slots=True)
class EvaluationBatch:
    """Some images of one tar, in row order."""

    keys: tuple[str, ...]
    """Sample keys, B of them."""
    pixels: npt.NDArray[np.uint8]
    """uint8 (B, 3, size, size): the evaluation crop."""
    label: npt.NDArray[np.int32]
    """int32 (B,): ground truth, or `shards.index.UNLABELLED`."""
    teacher: npt.NDArray[np.int32]
    """int32 (B,): the teacher's likeliest class, ties by lower id."""
    teacher_logp: npt.NDArray[np.float32]
    """float32 (B, C): its log-probabilities at tau 1; of classes that the cache does not keep, what its tail gives."""
    ranked: int
    """How many of the teacher's likeliest classes are in a known order."""


@dataclass(frozen=True, slots=True)
class EvaluationData:
    """Shards and the store of their validation split."""

    shards: index.Shards
    """Index and place of the tars."""
    cache: store_reader.Cache
    """The teacher's answers to these images."""
    size: int
    """Side of the student's input in pixels."""
    accept: tuple[str, ...] = ()
    """Refusals to go on with (`store.acceptance.Acceptable`)."""


class BatchStream:
    """Batches, and which refusals of views that differ from those the teacher saw were accepted."""

    def __init__(self, source: EvaluationData, batch_size: int) -> None:
        self._source = source
        self._batch_size = batch_size
        self._tail = row_expansion.tail_decoder(source.cache.recipe, source.cache.basis)
        self.accepted: list[str] = []

    def batches(self) -> Iterator[EvaluationBatch]:
        """All validation images; a batch never crosses a tar, so that one block of the cache serves it.

        Raises:
            DataError: a tar is not the one the index names.
            CacheError: a block is damaged, or a row belongs to another key.
            ViewDriftError: a canary does not replay, unless drift is accepted.
        """
        for entry in self._source.shards.index.of_split(SPLIT):
            rows = self._source.cache.block(self._source.cache.tar(entry.sha256), _AUG_SEED)
            viewed_samples: list[tuple[sample_reader.Sample, npt.NDArray[np.uint8]]] = []
            for sample in self._samples(entry):
                viewed_samples.append((sample, self._view(sample, entry)))
                if len(viewed_samples) == self._batch_size:
                    yield self._batch(viewed_samples, rows)
                    viewed_samples = []
            if viewed_samples:
                yield self._batch(viewed_samples, rows)

    def check_drift(self, drifts: list[compatibility.CanaryDrift], checked: int) -> None:
        """Refuse views that differ from what the teacher saw, or say so and remember it.

        Raises:
            ViewDriftError: there are some, and drift is not accepted.
        """
        if not drifts:
            return
        error = compatibility.drift_error(self._source.cache, drifts, checked)
        if "view_drift" not in self._source.accept:
            raise error
        self.accepted += compatibility.log_accepted([str(error)])

    def _samples(self, entry: index.Shard) -> Iterator[sample_reader.Sample]:
        return joined_samples.join_samples(
            self._source.cache,
            self._source.shards,
            entry,
            [_AUG_SEED],
            accept=self._source.accept,
            go_on=lambda message: self.accepted.extend(compatibility.log_accepted([message])),
        )

    def _view(self, sample: sample_reader.Sample, entry: index.Shard) -> npt.NDArray[np.uint8]:
        # By the store's own policy: the student must see the very crop whose answer stands in the row.
        params = draw.view_params(self._source.cache.recipe.policy, sample.key, _AUG_SEED)
        return render.to_pixels(_image(sample, entry), params, self._source.size)

    def _batch(
        self, viewed_samples: list[tuple[sample_reader.Sample, npt.NDArray[np.uint8]]], rows: codec.Rows
    ) -> EvaluationBatch:
        row_indices = [sample.row for sample, _ in viewed_samples]
        batch_rows = codec.rows_from_arrays({name: array[row_indices] for name, array in rows.arrays().items()})
        recipe = self._source.cache.recipe
        teacher, teacher_logp = teacher_predictions(batch_rows, recipe.teacher.num_classes, self._tail)
        return EvaluationBatch(
            keys=tuple(sample.key for sample, _ in viewed_samples),
            pixels=np.stack([view for _, view in viewed_samples]),
            label=np.array([sample.label for sample, _ in viewed_samples], dtype=np.int32),
            teacher=teacher,
            teacher_logp=teacher_logp,
            ranked=recipe.teacher.num_classes if recipe.k == "all" else recipe.k,
        )


def teacher_predictions(
    rows: codec.Rows, num_classes: int, tail: row_expansion.TailDecoder | None = None
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """The teacher's likeliest class and log-probabilities at tau 1: int32 (B,) and float32 (B, C).

    Args:
        rows: B rows of a store, with all logits or with kept classes.
        num_classes: C.
        tail: what a coded tail stands on; None where it is flat or rows are whole.
    """
    if rows.logits_BC is not None:
        logits_BC = torch.from_numpy(np.ascontiguousarray(rows.logits_BC))
        return rows.logits_BC.argmax(axis=1).astype(np.int32), logits_BC.log_softmax(dim=1).numpy()
    # Kept classes stand by falling logit, ties by lower id: the first is what argmax of all logits would give.
    if rows.class_id_BK is None or rows.logp_BK is None:
        raise TypeError("rows hold neither logits nor kept classes")
    full_BC = row_expansion.full_logp(row_expansion.to_tensors(rows), num_classes, tail)
    return rows.class_id_BK[:, 0].astype(np.int32), full_BC.log_softmax(dim=1).numpy()


def _image(sample: sample_reader.Sample, entry: index.Shard) -> npt.NDArray[np.uint8]:
    return decode.rgb_pixels(sample.image, f"{entry.url}:{sample.key}")
