"""What a row of the cache holds, and how much of the cache is one unit: `configs/cache/*.yaml`."""

from typing import Literal

import pydantic

from teachonce.core import config
from teachonce.format import schema


class TransformConfig(config.Model):
    """Code the classes that are not kept as coefficients on a basis fitted to the teacher's first answers."""

    rank: int = pydantic.Field(ge=1)
    """Coefficients of a row: one byte each, before compression."""
    step: float = pydantic.Field(ge=schema.MIN_STEP, le=schema.MAX_STEP)
    """Quantiser step in scaled nats: a larger one costs fewer bytes and accuracy."""
    fit_tars: int = pydantic.Field(ge=1)
    """Tars whose first group of seeds the basis is fitted on: some thousands of views. Their whole logits stay in the
    scratch folder. Later tars never change the basis."""


class CacheConfig(config.Model):
    """What a row holds and how much of it is one unit of work."""

    k: Literal["all"] | pydantic.PositiveInt
    """The likeliest classes a row keeps; `all` keeps raw float32 logits, the choice for a few dozen classes."""
    tail: Literal["flat"] | TransformConfig = "flat"
    """What stands for the other classes: their total mass spread evenly, or a transform tail; unused where k is all."""
    seeds_per_unit: int = pydantic.Field(default=4, ge=1)
    """Aug seeds computed, resumed and stored together; an image is decoded once for all of them."""
    rows_per_tar: int | None = pydantic.Field(default=None, ge=1)
    """Room for rows of one tar, fixed when the cache is made; by default what the index allows a tar."""
    workers: int | None = pydantic.Field(default=None, ge=0)
    """Processes of the local Dask cluster that runs the teacher: by default one a GPU, or else one a core; 0 for none.
    Changes no stored byte, but for 0: a process on all cores rounds otherwise than one on a single core."""
    rendering: Literal["threads", "processes"] | None = None
    """What renders the views of a process's units, as many as it has cores for: by default processes where a GPU
    answers, and else threads. Changes no stored byte. A Dask worker under a nanny may have no processes and takes
    threads, unless started with DASK_DISTRIBUTED__WORKER__DAEMON=False, as the local cluster is."""
