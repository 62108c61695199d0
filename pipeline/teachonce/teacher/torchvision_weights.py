"""torchvision's weights in timm's networks, where both compute the same; what does not pair is refused.

The two libraries name layers otherwise, and some of their networks differ in a padding or a constant, which no shape
tells. So they are compared by what they answer, with made-up weights: nothing is downloaded to find out.
"""

import re
import urllib.error
import warnings
from pathlib import Path
from urllib.parse import urlsplit

import torch
import torch.hub
import torchvision.models

from teachonce.core import errors, hashing, model_hub, sealed_files, spelling, timm_models
from teachonce.teacher import pretrained_weights, teacher_config

_CLASSES = 1000
_SIDE = 128
"""Of the images that the networks are compared with, in pixels: enough for five halvings of any padding."""
_NEAR = 1e-6
"""Most difference of two answers, as a part of that between two images: in float64, the same network is far nearer."""
_DIGITS = re.compile(r"-([0-9a-f]{8,64})\.")
"""Of the file's sha256, as torchvision writes them into its name."""
_CURE = "Name another pair, or take a file: start: {kind: checkpoint, …}"


def require_known(start: teacher_config.TorchvisionWeights, where: str) -> None:
    """Refuse a network or weights that torchvision does not have.

    Raises:
        ConfigError: it has neither, with the nearest name.
    """
    names = torchvision.models.list_models(module=torchvision.models)
    if start.name not in names:
        condition = "the name of a classifier in torchvision"
        raise _refusal(where, "name", condition, start.name, spelling.did_you_mean(start.name, names))
    versions = [weights.name for weights in torchvision.models.get_model_weights(start.name)]
    if start.version not in versions:
        raise _refusal(where, "version", f"one of {', '.join(versions)}", start.version, "")


def _refusal(where: str, key: str, condition: str, value: str, near: str) -> errors.ConfigError:
    cure = near.strip() or "See torchvision.models.list_models()"
    return errors.ConfigError.for_value(where, f"weights.start.{key}", condition, value, cure)


def require_reachable(start: teacher_config.TorchvisionWeights, where: str) -> None:
    """Refuse weights that are neither on this machine nor to be had.

    Raises:
        ConfigError: no copy is here, and nothing answers at their address.
    """
    url = _url(start)
    if not _local_path(url).is_file() and (reason := model_hub.unreachable_reason(url)):
        what = f"weights.start.name: {start.name} is at {url}, which cannot be reached ({reason})"
        raise errors.ConfigError(where, what, f"Connect this machine, or put the file into {_local_path(url).parent}")


def read(start: teacher_config.TorchvisionWeights, where: str) -> pretrained_weights.Tensors:
    """The tensors, by torchvision's names; fetched where no copy is here.

    Raises:
        ConfigError: they cannot be had, or the file is not the one of that name.
    """
    require_known(start, where)
    require_reachable(start, where)
    url = _url(start)
    path = _local_path(url)
    digits = _DIGITS.search(path.name)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), digits.group(1) if digits else None)
        except (OSError, RuntimeError) as error:  # RuntimeError: another sha256
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            what = f"weights.start.name: {url} cannot be fetched ({errors.shorten(str(reason))})"
            raise errors.ConfigError(where, what, "Run the same command again") from error
    refusal = sealed_files.Refusal(errors.ConfigError, f"Remove it: rm '{path}'")
    digest = hashing.sha256_file(path)
    # torchvision itself compares them only while it fetches: whatever lies there later would be loaded.
    if digits and not digest.startswith(digits.group(1)):
        raise refusal.mismatch(path, "sha256", f"{digits.group(1)}…, as its name says", digest)
    content = sealed_files.read_verified(path, digest, "", refusal)
    return pretrained_weights.parse(content, path)


def _url(start: teacher_config.TorchvisionWeights) -> str:
    return str(torchvision.models.get_model_weights(start.name)[start.version].url)


def _local_path(url: str) -> Path:
    return Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(url).path).name)


def name_matching(start: teacher_config.TorchvisionWeights, settings: teacher_config.TeacherConfig, where: str) -> str:
    """How torchvision's tensors pair with those of timm's network: by `name` or in `order`.

    Both networks get the same made-up weights, and must answer two images alike.

    Raises:
        ConfigError: torchvision does not have the network, or they are not the same.
    """
    require_known(start, where)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of defaults that torchvision will change
        theirs = torchvision.models.get_model(start.name, weights=None)
    with torch.device("meta"):
        ours = timm_models.create_network(f"{where}: architecture", settings.architecture, settings.arguments, _CLASSES)
    match = "name" if theirs.state_dict().keys() == ours.state_dict().keys() else "order"
    shapes = [[tuple(tensor.shape) for tensor in network.state_dict().values()] for network in (theirs, ours)]
    if match == "order" and shapes[0] != shapes[1]:
        raise _unlike(start, settings, where, "their layers are not of the same shapes")
    tensors = _made_up(theirs.state_dict())
    paired = tensors if match == "name" else dict(zip(ours.state_dict(), tensors.values(), strict=True))
    try:
        answers = [_answers(network, state) for network, state in ((theirs, tensors), (ours, paired))]
    except (RuntimeError, TypeError, ValueError) as error:  # shapes that differ under one name, sizes that do not fit
        reason = errors.shorten(str(error).partition("\n")[0])
        raise _unlike(start, settings, where, f"they cannot be compared: {reason}") from error
    spread = (answers[0][0] - answers[0][1]).abs().max()
    if not (answers[0] - answers[1]).abs().max() <= _NEAR * spread:
        raise _unlike(start, settings, where, "with the same weights they answer otherwise")
    return match


def _unlike(
    start: teacher_config.TorchvisionWeights, settings: teacher_config.TeacherConfig, where: str, reason: str
) -> errors.ConfigError:
    condition = f"a network that timm's {settings.architecture} computes as well ({reason})"
    return errors.ConfigError.for_value(where, "weights.start.name", condition, start.name, _CURE)


def _made_up(state: pretrained_weights.Tensors) -> pretrained_weights.Tensors:
    """Weights that let every layer matter: of the size that keeps a signal's, and no norm's statistics alike."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, tensor in state.items():
        shape = tuple(tensor.shape)
        if not tensor.is_floating_point():
            tensors[name] = torch.zeros(shape, dtype=tensor.dtype)
        elif tensor.ndim > 1:
            scale = (2 / tensor[0].numel()) ** 0.5
            tensors[name] = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
        elif name.endswith(("bias", "mean")):
            tensors[name] = torch.randn(shape, generator=generator, dtype=torch.float64) / 10
        else:
            tensors[name] = torch.empty(shape, dtype=torch.float64).uniform_(0.5, 1.5, generator=generator)
    return tensors


@torch.no_grad()
def _answers(network: torch.nn.Module, state: pretrained_weights.Tensors) -> torch.Tensor:
    """float64 logits of two images of noise."""
    images = torch.randn((2, 3, _SIDE, _SIDE), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    output = torch.func.functional_call(network.eval(), state, (images,), strict=True)
    if not isinstance(output, torch.Tensor):
        raise TypeError("one of them answers with more than logits")
    return output
