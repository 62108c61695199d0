"""The result in a sentence, and how sure it is."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from teachonce.evaluate import pair_discordance, predictions, significance
from teachonce.report import class_scores, load_metrics, quantities, report_table, seed_spread, summary

_ENOUGH_SEEDS = 3
_UNLIKELY = 0.05
_RARE = 0.01
Answers = Mapping[str, predictions.ClassPredictions]


@dataclass(frozen=True, slots=True)
class Gain:
    """What distillation brought: a difference of two shares, and how sure it is."""

    difference: float
    """Of top-1, distilled less plain, as a share."""
    error: float
    """One standard error of it: over the seeds where both have several, else over the images."""
    seeds: int
    """The smaller count of seeds of the two."""
    chance: float
    """Share of cases in which two that are equally good would be set as far apart or farther: exact, two-sided."""


def best_group(numbers: summary.Summary) -> seed_spread.StudentGroup:
    """The distilled students that are right most often, of all where none is distilled; by agreement without labels."""
    distilled = [group for group in numbers.groups if _kind(numbers, group) != "none"]
    return max(distilled or numbers.groups, key=_score)


def describe_result(numbers: summary.Summary, metrics: load_metrics.StageMetrics, answers: Answers) -> tuple[str, ...]:
    """Sentences for a stranger: the result first, then how sure it is.

    Args:
        numbers: of the table.
        metrics: what the stages recorded, for the counts of weights.
        answers: predictions by student.
    """
    group = best_group(numbers)
    if not numbers.labelled:
        return (_agreement_sentence(numbers, metrics, group),)
    plain = _plain_twin(numbers, group)
    sentences = [_accuracy_sentence(numbers, metrics, group, plain)]
    if plain:
        sentences.append(describe_gain(measure_gain(group, plain, answers)))
    elif _kind(numbers, group) != "none":
        sentences.append(
            "No student of this kind learned without distillation, so what distillation brought is not told."
        )
    rivals = sum(_kind(numbers, other) != "none" for other in numbers.groups)
    if rivals > 1:
        sentences.append(
            f"It is the best of {rivals} distilled settings, chosen on these very images: that flatters it a little."
        )
    return tuple(sentences)


def measure_gain(group: seed_spread.StudentGroup, plain: seed_spread.StudentGroup, answers: Answers) -> Gain:
    """The difference in top-1 with its standard error.

    Args:
        group: students that distil.
        plain: the same without.
        answers: predictions by student; of one seed each, the two are compared image by image.
    """
    left, right = seed_spread.main_top1(group), seed_spread.main_top1(plain)
    seeds = min(len(group.members), len(plain.members))
    if left.sd is not None and right.sd is not None:
        spreads = ((left.sd, len(group.members)), (right.sd, len(plain.members)))
        difference, error = left.mean - right.mean, significance.error_of_means(*spreads)
        return Gain(difference, error, seeds, significance.chance_of_means(difference, *spreads))
    left_N, right_N = (_is_right(answers[each.members[0]]) for each in (group, plain))
    error = significance.compare_paired(left_N[None], right_N[None]).se
    return Gain(left.mean - right.mean, error, seeds, pair_discordance.count_discordant(left_N, right_N).p)


def describe_gain(gain: Gain) -> str:
    """A difference in words, and what may be made of it."""
    points = f"{abs(100 * gain.difference):.2f} points, ± {100 * gain.error:.2f}"
    verb = "brings" if gain.difference >= 0 else "costs"
    share = f"{100 * gain.chance:.0f} %" if gain.chance >= _RARE else "less than 1 %"
    chance = (
        f"Chance alone would set two that are equally good as far apart in {share} of cases: "
        f"it {'is hardly' if gain.chance < _UNLIKELY else 'may be'} chance."
    )
    if gain.seeds == 1:
        return (
            f"Distillation {verb} {points} (one standard error, both students on the same images). {chance} With one "
            "seed each, this compares two trained students, not two settings; that takes three seeds or more."
        )
    note = "" if gain.seeds >= _ENOUGH_SEEDS else " Two seeds tell little of their spread; three or more would."
    return f"Distillation {verb} {points} (one standard error, over {gain.seeds} seeds each). {chance}{note}"


def _accuracy_sentence(
    numbers: summary.Summary,
    metrics: load_metrics.StageMetrics,
    group: seed_spread.StudentGroup,
    plain: seed_spread.StudentGroup | None,
) -> str:
    teacher_weights, share = quantities.format_weights(metrics.teacher.parameters), numbers.teacher.top1 or 0.0
    twin = f", and the same student without distillation {_percent(seed_spread.main_top1(plain).mean)}" if plain else ""
    seeds = len(group.members)
    return (
        f"A student of {_weights(metrics, group)} weights ({_settings(numbers, group)}) gets "
        f"{_percent(seed_spread.main_top1(group).mean)} of {numbers.labelled:,} validation images right"
        f"{f' (mean of {seeds} seeds)' if seeds > 1 else ''}; its teacher of {teacher_weights} weights gets "
        f"{_percent(share)}{twin}."
    )


def _agreement_sentence(
    numbers: summary.Summary, metrics: load_metrics.StageMetrics, group: seed_spread.StudentGroup
) -> str:
    return (
        f"A student of {_weights(metrics, group)} weights ({_settings(numbers, group)}) answers as its teacher of "
        f"{quantities.format_weights(metrics.teacher.parameters)} weights does on {_percent(group.agreement.mean)} of "
        f"{numbers.images:,} validation images. No image has a label, so nobody knows how often either is right."
    )


def _plain_twin(numbers: summary.Summary, group: seed_spread.StudentGroup) -> seed_spread.StudentGroup | None:
    """Students of the same model that learned from labels alone; None where `group` itself did."""
    model = numbers.students[group.members[0]].knobs.model
    twins = (
        other
        for other in numbers.groups
        if other != group
        and _kind(numbers, other) == "none"
        and numbers.students[other.members[0]].knobs.model == model
    )
    return next(twins, None) if _kind(numbers, group) != "none" else None


def _score(group: seed_spread.StudentGroup) -> float:
    return seed_spread.main_top1(group).mean if group.top1 else group.agreement.mean


def _is_right(arrays: predictions.ClassPredictions) -> npt.NDArray[np.bool_]:
    label_N, answer_N = arrays["label"], arrays[class_scores.main_answer(arrays)]
    return np.asarray((answer_N == label_N)[label_N >= 0])


def _kind(numbers: summary.Summary, group: seed_spread.StudentGroup) -> str:
    return numbers.students[group.members[0]].knobs.kind


def _settings(numbers: summary.Summary, group: seed_spread.StudentGroup) -> str:
    knobs = numbers.students[group.members[0]].knobs
    return "no distillation" if knobs.kind == "none" else report_table.format_knobs(knobs)


def _weights(metrics: load_metrics.StageMetrics, group: seed_spread.StudentGroup) -> str:
    return quantities.format_weights(metrics.students[group.members[0]].parameters)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
