"""Photographs of about 100 kB as shards, and a cache of made-up rows, made once for all sections."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bench_step
import feed
import photos
import timm
import torch
from gpu_scene import Scene

from teachonce.core import files, locks
from teachonce.format import schema
from teachonce.prepare import tar_writer
from teachonce.shards import index
from teachonce.teacher import predictor
from teachonce.views.view_policy import MixupCutmix, Policy

LANES = 48
"""Divided by 1, 2, 4, 8, 12, 16, 24 and 48 worker processes; each lane has a tar of its own."""
_ROWS = 16


def policy() -> Policy:
    """DeiT's, with mix and three repeats."""
    return photos.views().policy.model_copy(update={"mix": MixupCutmix(), "repeats": 3})


def most_workers(scene: Scene) -> int:
    """Loader processes that this machine's cores allow."""
    cores = len(os.sched_getaffinity(0))
    return 2 if scene.quick else max(count for count in (1, 2, 4, 8, 12, 16, 24, 48) if count <= cores)


def jpegs(count: int) -> list[bytes]:
    """Crops of 500 × 375 pixels."""
    parts = [range(first, min(first + 32, count)) for first in range(0, count, 32)]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return [data for part in pool.map(photos.crops, parts) for data in part]


def shards(scene: Scene, tars: int = LANES, rows: int = _ROWS) -> Path:
    """A folder of shards: by default a tar a lane; two where everything is a toy."""
    tars, rows = (min(tars, 2), 6) if scene.quick else (tars, rows)
    folder = scene.folder / f"shards-{tars}-{rows}"
    with locks.hold_name(scene.folder / "turns", folder.name):
        if not folder.exists():
            with files.new_folder(folder) as draft:
                _write(draft, folder, jpegs(tars * rows), rows)
    return folder


def _write(draft: Path, folder: Path, data: list[bytes], rows: int) -> None:
    samples = (
        tar_writer.EncodedImage(f"{number:06d}", "jpg", image, number % 1000) for number, image in enumerate(data)
    )
    entries = list(tar_writer.write_samples(samples, draft, split="train", rows_per_tar=rows))
    index.write(draft, base=folder, classes=photos.CLASSES, rows_per_tar=rows, shardlist=entries)


def store(scene: Scene, repeats: int = 3) -> Path:
    """Top-10 rows of three aug seeds, with DeiT's mix and three repeats; or plain views, one at a time."""
    folder = scene.folder / f"store{repeats}"
    shards_folder = shards(scene)
    with locks.hold_name(scene.folder / "turns", folder.name):
        if not (folder / "train.zarr").exists():
            rows = index.read(shards_folder).index.rows_per_tar
            of = policy() if repeats == 3 else photos.views().policy
            bench_step.store(folder, index.read(shards_folder), rows, k=10, seeds=3, policy=of)
    return folder / "train.zarr"


def plan(scene: Scene, size: int) -> feed.Plan:
    """What a loader makes batches by; toy ones where everything is one."""
    return feed.Plan(
        shards=shards(scene),
        cache=store(scene),
        size=size,
        batch_size=24 if scene.quick else 864,
        lanes=2 if scene.quick else LANES,
        buffer=8,
        passes=1000,
        aug_seeds=3,
        seed=0,
        accept=(),
    )


def teacher(scene: Scene, name: str, precision: str) -> tuple[predictor.Predictor, schema.Teacher]:
    """A teacher of random weights for 224 pixels; a toy where everything is one."""
    name, size = ("test_resnet", 32) if scene.quick else (name, 224)
    network = timm.create_model(name, num_classes=1000).eval().to(scene.device, memory_format=torch.channels_last)
    identity = schema.Teacher(
        architecture=name,
        arguments={},
        weights_sha256="0" * 64,
        size=size,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        precision=precision,
        num_classes=1000,
        classes_sha256=schema.classes_sha256(photos.CLASSES),
    )
    return predictor.Predictor(network, identity, scene.device), identity
