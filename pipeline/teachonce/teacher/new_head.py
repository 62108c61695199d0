"""The last layer of a published network, which is left out: its classes are not those of the images here."""

from pathlib import Path

import torch

from teachonce.core import errors, sealed_files, tensor_files
from teachonce.teacher import pretrained_weights

_CURE = "Choose the architecture it was made for, or another match"


def prefix(network: torch.nn.Module) -> tuple[str, ...]:
    """What the names of the head's weights begin with; of a network that timm does not describe, nothing."""
    description = getattr(network, "pretrained_cfg", None) or {}
    layers = description.get("classifier") or ()
    return tuple(f"{layer}." for layer in ((layers,) if isinstance(layers, str) else layers))


def require_head(network: torch.nn.Module, where: str, architecture: str) -> None:
    """Refuse a network of which nobody can tell where its head is.

    Args:
        network: of timm.
        where: file and key of its name, for the message.
        architecture: its name.

    Raises:
        ConfigError: timm does not name its last layer, or it has no weights.
    """
    if not any(name.startswith(prefix(network)) for name in network.state_dict()):
        what = f"{architecture} is a network whose last layer timm does not name"
        raise errors.ConfigError(where, what, "Choose another architecture to fine-tune")


def load_body(network: torch.nn.Module, tensors: pretrained_weights.Tensors, match: str, where: str) -> None:
    """Put published tensors into a network, all but its head; arguments and refusals as those of `pair_body`."""
    network.load_state_dict({**network.state_dict(), **pair_body(network, tensors, match, where)})


def pair_body(
    network: torch.nn.Module, tensors: pretrained_weights.Tensors, match: str, where: str
) -> pretrained_weights.Tensors:
    """Published tensors by the names of a network, all but those of its head.

    Args:
        network: of which all but the head must be there; it may be without memory.
        tensors: by name; those of their head, of however many classes, may be missing.
        match: `name`, or `order` where the names are those of another library and positions pair up.
        where: file of the weights, for the message.

    Raises:
        ConfigError: a tensor is missing, left over or not as the network's.
    """
    state, prefixes = network.state_dict(), prefix(network)
    if match == "order":
        tensors = pretrained_weights.pair_in_order(state, tensors, where, _CURE)
    body = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefixes)}
    expected = {name: tensor for name, tensor in state.items() if not name.startswith(prefixes)}
    tensor_files.require_state_dict(body, expected, Path(where), sealed_files.Refusal(errors.ConfigError, _CURE))
    return body
