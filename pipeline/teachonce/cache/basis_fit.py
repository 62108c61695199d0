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
from teachonce.core import config, errors, files, hashing, sealed_files
from teachonce.format import basis, layout, row_frontier, schema

_POWER = 0.25
_EXACT = 4096  # classes
_TENSORS = "basis.safetensors"
_RECORD = "basis.json"
_LOG = logging.getLogger(__name__)
_REFUSAL = sealed_files.Refusal(errors.CacheError, "It is removed, and fitted again")


class _Record(config.Model):
    """What lies beside a basis, under a digest of its own."""

    folder: str
    """Name of the folder: a basis under the name of another one would pass for it."""
    sha256: str
    """Of the file of tensors."""
    frontier: row_frontier.Frontier | None
    """What was measured with it."""


@dataclass(frozen=True, slots=True)
class StoredBasis:
    """A basis, and where workers find it."""

    basis: basis.Basis
    """What coefficients stand on."""
    path: Path
    """Its file."""
    frontier: row_frontier.Frontier | None
    """What other forms of rows would take and lose; None where the views are too few to tell."""


def load_or_fit(
    work: unit_lookup.Job, settings: cache_config.TransformConfig, executor: executors.Executor
) -> StoredBasis:
    """The basis for a store: found, or fitted on logits that are computed here and kept for the rows.

    Args:
        work: the store's job.
        settings: rank, step and the tars to fit on.
        executor: where the units run that the fit needs.

    Raises:
        ConfigError: there are fewer tars or views than the fit needs.
        UnitsError: the teacher failed on some of them.
    """
    part = _part(unit_lookup.with_whole_rows(work), settings)
    folder = work.scratch / _name(work, part, settings)
    found = _read(folder, settings.rank, work.recipe.teacher.num_classes)
    if found is None:
        done = run_units.compute_missing(part, executor, "cache: basis")
        run_units.refuse_failed(done.failed)
        records = dict(done.units)
        logits = [
            _logits(part, item, records[unit_lookup.finished_folder(part, item)])
            for item in run_units.planned_units(part)
        ]
        fitted = principal_components(
            np.concatenate([each_SNC.reshape(-1, each_SNC.shape[-1]) for each_SNC in logits]), settings.rank
        )
        found = StoredBasis(fitted, folder / _TENSORS, _frontier(work, settings, logits))
        _write(folder, found)
    return found


def _frontier(
    work: unit_lookup.Job, settings: cache_config.TransformConfig, logits: Sequence[basis.Floats]
) -> row_frontier.Frontier | None:
    fit_BC, rest_BC = (
        np.concatenate(parts) for parts in zip(*map(frontier_measurement.hold_out_views, logits), strict=True)
    )
    ranks = frontier_measurement.fittable_ranks(settings.rank, *fit_BC.shape)
    if work.recipe.k == "all" or not ranks or not len(rest_BC):
        return None
    bench = frontier_measurement.Holdout(
        rest_BC, principal_components(fit_BC, ranks[-1]), work.recipe, work.extent.rows_per_tar
    )
    chosen = row_frontier.RowFormat(k=work.recipe.k, rank=settings.rank, step=settings.step)
    return frontier_measurement.evaluate_grid(bench, chosen, views_fitted=len(fit_BC))


def scratch_names(work: unit_lookup.Job, settings: cache_config.TransformConfig) -> tuple[str, ...]:
    """What the fit keeps in the scratch folder: the basis, and the units of whole logits that it stands on."""
    part = _part(unit_lookup.with_whole_rows(work), settings)
    return (_name(work, part, settings), *run_units.folder_names(part))


def _name(work: unit_lookup.Job, part: unit_lookup.Job, settings: cache_config.TransformConfig) -> str:
    # The basis needs only the rank and the units, what is measured with it all of these.
    form = {"k": work.recipe.k, "rank": settings.rank, "step": settings.step}
    digest = hashing.json_digest({**form, "units": list(run_units.folder_names(part))})
    return f"basis-{digest}"


