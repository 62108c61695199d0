"""Your own images: look at a folder, and write the params.yaml and the configurations that `dvc repro` runs on it."""

import sys
from collections.abc import Sequence
from pathlib import Path

from teachonce.core import arguments, errors, terminal
from teachonce.tools.init import image_survey, planned_files, run_plan, source_layout, survey_summary, tar_layout

_PROJECT_FILES = ("params.yaml", "dvc.yaml", "configs", "stages")
_CLONE = "git clone URL && cd teachonce && make demo"


def main(argv: Sequence[str] | None = None) -> None:
    """Look, say what was seen and chosen, show what would change, ask, and write."""
    parser = arguments.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="images, class folders, splits of them, or tars")
    parser.add_argument("--yes", action="store_true", help="write without asking")
    args = parser.parse_args(argv)
    _require_project()
    folder: Path = args.folder
    if folder.is_file():
        raise errors.ConfigError.for_value(
            "teachonce init", "FOLDER", "a folder", f"the file {folder}", f"Name the folder it lies in: {folder.parent}"
        )
    if not folder.is_dir():
        raise errors.ConfigError.for_value("teachonce init", "FOLDER", "a folder that is there", folder, "Correct it")
    layout, survey = _look(folder)
    if not survey.sizes:
        raise errors.DataError(folder, f"none of its images can be used: {survey.bad[0]}", "Replace the images")
    plan = run_plan.choose_run(survey, has_labels=layout.has_labels)
    planned = planned_files.plan_files(folder, layout, plan)
    terminal.write_line(survey_summary.format_survey(layout, survey))
    terminal.write_line(survey_summary.format_plan(plan, run_plan.price_run(plan, survey, planned_files.CONFIGS)))
    _write(planned, confirmed=args.yes)


def _look(folder: Path) -> tuple[source_layout.Layout, image_survey.Survey]:
    """What the folder holds, by the rules of the stage `prepare`."""
    if tar_layout.is_of_tars(folder):
        return tar_layout.survey_tars(folder)
    return image_survey.survey_folder(source_layout.find_layout(folder))


def _require_project() -> None:
    """Refuse to run elsewhere than in the folder of a project."""
    here = Path.cwd()
    if _is_project(here):
        return
    above = next((folder for folder in here.parents if _is_project(folder)), None)
    cure = f"Go there: cd {above}" if above else f"Get one: {_CLONE}"
    raise errors.ConfigError(
        "teachonce init", "works in a clone of the project, whose params.yaml and configs/ it writes", cure
    )


def _is_project(folder: Path) -> bool:
    return all((folder / name).exists() for name in _PROJECT_FILES)


def _write(planned: Sequence[planned_files.PlannedFile], *, confirmed: bool) -> None:
    changed = [(file, diff) for file in planned if (diff := file.diff())]
    if not changed:
        terminal.write_line("All of it is written already. Next: dvc repro")
        return
    for file, diff in changed:
        # Of a new file, that there is one: it is as long as its preset, and can be read once it is there.
        is_new = not file.before()
        terminal.write_line(f"new: {file.path}" if is_new else f"\n{diff}")
    if not confirmed and not _is_agreed():
        terminal.write_line("Nothing was written.")
        return
    for file, _ in changed:
        file.write()
    terminal.write_line("Written; what was there before stays as .old. Next: dvc repro")


def _is_agreed() -> bool:
    """Ask at the terminal.

    Raises:
        ConfigError: there is none.
    """
    if not sys.stdin.isatty():
        raise errors.ConfigError("teachonce init", "wrote nothing: there is no terminal to ask at", "Add --yes")
    return input("Write this? [y/N] ").strip().lower() in {"y", "yes"}
