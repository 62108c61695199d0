"""Students that differ only in their seed, what their last quarter gained, and what all of them took."""

import json
import shutil
import statistics

import pytest
import yaml

from teachonce.report import convergence, load_metrics, report_table, savings, seed_spread, write_report

COPIED = ("records/evaluate/{}.json", "costs/train/{}.json", "costs/evaluate/{}.json", "curves/{}")


def again(world, name: str, twin: str, *, shift: float, **entry) -> None:
    """Another student beside `name`, right more often by `shift`."""
    for pattern in COPIED:
        old, new = (world.root / pattern.format(each) for each in (name, twin))
        (shutil.copytree if old.is_dir() else shutil.copy)(old, new)
    shutil.copytree(world.root / "predictions" / name, world.root / "predictions" / twin)
    path = world.root / "records/evaluate" / f"{twin}.json"
    data = json.loads(path.read_text())
    for head in data["heads"].values():
        head["top1"] += shift
    path.write_text(json.dumps(data))
    curve = world.root / "curves" / twin / "plots/metrics/label_loss.tsv"
    rows = [line.split("\t") for line in curve.read_text().splitlines()]
    place = rows[0].index("label_loss")
    for number, row in enumerate(rows[1:]):
        row[place] = str(1.0 - 0.1 * number)
    curve.write_text("".join("\t".join(row) + "\n" for row in rows))
    params = world.paths().params
    tree = yaml.safe_load(params.read_text())
    tree["students"][twin] = {**tree["students"][name], **entry}
    params.write_text(json.dumps(tree))  # JSON is YAML, without aliases


def test_students_alike_but_for_their_seed_are_one_line(copied):
    again(copied, "zeal", "zeal-1", shift=0.1, seed=1)
    again(copied, "zeal", "zeal-2", shift=0.3, seed=2)
    again(copied, "zeal", "zeal-w", shift=0.0, seed=3, weight=2.0)
    numbers, costs = write_report.build_page(copied.paths())
    assert [(group.name, group.members) for group in numbers.groups] == [
        ("plain", ("plain",)),
        ("zeal", ("zeal", "zeal-1", "zeal-2")),
        ("hard-1", ("hard-1",)),
        ("zeal-w", ("zeal-w",)),
    ]
    group = numbers.groups[1]
    top1 = numbers.students["zeal"].heads["dist"].top1
    values = [top1, top1 + 0.1, top1 + 0.3]
    assert group.top1["dist"].mean == pytest.approx(sum(values) / 3)
    assert group.top1["dist"].sd == pytest.approx(statistics.stdev(values))
    assert group.agreement.sd == 0
    falls = [
        convergence.last_quarter_drop(copied.gather(group.members).curves[name]["label_loss"]) for name in group.members
    ]
    assert len(set(falls)) > 1
    assert group.last_quarter["label_loss"].sd == pytest.approx(statistics.stdev(falls))
    shown = report_table.format_summary(numbers, costs)
    text = f"{100 * sum(values) / 3:.2f} ± {100 * statistics.stdev(values):.2f}"
    page = (copied.root / "report" / write_report.PAGE).read_text(encoding="utf-8")
    for where in (shown, page):
        assert text in where
        assert "± is the sample standard deviation over seeds" in " ".join(where.split())
    assert "Each student by itself" in page
    # The matrix holds all in the metrics, and on the page the first of each group.
    assert "zeal-1 both" in numbers.disagreement["truth"]
    assert "zeal-1 both" not in page


def test_a_single_seed_keeps_its_standard_error(whole):
    numbers, _ = write_report.build_page(whole.paths())
    assert {len(group.members) for group in numbers.groups} == {1}
    assert all(spread.sd is None for group in numbers.groups for spread in group.top1.values())
    shown = report_table.format_summary(numbers)
    for name in numbers.order:
        for head in numbers.students[name].heads.values():
            assert report_table.format_score(head) in shown
    assert "± is one standard error of the images." in shown
    assert "over seeds" not in shown


def test_names_without_a_common_beginning_give_the_first(copied):
    again(copied, "plain", "other", shift=0.0, seed=7)
    entries = load_metrics.read_students(copied.paths().params)
    metrics = copied.gather(entries)
    assert [group.name for group in seed_spread.group_students(entries, metrics)] == ["plain", "zeal", "hard-1"]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([9.0, 9.0, 9.0, 9.0, 5.0, 3.0, 2.0, 1.0], 2.5),
        ([1.0, 1.0, 1.0, 2.0], -1.0),
        ([3.0], 0.0),
    ],
)
def test_the_last_quarter_is_compared_with_the_third(values, wanted):
    assert convergence.last_quarter_drop((list(range(len(values))), values)) == wanted


def costs(cache: dict[str, int], train: dict[str, int]) -> list[load_metrics.StageCost]:
    return [
        load_metrics.StageCost("cache", 50.0, 2, cache),
        load_metrics.StageCost("train plain", 30.0, 2, {"steps": 10, "resumed at step": 0, "views": 1000}),
        load_metrics.StageCost("train soft", 40.0, 2, train),
        load_metrics.StageCost("evaluate soft", 99.0, 2, {}),
    ]


CACHE = {
    "train views": 900,
    "train units computed": 3,
    "train units reused": 0,
    "val views": 100,
    "val units computed": 1,
    "val units reused": 0,
}
TRAIN = {"steps": 10, "resumed at step": 0, "views": 1000}


def test_the_sweep_is_set_beside_live_teachers():
    times = savings.compare_wall_times(costs(CACHE, TRAIN), ["plain", "soft"], ["soft"])
    assert times == savings.WallTimes(
        cache_s=50, train_s=70, teacher_s=50, cached_views=900, live_views=1000, distilled=1
    )
    assert (times.cached_s, times.live_s) == (120, 120)
    assert "1 min 10 s and the cache 50.0 s, together 2 min 00 s" in report_table.describe_savings(times)[0]


def test_work_of_an_earlier_run_is_scaled_up():
    cache = {**CACHE, "train units computed": 1, "train units reused": 2, "val units computed": 1}
    times = savings.compare_wall_times(costs(cache, {**TRAIN, "resumed at step": 5}), ["plain", "soft"], ["soft"])
    assert times.cache_s == pytest.approx(50 / 0.4)
    assert times.train_s == 30 + 80
    assert times.teacher_s == pytest.approx(125)


def test_a_run_that_found_all_done_tells_no_time():
    reused = {"train views": 900, "train units computed": 0, "train units reused": 3, "val units computed": 0}
    assert savings.compare_wall_times(costs(reused, TRAIN), ["plain", "soft"], ["soft"]) is None
    assert (
        savings.compare_wall_times(costs(CACHE, {**TRAIN, "resumed at step": 10}), ["plain", "soft"], ["soft"]) is None
    )
    assert report_table.describe_savings(None) == []
