"""The basis of a transform tail: fitted once on the teacher's first answers, kept in the scratch folder.

It depends on seed group 0 of the first `fit_tars` tars alone, so that tars and seeds added later never change it.

Shapes: N rows to fit on, C classes, R rank.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from teachonce.cache import (
    cache_config,
    executors,
    frontier_measurement,
    run_units,
    unit_lookup,
    unit_plan,
)
from teachonce.core import config, errors, files, hashing, progress, sealed_files
from teachonce.format import basis, layout, row_frontier, schema

_SCALE_POWER = 0.25
_MAX_EXACT = 4096
"""Classes up to which the covariance of all pairs of classes is held."""
_TENSORS = "basis.safetensors"
_RECORD = "basis.json"
_LOG = logging.getLogger(__name__)
_REFUSAL = sealed_files.Refusal(errors.CacheError, "It is removed, and fitted again")


class _Record(config.Model):
    """`basis.json`, which lies beside the tensors and carries a digest of itself."""

    folder: str
    """Name of the folder: a basis under the name of another one would pass for it."""
    sha256: str
    """SHA-256 of `basis.safetensors`, as 64 hex digits."""
    frontier: row_frontier.Frontier | None
    """Bytes and distances of a grid of row formats, measured with it."""


@dataclass(frozen=True, slots=True)
class StoredBasis:
    """A basis, and where workers find it."""

    basis: basis.Basis
    """Mean, scale and components."""
    path: Path
    """Its safetensors file in the scratch folder, from which workers read it."""
    frontier: row_frontier.Frontier | None
    """What other row formats would take and lose; None where the views are too few to tell."""


def load_or_fit(
    job: unit_lookup.Job, settings: cache_config.TransformConfig, executor: executors.Executor
) -> StoredBasis:
    """The basis for a store: read from the scratch folder, or fitted on logits that are computed here.

    The units of whole logits stay in the scratch folder, so that the rows of these tars need no second forward pass.

    Args:
        job: the store's job.
        settings: rank, step and the tars to fit on.
        executor: where the units run that the fit needs.

    Raises:
        ConfigError: there are fewer tars or views than the fit needs.
        UnitsError: the teacher failed on some of them.
    """
    fit_job = _fit_job(unit_lookup.with_whole_rows(job), settings)
    folder = job.scratch / _name(job, fit_job, settings)
    stored = _read(folder, settings.rank, job.recipe.teacher.num_classes)
    if stored is None:
        result = run_units.compute_missing(fit_job, executor, "cache: basis")
        run_units.refuse_failed(result.failed)
        records = dict(result.units)
        logits = [
            _logits(fit_job, unit, records[unit_lookup.finished_folder(fit_job, unit)])
            for unit in run_units.planned_units(fit_job)
        ]
        # In the order of the plan, not in that of finishing: sums over the rows round otherwise in another order.
        components = principal_components(
            np.concatenate([each_SNC.reshape(-1, each_SNC.shape[-1]) for each_SNC in logits]), settings.rank
        )
        stored = StoredBasis(components, folder / _TENSORS, _measure_frontier(job, settings, logits))
        _write(folder, stored)
    return stored


def _measure_frontier(
    job: unit_lookup.Job, settings: cache_config.TransformConfig, logits: Sequence[basis.Floats]
) -> row_frontier.Frontier | None:
    # Measured by another basis than the store's, fitted without the views it is measured on: on the views of its own
    # fit, a basis would look better than it is for the rows to come.
    fit_BC, rest_BC = (
        np.concatenate(arrays) for arrays in zip(*map(frontier_measurement.hold_out_views, logits), strict=True)
    )
    ranks = frontier_measurement.fittable_ranks(settings.rank, *fit_BC.shape)
    if job.recipe.k == "all" or not ranks or not len(rest_BC):
        return None
    holdout = frontier_measurement.Holdout(
        rest_BC, principal_components(fit_BC, ranks[-1]), job.recipe, job.extent.rows_per_tar
    )
    chosen = row_frontier.RowFormat(k=job.recipe.k, rank=settings.rank, step=settings.step)
    return frontier_measurement.evaluate_grid(holdout, chosen, views_fitted=len(fit_BC))


def scratch_names(job: unit_lookup.Job, settings: cache_config.TransformConfig) -> tuple[str, ...]:
    """What the fit keeps in the scratch folder: the basis, and the units of whole logits that it stands on."""
    fit_job = _fit_job(unit_lookup.with_whole_rows(job), settings)
    return (_name(job, fit_job, settings), *run_units.folder_names(fit_job))


def _name(job: unit_lookup.Job, fit_job: unit_lookup.Job, settings: cache_config.TransformConfig) -> str:
    # The basis itself depends on the rank and the units alone; k and step are in the name for the frontier beside it.
    row_format = {"k": job.recipe.k, "rank": settings.rank, "step": settings.step}
    digest = hashing.json_digest({**row_format, "units": list(run_units.folder_names(fit_job))})
    return f"basis-{digest}"


def _fit_job(job: unit_lookup.Job, settings: cache_config.TransformConfig) -> unit_lookup.Job:
    """A job of the units that the fit looks at: seed group 0 of the first tars."""
    where, extent = "configs/cache", job.extent
    if settings.fit_tars > len(extent.tars):
        condition = f"at most the {len(extent.tars)} tars of the training split"
        raise errors.ConfigError.for_value(where, "tail.fit_tars", condition, settings.fit_tars, "Lower it")
    # Group 0 of the first tars only: seeds and tars that are added later leave the basis, and so every unit coded with
    # it, as it was.
    tars = extent.tars[: settings.fit_tars]
    views, classes = sum(tar.nsamples for tar in tars) * extent.seeds_per_unit, job.recipe.teacher.num_classes
    if settings.rank >= min(views, classes):
        condition = f"below the {classes} classes and the {views} views that it is fitted on"
        raise errors.ConfigError.for_value(where, "tail.rank", condition, settings.rank, "Lower it")
    fit_extent = extent.model_copy(update={"tars": tars, "aug_seeds": extent.seeds_per_unit})
    return replace(job, extent=fit_extent, entries=job.entries[: settings.fit_tars])


def _logits(job: unit_lookup.Job, unit: unit_plan.Unit, record: schema.UnitRecord) -> basis.Floats:
    stored_SNC = unit_lookup.read_finished_array(job, unit, record, "logits").astype(np.float32, copy=False)
    return stored_SNC[:, : job.extent.tars[unit.tar].nsamples]


def with_transform_tail(job: unit_lookup.Job, fitted: StoredBasis, step: float, *, fit_tars: int) -> unit_lookup.Job:
    """The same store with a transform tail.

    Args:
        job: the store's job.
        fitted: the basis, with its file.
        step: of the quantiser, in scaled nats.
        fit_tars: how many of the store's first tars have whole logits of group 0 in the scratch folder.

    Raises:
        ConfigError: the rank does not fit the classes.
    """
    tail = {"rank": len(fitted.basis.components_RC), "step": step, "basis_sha256": fitted.basis.sha256(step)}
    recipe = config.parse(job.recipe.model_dump(mode="json") | {"tail": tail}, schema.Recipe, "the cache's settings")
    layout.require_bounded(
        layout.array_specs(recipe, job.extent.rows_per_tar), job.extent.seeds_per_unit, "the cache's settings"
    )
    return replace(job, recipe=recipe, basis=fitted.path, fit_tars=fit_tars)


def principal_components(logits_NC: basis.Floats, rank: int) -> basis.Basis:
    """The components that a sample of rows needs most.

    Likely classes weigh more, by the fourth root of their mean probability: a few per cent less total variation at
    equal bytes. Signs are fixed: a component's largest entry is positive.

    Args:
        logits_NC: float32 (N, C), finite; some thousands of views.
        rank: components to keep, below N and C.
    """
    from sklearn.decomposition import PCA  # noqa: PLC0415 - takes a second, and only this needs it

    logp_NC = basis.log_softmax(logits_NC)
    p_C = np.exp(logp_NC).mean(axis=0)
    # The floor keeps a class that is never likely from a scale near 0, by which the components are divided below.
    scale_C = np.maximum(p_C, p_C.max() * 1e-6) ** _SCALE_POWER
    scale_C /= scale_C.mean()
    # Exact, but on a matrix of classes × classes: at 20,000 classes that alone would be 3 GB in float64.
    solver = "covariance_eigh" if len(scale_C) <= _MAX_EXACT else "randomized"
    with progress.status_if_slow("fitting the basis of the coded tails"):
        pca = PCA(rank, svd_solver=solver, random_state=0).fit(logp_NC * scale_C)
    components_RC = pca.components_
    # A component and its negative are equally good, and which one comes out depends on the library: without a fixed
    # sign, a basis fitted again would be another one, with another digest and other rows.
    largest_R1 = np.abs(components_RC).argmax(axis=1, keepdims=True)
    components_RC = components_RC * np.sign(np.take_along_axis(components_RC, largest_R1, axis=1))
    arrays = pca.mean_ / scale_C, scale_C, components_RC / scale_C
    # In C order: safetensors writes a buffer as it lies.
    return basis.Basis(*(np.ascontiguousarray(array, np.float32) for array in arrays))


def _write(folder: Path, fitted: StoredBasis) -> None:
    # One folder, one rename: no crash leaves a basis without what was measured with it, or with that of another.
    data = save(fitted.basis.arrays())
    frontier = fitted.frontier.model_dump(mode="json") if fitted.frontier else None
    with files.new_folder(folder) as draft:
        files.write_bytes(draft / _TENSORS, data)
        record = {"folder": folder.name, "sha256": hashing.sha256(data), "frontier": frontier}
        sealed_files.write_with_digest(draft / _RECORD, record)


def _read(folder: Path, rank: int, classes: int) -> StoredBasis | None:
    """The basis that was fitted before; None where there is none, or where it was damaged, which is logged."""
    if not os.path.lexists(folder):
        return None
    try:
        record = config.parse(sealed_files.read_with_digest(folder / _RECORD, _REFUSAL), _Record, str(folder / _RECORD))
        if record.folder != folder.name:
            raise _REFUSAL.mismatch(folder / _RECORD, "folder", folder.name, record.folder)
        # The digest first: a parser sees no bytes that this program did not write.
        data = sealed_files.read_verified(folder / _TENSORS, record.sha256, "as in its record, ", _REFUSAL)
        return StoredBasis(_basis(data, folder / _TENSORS, rank, classes), folder / _TENSORS, record.frontier)
    except (errors.CacheError, errors.ConfigError) as error:
        _LOG.warning("%s", error)
        files.remove(folder)
        return None


def _basis(data: bytes, path: Path, rank: int, classes: int) -> basis.Basis:
    try:
        arrays = load(data)
    except SafetensorError as error:
        raise _REFUSAL.unreadable(path, ValueError(str(error))) from error
    expected = {"tail_mean": (classes,), "tail_scale": (classes,), "tail_components": (rank, classes)}
    shapes = {name: array.shape for name, array in arrays.items()}
    if shapes != expected or not all(
        array.dtype == np.float32 and np.isfinite(array).all() for array in arrays.values()
    ):
        raise _REFUSAL.mismatch(path, "its arrays", f"finite float32 of {expected}", shapes)
    return basis.from_arrays(arrays)
