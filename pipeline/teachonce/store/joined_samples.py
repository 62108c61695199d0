"""The samples of a tar beside a cache: each is proved to be the one that its row answers, before it is used."""

from collections.abc import Callable, Collection, Iterable, Iterator

from teachonce.core import errors
from teachonce.shards import index, sample_reader
from teachonce.store import compatibility, store_reader

_APART = "Shards and cache do not belong together: dvc repro cache"


def join_samples(
    cache: store_reader.Cache,
    shards: index.Shards,
    entry: index.Shard,
    aug_seeds: Iterable[int],
    *,
    accept: Collection[str],
    go_on: Callable[[str], None],
) -> Iterator[sample_reader.Sample]:
    """The tar's samples in row order: the sample of row n is the one whose views row n of the cache answers.

    Args:
        cache: the rows.
        shards: where the tar lies.
        entry: the tar.
        aug_seeds: whose rows are used; the canary of each of their groups must replay.
        accept: refusals to go on with (`store.acceptance.Acceptable`).
        go_on: is given the message where a canary does not replay, and that is accepted.

    Raises:
        DataError: the tar is not the one the index names.
        CacheError: the cache has other keys than the index, or than the tar.
        ViewDriftError: a canary does not replay, unless drift is accepted.
    """
    tar = cache.tar(entry.sha256)
    # One crc over all keys, before the first: a tar whose rows were shifted by one would else teach each image its
    # neighbour's answer.
    recorded = cache.extent.tars[tar].keys_crc32
    if recorded != entry.keys_crc32 and "keys" not in accept:
        condition = f"those of the index, crc32 {entry.keys_crc32}"
        raise errors.CacheError.for_value(cache.path, f"keys of {entry.url}", condition, recorded, _APART)
    keys = cache.keys(tar)
    groups = sorted({aug_seed // cache.extent.seeds_per_unit for aug_seed in aug_seeds})
    # Views are drawn by the key: where others are accepted, by those that the teacher's views were drawn by.
    with sample_reader.open_tar(entry, shards.path(entry), keys if "keys" in accept else None) as samples:
        # Before the first of them is used: a tar whose views have drifted teaches and measures nothing at all.
        for drift in filter(None, compatibility.replay_canaries(cache, samples, tar, groups)):
            error = compatibility.drift_error(cache, [drift], 1)
            if "view_drift" not in accept:
                raise error
            go_on(str(error))
        for sample in samples:
            key = keys[sample.row] if sample.row < len(keys) else None
            if sample.key != key:
                place, condition = f"key of {entry.url}, row {sample.row}", repr(sample.key)
                raise errors.CacheError.for_value(cache.path, place, condition, repr(key), _APART)
            yield sample
