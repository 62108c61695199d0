"""Whether a cache is that of these shards, classes and views, and its views still replay: else it is refused."""

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from teachonce.core import errors, hashing, run_record
from teachonce.format import schema
from teachonce.shards import index, sample_reader
from teachonce.store import replay, store_reader
from teachonce.store.acceptance import Acceptable
from teachonce.views import view_policy

_LOG = logging.getLogger(__name__)
_REMAKE = "Make it again: dvc repro cache"


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a consumer needs of a cache beside the rows of its shards."""

    policy: view_policy.Policy
    """The policy of the views that it will render."""
    aug_seeds: int
    """It will use seeds 0 … aug_seeds − 1."""


def extent_tars(shards: index.Shards, split: str) -> tuple[schema.Tar, ...]:
    """The tars of a split as an extent names them."""
    return tuple(
        schema.Tar(url=shard.url, nsamples=shard.nsamples, sha256=shard.sha256, keys_crc32=shard.keys_crc32)
        for shard in shards.index.of_split(split)
    )


def require_compatible(
    cache: store_reader.Cache,
    shards: index.Shards,
    split: str,
    requirements: Requirements,
    accept: Collection[str] = (),
) -> tuple[str, ...]:
    """Refuse a cache that was made of other shards, classes or views than asked; it may hold more than is asked.

    Args:
        cache: the cache.
        shards: what it is to be joined with.
        split: `train` or `val`.
        requirements: what is asked of it.
        accept: differences to go on with, by the words of `acceptance`.

    Returns:
        What was accepted, a line each; each is logged as a warning too.

    Raises:
        IdentityError: names the field, both values and the cure.
    """
    differences = list(find_differences(cache, shards, split, requirements))
    for difference in differences:
        if difference.accept not in accept:
            raise difference
    return log_accepted([str(difference) for difference in differences])


def log_accepted(lines: Sequence[str]) -> tuple[str, ...]:
    """Log a warning for each difference that is set aside: a run that goes on in spite of it must say so."""
    for line in lines:
        _LOG.warning("accepted: %s", line)
    return tuple(lines)


def find_differences(
    cache: store_reader.Cache, shards: index.Shards, split: str, requirements: Requirements | None = None
) -> Iterator[errors.IdentityError]:
    """All that tells a cache from the shards and, where given, from what is asked of it.

    Args:
        cache: the cache.
        shards: what it is to be joined with.
        split: `train` or `val`.
        requirements: what is asked of it; None to compare it with the shards alone.
    """
    teacher = cache.recipe.teacher
    classes = shards.index.classes
    condition = f"{len(classes)}, the classes of the shards"
    yield from _unequal(cache, "teacher.num_classes", condition, len(classes), teacher.num_classes)
    classes_sha256 = schema.classes_sha256(classes)
    condition = "that of the shards' class names"
    yield from _unequal(
        cache, "teacher.classes_sha256", condition, classes_sha256, teacher.classes_sha256, accept="classes"
    )
    yield from renderer_differences(cache)
    if requirements:
        yield from _unmet_requirements(cache, requirements)
    has_any = bool(restrict_to_cached(cache, shards, split).index.of_split(split))
    for shard in shards.index.of_split(split):
        try:
            tar = cache.extent.tars[cache.tar(shard.sha256)]
        except errors.IdentityError as error:
            # Without a single tar there would be nothing to go on with.
            cure = f"{error.cure}; or set accept: [tars]"
            yield errors.IdentityError(error.where, error.what, cure).accepted_by("tars") if has_any else error
        else:
            condition = f"those of the shard, {shard.nsamples}"
            yield from _unequal(cache, f"rows of {shard.url}", condition, shard.nsamples, tar.nsamples)
            key, condition = f"keys of {shard.url}", f"those of the shard, crc32 {shard.keys_crc32}"
            yield from _unequal(cache, key, condition, shard.keys_crc32, tar.keys_crc32, accept="keys")


def renderer_differences(cache: store_reader.Cache) -> Iterator[errors.IdentityError]:
    """What no `accept` sets aside: views of another renderer than this release's cannot be made again at all."""
    condition = f"{view_policy.RENDERER}, the renderer of this release (0 is Pillow's)"
    yield from _unequal(cache, "policy.renderer", condition, view_policy.RENDERER, cache.recipe.policy.renderer)


def _unmet_requirements(cache: store_reader.Cache, requirements: Requirements) -> Iterator[errors.IdentityError]:
    # Field by field, so that the refusal names the one that differs.
    for name in (name for name in type(requirements.policy).model_fields if name != "renderer"):
        required, cached = getattr(requirements.policy, name), getattr(cache.recipe.policy, name)
        yield from _unequal(cache, f"policy.{name}", f"as asked, {required}", required, cached, accept="policy")
    if cache.extent.aug_seeds < requirements.aug_seeds:
        condition, cure = f"at least the {requirements.aug_seeds} asked", "Grow it: dvc repro cache; or ask for fewer"
        error = errors.IdentityError.for_value(cache.path, "aug_seeds", condition, cache.extent.aug_seeds, cure)
        yield error.accepted_by("aug_seeds")


