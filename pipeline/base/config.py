"""YAML into frozen pydantic models; a bad value is refused, never adjusted."""

import json
import re
from pathlib import Path
from typing import TypeVar

import pydantic
import yaml

from pipeline.base import errors

# DVC reads YAML 1.2 and PyYAML YAML 1.1: these plain scalars mean different things to the two.
_AMBIGUOUS = re.compile(
    r"(?P<number>[-+]?(\d[\d_]*\.?[\d_]*|\.\d+)e\d+|[-+]?\d+e[-+]?\d+|[-+]?0\d+|[-+]?0o\d+|[-+]?\d[\d_]*_[\d_]*"
    r"|[-+]?\d+(:[0-5]?\d)+(\.\d*)?)|(?P<word>y|n|yes|no|on|off)",
    re.IGNORECASE,
)


_SHOWN = 100  # characters of a refused value


class Model(pydantic.BaseModel):
    """Base of every configuration: frozen, unknown keys refused, no silent conversion."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


M = TypeVar("M", bound=Model)


def load(path: Path, model: type[M]) -> M:
    """Read a YAML file as `model`.

    Raises:
        ConfigError: the file is missing, is not YAML, or a value is refused; the message names file, key and value.
    """
    return parse(read(path), model, where=str(path))


def read(path: Path) -> object:
    """Read a YAML file as plain data, refusing scalars that DVC and Python would read differently."""
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data: object = yaml.safe_load(text)
    except OSError as error:
        raise errors.ConfigError(
            f"{path}: cannot be read ({error.strerror}). List the choices: ls {path.parent}"
        ) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise errors.ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())}. Correct the file") from error
    if node is not None:
        _refuse_ambiguous(path, node, "")
    return data


def parse(data: object, model: type[M], where: str) -> M:
    """Validate plain data as `model`; `where` names its origin in the message of a refusal."""
    try:
        # Strict JSON mode: lists become tuples, but "3" never becomes 3.
        return model.model_validate_json(json.dumps(data), strict=True)
    except pydantic.ValidationError as error:
        raise errors.ConfigError(_first_problem(where, error)) from error
    except (TypeError, ValueError) as error:
        raise errors.ConfigError(
            f"{where}: holds a value that is not plain data ({error}). Use text, numbers, lists and maps"
        ) from error


def _first_problem(where: str, error: pydantic.ValidationError) -> str:
    problems = error.errors(include_url=False)
    first = problems[0]
    key = ".".join(str(part) for part in first["loc"]) or "the file"
    more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"{where}: {key} is not a known key. Remove it or correct its spelling{more}"
    if first["type"] == "missing":
        return f"{where}: {key} is missing. Add it{more}"
    reason = first["msg"].removeprefix("Value error, ")
    return f"{where}: {key} is refused: {reason[0].lower()}{reason[1:]}. Got {_short(first['input'])}{more}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _refuse_ambiguous(path: Path, node: yaml.Node, key: str) -> None:
    if isinstance(node, yaml.ScalarNode):
        if node.style is None and _AMBIGUOUS.fullmatch(node.value):
            raise errors.ConfigError(
                errors.refusal(
                    path,
                    key or "the file",
                    "a scalar that YAML 1.1 and 1.2 read alike",
                    node.value,
                    "Write numbers as 0.001 or 1.0e-3, truth as true or false, text in quotes",
                )
            )
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for name, value in node.value:
            below = f"{key}.{name.value}" if key else str(name.value)
            if name.value in seen:
                raise errors.ConfigError(f"{path}: {below} is given twice. Remove one of them")
            seen.add(str(name.value))
            _refuse_ambiguous(path, name, f"the key {below}")
            _refuse_ambiguous(path, value, below)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _refuse_ambiguous(path, value, f"{key}.{index}")
