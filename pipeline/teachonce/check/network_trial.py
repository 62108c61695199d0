"""Networks tried out, once for each configuration: that needs torch and timm, which take seconds to import.

What was in order is remembered in the scratch folder by a digest of all that it depends on.
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

_CLASSES = 10
"""Of the head, on which no other shape depends."""
_LONGEST_S = 10
"""Of processor time; networks of two billion weights take half a second."""
_RULES = 2
"""To be raised with what is tried, so that what was in order by fewer rules is tried again."""


@dataclass(frozen=True, slots=True)
class _Trial:
    """A network, and images that it must take."""

    where: str
    """File of its name."""
    key: str
    """Of the name in the file."""
    architecture: str
    """In timm."""
    arguments: dict[str, int | float | str | bool]
    """Further ones of `timm.create_model`."""
    size: int
    """Side of the images in pixels."""
    has_token: bool = False
    """Whether it must have a distillation token."""


def try_networks(choice: LoadedConfigs, memory: Path, findings: Findings) -> None:
    """Make every network without memory, and pass images of shapes alone through it.

    Args:
        choice: what could be read.
        memory: folder of what was in order before.
        findings: are given what timm refuses.
    """
    for trial in _trials(choice):
        # The hub is read over the net, by the stage that asks for it.
        if not trial.architecture.startswith("hf-hub:"):
            findings.gather(functools.partial(_attempt, trial, memory))


def _trials(choice: LoadedConfigs) -> Iterator[_Trial]:
    if (teacher := choice.teacher) is not None:
        yield _Trial(str(choice.path("teacher")), "architecture", teacher.architecture, teacher.arguments, teacher.size)
    for name, recipe in choice.recipes.items():
        token, arguments = choice.students[name].has_token, {**recipe.arguments, "drop_path_rate": recipe.drop_path}
        field = "distilled_architecture" if token else "architecture"
        where = str(choice.recipe_path(name))
        yield _Trial(where, field, getattr(recipe, field), arguments, recipe.size, has_token=token)


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in what takes longer; in the main thread alone."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"after {seconds} s of processor time")

    before = signal.signal(signal.SIGVTALRM, stop)
    # What is raised while an object is cleaned up is passed over: so no collections meanwhile, and again each second.
    gc.disable()
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        gc.enable()
        signal.signal(signal.SIGVTALRM, before)


def _require_source(trial: _Trial) -> None:
    """Refuse what is neither a name in timm nor a place that it reads a network from."""
    scheme, colon, place = trial.architecture.partition(":")
    if not colon or scheme == "timm" or (scheme == "local-dir" and Path(place, "config.json").is_file()):
        return
    condition, cure = "a name in timm, hf-hub:OWNER/NAME, or local-dir: and a folder", "Correct it"
    if scheme == "local-dir":
        condition, cure = "local-dir: and a folder with timm's config.json", "Correct the path"
    raise errors.ConfigError.for_value(trial.where, trial.key, condition, errors.shorten(trial.architecture), cure)


def _attempt(trial: _Trial, memory: Path) -> None:
    _require_source(trial)
    versions = {name: metadata.version(name) for name in ("timm", "torch")}
    path = memory / f"{hashing.json_digest({**asdict(trial), **versions, 'rules': _RULES})}.json"
    # A folder may have changed since.
    if path.is_file() and ":" not in trial.architecture:
        return
    from teachonce.core import timm_models  # noqa: PLC0415 - imports torch and timm

    try:
        with _at_most(_LONGEST_S):
            made = timm_models.dry_run(
                f"{trial.where}: {trial.key}", trial.architecture, trial.arguments, _CLASSES, trial.size
            )
    except TimeoutError as error:
        what = f"timm cannot make {trial.architecture} (TimeoutError: {error})"
        raise errors.ConfigError(f"{trial.where}: {trial.key}", what, "Correct arguments") from error
    if trial.has_token and not hasattr(made, "set_distilled_training"):
        cure = "See timm.list_models('*distilled*')"
        condition = "a timm model with a distillation token"
        raise errors.ConfigError.for_value(trial.where, trial.key, condition, trial.architecture, cure)
    files.write_json(path, {"architecture": trial.architecture, "size": trial.size})
