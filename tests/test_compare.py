"""The README's sweep: queued, started, compared, shown by DVC, and compared by someone else."""

import re
import subprocess
import sys
import time
from pathlib import Path

import chromium
import clones
import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(1200)]


def compare(here: clones.Project, *words: str) -> str:
    """What `teachonce compare` of the project's own package says."""
    return here.do("env", f"PYTHONPATH={here.folder}/pipeline", sys.executable, "-m", "teachonce", "compare", *words)


def students(said: str) -> list[list[str]]:
    """Cells of the table's rows, without the teacher's."""
    lines = said.split("\n\n", maxsplit=1)[0].splitlines()[2:-1]
    return [re.split(r"  +", line.strip()) for line in lines]


def sweep(here: clones.Project, *words: str) -> None:
    """Queue runs, start them and wait for their end."""
    here.do("dvc", "exp", "run", "--queue", *words)
    try:
        here.do("sh", "-c", "dvc queue start > queue.log 2>&1")
        until_s = time.monotonic() + 600
        while re.search("Queued|Running", status := here.do("dvc", "queue", "status")):
            assert time.monotonic() < until_s, status
            time.sleep(0.5)
        assert "Failed" not in status, status
    finally:
        here.run("dvc", "queue", "stop", "--kill")


@pytest.fixture(scope="module")
def swept(tmp_path_factory, finished_project) -> clones.Project:
    here = clones.Project(tmp_path_factory.mktemp("sweep") / "project")
    subprocess.run(["cp", "-a", finished_project.folder, here.folder], check=True)
    # Before the sweep: DVC pushes and pulls a run's results by the configuration that the run's commit has.
    team = here.folder.parent / "team"
    here.do("git", "init", "-q", "--bare", str(team))
    here.do("git", "remote", "add", "origin", str(team))
    here.do("dvc", "remote", "add", "-d", "storage", str(here.folder.parent / "storage"))
    here.commit("First results")
    sweep(here, "-S", "students.soft.tau=5")
    return here


def test_the_readmes_sweep_is_a_table_and_a_page(swept):
    said = compare(swept)
    assert said.split()[:5] == ["student", "kind", "alpha", "tau", "seeds"]
    rows = students(said)
    assert sorted(row[3] for row in rows if row[0] == "soft") == ["3", "5"]
    assert sorted(row[0] for row in rows) == ["hard", "plain", "soft", "soft"]
    assert "not settings" in said
    assert "top1, % by tau" in (swept.folder / "artifacts/compare/index.html").read_text(encoding="utf-8")


def test_dvc_shows_it_in_few_columns_few_digits_and_one_graph(swept):
    shown = swept.do("dvc", "exp", "show", "--only-changed", "--csv", "--drop", r".*/.*|params\.yaml|State|Executor")
    columns = {"Experiment", "rev", "typ", "Created", "top1.soft", "top1_se", "students.soft.tau"}
    assert set(shown.splitlines()[0].split(",")) <= columns
    for line in swept.do("dvc", "metrics", "diff", "HEAD", experiments(swept)[0]).splitlines()[1:]:
        assert re.search(r"top1\.soft|top1_se", line)
        assert not re.search(r"\d\.\d{3}", line), "two digits"
    assert graphs(swept, "students") == [
        "students, loss against labels by step",
        "students, loss against the teacher by step",
        "students, top-1 on validation images by step",
        "students, top-1 by head",
    ]
    # Asked for by its folder, DVC draws each matrix twice: as dvc.yaml has it, and as a file of its own.
    matrices = {title.rpartition("/")[2] for title in graphs(swept, "artifacts/plots/confusion")}
    assert matrices == {"hard.csv", "plain.csv", "soft.csv"}
    assert swept.do("git", "status", "--short", "dvc_plots") == ""


