"""Who computes decides no byte: another CPU's code, no compiler, no place to keep code, two processes at once."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests/golden/views.json").read_text(encoding="utf-8"))
SCRIPT = ROOT / "tests/golden/make_views.py"

WITHOUT_COMPILER = f"""
import logging, runpy, sys
logging.basicConfig(format="%(levelname)s: %(message)s")
if "missing" in sys.argv:
    sys.modules["numba"] = None
if "of another system" in sys.argv:
    class Finder:
        def find_spec(self, name, *_):
            if name == "numba":
                raise OSError("its library cannot be loaded")
    sys.meta_path.insert(0, Finder())
sys.argv = ["make_views.py", "--print"]
runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
"""

ONE_VIEW = """
import hashlib, logging
import numpy as np
logging.basicConfig(format="%(levelname)s: %(message)s")
from teachonce.views import draw, render
from teachonce.views.view_policy import Policy, RandAugment
policy = Policy(rand_augment=RandAugment(operations=15, probability=1))
image = (np.arange(60 * 80 * 3) * 7 % 251).astype(np.uint8).reshape(60, 80, 3)
print(hashlib.sha256(render.to_pixels(image, draw.view_params(policy, "k", 3), 48).tobytes()).hexdigest())
"""


def start(code: str, *words: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", code, *words]
    variables = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | environment
    return subprocess.Popen(command, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def outcome(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    lines = [line for line in err.splitlines() if "compiling what renders views" not in line]
    return out.strip(), "\n".join(lines)


@pytest.fixture
def package(tmp_path):
    """A copy of the package, with a cache of its own."""
    shutil.copytree(
        ROOT / "pipeline/teachonce", tmp_path / "source/teachonce", ignore=shutil.ignore_patterns("__pycache__")
    )
    return tmp_path / "source"


@pytest.mark.parametrize(
    "way", ["missing", "switched off", pytest.param("of another system", marks=pytest.mark.nightly)]
)
def test_without_a_compiler_the_same_bytes_and_one_line(way):
    switch = {"NUMBA_DISABLE_JIT": "1"} if way == "switched off" else {}
    out, err = outcome(start(WITHOUT_COMPILER, way, PYTHONPATH=os.pathsep.join(sys.path), **switch))
    assert json.loads(out) == GOLDEN
    (line,) = err.splitlines()
    assert line.startswith("WARNING: rendering without a compiler, which is slower by an order of magnitude: ")


@pytest.mark.slow
@pytest.mark.nightly
def test_code_for_any_cpu_gives_the_same_bytes(tmp_path):
    code = f"import runpy, sys; sys.argv.append('--print'); runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    path = os.pathsep.join(sys.path)
    out, _ = outcome(start(code, NUMBA_CPU_NAME="generic", XDG_CACHE_HOME=str(tmp_path), PYTHONPATH=path))
    assert json.loads(out) == GOLDEN


@pytest.mark.slow
def test_a_change_in_a_helper_is_seen(package, tmp_path):
    """Though the file keeps its size and its time, by which the compiler's own cache knows it."""
    source = package / "teachonce/views/level_kernels.py"
    environment = {"PYTHONPATH": os.pathsep.join([str(package), *sys.path]), "XDG_CACHE_HOME": str(tmp_path / "code")}
    before, _ = outcome(start(ONE_VIEW, **environment))
    kept, text = source.stat(), source.read_text(encoding="utf-8")
    assert "19595 * np.int32(red)" in text
    source.write_text(text.replace("19595 * np.int32(red)", "19495 * np.int32(red)"), encoding="utf-8")
    os.utime(source, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert outcome(start(ONE_VIEW, **environment))[0] != before
    source.write_text(text, encoding="utf-8")
    assert outcome(start(ONE_VIEW, **environment))[0] == before


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("ending", ["nbi", "nbc"])
def test_code_that_a_power_cut_left_half_written_is_made_again(ending, tmp_path):
    place = {"PYTHONPATH": os.pathsep.join(sys.path), "XDG_CACHE_HOME": str(tmp_path)}
    before = outcome(start(ONE_VIEW, **place))
    stored = [path for path in tmp_path.rglob(f"*.{ending}") if path.stat().st_size]
    for path in stored:
        path.write_bytes(b"")
    assert outcome(start(ONE_VIEW, **place)) == before
    assert stored
    assert all(path.stat().st_size for path in tmp_path.rglob(f"*.{ending}"))


@pytest.mark.slow
@pytest.mark.nightly
def test_a_copy_of_the_package_compiles_nothing_again(package, tmp_path):
    """As every run of DVC in a workspace of its own is one."""
    place = {"XDG_CACHE_HOME": str(tmp_path / "code")}
    before, _ = outcome(start(ONE_VIEW, PYTHONPATH=os.pathsep.join(sys.path), **place))
    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "code").rglob("*") if path.is_file()}
    assert len(stored) > 10
    assert outcome(start(ONE_VIEW, PYTHONPATH=os.pathsep.join([str(package), *sys.path]), **place))[0] == before
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "code").rglob("*") if path.is_file()} == stored


@pytest.mark.slow
@pytest.mark.nightly
def test_two_processes_may_compile_at_once(tmp_path):
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "XDG_CACHE_HOME": str(tmp_path)}
    outcomes = [outcome(process) for process in [start(ONE_VIEW, **environment) for _ in range(2)]]
    assert outcomes[0] == outcomes[1] == outcome(start(ONE_VIEW, **environment))
    assert not outcomes[0][1]


@pytest.mark.slow
@pytest.mark.nightly
def test_without_a_place_to_keep_code_it_is_compiled_each_time(package, tmp_path):
    # A file where a folder would have to be: as unwritable as a read-only disk, for root too.
    path, nowhere = os.pathsep.join([str(package), *sys.path]), tmp_path / "nowhere"
    nowhere.write_text("", encoding="utf-8")
    found, err = outcome(start(ONE_VIEW, PYTHONPATH=path, HOME=str(nowhere), XDG_CACHE_HOME=str(nowhere)))
    (line,) = err.splitlines()
    assert "WARNING: the compiled renderer cannot be kept on disk, so that every process compiles it: " in line
    assert found == outcome(start(ONE_VIEW, PYTHONPATH=path, XDG_CACHE_HOME=str(tmp_path / "code")))[0]
