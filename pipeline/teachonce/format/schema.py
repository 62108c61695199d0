"""What a cache says about itself: recipe (must match), extent (must contain what is asked), unit records.

A store is one Zarr v3 group for one (shards, policy, teacher). These models are its attributes; FORMAT.md describes
the arrays beside them. Reader and writer share this module and nothing else.
"""

from typing import Annotated, Literal, get_args

import pydantic

from teachonce.core import config, hashing
from teachonce.views import view_policy

Format = Literal[1, 2, 3]
"""Format 2 is format 1 with transform tails, format 3 has mixed views; every other store is still of format 1."""
FORMATS: tuple[int, ...] = get_args(Format)
ATTRIBUTE = "teachonce"
UNITS = "units.json"
UNIT = "unit.json"
FILL_CLASS = {"uint16": 65_535, "uint32": 4_294_967_295}
MAX_ROWS_PER_TAR = 1 << 20
MAX_CLASSES = 1 << 20
MAX_LOGIT = 2.0**100
"""In magnitude: the differences of greater ones leave float32, and a distribution is no longer finite in logarithms."""
MAX_BASIS = 1 << 26  # numbers: 256 MiB
MIN_STEP, MAX_STEP = 2.0**-20, 2.0**10
"""Bounds of a quantiser's step, in scaled nats: finer ones reach no tail, coarser ones have it all in one step."""

# Short numbers: these names are made into integers, and anyone may have written them.
_Measured = Annotated[str, pydantic.StringConstraints(pattern=r"^k=[1-9]\d{0,6},tau=[1-9]\d{0,6}$")]
_Bin = Annotated[str, pydantic.StringConstraints(pattern="^([0-9]|[1-9][0-9]|1[0-2][0-9])$")]
_MAX_COUNT = 1 << 53
_DISTANCES = {"tv_mean", "tv_p99", "kl_mean", "kl_p99"}


class Teacher(config.Model):
    """The network whose logits are kept, so far as it determines them."""

    architecture: str
    """Name in timm."""
    arguments: dict[str, int | float | str | bool]
    """Further arguments of `timm.create_model`."""
    weights_sha256: config.Sha256
    """SHA-256 of the safetensors file."""
    size: int = pydantic.Field(ge=1, le=4096)
    """Side of the square input in pixels."""
    mean: tuple[float, float, float]
    """Subtracted from pixels scaled to 0…1, by channel."""
    std: tuple[float, float, float]
    """Divides what is left, by channel."""
    precision: Literal["float32", "bfloat16"]
    """Arithmetic of the forward pass; logits are kept as float32 either way."""
    num_classes: int = pydantic.Field(ge=2, le=MAX_CLASSES)
    """Length of a row of logits."""
    classes_sha256: config.Sha256
    """SHA-256 of the canonical JSON of the list of class names."""


class TransformTail(config.Model):
    """The classes that are not kept, as coefficients of the row on a basis that the store holds."""

    rank: int = pydantic.Field(ge=1, le=4096)
    """Count of coefficients of a row."""
    step: float = pydantic.Field(ge=MIN_STEP, le=MAX_STEP)
    """What one step of a stored coefficient is worth, in scaled nats."""
    basis_sha256: config.Sha256
    """Identity of the basis and the step."""


class Recipe(config.Model):
    """What determines a row, given its image and its aug seed. Two stores with equal recipes hold equal rows."""

    teacher: Teacher
    """The network whose answers the rows are."""
    policy: view_policy.StoredPolicy
    """How the views were drawn and rendered that it answered."""
    k: Literal["all"] | pydantic.PositiveInt
    """How many classes a row keeps; `all` keeps raw logits."""
    tail: Literal["flat", "none"] | TransformTail
    """What stands for the other classes: their exact total mass spread evenly, or as coefficients on a basis tell; none
    where a row is whole."""

    @pydantic.model_validator(mode="after")
    def _require_fitting_k(self) -> "Recipe":
        if self.k != "all" and self.k >= self.teacher.num_classes:
            raise ValueError(f"k must be below the {self.teacher.num_classes} classes, or all")
        if (self.k == "all") != (self.tail == "none"):
            raise ValueError("tail must be none where k is all, and only there")
        if isinstance(self.tail, TransformTail) and self.tail.rank >= self.teacher.num_classes:
            raise ValueError(f"tail.rank must be below the {self.teacher.num_classes} classes")
        if isinstance(self.tail, TransformTail) and self.tail.rank * self.teacher.num_classes > MAX_BASIS:
            raise ValueError(f"tail.rank times {self.teacher.num_classes} classes must be at most {MAX_BASIS}")
        return self

    @property
    def format(self) -> Format:
        """The oldest format that can hold such rows."""
        # The oldest, not the newest: a release that knows no later format still reads the stores that need none.
        if self.policy.mix is not None:
            return 3
        return 2 if isinstance(self.tail, TransformTail) else 1


class Tar(config.Model):
    """One tar whose samples have rows."""

    url: str
    """Its name in the index, for messages."""
    nsamples: int = pydantic.Field(ge=1, le=MAX_ROWS_PER_TAR)
    """Count of its rows."""
    sha256: config.Sha256
    """SHA-256 of the whole tar: its identity, wherever it lies."""
    keys_crc32: int = pydantic.Field(ge=0, lt=1 << 32)
    """CRC-32 of its keys in row order."""


