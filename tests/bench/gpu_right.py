"""The tests of tests/gpu, on the device."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

from gpu_scene import Scene

ROOT = Path(__file__).parents[2]
_ENDED = re.compile(r"(PASSED|FAILED|ERROR|SKIPPED) (\S+)|^(\S+::\S+) (PASSED|FAILED|ERROR|SKIPPED)")
_QUICK = "targets or codec"


def measure(scene: Scene) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests/gpu",
        "--confcutdir=tests/gpu",
        "-m",
        "gpu",
        "-v",
        "-rP",
        "--tb=short",
        "--no-header",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:benchmark",
        "--timeout",
        f"{max(20, scene.left_s()):.0f}",
    ]
    if scene.quick:
        command += ["-k", _QUICK]
    elif importlib.util.find_spec("xdist"):
        command += ["-n", f"{min(4, max(1, len(os.sched_getaffinity(0)) // 2))}"]
    hidden = {} if scene.device.type == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
    paths = f"{ROOT / 'pipeline'}:{ROOT}:{os.environ.get('PYTHONPATH', '')}"
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **hidden, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    failed, lines = 0, []
    for line in process.stdout:
        lines.append(line.rstrip())
        if ended := _ENDED.search(line):
            state, name = (ended[1], ended[2]) if ended[1] else (ended[4], ended[3])
            failed += state in {"FAILED", "ERROR"}
            scene.note(name.removeprefix("tests/gpu/"), state.lower())
        elif line.startswith("figure: "):
            scene.note("", line.removeprefix("figure: ").strip())
    code = process.wait()
    if code or failed:
        shown = [line for line in lines if not line.startswith(("teacher: fit", "cache: ", "train: "))]
        start = next((place for place, line in enumerate(shown) if "= FAILURES =" in line), max(0, len(shown) - 200))
        raise RuntimeError("\n".join([*shown[start:][:300], f"pytest ended with {code}"]))
