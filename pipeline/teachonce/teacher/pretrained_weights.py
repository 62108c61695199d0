"""Weights from outside: a checkpoint file, verified before it is read, never unpickled."""

from pathlib import Path

import torch

from teachonce.core import errors, sealed_files, tensor_files
from teachonce.teacher import teacher_config

Tensors = dict[str, torch.Tensor]

_CHOOSE = (
    "Choose the architecture it was made for, and data of its classes (classes: in configs/dataset); or give it a new "
    "head for your classes, weights: {kind: finetune, start: …}"
)


def read(weights: teacher_config.CheckpointWeights) -> Tensors:
    """The tensors of a checkpoint file by name, once its sha256 was compared.

    Raises:
        ConfigError: the file is missing, has another sha256, or holds more than tensors.
    """
    path = teacher_config.checkpoint_path(weights.path)
    if not path.is_file():
        raise errors.ConfigError.for_value(
            path, "weights.path", "a file", "none", "Correct the path, or install the package"
        )
    refusal = sealed_files.Refusal(errors.ConfigError, "Correct the file or the sha256")
    content = sealed_files.read_verified(path, weights.sha256, "", refusal, "weights.sha256")
    return parse(content, path)


def parse(content: bytes, path: Path) -> Tensors:
    """The tensors in a file's bytes, by name.

    Raises:
        ConfigError: it holds more than tensors.
    """
    if path.suffix == ".safetensors":
        return tensor_files.load(content, path, sealed_files.Refusal(errors.ConfigError, "Save it as safetensors"))
    try:
        checkpoint = tensor_files.unpickle_tensors(content)
    except Exception as error:  # whatever `tensor_files.unpickle_tensors` lets through
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise errors.ConfigError(path, f"is not a file of tensors ({reason})", "Save it as safetensors") from error
    # Training scripts wrap the weights in a larger dict; averaged ones (EMA) come before those of the last step.
    for name in ("state_dict_ema", "state_dict", "model"):
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get(name), dict):
            checkpoint = checkpoint[name]
    if not isinstance(checkpoint, dict) or not all(map(_is_named_tensor, checkpoint.items())):
        raise errors.ConfigError(path, "holds more than named tensors", "Save the state dict as safetensors")
    return checkpoint


def _is_named_tensor(item: tuple[object, object]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], torch.Tensor)


def load_into(model: torch.nn.Module, tensors: Tensors, match: str, where: str) -> None:
    """Put tensors into a model, all of them and nothing else; arguments and refusals as those of `pair`."""
    tensors = pair(model, tensors, match, where)
    model.load_state_dict(tensors)


def pair(model: torch.nn.Module, tensors: Tensors, match: str, where: str) -> Tensors:
    """Tensors by the names of a model, all of them and nothing else.

    Args:
        model: the network; it may be without memory.
        tensors: by name; with `match="order"` the names are those of another library and positions pair up.
        match: `name` or `order`.
        where: file of the weights, for the message.

    Raises:
        ConfigError: a tensor is missing, left over or not as the model's.
    """
    network_state = model.state_dict()
    if match == "order":
        tensors = pair_in_order(network_state, tensors, where, _CHOOSE)
    tensor_files.require_state_dict(
        tensors, network_state, Path(where), sealed_files.Refusal(errors.ConfigError, _CHOOSE)
    )
    return tensors


def pair_in_order(network_state: Tensors, tensors: Tensors, where: str, cure: str) -> Tensors:
    """Tensors under the names that a network has at their positions.

    Args:
        network_state: the network's own tensors.
        tensors: as many others, under names of another library.
        where: file of the weights, for the message.
        cure: what the message ends with.

    Raises:
        ConfigError: they are more, or fewer.
    """
    if len(network_state) != len(tensors):
        raise errors.ConfigError(where, f"holds {len(tensors)} tensors. Got a model of {len(network_state)}", cure)
    # Pairing by position is a guess: whoever takes the pairs compares every shape, so that a wrong one is refused, not
    # loaded.
    return dict(zip(network_state, tensors.values(), strict=True))
