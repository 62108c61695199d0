"""Law 1: the same key, seed, policy and size give the same pixels, anywhere."""

import concurrent.futures
import hashlib
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from teachonce.core import config
from teachonce.views import draw
from teachonce.views import render as apply
from teachonce.views.view_policy import Policy

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "golden" / "make_views.py"
GOLDEN = json.loads((ROOT / "tests" / "golden" / "views.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def maker():
    return runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module")
def remade(maker):
    return maker["make"]()


def test_draws_are_golden(remade):
    assert remade["draws"] == GOLDEN["draws"]


def test_pixels_are_golden(remade):
    assert remade["pixels"] == GOLDEN["pixels"]


def test_golden_views_differ_from_each_other():
    drawn = [digest for case, digest in GOLDEN["draws"].items() if not case.startswith(("whole/", "none/"))]
    assert len(set(drawn)) == len(drawn)
    assert len(set(GOLDEN["pixels"].values())) > 0.8 * len(GOLDEN["pixels"])


def test_another_process_with_another_hash_seed_gives_the_same(remade):
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    command = [sys.executable, str(SCRIPT), "--print"]
    process = subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True)
    assert json.loads(process.stdout) == remade


def test_order_and_threads_do_not_matter(maker):
    policy = config.parse(maker["POLICIES"]["deit"], Policy, "deit")
    image = maker["source"]("wide")

    def render(number):
        view = apply.to_pixels(image, draw.view_params(policy, f"key{number}", number % 5), 48)
        return number, hashlib.sha256(view.tobytes()).hexdigest()

    straight = dict(map(render, range(60)))
    assert dict(map(render, reversed(range(60)))) == straight
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert dict(pool.map(render, range(60))) == straight
    assert len(set(straight.values())) == 60


def test_rendering_leaves_the_image_alone(maker):
    policy = config.parse(maker["POLICIES"]["deit"], Policy, "deit")
    image = maker["source"]("wide")
    before = image.tobytes()
    for number in range(20):
        apply.to_pixels(image, draw.view_params(policy, "key", number), image.shape[1])
    assert image.tobytes() == before
