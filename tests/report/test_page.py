"""The page and the table of a whole, tiny run."""

import base64
import dataclasses
import hashlib
import html
import io
import json
import re
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as reference

from teachonce.core import errors
from teachonce.evaluate import predictions
from teachonce.report import (
    disagreements,
    figures,
    gallery,
    load_metrics,
    page,
    quantities,
    report_command,
    report_table,
    write_report,
)
from teachonce.shards import decode, index, sample_reader
from teachonce.store import store_reader, tau_range
from teachonce.views import mixing

NAMES = ("plain", "zeal", "hard-1")
# Markup, a template, an escape, and letters that nobody sees.
_MARKUP = "<script>alert(1)</script>\"'><img src=x onerror=y>{{ 7 * 7 }}&lt;$x^2$"
HOSTILE = f"{_MARKUP}\x1b[2J\x07\r\x00\x9b\u202e\u2066\u2028\ud800"
SHOWN = f"{_MARKUP}�[2J��������"
INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags, attributes and text; complains of tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if not self._open or self._open[-1] not in {"style", "script"}:
            self.text.append(data)


@pytest.fixture(scope="module")
def built(whole):
    numbers, costs = write_report.build_page(whole.paths())
    return numbers, costs, (whole.root / "report" / write_report.PAGE).read_text(encoding="utf-8")


def test_the_page_needs_nothing_but_itself(built):
    page = Page(built[2])
    for tag, attributes in page.tags:
        assert tag not in {"iframe", "object", "embed", "base"}, tag
        for name, value in attributes.items():
            if name in {"src", "href", "xlink:href", "srcset", "action", "poster"}:
                assert value, tag
                assert value.startswith(("data:image/png;base64,", "#")) or value == "data:,", value[:60]
            assert not name.startswith("on"), name
    assert not re.search(r"https?:|@import|url\((?!#)", built[2])


def test_no_script_runs_but_the_static_one(built):
    """The policy names it by its digest; a changed script must come with its own."""
    (script,) = re.findall(r"<script>(.*?)</script>", built[2], re.DOTALL)
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', built[2])
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy.replace("style-src 'unsafe-inline'", "")
    assert script in (Path(page.__file__).parent / "page_base.html.jinja").read_text(encoding="utf-8")


def test_the_page_shows_every_student_and_every_number_of_the_table(built):
    numbers, costs, text = built
    shown = " ".join(Page(text).text)
    for name in NAMES:
        assert name in shown
        for head in numbers.students[name].heads.values():
            assert report_table.format_score(head) in shown
    for cost in costs:
        assert cost.stage in shown
    for word in ("teacher", "student", "alpha", "tau", "standard error", "total variation", "Do not over-read"):
        assert word in shown
    assert "easy task" not in shown
    assert "rows are whole" in shown


def test_odd_class_names_and_keys_are_escaped(built):
    text = built[2]
    assert "<b>bold</b>" not in text
    assert html.escape("<b>bold</b>") in text
    assert "{{ 7 * 7 }}" in text
    assert "train<" not in text
    assert "train&lt;" in text


def test_equal_runs_give_equal_pages(whole, built):
    write_report.build_page(whole.paths())
    assert (whole.root / "report" / write_report.PAGE).read_text(encoding="utf-8") == built[2]


def test_figures_take_the_colour_of_the_page(built):
    for svg in re.findall(r"<svg.*?</svg>", built[2], re.DOTALL):
        assert "currentColor" in svg or "var(--c" in svg
        assert not re.search(r"#0\d0(203|a0b)", svg)
        references = set(re.findall(r"(?:url\(#|xlink:href=\"#)([^)\"]+)", svg))
        assert references <= set(re.findall(r' id="([^"]+)"', svg))
    pictures = [tag for tag, attributes in Page(built[2]).tags if tag == "svg" and attributes.get("role") == "img"]
    assert len(pictures) == 6  # weights alone, since the stages of this run were not timed; tokens; four curves


def test_the_matrix_is_that_of_zero_one_loss(whole, built):
    numbers = built[0]
    arrays = {
        name: predictions.read(whole.root / "predictions" / name, whole.predictions_sha256(name))[0] for name in NAMES
    }
    ways = {
        "truth": arrays["plain"]["label"],
        "teacher": arrays["plain"]["teacher"],
        "plain": arrays["plain"]["class"],
        **{f"{name} {head}": arrays[name][head] for name in NAMES[1:] for head in ("class", "dist", "both")},
    }
    assert len(ways) == 9
    for i, left in enumerate(ways):
        for right in list(ways)[i + 1 :]:
            wanted = reference.zero_one_loss(ways[left], ways[right])
            assert numbers.disagreement[left][right] == pytest.approx(wanted), (left, right)
    assert numbers.disagreement["truth"]["teacher"] == pytest.approx(1 - numbers.teacher.top1)


