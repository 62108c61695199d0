"""What a temperature does to the teacher's answer: one cached row, softened step by step.

Shapes: C classes.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from teachonce.format import codec
from teachonce.report import gallery
from teachonce.store import store_reader

TAUS = (1, 2, 3, 5, 10)
_NAMED = 5


@dataclass(frozen=True, slots=True)
class SoftenedClass:
    """A class of the row at each temperature."""

    name: str
    """Of the class; of all that are not named, how many they are."""
    right: bool
    """Whether it is the label, or that of one of two mixed images."""
    probabilities: tuple[float, ...]
    """In the order of `TAUS`."""


@dataclass(frozen=True, slots=True)
class TemperatureTable:
    """One view and the teacher's answer to it at several temperatures."""

    card: gallery.ViewCard
    """The view."""
    rows: tuple[SoftenedClass, ...]
    """The likeliest classes, likeliest first, then all others together."""


def tabulate_temperatures(cache: store_reader.Cache, views: gallery.Gallery) -> TemperatureTable:
    """The least sure answer of the gallery, at which softening shows best.

    Args:
        cache: the training store.
        views: some views of it.
    """
    card = min(views.cards, key=lambda card: card.answers[0].probability)
    rows = cache.block(views.tar, card.aug_seed)
    logp_C = _row_logp(cache, rows, card.row)
    order = np.argsort(-logp_C, kind="stable")
    named = order if len(order) <= _NAMED + 1 else order[:_NAMED]
    p_by_tau = [soften(logp_C, tau) for tau in TAUS]
    softened = [
        SoftenedClass(views.names[number], number in card.labels, tuple(float(p_C[number]) for p_C in p_by_tau))
        for number in map(int, named)
    ]
    if len(named) < len(order):
        others = tuple(float(p_C[order[_NAMED:]].sum()) for p_C in p_by_tau)
        softened.append(SoftenedClass(f"the other {len(order) - _NAMED:,} together", right=False, probabilities=others))
    return TemperatureTable(card, tuple(softened))


def soften(logp_C: npt.NDArray[np.float64], tau: float) -> npt.NDArray[np.float64]:
    """Probabilities at a temperature: the softmax of the logits, divided by it."""
    scaled_C = logp_C / tau
    # Less the largest one: exp of a large logit overflows.
    p_C = np.exp(scaled_C - scaled_C.max())
    return np.asarray(p_C / p_C.sum())


def _row_logp(cache: store_reader.Cache, rows: codec.Rows, row: int) -> npt.NDArray[np.float64]:
    # Here: torch takes a second to load, and an earlier report's table is printed without it.
    from teachonce.evaluate import validation_batches  # noqa: PLC0415
    from teachonce.format import row_expansion  # noqa: PLC0415

    single = codec.rows_from_arrays({name: array[[row]] for name, array in rows.arrays().items()})
    tail = row_expansion.tail_decoder(cache.recipe, cache.basis)
    _, logp_1C = validation_batches.teacher_predictions(single, cache.recipe.teacher.num_classes, tail)
    return np.asarray(logp_1C[0], dtype=np.float64)
