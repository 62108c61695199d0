"""The two stores of a data set: `train.zarr` of augmented views, `val.zarr` of the evaluation crop.

With the second one, evaluation needs no teacher either.
"""

from dataclasses import dataclass
from pathlib import Path

from pipeline.base import files
from pipeline.cache import config, read
from pipeline.shards import index
from pipeline.teacher import model, run
from pipeline.views import config as views_config


@dataclass(frozen=True, slots=True)
class Made:
    """What the stage tells of its stores."""

    metrics: dict[str, object]
    """Facts that two equal runs share."""
    work: dict[str, object]
    """What this run did of it."""


def make(
    shards: index.Shards, *, teacher: Path, views: views_config.ViewsConfig, settings: config.CacheConfig,
    batch_size: int, scratch: Path, out: Path,
) -> Made:  # fmt: skip
    """Make both stores below `out`, which appears only when both are whole.

    Args:
        shards: the data.
        teacher: folder of the teacher.
        views: policies and count of aug seeds.
        settings: what a row holds.
        batch_size: views of a forward pass.
        scratch: folder of finished units.
        out: folder of the stores.
    """
    known = model.identity(teacher)
    single = settings.model_copy(update={"seeds_per_unit": 1})
    plans = {
        "val": (views.evaluation, 1, single),
        "train": (views.policy, views.aug_seeds, settings),
    }
    jobs = {
        split: run.job(
            shards, split, known, policy, aug_seeds=seeds, settings=form, scratch=scratch, batch_size=batch_size
        )
        for split, (policy, seeds, form) in plans.items()
    }
    metrics: dict[str, object] = {}
    work: dict[str, object] = {}
    with files.new_folder(out) as draft:
        for split, job in jobs.items():
            path = draft / f"{split}.zarr"
            done = run.store(job, teacher, path, f"cache: {split}")
            store = read.open(path)
            metrics[split] = {
                "views": done.views,
                "teacher_top1": done.correct / done.views,
                "bytes": store.stored_bytes(),
                "bytes_a_view": store.stored_bytes() / done.views,
                "files": sum(item.is_file() for item in path.rglob("*")),
                "fidelity": store.fidelity,
            }
            work[split] = {"units_computed": done.computed, "units_reused": done.reused, "views": done.views}
    return Made(metrics, work)
