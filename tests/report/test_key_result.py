"""The result in a sentence, and what is said of how sure it is."""

import math

import numpy as np
import pytest

from teachonce.report import key_result, report_table, seed_spread, write_report


def group(name: str, *top1: float) -> seed_spread.StudentGroup:
    mean = sum(top1) / len(top1)
    sd = float(np.std(top1, ddof=1)) if len(top1) > 1 else None
    spread = seed_spread.Spread(mean=mean, sd=sd)
    members = tuple(f"{name}-{seed}" for seed in range(len(top1)))
    return seed_spread.StudentGroup(
        name=name, members=members, top1={"class": spread}, agreement=spread, kl=spread, last_quarter={}
    )


def answers(*right: int) -> dict[str, np.ndarray]:
    label = np.zeros(len(right), np.int32)
    return {"label": label, "teacher": label, "class": (1 - np.array(right)).astype(np.int32)}


def test_one_seed_each_is_compared_image_by_image():
    """McNemar's standard error: sqrt(b + c − (b − c)² / n) / n."""
    predictions = {"soft-0": answers(*[1] * 9, 0), "plain-0": answers(*[1] * 6, *[0] * 3, 1)}
    gain = key_result.measure_gain(group("soft", 0.9), group("plain", 0.7), predictions)
    assert gain.difference == pytest.approx(0.2)
    assert gain.error == pytest.approx(math.sqrt(3 + 1 - (3 - 1) ** 2 / 10) / 10)
    text = key_result.describe_gain(gain)
    assert text.startswith("Distillation brings 20.00 points, ± 18.97 (one standard error, both students on the same")
    assert "Chance alone would set two that are equally good as far apart in 62 % of cases: it may be chance." in text
    assert "two trained students, not two settings" in text


def test_several_seeds_are_compared_by_their_spread():
    gain = key_result.measure_gain(group("soft", 0.90, 0.92, 0.94), group("plain", 0.80, 0.81, 0.82), {})
    assert gain.difference == pytest.approx(0.11)
    assert gain.error == pytest.approx(math.sqrt(0.02**2 / 3 + 0.01**2 / 3))
    assert key_result.describe_gain(gain) == (
        "Distillation brings 11.00 points, ± 1.29 (one standard error, over 3 seeds each). Chance alone would set two "
        "that are equally good as far apart in less than 1 % of cases: it is hardly chance."
    )
    of_two = key_result.describe_gain(key_result.Gain(-0.1, 0.01, 2, 0.06))
    assert "Two seeds tell little" in of_two
    assert of_two.startswith("Distillation costs 10.00 points")
    assert "in 6 % of cases: it may be chance." in of_two


def test_the_page_begins_with_it(whole, bare):
    numbers, _ = write_report.build_page(whole.paths())
    first = numbers.headline[0]
    best = max(numbers.students[name].heads["both"].top1 for name in ("zeal", "hard-1"))
    assert f"gets {100 * best:.2f} % of 13 validation images right; its teacher of 1,234 weights gets" in first
    assert first.endswith(
        f"the same student without distillation {100 * numbers.students['plain'].heads['class'].top1:.2f} %."
    )
    assert "the best of 2 distilled settings" in numbers.headline[-1]
    (only,) = write_report.build_page(bare.paths())[0].headline
    assert "No image has a label" in only


def test_no_line_begins_with_a_per_cent_sign():
    for words in range(60, 82):
        printed = report_table._format_part(f"{'x' * words} 6 % of all", 80)
        assert all(not line.startswith("%") for line in printed.splitlines())
        assert "6 % of all" in printed.replace("\n", " ")
