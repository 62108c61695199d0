"""The GPU's benchmark on a CPU, at toy sizes: it must run whenever a GPU is at hand for a few minutes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "bench_gpu.py"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, "--device", "cpu", "--quick", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.slow
@pytest.mark.nightly
def test_every_section_measures_something(tmp_path):
    ended = run("--minutes", 6, "--out", tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert {name: section["state"] for name, section in report["sections"].items()} == dict.fromkeys(
        ("right", "teacher", "student", "feed", "limits"), "done"
    )
    assert "cores" in report["machine"]
    assert report["date"] in ended.stdout
    by_name = {figure["name"]: figure for section in report["sections"].values() for figure in section["measured"]}
    for name in (
        "regnety_160, bfloat16: forwards alone",
        "rendering by processes of all cores",
        "loader, 0 processes, 3 repeats",
        "deit_tiny, eager: a step of 24 views from the cache",
        "deit_tiny, eager: cached / plain",
    ):
        assert by_name[name]["value"] > 0
    assert by_name["deit_tiny, eager: cached / plain"]["met"] in {True, False}
    assert by_name["deit_tiny, eager: two runs of three steps, in one order"]["value"] == "the same bits"
    compiled = "deit_tiny, compiled: a step of 24 views from the cache" in by_name
    assert compiled == bool(shutil.which("g++")), [name for name in by_name if "compiled" in name]
    passed = [name for name, figure in by_name.items() if "::" in name and figure["value"] == "passed"]
    assert "test_rows.py::test_targets_of_rows_on_the_device_are_those_of_the_cpu" in passed


TOYS = {
    "fails": "def measure(scene):\n    scene.note('before', 1.5, 'm')\n    raise ValueError('no such card')",
    "dies": "import os\ndef measure(scene):\n    os._exit(3)",
    "hangs": "import time\ndef measure(scene):\n    scene.note('once', 2)\n    time.sleep(600)",
    "works": "def measure(scene):\n    scene.note('speed', 3.0, 'views/s', least=4, rounds='2 to 3')",
}


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.nightly
def test_a_section_that_fails_hangs_or_dies_costs_the_others_nothing(tmp_path):
    """And what it had measured is kept."""
    for name, text in TOYS.items():
        (tmp_path / f"gpu_{name}.py").write_text(text)
    script = f"""
import sys
sys.path[:0] = [{str(tmp_path)!r}, {str(SCRIPT.parent)!r}]
import bench_gpu
if __name__ == "__main__":
    bench_gpu._PRELOADED, bench_gpu._LATE_S = ["gpu_scene"], 0.5
    # So little of the minute for the one that hangs, so much for the others.
    bench_gpu.SECTIONS = {{name: 0.1 if name == "hangs" else 1.0 for name in {list(TOYS)}}}
    from pathlib import Path
    sys.exit(bench_gpu.Bench("cpu", quick=True, out=Path({str(tmp_path)!r})).run({list(TOYS)}, 60))
"""
    (tmp_path / "main.py").write_text(script)
    ended = subprocess.run([sys.executable, tmp_path / "main.py"], capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stderr
    sections = json.loads((tmp_path / "gpu.json").read_text())["sections"]
    assert {name: section["state"] for name, section in sections.items()} == {
        "fails": "failed",
        "hangs": "cut off",
        "dies": "failed",
        "works": "done",
    }
    assert "ValueError: no such card" in sections["fails"]["error"]
    assert (sections["fails"]["measured"][0]["value"], sections["hangs"]["measured"][0]["value"]) == (1.5, 2)
    assert "| speed | 3.0 views/s (rounds 2 to 3) | ≥ 4: **missed** |" in ended.stdout


def test_an_unknown_section_is_one_line(tmp_path):
    ended = run("--only", "right,wrong", "--out", tmp_path)
    assert ended.returncode == 1
    assert ended.stderr == "error: --only must be of right, teacher, student, feed, limits. Got wrong\n"
