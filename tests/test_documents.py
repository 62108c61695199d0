"""README and docs: every block of commands is run as it stands or says why not, and every link leads somewhere."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import clones
import documents
import numpy as np
import pytest
import stage_processes
from PIL import Image

from teachonce import cli
from teachonce.core import project_params

ROOT = documents.ROOT
BLOCKS = [block for page in documents.PAGES for block in documents.blocks(page)]
RUN = [page for page in documents.PAGES if any(block.mark == "run" for block in documents.blocks(page))]
"""Pages whose blocks are run, at night; by day what they do is tested where it is built."""


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_every_block_of_commands_says_who_runs_it(block):
    if block.language not in documents.COMMANDS:
        assert block.language in {"yaml", "text"}, "a block of commands is called bash or python"
        assert not block.mark
        return
    kind, _, rest = block.mark.partition(": ")
    assert kind in {"run", "tested", "not run"}, "write <!-- run -->, <!-- tested: TEST --> or <!-- not run: WHY -->"
    assert bool(rest) == (kind != "run")
    if kind == "tested":
        code = code_of_tests(rest)
        assert [words for words in commands(block) if not re.search(words.replace(" ", r"\W+"), code)] == []


def code_of_tests(names: str) -> str:
    """Text of the files, or of the tests in the folders, that a mark names; with that of the projects they run in."""
    places = [ROOT / name for name in (*names.split(", "), "tests/support/clones.py")]
    files = [file for place in places for file in (sorted(place.rglob("test_*.py")) if place.is_dir() else [place])]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def commands(block: documents.Block) -> set[str]:
    """The first two words of each command, such as `dvc push`."""
    lines = (line.partition("#")[0] for line in block.text.splitlines())
    parts = (part.split() for line in lines for part in line.split("&&"))
    return {" ".join([word for word in words if "=" not in word][:2]) for words in parts if words and words[0] != "cd"}


@pytest.mark.parametrize("page", documents.PAGES, ids=lambda page: page.name)
def test_no_command_hides_in_an_indented_block(page):
    assert re.findall(r"^    (?:dvc|git|python|teachonce|make|pip) .*$", documents.prose(page), re.MULTILINE) == []


@pytest.mark.parametrize("page", documents.PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for link in documents.links(page):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in documents.anchors(target), link


def test_the_readme_links_every_page():
    linked = {(ROOT / link).name for link in documents.links(documents.PAGES[0])}
    assert {page.name for page in documents.PAGES[1:]} <= linked


def test_the_readme_is_short():
    assert len(documents.PAGES[0].read_text(encoding="utf-8").split()) <= 1300


def test_every_command_has_its_line():
    named = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    assert [name for name in cli._COMMANDS if f"`{name}" not in named and f" `{name} NAME`" not in named] == []


def test_every_configuration_that_is_named_exists():
    for page in documents.PAGES:
        for name in re.findall(r"configs/\w+/\w+\.yaml", page.read_text(encoding="utf-8")):
            assert (ROOT / name).is_file(), f"{page.name}: {name}"
    params = project_params.read(ROOT / "params.yaml")
    assert isinstance(params, dict)
    assert {"plain", "soft", "hard"} <= set(params["students"])


class Reader(clones.Project):
    """A project in which a page's blocks are run in their order, as they stand."""

    def __init__(self, folder: Path, finished: clones.Project) -> None:
        super().__init__(folder)
        shutil.copytree(finished.folder, folder, symlinks=True)
        self.edit(
            "configs/student/deit_micro_48.yaml",
            lambda data: (
                data.update(epochs=1, warmup_epochs=0, batch_size=20, log_every=1)
                or data["arguments"].update(embed_dim=24, depth=2)
            ),
        )
        Image.fromarray(np.full((90, 120, 3), 128, np.uint8)).save(folder / "photo.jpg")
        # An environment as `make demo` leaves it: this process's.
        commands = folder / ".venv/bin"
        commands.mkdir(parents=True)
        (folder / ".venv/installed").touch()
        (commands / "activate").touch()
        (commands / "teachonce").write_text('#!/bin/sh\nexec python -m teachonce.__main__ "$@"\n')
        (commands / "teachonce").chmod(0o755)
        path = os.pathsep.join([str(commands), str(stage_processes.commands()), self.environment["PATH"]])
        self.environment |= {"PATH": path, "PYTHONPATH": str(folder / "pipeline")}
        self.commit("as the demo left it")

    def read(self, block: documents.Block) -> str:
        """What a block says; it must succeed."""
        words = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else ["python", "-W", "error", "-c"]
        done = subprocess.run(
            [*words, block.text], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{block.where}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run_as_they_stand(page, tmp_path, finished_project):
    reader = Reader(tmp_path / "project", finished_project)
    for block in documents.blocks(page):
        if block.mark == "run":
            reader.read(block)
