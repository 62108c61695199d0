import cache_bench
import pytest
import safetensors.torch

from teachonce.core import hashing
from teachonce.teacher import teacher_network

one_thread = cache_bench.one_thread
shards = cache_bench.shards
teacher = cache_bench.teacher
settings = cache_bench.settings
make_teacher = cache_bench.make_teacher
make_shards = cache_bench.make_shards


@pytest.fixture(scope="session")
def published(make_teacher, tmp_path_factory):
    """Weights for seven classes that are none of the images', as a `start`."""
    path = make_teacher(tmp_path_factory.mktemp("published"), classes=tuple("abcdefg")) / teacher_network.WEIGHTS
    return {"kind": "checkpoint", "path": str(path), "sha256": hashing.sha256_file(path)}


@pytest.fixture(scope="session")
def published_tensors(published):
    return safetensors.torch.load_file(published["path"])


@pytest.fixture(scope="session")
def finetuned(settings, published):
    """Settings of a short fine-tuning; `changes` are of its weights."""

    def change(**changes: object):
        recipe = {
            "kind": "finetune",
            "start": published,
            "policy": {"affine": {"degrees": 10.0}},
            "head_epochs": 2,
            "epochs": 3,
            "batch_size": 16,
            "head_lr": 0.01,
            "lr": 0.002,
        }
        return settings(weights=recipe | changes)

    return change
