"""The two stores of a data set: `train.zarr` of augmented views, `val.zarr` of the evaluation crop.

With the second one, evaluation needs no teacher either.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from teachonce.cache import basis_fit, cache_config, executors, prune, run_units, store_writer
from teachonce.core import files, outputs
from teachonce.format import row_frontier, schema
from teachonce.shards import index
from teachonce.store import store_reader
from teachonce.teacher import teacher_network
from teachonce.views import views_config

_KIND = outputs.FolderKind(
    "an earlier cache",
    "train.zarr/zarr.json",
    schema.ATTRIBUTE.encode(),
    re.compile(rf"{re.escape(row_frontier.NAME)}|(train|val)\.zarr/([a-z_]+/)?(zarr\.json|units\.json|c(/\d+)+)"),
)


@dataclass(frozen=True, slots=True)
class StageResult:
    """What the stage tells of its stores."""

    metrics: dict[str, object]
    """Facts that two equal runs share."""
    work: dict[str, object]
    """What this run did of it."""


def build_stores(
    shards: index.Shards,
    *,
    teacher: Path,
    views: views_config.ViewsConfig,
    settings: cache_config.CacheConfig,
    batch_size: int,
    scratch: Path,
    out: Path,
    compiled: bool = False,
    tell: Callable[[str], object] = lambda _: None,
) -> StageResult:
    """Make both stores below `out`, which appears only when both are whole.

    Args:
        shards: the data.
        teacher: folder of the teacher.
        views: policies and count of aug seeds.
        settings: what a row holds.
        batch_size: views of a forward pass.
        scratch: folder of finished units.
        out: folder of the stores.
        compiled: whether to compile the network.
        tell: is given, as soon as a basis is there and before the long work, what other forms of rows would take and
            lose.

    Raises:
        UnitsError: some units failed; no store is made.
    """
    output = outputs.Output(out, _KIND, (shards.base, teacher), (scratch,))
    output.require_replaceable()
    known = teacher_network.read_identity(teacher)
    single = settings.model_copy(update={"seeds_per_unit": 1})
    plans = {
        "val": (views.evaluation, 1, single),
        "train": (views.policy, views.aug_seeds, settings),
    }
    with executors.open_executor(teacher, settings.workers, settings.rendering) as executor:
        jobs = {
            split: run_units.create_job(
                shards,
                split,
                known,
                policy,
                aug_seeds=seeds,
                settings=form,
                scratch=scratch,
                batch_size=batch_size,
                device=executor.device,
                compiled=compiled,
            )
            for split, (policy, seeds, form) in plans.items()
        }
        fitted = None
        kept: tuple[str, ...] = ()
        if isinstance(settings.tail, cache_config.TransformConfig) and settings.k != "all":
            kept = basis_fit.scratch_names(jobs["train"], settings.tail)
            # The rows' units will be known by name when the basis is.
            prune.record_uses(scratch, out, kept, more=True)
            fitted = basis_fit.load_or_fit(jobs["train"], settings.tail, executor)
            if fitted.frontier:
                tell(row_frontier.format_points(fitted.frontier))
            # One basis for both: that of the training views.
            fit_tars = {"val": 0, "train": settings.tail.fit_tars}
            jobs = {
                split: basis_fit.with_transform_tail(job, fitted, settings.tail.step, fit_tars=fit_tars[split])
                for split, job in jobs.items()
            }
        prune.record_uses(
            scratch, out, (*kept, *(name for job in jobs.values() for name in run_units.folder_names(job)))
        )
        done = {split: run_units.compute_missing(job, executor, f"cache: {split}") for split, job in jobs.items()}
    run_units.refuse_failed([line for split in done.values() for line in split.failed])
    metrics: dict[str, object] = {}
    with output.draft() as draft:
        for split, job in jobs.items():
            path = draft / f"{split}.zarr"
            store_writer.assemble(path, job.recipe, job.extent, done[split].units, fitted.basis if fitted else None)
            metrics[split] = _facts(store_reader.open(path), done[split])
        if fitted and fitted.frontier:
            files.write_json(draft / row_frontier.NAME, fitted.frontier.model_dump(mode="json"))
    return StageResult(metrics, {split: _work(finished) for split, finished in done.items()})


def _facts(store: store_reader.Cache, finished: run_units.RunResult) -> dict[str, object]:
    return {
        "views": finished.views,
        # Of the labelled views; a share of none is not written down.
        **({"teacher_top1": finished.correct / finished.labelled} if finished.labelled else {}),
        "bytes": store.stored_bytes(),
        "bytes_a_view": store.stored_bytes() / finished.views,
        "files": sum(item.is_file() for item in store.path.rglob("*")),
        "fidelity": store.fidelity,
    }


def _work(finished: run_units.RunResult) -> dict[str, int]:
    reused = len(finished.units) - finished.computed
    return {"units_computed": finished.computed, "units_reused": reused, "views": finished.views}
