"""Build each network of the configurations without memory, once: torch and timm take seconds to import.

A network that was in order is remembered in the scratch folder, by a digest of all that this depends on.
"""

import functools
import gc
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from teachonce.check.check_findings import Findings
from teachonce.check.project_configs import LoadedConfigs
from teachonce.core import errors, files, hashing

_NUM_CLASSES = 10
"""Of the head, on which no other shape depends: that of the images may not be known yet."""
_MAX_CPU_S = 10
"""Seconds of processor time for a network; those of two billion weights take half a second."""
_RULES_VERSION = 2
"""Raised with each new rule below, so that what was in order by fewer rules is tried again."""


@dataclass(frozen=True, slots=True)
class _Trial:
    """A network, and the size of the images that it must take."""

    where: str
    """File that names the network, for messages."""
    key: str
    """Key of the name in that file."""
    architecture: str
    """Name in timm."""
    arguments: dict[str, int | float | str | bool]
    """Further arguments of `timm.create_model`."""
    size: int
    """Side of the images in pixels."""
    has_token: bool = False
    """Whether it must have a distillation token."""


def try_networks(configs: LoadedConfigs, trials_folder: Path, findings: Findings) -> None:
    """Make every network without memory, and pass images of shapes alone through it.

    Args:
        configs: the configurations that could be read.
        trials_folder: remembers networks that were in order.
        findings: get a problem for each network that timm refuses.
    """
    for trial in _trials(configs):
        # A name on the hub needs the network to be looked up: left to the stage that downloads it.
        if not trial.architecture.startswith("hf-hub:"):
            findings.gather(functools.partial(_attempt, trial, trials_folder))


def _trials(configs: LoadedConfigs) -> Iterator[_Trial]:
    if (teacher := configs.teacher) is not None:
        yield _Trial(
            str(configs.path("teacher")), "architecture", teacher.architecture, teacher.arguments, teacher.size
        )
    for name, recipe in configs.recipes.items():
        has_token, arguments = (
            configs.students[name].has_token,
            {**recipe.arguments, "drop_path_rate": recipe.drop_path},
        )
        field = "distilled_architecture" if has_token else "architecture"
        where = str(configs.recipe_path(name))
        yield _Trial(where, field, getattr(recipe, field), arguments, recipe.size, has_token=has_token)


@contextmanager
def _limit_cpu_time(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in what takes longer; for the main thread, which alone gets signals.

    A configuration can name a network without end, by its arguments; a check must end all the same.
    """

    def stop(*_: object) -> None:
        raise TimeoutError(f"after {seconds} s of processor time")

    previous_handler = signal.signal(signal.SIGVTALRM, stop)
    # Python drops what a signal raises while an object is finalised. So no garbage is collected meanwhile, and the
    # signal comes again each second.
    gc.disable()
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, 1)
    try:
        yield
    finally:
        # The timer first: a signal that comes after the handler is gone would end the process.
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        gc.enable()
        signal.signal(signal.SIGVTALRM, previous_handler)


def _require_source(trial: _Trial) -> None:
    """Refuse what is neither a name in timm nor a place that it reads a network from."""
    scheme, colon, target = trial.architecture.partition(":")
    if not colon or scheme == "timm" or (scheme == "local-dir" and Path(target, "config.json").is_file()):
        return
    condition, cure = "a name in timm, hf-hub:OWNER/NAME, or local-dir: and a folder", "Correct it"
    if scheme == "local-dir":
        condition, cure = "local-dir: and a folder with timm's config.json", "Correct the path"
    raise errors.ConfigError.for_value(trial.where, trial.key, condition, errors.shorten(trial.architecture), cure)


def _attempt(trial: _Trial, trials_folder: Path) -> None:
    _require_source(trial)
    # By what it depends on: a network that another release of timm took may be refused by this one.
    versions = {name: metadata.version(name) for name in ("timm", "torch")}
    path = trials_folder / f"{hashing.json_digest({**asdict(trial), **versions, 'rules': _RULES_VERSION})}.json"
    # Only names of timm are remembered: what `local-dir:` names is a folder, which may have changed since.
    if path.is_file() and ":" not in trial.architecture:
        return
    from teachonce.core import timm_models  # noqa: PLC0415 - imports torch and timm

    try:
        with _limit_cpu_time(_MAX_CPU_S):
            network = timm_models.dry_run(
                f"{trial.where}: {trial.key}", trial.architecture, trial.arguments, _NUM_CLASSES, trial.size
            )
    except TimeoutError as error:
        what = f"timm cannot make {trial.architecture} (TimeoutError: {error})"
        raise errors.ConfigError(f"{trial.where}: {trial.key}", what, "Correct arguments") from error
    if trial.has_token and not hasattr(network, "set_distilled_training"):
        cure = "See timm.list_models('*distilled*')"
        condition = "a timm model with a distillation token"
        raise errors.ConfigError.for_value(trial.where, trial.key, condition, trial.architecture, cure)
    files.write_json(path, {"architecture": trial.architecture, "size": trial.size})
