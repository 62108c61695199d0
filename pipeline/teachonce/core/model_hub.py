"""Where timm fetches what it does not hold: asked once, before its own client tries for a minute and in many lines."""

import ssl
import urllib.error
import urllib.request

import huggingface_hub
import timm
from huggingface_hub import constants

from teachonce.core import errors

_HUB = "hf-hub:"
_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of a file of weights; timm takes the first that there is."""
_TIMEOUT_S = 10


def require_reachable(where: str, architecture: str, *, pretrained: bool) -> None:
    """Refuse a network of the hub, or its weights, where neither a copy is here nor the hub answers.

    Args:
        where: key of the architecture, with its file, for the message.
        architecture: its name in timm, or `hf-hub:OWNER/NAME`.
        pretrained: whether its weights are fetched, too.

    Raises:
        ConfigError: the hub cannot be reached.
    """
    address = _address(architecture, pretrained=pretrained)
    if address is None:
        return
    reason: str | None
    cure = "Connect this machine, or set HF_ENDPOINT to a mirror"
    if constants.HF_HUB_OFFLINE:
        reason, cure = "HF_HUB_OFFLINE is set", "Unset it"
    elif (reason := unreachable_reason(address)) is None:
        return
    raise errors.ConfigError(
        where,
        f"{architecture} is at {address}, which cannot be reached ({reason})",
        f"{cure}; or take a file, weights: {{kind: checkpoint, …}}",
    )


def _address(architecture: str, *, pretrained: bool) -> str | None:
    """URL that something must be fetched from; None where copies of all are on this machine."""
    if architecture.startswith(_HUB):
        name, files = architecture.removeprefix(_HUB), ("config.json", *(_FILES if pretrained else ()))
    else:
        settings = timm.get_pretrained_cfg(architecture) if pretrained else None
        if settings is None or settings.file:
            return None
        if not settings.hf_hub_id:
            return str(settings.url) if settings.url else None
        name, files = str(settings.hf_hub_id), _FILES
    repository, _, revision = name.partition("@")
    copies = [file for file in files if _has_copy(repository, file, revision or None)]
    # A model of the hub has either file of weights; without weights, only its configuration is fetched.
    is_complete = any(file in _FILES for file in copies) or (not pretrained and "config.json" in copies)
    return None if is_complete else str(constants.ENDPOINT)


def _has_copy(repository: str, file: str, revision: str | None) -> bool:
    return isinstance(huggingface_hub.try_to_load_from_cache(repository, file, revision=revision), str)


def unreachable_reason(address: str) -> str | None:
    """Why an address cannot be reached, through a proxy where one is set; None where anything answers."""
    try:
        request = urllib.request.Request(address, method="HEAD")  # noqa: S310 - the hub's, or timm's own list
        urllib.request.urlopen(request, timeout=_TIMEOUT_S).close()  # noqa: S310
    except urllib.error.HTTPError:
        # An error is an answer: a hub may refuse this request and still give its files.
        return None
    except OSError as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        # A certificate that is another client's affair: something answered.
        return None if isinstance(reason, ssl.SSLError) else errors.shorten(" ".join(str(reason).split()))
    return None
