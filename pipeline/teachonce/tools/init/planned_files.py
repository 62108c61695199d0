"""The files that `teachonce init` writes: params.yaml, and configurations named after the folder of the images."""

import difflib
import re
import shlex
import subprocess
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from teachonce.core import errors, files
from teachonce.tools.init import config_text, run_plan, source_layout

PARAMS = Path("params.yaml")
CONFIGS = Path("configs")
_GROUPS = ("dataset", "views", "student", "teacher")
"""Folders of configs that may get a file."""
_MOST_LETTERS = 40


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file with the text that it is to have."""

    path: Path
    """Relative to the project."""
    text: str
    """All of it."""

    def before(self) -> str:
        """What it says now; empty where it is not there."""
        return self.path.read_text(encoding="utf-8", errors="replace") if self.path.is_file() else ""

    def diff(self) -> str:
        """What would change, as `diff -u` shows it; empty where nothing does."""
        before = self.before()
        old, new = (text.splitlines(keepends=True) for text in (before, self.text))
        origin = str(self.path) if before else "/dev/null"
        return "".join(difflib.unified_diff(old, new, origin, f"{self.path}, new"))

    def write(self) -> None:
        """Write it; what stood there before stays beside it with the ending `.old`, or `.old2` where that is taken."""
        before = self.before()
        if before == self.text:
            return
        if before:
            self._keep(self.path.read_bytes())
        files.write_bytes(self.path, self.text.encode())

    def _keep(self, data: bytes) -> None:
        places = (self.path.with_name(f"{self.path.name}.old{number}") for number in ("", *range(2, 10**6)))
        kept = next(place for place in places if not place.exists() or place.read_bytes() == data)
        files.write_bytes(kept, data)


def plan_files(folder: Path, layout: source_layout.Layout, plan: run_plan.RunPlan) -> tuple[PlannedFile, ...]:
    """The configurations, and params.yaml last.

    Args:
        folder: as it was typed: what the files are named after.
        layout: what is said of the source.
        plan: what is to run.

    Raises:
        ConfigError: a preset is not in this project.
    """
    source = source_text(layout.root)
    command = f"# Command: teachonce init {shlex.quote(source)}"
    name = _free_name(folder, command)
    settings: dict[str, Mapping[str, source_layout.Setting]] = {
        "dataset": {key: setting for key, setting in layout.settings.items() if key != "kind"},
        "views": {"aug_seeds": source_layout.Setting(plan.aug_seeds, _seeds_reason(plan))},
        "student": {"epochs": source_layout.Setting(plan.epochs, _epochs_reason(plan))},
    }
    if plan.teacher_passes:
        settings["teacher"] = _teacher_settings(plan.teacher_passes, plan.images)
    presets = {
        "dataset": str(layout.settings["kind"].value),
        "views": plan.preset,
        "student": plan.preset,
        "teacher": plan.teacher,
    }
    titles = {
        "dataset": f"The images in {source}.",
        "views": f"Views of the images in {source}.",
        "student": f"The students of the images in {source}.",
        "teacher": f"The teacher of the images in {source}.",
    }
    configs = []
    for group, changes in settings.items():
        preset = CONFIGS / group / f"{presets[group]}.yaml"
        schema = f"# yaml-language-server: $schema=../../docs/schema/{group}.json"
        header = f"# {titles[group]} Yours to change.\n# Source:  {preset}\n{command}\n{schema}"
        text = config_text.with_settings(_read(preset), header, changes)
        configs.append(PlannedFile(CONFIGS / group / f"{name}.yaml", text))
    return (*configs, PlannedFile(PARAMS, _params_text(name, source, plan)))


def _teacher_settings(passes: int, images: int) -> dict[str, source_layout.Setting]:
    reason = f"fewer passes than usual, since {images:,} images are many"
    return {
        "weights.head_epochs": source_layout.Setting(1, reason),
        "weights.epochs": source_layout.Setting(passes - 1, reason),
    }


def source_text(root: Path) -> str:
    """`source` in params.yaml: from the root of the file system, but for images that git holds in the project."""
    path, project = root.absolute().resolve(), Path.cwd().resolve()
    # A queued experiment runs in a copy of what git holds: there, a relative path would lead to nothing else.
    is_held = path.is_relative_to(project) and _git_holds(path)
    return str(path.relative_to(project)) if is_held else str(path)


def _git_holds(path: Path) -> bool:
    done = subprocess.run(["git", "ls-files", "-z", "--", str(path)], capture_output=True, check=False)
    return done.returncode == 0 and bool(done.stdout)


def _free_name(folder: Path, command: str) -> str:
    """The folder's name as that of a configuration, where no other source has it already."""
    stem = _plain_name(folder.absolute().name)
    count = 1
    while True:
        name = stem if count == 1 else f"{stem}_{count}"
        texts = [
            path.read_text(encoding="utf-8", errors="replace")
            for group in _GROUPS
            if (path := CONFIGS / group / f"{name}.yaml").exists()
        ]
        if all(command in text.splitlines() for text in texts):
            return name
        count += 1


