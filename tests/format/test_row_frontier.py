import os
import re

import pytest

from teachonce.core import errors, files
from teachonce.format import row_frontier

FLAT = {"k": 10}
CODED = {"k": 10, "rank": 256, "step": 3.0}


def point(form: dict, size: float, *tv: float) -> row_frontier.Point:
    return row_frontier.Point(form=row_frontier.RowFormat(**form), bytes_a_view=size, tv=tv)


FOUND = row_frontier.Frontier(
    taus=(1, 10),
    views_fitted=3000,
    views_measured=1000,
    chosen=row_frontier.RowFormat(**CODED),
    points=(
        point(FLAT, 20.25, 0.3, 0.1),
        point({"k": 5, "rank": 64, "step": 4.0}, 30.0, 0.2, 0.05),
        point({"k": 20}, 40.0, 0.1, 0.2),
        point(CODED, 41.0, 0.2, 0.06),
        point({"k": 100}, 220.0, 0.07, 0.03),
    ),
)


def test_the_best_are_those_that_no_smaller_one_beats():
    assert [each.bytes_a_view for each in row_frontier.pareto_points(FOUND)] == [20.25, 30.0, 220.0]


def test_the_table_shows_the_best_and_the_configured():
    head, *lines = row_frontier.format_points(FOUND).splitlines()
    assert "1,000 views of images apart from those of the fit (3,000 views)" in head
    assert [line.split() for line in lines] == [
        ["k", "tail", "bytes", "tau", "1", "tau", "10"],
        ["10", "flat", "20.2", "0.3000", "0.1000"],
        ["5", "rank", "64,", "step", "4", "30.0", "0.2000", "0.0500"],
        ["10", "rank", "256,", "step", "3", "41.0", "0.2000", "0.0600", "<-", "configured"],
        ["100", "flat", "220.0", "0.0700", "0.0300"],
    ]


def test_is_read_back_from_beside_the_stores(tmp_path):
    assert row_frontier.read(tmp_path) is None
    files.write_json(tmp_path / row_frontier.NAME, FOUND.model_dump(mode="json"))
    assert row_frontier.read(tmp_path) == FOUND


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b'{"taus": [1]}', b"[" * 100_000, b" " * (1 << 20) + b"[]"])
def test_a_damaged_file_is_refused_in_one_line(tmp_path, data):
    (tmp_path / row_frontier.NAME).write_bytes(data)
    with pytest.raises(errors.CacheError, match=r"frontier\.json.*Remove it, or make the cache again") as caught:
        row_frontier.read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"points": []}, "points is refused"),
        ({"taus": [1, 2, 10]}, "tv of each point must tell one number of each of the 3 taus"),
        ({"taus": [1, 10**30]}, "taus.1 is refused"),
        ({"taus": [1, 0]}, "taus.1 is refused"),
        ({"views_measured": 0}, "views_measured is refused"),
        ({"points": FOUND.model_dump(mode="json")["points"][::-1]}, "points must come by rising bytes_a_view"),
        ({"points": [{**FOUND.model_dump(mode="json")["points"][0], "tv": [0.1, 1.5]}]}, "points.0.tv.1 is refused"),
    ],
)
def test_a_measurement_that_does_not_fit_itself_is_refused(tmp_path, change, what):
    files.write_json(tmp_path / row_frontier.NAME, FOUND.model_dump(mode="json") | change)
    with pytest.raises(errors.CacheError, match=re.escape(what)):
        row_frontier.read(tmp_path)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link to nothing"])
def test_what_is_no_file_is_neither_read_nor_passed_over(tmp_path, kind):
    path = tmp_path / row_frontier.NAME
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else tmp_path / "nothing")
    with pytest.raises(errors.CacheError, match=r"frontier\.json: cannot be read \(.*\)\. Remove it"):
        row_frontier.read(tmp_path)