def _unequal(
    cache: store_reader.Cache,
    key: str,
    condition: str,
    required: object,
    cached: object,
    *,
    accept: Acceptable | None = None,
) -> Iterator[errors.IdentityError]:
    if required != cached:
        cure = f"{_REMAKE}; or set accept: [{accept}]" if accept else _REMAKE
        yield errors.IdentityError.for_value(cache.path, key, condition, cached, cure).accepted_by(accept)


def restrict_to_cached(cache: store_reader.Cache, shards: index.Shards, split: str) -> index.Shards:
    """The shards without those tars of a split that the cache has no rows of (`accept: [tars]`).

    Args:
        cache: the cache.
        shards: of all splits.
        split: the split whose tars are left out; others stay.
    """
    digests = {tar.sha256 for tar in cache.extent.tars}
    return shards.only(shard for shard in shards.index.shardlist if shard.split != split or shard.sha256 in digests)


@dataclass(frozen=True, slots=True)
class CanaryDrift:
    """A canary that did not replay."""

    levels: int | None
    """Largest difference of a pixel, of 255; None where only the digest of the old pixels is kept."""
    versions: dict[str, str]
    """Libraries that made the old pixels, by name."""


def pixels_sha256(pixels: npt.NDArray[np.uint8]) -> str:
    """SHA-256 of a view's pixels, as a canary records it."""
    return hashing.sha256(pixels.tobytes())


def replay_canaries(
    cache: store_reader.Cache, samples: sample_reader.OpenTar, tar: int, groups: Iterable[int]
) -> list[CanaryDrift | None]:
    """Render the canaries of a tar again; None for each that is the very view the teacher saw.

    Args:
        cache: the cache that has the canaries.
        samples: of the tar.
        tar: its position in the extent.
        groups: of aug seeds, each of which has a canary.

    Raises:
        DataError: a canary's image has changed, or cannot be decoded.
    """
    # One view proves decoder, key, draw and renderer together: they gave the very bytes that the teacher answered. A
    # change that touches few views may take the canaries of several tars to show.
    return [_drift(cache, cache.unit(tar, group), samples) for group in groups]


def _drift(cache: store_reader.Cache, unit: schema.UnitRecord, samples: sample_reader.OpenTar) -> CanaryDrift | None:
    canary = unit.canary
    pixels = replay.render_view(cache.recipe, cache.extent.tars[unit.tar], samples, canary.row, canary.aug_seed)
    if pixels_sha256(pixels) == canary.sha256:
        return None
    # The pixels themselves are kept for group 0 alone.
    if unit.group:
        return CanaryDrift(None, unit.versions)
    levels = np.abs(pixels.astype(np.int16) - cache.canary(unit.tar).astype(np.int16)).max()
    return CanaryDrift(int(levels), unit.versions)


def seed_groups(cache: store_reader.Cache) -> range:
    """All groups of aug seeds of a cache."""
    return range(cache.extent.aug_seeds // cache.extent.seeds_per_unit)


def replay_first_canaries(
    cache: store_reader.Cache, shards: index.Shards, split: str, tars: int, accept: Collection[str] = ()
) -> tuple[list[CanaryDrift], int]:
    """Replay the canaries of the first tars, every seed group of each: those that drifted, and how many ran.

    Args:
        cache: the cache.
        shards: what it is to be joined with.
        split: `train` or `val`.
        tars: how many of the split's first tars.
        accept: with `keys`, samples go by the cache's keys.

    Raises:
        DataError: a tar is not the one the index names, or a canary's image cannot be decoded.
        IdentityError: the cache has no rows of a tar.
    """
    drifts: list[CanaryDrift | None] = []
    for shard in shards.index.of_split(split)[:tars]:
        tar = cache.tar(shard.sha256)
        # The teacher's views were drawn by the cache's keys: where others are accepted, these still decide the pixels.
        keys = cache.keys(tar) if "keys" in accept else None
        with sample_reader.open_tar(shard, shards.path(shard), keys) as samples:
            # Every group: later ones may be of a later day, another machine and other libraries than the first.
            drifts += replay_canaries(cache, samples, tar, seed_groups(cache))
    return [drift for drift in drifts if drift], len(drifts)


def drift_error(cache: store_reader.Cache, drifts: Sequence[CanaryDrift], checked: int) -> errors.ViewDriftError:
    """What is wrong: which versions differ, how many canaries, by how much.

    Args:
        cache: the cache.
        drifts: the canaries that differ, at least one.
        checked: how many were replayed.
    """
    versions_here, versions_cached = run_record.library_versions(), drifts[0].versions
    changed = [
        f"{name} {versions_here[name]} here, {versions_cached.get(name)} when cached"
        for name in versions_here
        if versions_here[name] != versions_cached.get(name)
    ]
    levels = [drift.levels for drift in drifts if drift.levels is not None]
    by_levels = f" by up to {max(levels)} of 255 levels" if levels else ""
    cause = "; ".join(changed) or "same library versions; the code of views or the processor's libraries differ"
    what = f"views no longer replay: {cause}; {len(drifts)} of {checked} canaries differ{by_levels}"
    cure = "Install those versions, make the cache again (dvc repro cache), or set accept: [view_drift]"
    return errors.ViewDriftError(cache.path, what, cure)