def test_the_gallery_shows_what_the_teacher_saw_and_said(whole, top3):
    for world in (whole, top3):
        cache = store_reader.open(world.root / "cache" / "train.zarr")
        shards = index.read(world.root / "shards")
        views = gallery.collect_views(shards, cache, shards.index.classes)
        assert views.drift is None
        assert len(views.cards) == 12
        entry = shards.index.of_split("train")[0]
        images = {sample.key: sample for sample in sample_reader.verified_samples(entry, shards.path(entry))}
        for card in views.cards:
            data = base64.b64decode(card.png.removeprefix("data:image/png;base64,"))
            pixels = np.asarray(Image.open(io.BytesIO(data))).transpose(2, 0, 1)
            sample = images[card.key]
            wanted = mixing.render_mixed(
                cache.recipe.policy,
                [decode.rgb_pixels(sample.image, "x")],
                [card.key],
                card.aug_seed,
                cache.recipe.teacher.size,
            )[0]
            assert (pixels == wanted).all()
            assert card.truth == shards.index.classes[sample.label]
            p = [answer.probability for answer in card.answers]
            assert p == sorted(p, reverse=True)
            assert len(p) == 3
            assert all(answer.right == (answer.name == card.truth) for answer in card.answers)
    logits = store_reader.open(whole.root / "cache" / "train.zarr").rows([views.cards[0].key], 0).logits_BC[0]
    wanted = np.sort(np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum())[::-1][:3]
    assert [answer.probability for answer in views.cards[0].answers] == pytest.approx(wanted, rel=2e-3)


def test_top_k_rows_show_their_fidelity_by_tau(top3):
    numbers, _ = write_report.build_page(top3.paths())
    text = (top3.root / "report" / write_report.PAGE).read_text(encoding="utf-8")
    assert "mean total variation by temperature" in text
    assert "classes kept" in text
    assert numbers.cache.kept == "3"
    assert numbers.cache.raw_bytes_a_view == 3 * 4 + 4
    assert numbers.cache.whole_bytes_a_view == 8 * 4
    by_tau = tau_range.distances_by_k(numbers.cache.fidelity)
    assert list(by_tau) == [3, 1]
    assert list(by_tau[3]) == [1, 2, 3, 5, 10]
    assert "mean TV" in report_table.format_summary(numbers)
    assert "is spread evenly over the others" in text


def test_a_coded_tail_is_told(coded):
    numbers, _ = write_report.build_page(coded.paths())
    assert numbers.cache.raw_bytes_a_view == 3 * 4 + 4 + 4
    shown = " ".join(report_table.format_summary(numbers).split())
    assert "the 3 likeliest classes and 4 coefficients for the others" in shown
    text = (coded.root / "report" / write_report.PAGE).read_text(encoding="utf-8")
    assert "the others are told by 4 coefficients on a basis" in text


def test_the_table_survives_its_json(built, whole):
    numbers, costs, _ = built
    again, none = write_report.read_earlier(whole.root / "report" / write_report.SUMMARY, None)
    assert again == numbers
    assert report_table.format_summary(again, none) == report_table.format_summary(numbers)
    text = report_table.format_summary(numbers, costs)
    lines = text[text.index("top-1 in %") :].splitlines()[2:10]
    assert [line.split()[0] for line in lines if re.match(r"  \w", line)][:4] == [*NAMES, "teacher"]
    assert "n = 13 validation images of 8 classes" in text
    assert "train zeal" in text
    markdown = report_table.format_summary(numbers, markdown=True)
    assert all(line.startswith("|") for line in markdown[markdown.index("| top-1") :].splitlines()[:6])


@pytest.mark.parametrize(
    ("value_s", "wanted"), [(0.4, "0.4 s"), (59.9, "59.9 s"), (219.7, "3 min 40 s"), (7501, "2 h 05 min")]
)
def test_durations_are_for_people(value_s, wanted):
    assert quantities.format_duration(value_s) == wanted


def test_a_curve_of_one_point_is_drawn():
    assert "<svg" in figures.plot_curve("one", {"one": ([0], [1.0])}, {"one": 0})