class Extent(config.Model):
    """Which rows are there: every sample of every tar under aug seeds 0 … aug_seeds − 1."""

    # Judged up to the first bad one: an extent may claim any number of tars, and each fault would be made into a line.
    tars: Annotated[tuple[Tar, ...], pydantic.FailFast()] = pydantic.Field(min_length=1)
    """In the order of the first axis."""
    aug_seeds: int = pydantic.Field(ge=1, le=1 << 20)
    """Length of the second axis."""
    seeds_per_unit: int = pydantic.Field(ge=1)
    """Aug seeds that one unit of work, and one stored object, holds."""
    rows_per_tar: int = pydantic.Field(ge=1, le=MAX_ROWS_PER_TAR)
    """Length of the third axis; shorter tars are padded with fill values."""

    @pydantic.model_validator(mode="after")
    def _require_whole_groups(self) -> "Extent":
        if self.aug_seeds % self.seeds_per_unit:
            raise ValueError(f"aug_seeds must be a multiple of seeds_per_unit, {self.seeds_per_unit}")
        longest = max(self.tars, key=lambda tar: tar.nsamples)
        if longest.nsamples > self.rows_per_tar:
            raise ValueError(f"rows_per_tar must be at least the {longest.nsamples} rows of {longest.url}")
        return self


class Canary(config.Model):
    """One view of a unit whose pixels are remembered, so that a replay can be proved."""

    row: int = pydantic.Field(ge=0)
    """Row of the view's image in the tar."""
    aug_seed: int = pydantic.Field(ge=0)
    """Aug seed of the view."""
    sha256: config.Sha256
    """SHA-256 of the uint8 (3, size, size) pixels the teacher saw."""


class Distances(config.Model):
    """How far some rows are from the full softmax, in sums and counts that add up over units."""

    views: int = pydantic.Field(ge=1, le=_MAX_COUNT)
    """How many rows were measured."""
    tv: float = pydantic.Field(ge=0, le=_MAX_COUNT)
    """Sum of their total variations."""
    kl: float = pydantic.Field(ge=0, le=_MAX_COUNT)
    """Sum of their KL divergences in nats."""
    tv_bins: dict[_Bin, pydantic.PositiveInt]
    """Count of rows by bin of total variation (`fidelity.EDGES`)."""
    kl_bins: dict[_Bin, pydantic.PositiveInt]
    """Count of rows by bin of KL divergence."""

    @pydantic.model_validator(mode="after")
    def _adds_up(self) -> "Distances":
        # A percentile is made of these: counts that do not add up would give one of nothing.
        if any(sum(bins.values()) != self.views for bins in (self.tv_bins, self.kl_bins)):
            raise ValueError(f"the counts of its bins must add up to its {self.views} views")
        return self


class UnitRecord(config.Model):
    """One finished unit: a tar under a group of aug seeds."""

    tar: int = pydantic.Field(ge=0)
    """Position on the first axis."""
    group: int = pydantic.Field(ge=0)
    """Aug seeds group × seeds_per_unit … of the second axis."""
    correct: int = pydantic.Field(ge=0, le=_MAX_COUNT)
    """Views whose likeliest class is the label; of a mixed view, that of its larger part."""
    views: int = pydantic.Field(ge=1, le=_MAX_COUNT)
    """Views of the unit: rows × aug seeds."""
    canary: Canary
    """The view of the unit that a replay renders again."""
    objects: dict[str, str]
    """SHA-256 of the unit's object of each array, by array name."""
    fidelity: dict[_Measured, Distances]
    """What the rows of the unit's first aug seed lost, by `k=…,tau=…`; empty where rows are whole."""
    # Beside the unit's name, not in it: a new library need not cost every unit, only a comparison before one is reused.
    versions: dict[str, str]
    """Libraries and machine that made it."""
    device: str
    """Device type and count of threads that made it."""
    unlabelled: int = pydantic.Field(default=0, ge=0, le=_MAX_COUNT)
    """Views without a label to compare with; left out of the file where it is 0."""
    tar_sha256: str = pydantic.Field(default="", pattern="^([0-9a-f]{64})?$")
    """SHA-256 of the tar; stores of an earlier day leave it out."""


class Attributes(config.Model):
    """All that a store says of itself: the group's attribute `teachonce`."""

    format: Format
    """Version of the format."""
    recipe: Recipe
    """What a row means."""
    extent: Extent
    """Which rows there are, for which tars and aug seeds."""
    fidelity: dict[_Measured, dict[str, float]]
    """Distance to the full softmax by `k=…,tau=…`: mean and 99th percentile of total variation and KL divergence."""

    @pydantic.model_validator(mode="after")
    def _fits(self) -> "Attributes":
        if self.format != self.recipe.format:
            raise ValueError(f"format must be {self.recipe.format}, that of such rows")
        if any(set(distances) != _DISTANCES for distances in self.fidelity.values()):
            raise ValueError(f"fidelity must tell {', '.join(sorted(_DISTANCES))} of each k and tau")
        return self


def class_dtype(num_classes: int) -> str:
    """Narrowest dtype of a class id that leaves its largest value as the fill."""
    # The largest value stays free: an id that equals the fill could not be told from a row that was never written.
    return "uint16" if num_classes <= FILL_CLASS["uint16"] else "uint32"


def classes_sha256(classes: tuple[str, ...]) -> str:
    """Identity of a list of class names."""
    return hashing.sha256(hashing.canonical_json(list(classes)).encode())
