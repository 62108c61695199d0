import json
import re

import pytest
from answered import student

from teachonce.core import errors

PAGE = "compare/index.html"


def test_the_page_shows_the_table_the_charts_and_the_pairs(project, capsys):
    project.commit(plain=student(range(8), kind="none"), soft=student(range(5)))
    project.experiment("hot", soft=student(range(2), tau=5.0))
    project.experiment("calm", soft=student(range(3), alpha=0.9))
    project.compare()
    assert capsys.readouterr().out.rstrip().endswith(f"Page: {project.folder.parent / PAGE}")
    page = (project.folder.parent / PAGE).read_text(encoding="utf-8")
    numbers = json.loads((project.folder.parent / "compare/comparison.json").read_text())
    labels = [setting["name"] for setting in numbers["settings"]]
    assert labels == ["soft", "soft", "soft", "plain"]
    assert "<b>soft, alpha 0.5, tau 5</b> does best: 98.00 ± 1.40 % of 100 validation images" in page
    # One chart each for tau and alpha, whose two settings differ in that alone, and the curves.
    assert re.findall(r'aria-label="([^"]+)"', page.split("<main")[1])[1:] == [
        "top1, % by alpha",
        "top1, % by tau",
        "label&#39;s part of the loss, nats by step",
        "right on validation images, % by step",
    ]
    assert len(numbers["differences"]) == 6
    assert page.count("<td>students</td>") == 6
    assert "http" not in re.sub(r'http-equiv="[^"]*"', "", page), "nothing is fetched"


def test_text_of_others_stays_text(project):
    project.commit(soft=student(range(5), model="<script>alert(1)</script>"))
    project.experiment("hot", soft=student(range(2), model="other"))
    project.compare()
    page = (project.folder.parent / PAGE).read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_an_earlier_page_is_replaced_and_nothing_else(project, capsys):
    project.commit(soft=student(range(5)))
    project.compare()
    project.compare()
    (project.folder.parent / "compare/mine.txt").write_text("x")
    with pytest.raises(errors.ConfigError, match=r"a folder with mine\.txt"):
        project.compare()
