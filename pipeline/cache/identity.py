"""Is this the cache of these shards, this policy, these classes, and do its views still replay? Or it is refused."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.base import errors, hashing, record
from pipeline.cache import read, schema
from pipeline.shards import decode, index
from pipeline.shards import read as shards_read
from pipeline.views import apply, draw, policy

_REMAKE = "Make it again: dvc repro cache"


@dataclass(frozen=True, slots=True)
class Ask:
    """What a consumer needs of a cache."""

    policy: policy.Policy
    """The views it will render."""
    aug_seeds: int
    """It will use seeds 0 … aug_seeds − 1."""


def extent_tars(shards: index.Shards, split: str) -> tuple[schema.Tar, ...]:
    """The tars of a split as an extent names them."""
    return tuple(
        schema.Tar(url=shard.url, nsamples=shard.nsamples, sha256=shard.sha256, keys_crc32=shard.keys_crc32)
        for shard in shards.index.of_split(split)
    )


def require(cache: read.Cache, shards: index.Shards, split: str, ask: Ask) -> None:
    """Refuse a cache that was made of other shards, classes or views than asked; it may hold more than is asked.

    Raises:
        IdentityError: names the field, both values and the cure.
    """
    for difference in differences(cache, shards, split, ask):
        raise difference


def differences(
    cache: read.Cache, shards: index.Shards, split: str, ask: Ask | None = None
) -> Iterator[errors.IdentityError]:
    """All that tells a cache from the shards and, where given, from what is asked of it."""
    teacher = cache.recipe.teacher
    classes = shards.index.classes
    condition = f"{len(classes)}, the classes of the shards"
    yield from _unequal(cache, "teacher.num_classes", condition, len(classes), teacher.num_classes)
    digest = schema.classes_sha256(classes)
    condition = "that of the shards' class names"
    yield from _unequal(cache, "teacher.classes_sha256", condition, digest, teacher.classes_sha256)
    if ask:
        yield from _unlike_ask(cache, ask)
    for shard in shards.index.of_split(split):
        try:
            tar = cache.extent.tars[cache.tar(shard.sha256)]
        except errors.IdentityError as error:
            yield error
        else:
            yield from _unequal(cache, f"keys of {shard.url}", "those of the shard", shard.keys_crc32, tar.keys_crc32)


def _unlike_ask(cache: read.Cache, ask: Ask) -> Iterator[errors.IdentityError]:
    for name in type(ask.policy).model_fields:
        asked, found = getattr(ask.policy, name), getattr(cache.recipe.policy, name)
        yield from _unequal(cache, f"policy.{name}", f"as asked, {asked}", asked, found)
    if cache.extent.aug_seeds < ask.aug_seeds:
        cure = "Grow it: dvc repro cache; or ask for fewer"
        yield errors.IdentityError(
            errors.refusal(cache.path, "aug_seeds", f"at least the {ask.aug_seeds} asked", cache.extent.aug_seeds, cure)
        )


def _unequal(
    cache: read.Cache, key: str, condition: str, asked: object, found: object
) -> Iterator[errors.IdentityError]:
    if asked != found:
        yield errors.IdentityError(errors.refusal(cache.path, key, condition, found, _REMAKE))


@dataclass(frozen=True, slots=True)
class Drift:
    """A canary that did not replay."""

    levels: int | None
    """Largest difference of a pixel, of 255; None where only the digest of the old pixels is kept."""
    versions: dict[str, str]
    """What made the old pixels."""


def render(recipe: schema.Recipe, image: Image.Image, key: str, aug_seed: int) -> npt.NDArray[np.uint8]:
    """The view as the teacher of this recipe sees it: uint8 (3, size, size)."""
    return apply.apply(image, draw.draw(recipe.policy, key, aug_seed), recipe.teacher.size)


def pixels_sha256(pixels: npt.NDArray[np.uint8]) -> str:
    """Identity of a view's pixels."""
    return hashing.sha256(pixels.tobytes())


def replay(cache: read.Cache, tar: int, group: int, image: Image.Image, key: str) -> Drift | None:
    """Render a unit's canary from its image and compare; None where it is the very view the teacher saw."""
    unit = cache.unit(tar, group)
    pixels = render(cache.recipe, image, key, unit.canary.aug_seed)
    if pixels_sha256(pixels) == unit.canary.sha256:
        return None
    if group:
        return Drift(None, unit.versions)
    levels = np.abs(pixels.astype(np.int16) - cache.canary(tar).astype(np.int16)).max()
    return Drift(int(levels), unit.versions)


def replayed(
    cache: read.Cache, shards: index.Shards, shard: index.Shard
) -> Iterator[tuple[shards_read.Sample, list[Drift | None]]]:
    """Samples of a tar, verified while they stream by, each with what `replay` says of the canaries that lie on it.

    Raises:
        DataError: the tar is not the one the index names, or a canary's image cannot be decoded.
        IdentityError: the cache has no rows of the tar.
    """
    tar = cache.tar(shard.sha256)
    by_row: dict[int, list[int]] = {}
    for group in range(cache.extent.aug_seeds // cache.extent.seeds_per_unit):
        by_row.setdefault(cache.unit(tar, group).canary.row, []).append(group)
    for sample in shards_read.verified(shard, shards.path(shard)):
        groups = by_row.get(sample.row, [])
        image = decode.rgb(sample.image, f"{shard.url}:{sample.key}") if groups else None
        yield sample, [replay(cache, tar, group, image, sample.key) for group in groups if image]


def first_canaries(cache: read.Cache, shards: index.Shards, split: str, tars: int) -> tuple[list[Drift], int]:
    """Replay the canaries of the first tars, every seed group of each: those that drifted, and how many ran."""
    found = [
        drift
        for shard in shards.index.of_split(split)[:tars]
        for _, drifts in replayed(cache, shards, shard)
        for drift in drifts
    ]
    return [drift for drift in found if drift], len(found)


def drift_message(cache: read.Cache, drifts: Sequence[Drift], checked: int) -> str:
    """One line: which versions differ, how many canaries, by how much."""
    here, then = record.versions(), drifts[0].versions
    changed = [
        f"{name} {here[name]} here, {then.get(name)} when cached" for name in here if here[name] != then.get(name)
    ]
    levels = [drift.levels for drift in drifts if drift.levels is not None]
    by = f" by up to {max(levels)} of 255 levels" if levels else ""
    cause = "; ".join(changed) or "same library versions; the code of views or the processor's libraries differ"
    return (
        f"{cache.path}: views no longer replay: {cause}; {len(drifts)} of {checked} canaries differ{by}. "
        "Install those versions, make the cache again (dvc repro cache), or set accept_view_drift: true"
    )