def test_a_browser_can_run_every_script_of_dvcs_page(swept, tmp_path):
    swept.do("dvc", "plots", "show")
    page = swept.folder / "dvc_plots/index.html"
    with chromium.browser(chromium.required_executable(), tmp_path) as tab:
        tab.open(page)
    # The library that draws comes from a network, which there is none of: each script gets as far as to call it.
    called = [complaint for complaint in tab.complaints if "vegaEmbed is not defined" in complaint]
    assert len(called) == page.read_text(encoding="utf-8").count("vegaEmbed(") > 10
    assert not [complaint for complaint in tab.complaints if "SyntaxError" in complaint]


def test_its_own_page_fits_any_screen(swept, tmp_path):
    compare(swept)
    with chromium.browser(chromium.required_executable(), tmp_path) as tab:
        tab.open(swept.folder / "artifacts/compare/index.html")
        for width in (420, 1280, 1600):
            for dark in (False, True):
                tab.look(width, dark=dark)
                assert tab.run("[innerWidth, document.documentElement.scrollWidth <= innerWidth]") == [width, True]
    assert tab.complaints == []


def test_what_others_have_not_fetched_is_named_and_its_cure_works(swept, tmp_path):
    name = experiments(swept)[0]
    there = fetched_by_others(swept, tmp_path, name)
    missing = re.findall(r"^([\w-]+): \d+ files? of .*: (dvc .*)$", compare(there), re.MULTILINE)
    assert missing == [(name, f"dvc exp pull origin {name}")]
    there.do(*missing[0][1].split())
    assert {row[-1] for row in students(compare(there))} == {"workspace", name}


def experiments(here: clones.Project) -> list[str]:
    """Those that another tau made."""
    return sorted({row[-1] for row in students(compare(here))} - {"workspace"})


def graphs(here: clones.Project, target: str) -> list[str]:
    """Titles of what DVC draws."""
    here.do("dvc", "plots", "show", target)
    page = (here.folder / "dvc_plots/index.html").read_text(encoding="utf-8")
    return re.findall(r'"title": \{"text": "([^"]+)"', page)


def fetched_by_others(here: clones.Project, folder: Path, name: str) -> clones.Project:
    """A clone that has the results of the commit, and of an experiment its name alone."""
    here.do("git", "push", "-q", "origin", "HEAD:refs/heads/main")
    here.do("dvc", "push", "-q")
    here.do("dvc", "exp", "push", "-q", "origin", name)
    there = clones.Project(folder / "there")
    here.do("git", "clone", "-q", "-b", "main", str(here.folder.parent / "team"), str(there.folder))
    there.do("dvc", "pull", "-q", "evaluate")
    there.do("dvc", "exp", "pull", "-q", "--no-cache", "origin", name)
    return there


@pytest.mark.nightly
@pytest.mark.parametrize("way", ["an absolute path", "allow-missing"])
def test_a_sweep_where_git_does_not_hold_the_images(tmp_path, finished_project, way):
    """Queued runs see what git tracks, and nothing else."""
    here = clones.start(tmp_path / "project", finished_project)
    images = here.folder / "data/mine"
    for split, count in (("train", 20), ("val", 10)):
        for class_name in ("cat", "dog"):
            (images / split / class_name).mkdir(parents=True)
            for number in range(count):
                pixels = np.full((32, 32, 3), 5 * number + 100 * (class_name == "dog"), dtype=np.uint8)
                Image.fromarray(pixels).save(images / split / class_name / f"{number}.png")
    source = str(images) if way == "an absolute path" else "data/mine"
    here.edit(
        "params.yaml",
        lambda data: data.update(dataset="image_folder", source=source, students={"soft": data["students"]["soft"]}),
    )
    here.do("dvc", "repro")
    here.commit("First results")
    sweep(here, *(["--allow-missing"] if way == "allow-missing" else []), "-S", "students.soft.tau=1,2")
    assert sorted(row[1] for row in students(compare(here))) == ["1", "2", "3"]