def _part(work: unit_lookup.Job, settings: cache_config.TransformConfig) -> unit_lookup.Job:
    """The units that the fit looks at: seed group 0 of the first tars."""
    where, extent = "configs/cache", work.extent
    if settings.fit_tars > len(extent.tars):
        condition = f"at most the {len(extent.tars)} tars of the training split"
        raise errors.ConfigError.for_value(where, "tail.fit_tars", condition, settings.fit_tars, "Lower it")
    tars = extent.tars[: settings.fit_tars]
    views, classes = sum(tar.nsamples for tar in tars) * extent.seeds_per_unit, work.recipe.teacher.num_classes
    if settings.rank >= min(views, classes):
        condition = f"below the {classes} classes and the {views} views that it is fitted on"
        raise errors.ConfigError.for_value(where, "tail.rank", condition, settings.rank, "Lower it")
    few = extent.model_copy(update={"tars": tars, "aug_seeds": extent.seeds_per_unit})
    return replace(work, extent=few, entries=work.entries[: settings.fit_tars])


def _logits(work: unit_lookup.Job, item: unit_plan.Unit, record: schema.UnitRecord) -> basis.Floats:
    stored_SNC = unit_lookup.read_finished_array(work, item, record, "logits").astype(np.float32, copy=False)
    return stored_SNC[:, : work.extent.tars[item.tar].nsamples]


def with_transform_tail(work: unit_lookup.Job, fitted: StoredBasis, step: float, *, fit_tars: int) -> unit_lookup.Job:
    """The same store with a transform tail.

    Args:
        work: the store's job.
        fitted: the basis.
        step: of the quantiser, in scaled nats.
        fit_tars: the store's tars whose logits the fit has left.

    Raises:
        ConfigError: the rank does not fit the classes.
    """
    tail = {"rank": len(fitted.basis.components_RC), "step": step, "basis_sha256": fitted.basis.sha256(step)}
    recipe = config.parse(work.recipe.model_dump(mode="json") | {"tail": tail}, schema.Recipe, "the cache's settings")
    layout.require_bounded(
        layout.array_specs(recipe, work.extent.rows_per_tar), work.extent.seeds_per_unit, "the cache's settings"
    )
    return replace(work, recipe=recipe, basis=fitted.path, fit_tars=fit_tars)


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
    scale_C = np.maximum(p_C, p_C.max() * 1e-6) ** _POWER
    scale_C /= scale_C.mean()
    # Exact, but a matrix of classes × classes.
    solver = "covariance_eigh" if len(scale_C) <= _EXACT else "randomized"
    pca = PCA(rank, svd_solver=solver, random_state=0).fit(logp_NC * scale_C)
    components_RC = pca.components_
    largest_R1 = np.abs(components_RC).argmax(axis=1, keepdims=True)
    components_RC = components_RC * np.sign(np.take_along_axis(components_RC, largest_R1, axis=1))
    parts = pca.mean_ / scale_C, scale_C, components_RC / scale_C
    # In C order: safetensors writes a buffer as it lies.
    return basis.Basis(*(np.ascontiguousarray(part, np.float32) for part in parts))


def _write(folder: Path, fitted: StoredBasis) -> None:
    # One folder: where the basis is, so is what was measured with it.
    data = save(fitted.basis.arrays())
    measured = fitted.frontier.model_dump(mode="json") if fitted.frontier else None
    with files.new_folder(folder) as draft:
        files.write_bytes(draft / _TENSORS, data)
        record = {"folder": folder.name, "sha256": hashing.sha256(data), "frontier": measured}
        sealed_files.write_with_digest(draft / _RECORD, record)


def _read(folder: Path, rank: int, classes: int) -> StoredBasis | None:
    """The basis that was fitted before; None where there is none, or where it was damaged, which is said."""
    if not os.path.lexists(folder):
        return None
    try:
        record = config.parse(sealed_files.read_with_digest(folder / _RECORD, _REFUSAL), _Record, str(folder / _RECORD))
        if record.folder != folder.name:
            raise _REFUSAL.mismatch(folder / _RECORD, "folder", folder.name, record.folder)
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
    wanted = {"tail_mean": (classes,), "tail_scale": (classes,), "tail_components": (rank, classes)}
    shapes = {name: array.shape for name, array in arrays.items()}
    if shapes != wanted or not all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays.values()):
        raise _REFUSAL.mismatch(path, "its arrays", f"finite float32 of {wanted}", shapes)
    return basis.from_arrays(arrays)
