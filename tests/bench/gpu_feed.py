"""Views a second of the loader by worker processes, beside timm's own transform of the same JPEGs."""

import io
import time

import feed
import gpu_images
import timm.data
import torch
from gpu_scene import Scene
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from teachonce.shards import index, sample_reader


def measure(scene: Scene) -> None:
    copied(scene)
    most = 0 if scene.quick else gpu_images.most_workers(scene)
    rate = {repeats: loader(scene, most, repeats) for repeats in (3, 1)}
    if scene.left_s() < 2:
        scene.skip("timm's transform", "no time left")
        return
    other = timms(scene, most)
    scene.note(f"timm's transform, {most} processes", other, "views/s")
    scene.note("loader with one repeat / timm's transform", rate[1] / other)
    scene.note("loader with three repeats / timm's transform", rate[3] / other)
    for workers in () if scene.quick else (4, 1):
        loader(scene, workers, 3)


def loader(scene: Scene, workers: int, repeats: int) -> float:
    """Views a second of the loader; 0 where there is no time for it."""
    name = f"loader, {workers} processes, {repeats} repeats"
    if scene.left_s() < 2:
        scene.skip(name, "no time left")
        return 0.0
    rate, bytes_s = views_a_second(scene, workers, repeats)
    scene.note(name, rate, "views/s", pinned_and_copied=f"{bytes_s / 1e9:.2f} GB/s")
    return rate


def copied(scene: Scene) -> None:
    """The road to the device: from page-locked memory."""
    if scene.device.type == "cpu":
        scene.skip("page-locked memory to the device", "there is none")
        return
    pixels = torch.empty((1008, 3, 224, 224), dtype=torch.uint8, pin_memory=True)
    pixels.to(scene.device)
    took_s = min(scene.seconds(lambda: pixels.to(scene.device, non_blocking=True)) for _ in range(5))
    scene.note("page-locked memory to the device", pixels.nbytes / took_s / 1e9, "GB/s")


def views_a_second(scene: Scene, workers: int, repeats: int) -> tuple[float, float]:
    """Views and bytes, with the first batches left out."""
    lanes = 2 if scene.quick else gpu_images.LANES
    atom = 2 * repeats if repeats == 3 else 1
    plan = feed.Plan(
        shards=gpu_images.shards(scene),
        cache=gpu_images.store(scene, repeats),
        size=32 if scene.quick else 224,
        batch_size=lanes * atom * (1 if repeats == 3 else 6),
        lanes=lanes,
        buffer=8,
        passes=10_000,
        aug_seeds=3,
        seed=0,
        accept=(),
    )
    stream = feed.batches(plan, workers=workers, device=scene.device)
    for _ in range(1 if scene.quick else 4):
        next(stream)
    began, views, size, limit_s = time.perf_counter(), 0.0, 0, min(4.0, max(1.0, scene.left_s() / 6))
    while (took_s := time.perf_counter() - began) < (0.5 if scene.quick else limit_s):
        batch = next(stream)
        views += batch.count.views
        size += sum(tensor.nbytes for tensor in batch.tensors())
    scene.wait()
    return views / took_s, size / took_s


class _Jpegs(Dataset[torch.Tensor]):
    def __init__(self, data: list[bytes]) -> None:
        self._data = data
        # As facebookresearch/deit calls it.
        self._transform = timm.data.create_transform(
            224,
            is_training=True,
            color_jitter=0.3,
            auto_augment="rand-m9-mstd0.5-inc1",
            interpolation="bicubic",
            re_prob=0.25,
            re_mode="pixel",
            use_prefetcher=False,
        )

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, number: int) -> torch.Tensor:
        while True:
            try:
                return self._transform(Image.open(io.BytesIO(self._data[number % len(self._data)])).convert("RGB"))
            except ValueError:
                # timm 1.0's posterize of no bits, with Pillow 13; two or three in a thousand.
                number += 1


def timms(scene: Scene, workers: int) -> float:
    """Views a second of the same photographs under timm's transform, in torch's loader."""
    shards = index.read(gpu_images.shards(scene))
    entries = shards.index.of_split("train")[:8]
    data = [sample.image for entry in entries for sample in sample_reader.verified_samples(entry, shards.path(entry))]
    loader = DataLoader(
        _Jpegs(data),
        batch_size=8 if scene.quick else 48,
        num_workers=workers,
        pin_memory=scene.device.type == "cuda",
        multiprocessing_context="forkserver" if workers else None,
    )
    stream = iter(loader)
    for _ in range(1 if scene.quick else 2 * workers):
        next(stream)
    began, views = time.perf_counter(), 0
    while (took_s := time.perf_counter() - began) < (0.5 if scene.quick else 3.0):
        views += len(next(stream).to(scene.device, non_blocking=True))
    scene.wait()
    return views / took_s