def test_the_stage_prints_the_table_and_shows_it_again(whole, tmp_path, monkeypatch, capsys):
    def call(*words: object) -> str:
        report_command.main([*map(str, words)])
        return capsys.readouterr().out

    made = {"out": tmp_path / "out", "metrics": tmp_path / "top1.json", "plots": tmp_path / "plots"}
    paths = dataclasses.asdict(whole.paths()) | made
    first = call(*(word for name, path in paths.items() for word in (f"--{name}", path)))
    assert first.rstrip().endswith(f"Page: {tmp_path / 'out' / 'index.html'}")
    assert f"Table: teachonce report --show {tmp_path / 'out/summary.json'} --costs {paths['costs']}\n" in first
    again = call("--show", tmp_path / "out/summary.json")
    with_costs = call("--show", tmp_path / "out/summary.json", "--costs", paths["costs"])
    assert with_costs.startswith(again.rstrip())
    # The result in words stands in both; the tables are printed once, by whoever asks for them.
    assert again.split()[:9] == first.split()[:9]
    assert "n = 13" in again
    assert "n = 13" not in first
    assert max(map(len, with_costs.splitlines())) <= 80
    assert "train zeal" in with_costs
    assert "train zeal" not in again
    # Wall times differ between two equal runs, so metrics hold none.
    assert set(json.loads((tmp_path / "top1.json").read_text())) == {"top1", "top1_se", "teacher", "images", "cache"}
    assert "wall_s" not in (tmp_path / "out/summary.json").read_text()
    with pytest.raises(errors.ConfigError, match=r"needed, unless --show is given: .*--params"):
        call()


def test_names_come_from_params_in_their_order(whole, copied):
    assert tuple(load_metrics.read_students(whole.paths().params)) == NAMES
    params = copied.paths().params
    params.write_text("students:\n  zeal: {kind: soft}\n")
    numbers, _ = write_report.build_page(copied.paths())
    assert numbers.order == ("zeal",)
    page = (copied.root / "report" / write_report.PAGE).read_text(encoding="utf-8")
    assert "hard-1" not in page
    assert disagreements.TEACHER in numbers.disagreement["truth"]


@pytest.fixture
def content(whole, tmp_path, monkeypatch) -> page.ReportData:
    """What the stage shows of the small run, with texts of others wherever a text of data stands."""
    given = []
    write = page.render_html
    monkeypatch.setattr(page, "render_html", lambda content: given.append(content) or write(content))
    write_report.build_page(dataclasses.replace(whole.paths(), out=tmp_path / "report"))
    (plain,) = given
    metrics, numbers, views = plain.metrics, plain.numbers, plain.views
    answers = tuple(dataclasses.replace(answer, name=HOSTILE) for answer in views.cards[0].answers)
    card = dataclasses.replace(views.cards[0], key=HOSTILE, truth=HOSTILE, answers=answers)
    students = {
        name: student.model_copy(update={"accepted": (HOSTILE,), "architecture": HOSTILE})
        for name, student in metrics.students.items()
    }
    costs = (dataclasses.replace(metrics.costs[0], stage=HOSTILE, facts={HOSTILE: 1}), *metrics.costs[1:])
    teacher = plain.recipe.teacher.model_copy(update={"architecture": HOSTILE})
    return dataclasses.replace(
        plain,
        metrics=dataclasses.replace(
            metrics,
            students=students,
            costs=costs,
            teacher=metrics.teacher.model_copy(update={"architecture": HOSTILE}),
        ),
        numbers=numbers.model_copy(
            update={
                "groups": tuple(group.model_copy(update={"name": "<b>&$x$\x1b\u202e"}) for group in numbers.groups),
                "headline": (HOSTILE, HOSTILE),
            }
        ),
        mistakes=(dataclasses.replace(plain.mistakes[0], name=HOSTILE, truth=HOSTILE, answer=HOSTILE),),
        temperatures=dataclasses.replace(
            plain.temperatures, card=card, rows=(dataclasses.replace(plain.temperatures.rows[0], name=HOSTILE),)
        ),
        views=dataclasses.replace(views, cards=(card, *views.cards[1:]), drift=HOSTILE),
        recipe=plain.recipe.model_copy(update={"teacher": teacher}),
        classes=(HOSTILE, *plain.classes[1:]),
    )


def test_texts_of_others_are_shown_and_do_nothing(content):
    text = page.render_html(content)
    assert not {unicodedata.category(letter) for letter in text if letter != "\n"} & INVISIBLE
    text.encode()
    built = Page(text)
    for tag, attributes in built.tags:
        assert tag not in {"iframe", "object", "embed", "base"}
        assert tag != "img" or attributes["src"].startswith("data:image/png;base64,")
        assert not any(name.startswith("on") for name in attributes)
    assert [tag for tag, _ in built.tags].count("script") == 1
    assert "".join(built.text).count(SHOWN) >= 20
    assert f"View 0 of {SHOWN}" in [attributes.get("alt") for _, attributes in built.tags]
    assert "".join(built.text).count("<b>&$x$��") >= 3 * len(content.numbers.groups)


def test_an_ordinary_page_is_left_as_it_is(whole, tmp_path):
    write_report.build_page(dataclasses.replace(whole.paths(), out=tmp_path))
    assert "�" not in (tmp_path / write_report.PAGE).read_text(encoding="utf-8")
