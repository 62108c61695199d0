"""One rank under a launcher goes the way of many: its gradients pass through the ranks' group."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.gpu
HERE = Path(__file__).parent


@pytest.mark.nightly
def test_the_gradients_of_one_rank_are_all_reduced(world, recipe, device, tmp_path):
    settings = tmp_path / "settings.json"
    settings.write_text(recipe(epochs=20).model_dump_json())
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=1",
            HERE / "one_rank.py",
            world.shards,
            world.stores("bfloat16", "3") / "train.zarr",
            settings,
        ],
        cwd=HERE.parents[1],
        env={
            **os.environ,
            "PYTHONPATH": f"{HERE.parents[1] / 'pipeline'}:{HERE.parents[1]}:{os.environ.get('PYTHONPATH', '')}",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout.strip().splitlines()[-1])
    assert (report["size"], report["heads"]) == (1, "DistributedDataParallel")
    wanted = "nccl" if device.type == "cuda" else "gloo"
    assert [name for name in report["names"] if wanted in name.lower() and "reduce" in name.lower()], report["names"]
    assert "has not been destroyed" not in run.stderr
