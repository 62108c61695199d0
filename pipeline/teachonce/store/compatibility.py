"""Is this the cache of these shards, this policy, these classes, and do its views still replay? Or it is refused."""

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
    """What a consumer needs of a cache."""

    policy: view_policy.Policy
    """The views it will render."""
    aug_seeds: int
    """It will use seeds 0 … aug_seeds − 1."""


def extent_tars(shards: index.Shards, split: str) -> tuple[schema.Tar, ...]:
    """The tars of a split as an extent names them."""
    return tuple(
        schema.Tar(url=shard.url, nsamples=shard.nsamples, sha256=shard.sha256, keys_crc32=shard.keys_crc32)
        for shard in shards.index.of_split(split)
    )


def require_compatible(
    cache: store_reader.Cache, shards: index.Shards, split: str, ask: Requirements, accept: Collection[str] = ()
) -> tuple[str, ...]:
    """Refuse a cache that was made of other shards, classes or views than asked; it may hold more than is asked.

    Returns:
        What was accepted, a line each; each is logged as a warning too.

    Raises:
        IdentityError: names the field, both values and the cure.
    """
    found = list(find_differences(cache, shards, split, ask))
    for difference in found:
        if difference.accept not in accept:
            raise difference
    return log_accepted([str(difference) for difference in found])


def log_accepted(lines: Sequence[str]) -> tuple[str, ...]:
    """Say loudly what is gone on with."""
    for line in lines:
        _LOG.warning("accepted: %s", line)
    return tuple(lines)


def find_differences(
    cache: store_reader.Cache, shards: index.Shards, split: str, ask: Requirements | None = None
) -> Iterator[errors.IdentityError]:
    """All that tells a cache from the shards and, where given, from what is asked of it."""
    teacher = cache.recipe.teacher
    classes = shards.index.classes
    condition = f"{len(classes)}, the classes of the shards"
    yield from _unequal(cache, "teacher.num_classes", condition, len(classes), teacher.num_classes)
    digest = schema.classes_sha256(classes)
    condition = "that of the shards' class names"
    yield from _unequal(cache, "teacher.classes_sha256", condition, digest, teacher.classes_sha256, accept="classes")
    if ask:
        yield from _unlike_ask(cache, ask)
    some = bool(restrict_to_cached(cache, shards, split).index.of_split(split))
    for shard in shards.index.of_split(split):
        try:
            tar = cache.extent.tars[cache.tar(shard.sha256)]
        except errors.IdentityError as error:
            # Without a single tar there would be nothing to go on with.
            cure = f"{error.cure}; or set accept: [tars]"
            yield errors.IdentityError(error.where, error.what, cure).accepted_by("tars") if some else error
        else:
            condition = f"those of the shard, {shard.nsamples}"
            yield from _unequal(cache, f"rows of {shard.url}", condition, shard.nsamples, tar.nsamples)
            where, condition = f"keys of {shard.url}", f"those of the shard, crc32 {shard.keys_crc32}"
            yield from _unequal(cache, where, condition, shard.keys_crc32, tar.keys_crc32, accept="keys")


def _unlike_ask(cache: store_reader.Cache, ask: Requirements) -> Iterator[errors.IdentityError]:
    for name in type(ask.policy).model_fields:
        asked, found = getattr(ask.policy, name), getattr(cache.recipe.policy, name)
        yield from _unequal(cache, f"policy.{name}", f"as asked, {asked}", asked, found, accept="policy")
    if cache.extent.aug_seeds < ask.aug_seeds:
        condition, cure = f"at least the {ask.aug_seeds} asked", "Grow it: dvc repro cache; or ask for fewer"
        error = errors.IdentityError.for_value(cache.path, "aug_seeds", condition, cache.extent.aug_seeds, cure)
        yield error.accepted_by("aug_seeds")


def _unequal(
    cache: store_reader.Cache,
    key: str,
    condition: str,
    asked: object,
    found: object,
    *,
    accept: Acceptable | None = None,
) -> Iterator[errors.IdentityError]:
    if asked != found:
        cure = f"{_REMAKE}; or set accept: [{accept}]" if accept else _REMAKE
        yield errors.IdentityError.for_value(cache.path, key, condition, found, cure).accepted_by(accept)


def restrict_to_cached(cache: store_reader.Cache, shards: index.Shards, split: str) -> index.Shards:
    """The shards without those tars of a split that the cache has no rows of (`accept: [tars]`)."""
    known = {tar.sha256 for tar in cache.extent.tars}
    return shards.only(shard for shard in shards.index.shardlist if shard.split != split or shard.sha256 in known)


@dataclass(frozen=True, slots=True)
class CanaryDrift:
    """A canary that did not replay."""

    levels: int | None
    """Largest difference of a pixel, of 255; None where only the digest of the old pixels is kept."""
    versions: dict[str, str]
    """What made the old pixels."""


def pixels_sha256(pixels: npt.NDArray[np.uint8]) -> str:
    """Identity of a view's pixels."""
    return hashing.sha256(pixels.tobytes())


def replay_canaries(
    cache: store_reader.Cache, samples: sample_reader.OpenTar, tar: int, groups: Iterable[int]
) -> list[CanaryDrift | None]:
    """Render the canaries of a tar again; None for each that is the very view the teacher saw.

    Args:
        cache: whose canaries.
        samples: of the tar.
        tar: its position in the extent.
        groups: of aug seeds, each of which has a canary.

    Raises:
        DataError: a canary's image has changed, or cannot be decoded.
    """
    return [_drift(cache, cache.unit(tar, group), samples) for group in groups]


def _drift(cache: store_reader.Cache, unit: schema.UnitRecord, samples: sample_reader.OpenTar) -> CanaryDrift | None:
    canary = unit.canary
    pixels = replay.render_view(cache.recipe, cache.extent.tars[unit.tar], samples, canary.row, canary.aug_seed)
    if pixels_sha256(pixels) == canary.sha256:
        return None
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

    Raises:
        DataError: a tar is not the one the index names, or a canary's image cannot be decoded.
        IdentityError: the cache has no rows of a tar.
    """
    drifts: list[CanaryDrift | None] = []
    for shard in shards.index.of_split(split)[:tars]:
        tar = cache.tar(shard.sha256)
        keys = cache.keys(tar) if "keys" in accept else None
        with sample_reader.open_tar(shard, shards.path(shard), keys) as samples:
            drifts += replay_canaries(cache, samples, tar, seed_groups(cache))
    return [drift for drift in drifts if drift], len(drifts)


def drift_error(cache: store_reader.Cache, drifts: Sequence[CanaryDrift], checked: int) -> errors.ViewDriftError:
    """What is wrong: which versions differ, how many canaries, by how much."""
    here, then = run_record.library_versions(), drifts[0].versions
    changed = [
        f"{name} {here[name]} here, {then.get(name)} when cached" for name in here if here[name] != then.get(name)
    ]
    levels = [drift.levels for drift in drifts if drift.levels is not None]
    by = f" by up to {max(levels)} of 255 levels" if levels else ""
    cause = "; ".join(changed) or "same library versions; the code of views or the processor's libraries differ"
    what = f"views no longer replay: {cause}; {len(drifts)} of {checked} canaries differ{by}"
    cure = "Install those versions, make the cache again (dvc repro cache), or set accept: [view_drift]"
    return errors.ViewDriftError(cache.path, what, cure)