def _plain_name(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text.replace("ß", "ss")).encode("ascii", "ignore").decode()
    name = re.sub("[^a-z0-9]+", "_", letters.lower()).strip("_")[:_MOST_LETTERS]
    # Unquoted in params.yaml, 2024 would be a number and null nothing.
    return name if name and config_text.to_yaml(name) == name else f"images_{name}".rstrip("_")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        cure = f"Restore it: git checkout HEAD -- {path}"
        raise errors.ConfigError(path, f"cannot be read ({error.strerror})", cure) from error


def _seeds_reason(plan: run_plan.RunPlan) -> str:
    if plan.aug_seeds == plan.epochs:
        return "as many as the students' epochs: no view is shown twice"
    return f"fewer than the students' {plan.epochs} epochs, each shown several times: the teacher's time is what costs"


def _epochs_reason(plan: run_plan.RunPlan) -> str:
    return f"{plan.epochs * plan.images:,} views of {plan.images:,} images a student"


def _params_text(name: str, source: str, plan: run_plan.RunPlan) -> str:
    teacher = name if plan.teacher_passes else plan.teacher
    lines = [
        "# What to run. Each name is a file in configs/; every value can be set from the command line, for instance",
        "#   dvc exp run -S students.soft.tau=5",
        "# yaml-language-server: $schema=docs/schema/params.json",
        f"dataset: {name} # configs/dataset/{name}.yaml, as for views and students",
        f"source: {config_text.to_yaml(source)} # the folder of the images",
        f"views: {name} # {plan.preset}, since {plan.size_reason}; {plan.aug_seeds} views of each",
        f"teacher: {teacher} # configs/teacher/{teacher}.yaml: {_teacher_reason(plan)}",
        f"cache: {plan.cache} # configs/cache/{plan.cache}.yaml: {_cache_reason(plan)}",
        "students:",
        *_students(name, plan),
        "",
    ]
    return "\n".join(lines)


def _teacher_reason(plan: run_plan.RunPlan) -> str:
    if plan.has_labels:
        return "published weights, fine-tuned on these classes"
    return "published weights of ImageNet's classes, as they are"


def _cache_reason(plan: run_plan.RunPlan) -> str:
    return "the ten likeliest classes of each view" if plan.cache.endswith("top10") else "all classes of each view"


def _students(name: str, plan: run_plan.RunPlan) -> list[str]:
    """Lines of the students: what distillation brings, and what tau does."""
    model = f"    model: {name} # configs/student/{name}.yaml"
    soft, hard = (
        "    kind: soft # learns the teacher's probabilities",
        "    kind: hard # learns the teacher's first class",
    )
    seed = "    seed: 0 # settings are compared over three or more"
    tau_1, tau_3 = "    tau: 1.0 # the temperature", "    tau: 3.0 # a higher one: more of the less likely classes"
    if not plan.has_labels:
        # Without labels a class head would learn nothing: one head, taught by the teacher alone.
        only = ["    alpha: 1.0 # there are no labels to learn from", "    token: false"]
        return [
            *("  soft:", model, soft, *only, tau_3, seed),
            *("  soft1:", model, soft, *only, tau_1, seed),
            *("  hard:", model, hard, *only, seed),
        ]
    most = "    alpha: 0.9 # the teacher's part of the loss; the labels have the rest"
    return [
        *("  plain:", model, "    kind: none # what distillation is measured against", seed),
        *("  soft:", model, soft, most, tau_3, seed),
        *("  soft1:", model, soft, most, tau_1, seed),
        *("  hard:", model, hard, "    alpha: 0.5 # as in the paper", seed),
    ]
