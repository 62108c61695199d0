"""YAML into frozen pydantic models; a bad value is refused, never adjusted."""

import json
from pathlib import Path
from typing import Annotated, TypeVar

import pydantic

from teachonce.core import errors, validation_messages, yaml_reader


class Model(pydantic.BaseModel):
    """Base of every configuration: frozen, unknown keys refused, no silent conversion."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


M = TypeVar("M", bound=pydantic.BaseModel)

Sha256 = Annotated[str, pydantic.Field(pattern="^[0-9a-f]{64}$")]
"""A SHA-256 as 64 hex digits, and nothing else: refusals quote it, whoever wrote the file."""
_MAX_ARGUMENT = 2**20


def _require_moderate(arguments: dict[str, int | float | str | bool]) -> dict[str, int | float | str | bool]:
    for name, value in arguments.items():
        if not isinstance(value, str) and abs(value) > _MAX_ARGUMENT:
            raise ValueError(f"{name} must be at most {_MAX_ARGUMENT}")
    return arguments


TimmArguments = Annotated[dict[str, int | float | str | bool], pydantic.AfterValidator(_require_moderate)]
"""Further arguments of `timm.create_model`, none so large that making the network takes all memory."""

_Mean = Annotated[float, pydantic.Field(ge=-10, le=10)]
_Deviation = Annotated[float, pydantic.Field(ge=1e-3, le=1e3)]
Means = tuple[_Mean, _Mean, _Mean]
"""Of red, green and blue, subtracted from pixels scaled to 0…1."""
Deviations = tuple[_Deviation, _Deviation, _Deviation]
"""Divide what is left: 1/255 gives a network whole levels, and far below that its input leaves float32's good range."""
Rate = Annotated[float, pydantic.Field(ge=0, le=1)]
"""A learning rate of AdamW, by which a step moves a weight at most: initial weights are far below 1."""
PeakRate = Annotated[Rate, pydantic.Field(gt=0)]
"""The highest learning rate of a run: above 0, since a run at 0 would learn nothing."""
Decay = Annotated[float, pydantic.Field(ge=0, le=1)]
"""A weight decay of AdamW: rate × decay is the part of a weight that a step takes away."""


def load(path: Path, model: type[M]) -> M:
    """Read a YAML file as `model`.

    Raises:
        ConfigError: the file is missing, is not YAML, or a value is refused; the message names file, key and value.
    """
    return parse(read(path), model, where=str(path))


def read(path: Path, cure: str = "") -> object:
    """Read a YAML file as plain data, refusing scalars that DVC and Python would read differently.

    Args:
        path: the file.
        cure: what helps where it cannot be read; by default, to choose another file of its folder.
    """
    return yaml_reader.read(path, cure=cure)


def parse(data: object, model: type[M], where: str, key: str = "") -> M:
    """Validate plain data as `model`.

    Args:
        data: maps, lists and scalars.
        model: the class to validate as.
        where: origin of the data, for the message of a refusal.
        key: of the data within its origin.

    Raises:
        ConfigError: a value is refused; it lists all of them, up to a hundred.
    """
    try:
        # Strict JSON mode: lists become tuples, but "3" never becomes 3.
        return model.model_validate_json(json.dumps(data), strict=True)
    except pydantic.ValidationError as error:
        explained = validation_messages.explain(error, data, model, where, key)
        raise errors.combine(explained.problems, explained.count) from error
    except (TypeError, ValueError) as error:
        raise errors.ConfigError(
            where, f"holds a value that is not plain data ({error})", "Use text, numbers, lists and maps"
        ) from error
