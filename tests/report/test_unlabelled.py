"""Report, evaluation and cache of data whose images have a label only here and there, or nowhere."""

import html
import json
import re

import numpy as np
import pytest

from teachonce.evaluate import predictions
from teachonce.report import gallery, report_table, summary, write_report
from teachonce.shards import index
from teachonce.store import store_reader
from teachonce.tools.inspect import describe, inspect_table


def reported(world) -> tuple[summary.Summary, str]:
    """The numbers, and the page's text."""
    numbers, _ = write_report.build_page(world.paths())
    page = (world.root / "report" / write_report.PAGE).read_text(encoding="utf-8")
    return numbers, " ".join(
        html.unescape(re.sub(r"(?s)<style>.*?</style>|<script>.*?</script>|<[^>]*>", "", page)).split()
    )


def test_shares_are_of_the_labelled_images(some):
    numbers, text = reported(some)
    assert (numbers.images, numbers.unlabelled, numbers.labelled) == (13, 6, 7)
    for name in numbers.order:
        arrays, _ = predictions.read(some.root / "predictions" / name, some.predictions_sha256(name))
        label, labelled = arrays["label"], arrays["label"] >= 0
        assert labelled.tolist() == [row % 2 == 0 for row in range(13)]
        for head, score in numbers.students[name].heads.items():
            assert score.top1 == pytest.approx((arrays[head] == label)[labelled].mean())
            assert score.top1_se == pytest.approx(np.sqrt(score.top1 * (1 - score.top1) / 7))
            assert score.agreement == pytest.approx((arrays[head] == arrays["teacher"]).mean())
            way = f"{name} {head}" if numbers.students[name].knobs.token else name
            if head != "sum_softmax":
                assert numbers.disagreement["truth"][way] == pytest.approx(1 - score.top1)
                assert numbers.disagreement["teacher"][way] == pytest.approx(1 - score.agreement)
    assert "n = 7 validation images with a label, of 13 of 8 classes" in report_table.format_summary(numbers)
    assert "Share of the n = 7 validation images with a label" in text
    assert "it is the error, of the images with a label." in text
    top5 = [head.top5 for student in numbers.students.values() for head in student.heads.values()]
    assert all(share * 7 == pytest.approx(round(share * 7)) for share in [*top5, numbers.teacher.top5])


def test_without_a_label_only_agreement_is_told(bare):
    numbers, text = reported(bare)
    assert numbers.labelled == 0
    heads = [head for student in numbers.students.values() for head in student.heads.values()]
    assert {(head.top1, head.top1_se, head.top5) for head in heads} == {(None, None, None)}
    assert all(0 <= head.agreement <= 1 and head.kl >= 0 for head in heads)
    assert numbers.teacher.top1 is None
    assert list(numbers.disagreement) == ["teacher", "pupil", "twin class", "twin dist"]
    shown = report_table.format_summary(numbers)
    assert "None of the 13 validation images has a label: there is no accuracy to tell." in shown
    assert "nan" not in shown + text
    assert "None " not in text
    assert "No validation image has a label" in text
    assert "Do not over-read this" not in text
    # Of the curves, the teacher's part alone.
    assert "teacher's part of the loss" in text
    assert "label's part of the loss" not in text
    assert write_report.read_earlier(bare.root / "report" / write_report.SUMMARY, None)[0] == numbers


def test_the_gallery_says_that_there_is_no_label(bare, some):
    shards = index.read(bare.root / "shards")
    views = gallery.collect_views(shards, store_reader.open(bare.root / "cache" / "train.zarr"), shards.index.classes)
    assert {card.truth for card in views.cards} == {None}
    assert not any(answer.right for card in views.cards for answer in card.answers)
    shards = index.read(some.root / "shards")
    views = gallery.collect_views(shards, store_reader.open(some.root / "cache" / "train.zarr"), shards.index.classes)
    assert {card.truth is None for card in views.cards} == {True, False}


def test_inspect_and_records_count_labelled_views(bare, some, whole):
    wanted = {
        bare: "unknown: no image has a label",
        some: f"% of the {8 * 2 // 2:,} views with a label",
        whole: "% of the views\n",
    }
    for world, line in wanted.items():
        store = describe.summarise_cache(world.root / "cache" / "train.zarr", 0.1)
        assert line in inspect_table.format_description(store)
        record = json.loads((world.root / "records" / "cache.json").read_text())["train"]
        assert record.get("teacher_top1") == next(iter(store.stores.values())).teacher_top1
    assert "teacher_top1" not in json.loads((bare.root / "records" / "cache.json").read_text())["val"]
