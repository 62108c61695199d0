"""Real photographs as shards, and a real ImageNet teacher, for the benchmarks at 224 pixels."""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from teachonce.core import config, hashing
from teachonce.format import schema
from teachonce.prepare import tar_writer
from teachonce.shards import index
from teachonce.teacher import teacher_config
from teachonce.views import views_config

ROOT = Path(__file__).parents[2]
CLASSES = tuple(str(number) for number in range(1000))


def jpegs(count: int, quality: int = 75) -> list[bytes]:
    """Crops of 500 × 375 pixels from two photographs, as JPEGs: about 30 kB at quality 75, 100 kB at 97."""
    return crops(range(count), quality)


def crops(numbers: Iterable[int], quality: int = 97) -> list[bytes]:
    """Those of some numbers."""
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    pictures = []
    for number in numbers:
        photo = photos[number % 2]
        place = np.random.Philox(key=hashing.seed64("bench", number)).random_raw(2)
        x, y = int(place[0] % (photo.width - 500)), int(place[1] % (photo.height - 375))
        buffer = io.BytesIO()
        photo.crop((x, y, x + 500, y + 375)).save(buffer, "JPEG", quality=quality)
        pictures.append(buffer.getvalue())
    return pictures


def shards(folder: Path, images: int, rows_per_tar: int, quality: int = 75) -> index.Shards:
    """Shards of `images` crops, all in the training split."""
    folder.mkdir(parents=True)
    samples = (
        tar_writer.EncodedImage(f"{number:06d}", "jpg", data, number % 1000)
        for number, data in enumerate(jpegs(images, quality))
    )
    entries = list(tar_writer.write_samples(samples, folder, split="train", rows_per_tar=rows_per_tar))
    index.write(folder, base=folder, classes=CLASSES, rows_per_tar=rows_per_tar, shardlist=entries)
    return index.read(folder)


def teacher() -> teacher_config.TeacherConfig:
    """tf_efficientnet_lite0 with the ImageNet weights that a package ships."""
    return config.load(ROOT / "configs/teacher/tf_efficientnet_lite0.yaml", teacher_config.TeacherConfig)


def identity(size: int) -> schema.Teacher:
    """A teacher of 1,000 classes that never answered: of a store whose rows are made up."""
    return schema.Teacher(
        architecture="bench",
        arguments={},
        weights_sha256="0" * 64,
        size=size,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        precision="float32",
        num_classes=1000,
        classes_sha256=schema.classes_sha256(CLASSES),
    )


def views() -> views_config.ViewsConfig:
    """DeiT's augmentation, without mix and repeats."""
    shipped = config.load(ROOT / "configs/views/imagenet.yaml", views_config.ViewsConfig)
    return shipped.model_copy(update={"policy": shipped.policy.model_copy(update={"mix": None, "repeats": 1})})
