"""Command `train`: a DeiT from shards and cached logits; no teacher in sight."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from teachonce.core import arguments, config, output_files, project_params, run_record, storage
from teachonce.student import student_spec, torchrun
from teachonce.views import views_config


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the paths, train the student, write its cost."""
    parser = arguments.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--cache", type=storage.parse_location, required=True, help="store of the training split, or its URL"
    )
    add_train_arguments(parser)
    args = parser.parse_args(argv)
    student, views = read_configs(args)
    torchrun.launch_if_configured(student.config.launcher, __spec__.name, argv)
    # A launcher, which only waits, need not spend seconds on all of this.
    from teachonce.student import student_run, train_cached  # noqa: PLC0415

    timer = run_record.Timer()
    folders = student_run.RunFolders(args.scratch, args.out, args.curves)
    cost = train_cached.train_from_cache(student, views, args.shards, args.cache, folders)
    if cost:
        run_record.write_cost(args.cost, timer, **cost)


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of every command that trains a student."""
    parser.add_argument("--student", required=True, help="name of an entry under students: in params.yaml")
    project_params.add_arguments(parser)
    parser.add_argument("--config", type=Path, help="configs/student/*.yaml, in place of the one that is chosen")
    parser.add_argument("--views", type=Path, help="configs/views/*.yaml, likewise: what the teacher was or is asked")
    parser.add_argument("--shards", type=storage.parse_location, required=True, help="folder of shards, or its URL")
    parser.add_argument("--scratch", type=storage.scratch_folder, required=True, help="folder of checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="the student's folder")
    parser.add_argument("--curves", type=Path, required=True, help="DVCLive's folder")
    parser.add_argument("--cost", type=Path, required=True, help="JSON of what the run cost")


def read_configs(args: argparse.Namespace) -> tuple[student_spec.Student, views_config.ViewsConfig]:
    """The student and the views that a command line names.

    Raises:
        ConfigError: a value is refused, or an output would replace what is none.
    """
    choice = project_params.from_arguments(args)
    student = student_spec.read(choice, args.student, args.config)
    start = student.spec.start
    also_read = (Path(start.path) if start else None,)
    output_files.require_overwritable(args, {"cost": output_files.COST}, folders=("out", "curves"), also_read=also_read)
    return student, config.load(choice.file("views", args.views), views_config.ViewsConfig)


if __name__ == "__main__":
    torchrun.run_rank(main)
