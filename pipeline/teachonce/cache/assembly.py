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
    """What the stage writes down about its stores."""

    metrics: dict[str, object]
    """By split: counts, sizes and fidelity, the same for equal input."""
    unit_counts: dict[str, object]
    """By split: units computed and units reused, which differ between a first run and a second."""


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
    write_line: Callable[[str], object] = lambda _: None,
) -> StageResult:
    """Make `train.zarr` and `val.zarr` below `out`, which appears only when both are whole.

    Args:
        shards: the data.
        teacher: folder of the teacher.
        views: policies and count of aug seeds.
        settings: what a row holds.
        batch_size: views of a forward pass.
        scratch: folder of finished units.
        out: folder of the stores.
        compiled: whether to compile the network.
        write_line: is called with a table of what other row formats would take and lose, as soon as a basis is there
            and before the long work, so that a poor choice can still be stopped.

    Raises:
        UnitsError: some units failed; no store is made.
    """
    output = outputs.Output(out, _KIND, (shards.base, teacher), (scratch,))
    output.require_replaceable()
    identity = teacher_network.read_identity(teacher)
    # The validation crop is one view an image, and a store's aug seeds are whole groups: its groups are of one seed.
    val_settings = settings.model_copy(update={"seeds_per_unit": 1})
    plans = {
        "val": (views.evaluation, 1, val_settings),
        "train": (views.policy, views.aug_seeds, settings),
    }
    with executors.open_executor(teacher, settings.workers, settings.rendering) as executor:
        jobs = {
            split: run_units.create_job(
                shards,
                split,
                identity,
                policy,
                aug_seeds=seeds,
                settings=row_settings,
                scratch=scratch,
                batch_size=batch_size,
                device=executor.device,
                compiled=compiled,
            )
            for split, (policy, seeds, row_settings) in plans.items()
        }
        fitted = None
        fit_names: tuple[str, ...] = ()
        if isinstance(settings.tail, cache_config.TransformConfig) and settings.k != "all":
            fit_names = basis_fit.scratch_names(jobs["train"], settings.tail)
            # The rows' units have no names yet: the digest of the basis is a part of them. Noted before the fit starts,
            # so that a prune after a crash leaves what the fit has computed.
            prune.record_uses(scratch, out, fit_names, extend=True)
            fitted = basis_fit.load_or_fit(jobs["train"], settings.tail, executor)
            if fitted.frontier:
                write_line(row_frontier.format_points(fitted.frontier))
            # One basis for both stores: a student reads validation rows with the decoder of its training rows.
            fit_tars = {"val": 0, "train": settings.tail.fit_tars}
            jobs = {
                split: basis_fit.with_transform_tail(job, fitted, settings.tail.step, fit_tars=fit_tars[split])
                for split, job in jobs.items()
            }
        prune.record_uses(
            scratch, out, (*fit_names, *(name for job in jobs.values() for name in run_units.folder_names(job)))
        )
        results = {split: run_units.compute_missing(job, executor, f"cache: {split}") for split, job in jobs.items()}
    # Refused before the draft, so that an earlier cache stays: the finished units wait in the scratch folder.
    run_units.refuse_failed([line for result in results.values() for line in result.failed])
    metrics: dict[str, object] = {}
    with output.draft() as draft:
        for split, job in jobs.items():
            path = draft / f"{split}.zarr"
            store_writer.assemble(path, job.recipe, job.extent, results[split].units, fitted.basis if fitted else None)
            metrics[split] = _facts(store_reader.open(path), results[split])
        if fitted and fitted.frontier:
            files.write_json(draft / row_frontier.NAME, fitted.frontier.model_dump(mode="json"))
    return StageResult(metrics, {split: _count_units(result) for split, result in results.items()})


def _facts(store: store_reader.Cache, result: run_units.RunResult) -> dict[str, object]:
    return {
        "views": result.views,
        # Of the labelled views; a share of none is not written down.
        **({"teacher_top1": result.correct / result.labelled} if result.labelled else {}),
        "bytes": store.stored_bytes(),
        "bytes_a_view": store.stored_bytes() / result.views,
        "files": sum(path.is_file() for path in store.path.rglob("*")),
        "fidelity": store.fidelity,
    }


def _count_units(result: run_units.RunResult) -> dict[str, int]:
    reused = len(result.units) - result.computed
    return {"units_computed": result.computed, "units_reused": reused, "views": result.views}
