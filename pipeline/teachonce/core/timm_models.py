"""timm's networks by name and arguments; whatever it refuses is one line.

timm checks few arguments by itself: a wrong one fails somewhere in its code, with any exception.
"""

import dataclasses
import inspect
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch.overrides import TorchFunctionMode

from teachonce.core import errors, sealed_files, spelling, tensor_files

Arguments = Mapping[str, int | float | str | bool]

_CALLS, _CALLS_OF_A_TENSOR = 4096, 64
"""Of torch, to make a network and pass an image through it; every third of timm's (457) takes at most 17 a tensor."""
_MAX_UNSAVED = 1 << 26  # numbers in buffers that no file holds; of the same, 25 million at most


class _LimitError(Exception):
    """A network takes more than one of its tensors could."""


def create_network(
    where: str, name: str, arguments: Arguments, num_classes: int, *, pretrained: bool = False
) -> torch.nn.Module:
    """Make a network of timm, its weights random unless `pretrained`.

    Args:
        where: key of the name in its configuration, for the message.
        name: of the architecture, in timm.
        arguments: further ones of `timm.create_model`.
        num_classes: count of logits that its head must give.
        pretrained: with timm's own weights.

    Raises:
        ConfigError: timm does not know the name or an argument, or cannot make the network.
    """
    try:
        network = timm.create_model(name, pretrained=pretrained, num_classes=num_classes, **arguments)  # type: ignore[arg-type]
    except _LimitError:
        raise
    except Exception as error:
        raise errors.ConfigError(where, f"timm cannot make {name} {_reason(error, name, arguments)}") from error
    if not isinstance(network, torch.nn.Module):
        raise TypeError(f"{name} is not a module")
    return network


def dry_run(where: str, name: str, arguments: Arguments, num_classes: int, size: int) -> torch.nn.Module:
    """A network without memory, through which an image of shapes alone has passed.

    Args:
        where: key of the name in its configuration, for the message.
        name: of the architecture, in timm.
        arguments: further ones of `timm.create_model`.
        num_classes: count of logits that its head must give.
        size: side of the image in pixels.

    Raises:
        ConfigError: as `create_network` and `require_input_size`.
    """
    with torch.device("meta"):
        network = create_network(where, name, arguments, num_classes)
    require_input_size(where, name, network, size, num_classes)
    return network


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """What a record says of its network, hence what whoever wrote the record could choose."""

    where: str
    """File and key of the name, for the message."""
    name: str
    """Name of the architecture, in timm."""
    arguments: Arguments
    """Further arguments of `timm.create_model`."""
    num_classes: int
    """Count of logits that its head gives."""
    size: int
    """Side of its images in pixels."""


def require_matching_weights(
    spec: NetworkSpec, tensors: Mapping[str, torch.Tensor], path: Path, refusal: sealed_files.Refusal
) -> None:
    """Refuse a network that is not the one of these tensors, before it takes the time or memory that it may want.

    Whoever wrote a record could describe a network without end. So it is tried without memory first, and given up as
    soon as it does more than a network of so many tensors would.

    Args:
        spec: the network that a record describes.
        tensors: its weights.
        path: their file, for the message.
        refusal: how they are refused.

    Raises:
        ConfigError: as `dry_run`.
        TeachonceError: of the type given: the tensors are another network's.
    """
    try:
        with _CallLimit(_CALLS + _CALLS_OF_A_TENSOR * len(tensors)):
            network = dry_run(spec.where, spec.name, spec.arguments, spec.num_classes, spec.size)
    except _LimitError as error:
        condition = f"of a size that {len(tensors):,} tensors can fill"
        raise refusal.mismatch(path, f"network ({spec.name})", condition, "a larger one") from error
    tensor_files.require_state_dict(tensors, network.state_dict(), path, refusal)
    # The file bounds its tensors, but not the buffers that no file holds, such as tables of positions: these are made
    # for whatever size the record claims.
    unsaved = sum(buffer.numel() for key, buffer in network.named_buffers() if key not in tensors)
    if unsaved > _MAX_UNSAVED:
        condition = f"one with at most {_MAX_UNSAVED:,} numbers that are not in the file"
        raise refusal.mismatch(path, f"network ({spec.name})", condition, f"{unsaved:,}")


class _CallLimit(TorchFunctionMode):
    """Within it, torch may be called so often by this thread."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._left = most

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Count a call, and make it while there are any left."""
        self._left -= 1
        if self._left < 0:
            raise _LimitError
        return func(*args, **(kwargs or {}))


def require_input_size(where: str, name: str, network: torch.nn.Module, size: int, num_classes: int) -> None:
    """Pass images of shapes alone through a network, which takes neither memory nor random numbers.

    Args:
        where: key of the name in its configuration, for the message.
        name: of the architecture, for the message.
        network: with memory or without; its mode is given back.
        size: side of the images in pixels.
        num_classes: count of logits that it must answer an image with.

    Raises:
        ConfigError: no image of that size fits, or what the network answers is no row of logits for each image.
    """
    tensors = itertools.chain(network.named_parameters(), network.named_buffers())
    # Tensors without memory stand in for all weights: an image passes in milliseconds, however large the network.
    shapes = {key: tensor.to("meta") for key, tensor in tensors}
    was_training = network.training
    try:
        output = torch.func.functional_call(network.eval(), shapes, (torch.empty(2, 3, size, size, device="meta"),))
    except _LimitError:
        raise
    except Exception as error:
        raise errors.ConfigError(
            where, f"{name} takes no images of {size} × {size} pixels ({_first_line(error)})", "Correct either"
        ) from error
    network.train(was_training)
    _require_logits(where, name, output, num_classes)


def _require_logits(where: str, name: str, output: object, num_classes: int) -> None:
    """Refuse what arguments such as features_only make of a classifier."""
    shape = tuple(output.shape[1:]) if isinstance(output, torch.Tensor) else None
    if shape != (num_classes,):
        shown = type(output).__name__ if shape is None else f"{' × '.join(map(str, shape)) or 'one'} numbers"
        value = f"{shown} of {name}"
        condition = f"a network that answers an image with {num_classes} logits, a class each"
        raise errors.ConfigError(where, f"must be {condition}. Got {value}", "Correct it, or arguments")


def _reason(error: Exception, name: str, arguments: Arguments) -> str:
    base = name.partition(".")[0]
    # timm's own text names neither what it takes nor what comes nearest.
    if not timm.is_model(base):
        near = spelling.did_you_mean(base, timm.list_models(f"{base[:3]}*"))
        return f"({_first_line(error)}).{near} See timm.list_models()"
    accepted = _accepted_arguments(base)
    for argument in arguments:
        if accepted and argument not in accepted:
            near = spelling.did_you_mean(argument, accepted).strip()
            return f"({argument} is none of its arguments). {near or 'Remove it'}"
    return f"({_first_line(error)}). Correct arguments"


def _accepted_arguments(name: str) -> frozenset[str]:
    """Arguments of an architecture: of its class, and of the description that some classes are made from."""
    with torch.device("meta"):
        model = type(timm.create_model(name))
    dataclass_types = [cls for cls in vars(sys.modules[model.__module__]).values() if dataclasses.is_dataclass(cls)]
    field_names = {field.name for cls in dataclass_types for field in dataclasses.fields(cls)}
    # Some classes take **arguments and hand them to the class above.
    classes = (cls for cls in model.__mro__ if cls.__module__.startswith("timm."))
    parameter_names = {argument for cls in classes for argument in inspect.signature(cls).parameters}
    return frozenset(parameter_names | field_names)


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return errors.shorten(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)
