"""Peak memory of the cache stage and of training against the number of samples.

    python tests/bench/bench_memory.py

Target: ten times the samples, less than 5 % more. Each measurement is a process of its own.
"""

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROWS_PER_TAR = 100
SIZES = (5, 50)


def child(folder: Path, tars: int, what: str) -> None:
    """Cache, or train an epoch on, `tars` tars of 100 images; print the peak in MiB."""
    import numpy as np
    from PIL import Image

    from teachonce.cache import assembly, cache_config
    from teachonce.core import config, files
    from teachonce.prepare import encode, tar_writer
    from teachonce.shards import index
    from teachonce.student import student_run, student_spec, train_cached, train_config
    from teachonce.teacher import teacher_config, teacher_network
    from teachonce.views import views_config

    root = Path(__file__).parents[2]
    views = views_config.ViewsConfig.model_validate({"policy": {}, "evaluation": {}, "aug_seeds": 1})
    classes = tuple("0123456789")
    if what == "cache":

        def samples(split: str, count: int):
            bits = np.random.Philox(key=7)
            for number in range(count):
                pixels = np.frombuffer(bits.random_raw(96).tobytes(), np.uint8).reshape(16, 16, 3)
                yield tar_writer.EncodedImage(
                    f"{split}/{number}", "png", encode.png(Image.fromarray(pixels)), number % 10
                )

        with files.new_folder(folder / "shards") as draft:
            entries = [
                entry
                for split, count in (("train", tars * ROWS_PER_TAR), ("val", ROWS_PER_TAR))
                for entry in tar_writer.write_samples(
                    samples(split, count), draft, split=split, rows_per_tar=ROWS_PER_TAR
                )
            ]
            index.write(draft, base=draft, classes=classes, rows_per_tar=ROWS_PER_TAR, shardlist=entries)
        settings = config.load(root / "configs/teacher/resnet_small.yaml", teacher_config.TeacherConfig)
        teacher_network.save(folder / "teacher", teacher_network.build_network(settings, 10), settings, classes)
        assembly.build_stores(
            index.read(folder / "shards"),
            teacher=folder / "teacher",
            views=views,
            batch_size=64,
            settings=cache_config.CacheConfig(k="all", seeds_per_unit=1, workers=0),
            scratch=folder / "units",
            out=folder / "cache",
        )
    else:
        path, short = root / "configs/student/deit_micro.yaml", {"epochs": 1, "warmup_epochs": 0}
        recipe = config.load(path, train_config.TrainConfig).model_copy(update=short)
        spec = student_spec.SoftSpec(model="bench", kind="soft", alpha=0.5, tau=3.0)
        train_cached.train_from_cache(
            student_spec.Student("bench", spec, recipe),
            views,
            folder / "shards",
            folder / "cache/train.zarr",
            student_run.RunFolders(folder / "runs", folder / "out", folder / "curves"),
        )
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def peak_mib(folder: Path, tars: int, what: str) -> float:
    done = subprocess.run(
        [sys.executable, __file__, str(folder), str(tars), what], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def main() -> None:
    result = {}
    with tempfile.TemporaryDirectory() as name:
        for what in ("cache", "train"):
            small, large = (peak_mib(Path(name) / str(tars), tars, what) for tars in SIZES)
            result[what] = {"mib": [round(small), round(large)], "ratio": round(large / small, 3)}
            print(f"{what}: peak memory with 10 × the samples = {large / small:.3f} × (target below 1.05)")
    print(json.dumps(result))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        child(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    else:
        main()
