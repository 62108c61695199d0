"""What is installed: one name, which a repository with a `pipeline/` and a `stages/` of its own can use."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import clones
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[1]
ELSEWHERE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    clones.copy(folder / "project")
    build = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, folder / "project"]
    command = [sys.executable, "-m", *build]
    subprocess.run(command, check=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_brings_one_name_and_all_that_it_reads(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"teachonce"}
    listed = subprocess.check_output(["git", "ls-files", "pipeline"], cwd=ROOT, text=True).split()
    assert {name.removeprefix("pipeline/") for name in listed} <= set(names)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The program, in an environment of its own; what it depends on is this one's."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    install = [sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--quiet", "--no-deps", wheel]
    subprocess.run(install, env=ELSEWHERE, check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    # A path alone: that environment's own .pth files, one of which names this checkout, are not read.
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin/teachonce"


@pytest.fixture
def foreign(tmp_path) -> Path:
    """Somebody's repository, whose packages of the same names must not be touched."""
    for name in ("pipeline", "stages"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not yours')\n")
    return tmp_path


def run(program: Path, folder: Path, *arguments: object) -> str:
    command = [program, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=ELSEWHERE, check=True, capture_output=True, text=True).stdout


def test_a_foreign_repository_uses_it(installed, foreign):
    assert "inspect" in run(installed, foreign, "--help")
    store = ROOT / "tests/golden/cache_v3"
    described = json.loads(run(installed, foreign, "inspect", store, "--json"))
    assert described["stores"]
    code = "import teachonce; print(teachonce.__file__)"
    assert str(installed.parents[1]) in run(installed.parent / "python", foreign, "-c", code)
