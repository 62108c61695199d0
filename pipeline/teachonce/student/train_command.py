"""Command `train`: a DeiT from shards and cached logits; no teacher in sight."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from teachonce.core import command, config, output_files, project_params, run_record, storage
from teachonce.student import student_config, torchrun
from teachonce.views import views_config

Train = Callable[
    [argparse.Namespace, student_config.StudentConfig, student_config.Student, views_config.ViewsConfig],
    dict[str, object] | None,
]
"""Trains what a command line names; gives what a stage's cost tells, or nothing on the ranks behind the first."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the paths, train the student, write its cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--cache", type=storage.parse_location, required=True, help="store of the training split, or its URL"
    )
    train_by_arguments(parser, argv, __spec__.name, _train)


def _train(
    args: argparse.Namespace,
    settings: student_config.StudentConfig,
    student: student_config.Student,
    views: views_config.ViewsConfig,
) -> dict[str, object] | None:
    # A launcher, which only waits, need not spend seconds on all of this.
    from teachonce.student import train_cached  # noqa: PLC0415

    paths = train_cached.Paths(args.shards, args.cache, args.scratch, args.out, args.curves)
    return train_cached.train(args.student, settings, student, views, paths)


def train_by_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None, module: str, train: Train) -> None:
    """Train by a command line, in as many processes as the configuration wants.

    Args:
        parser: that knows where the teacher's answers come from.
        argv: words of the command line; None takes the process's.
        module: that each of several ranks runs.
        train: what trains.
    """
    _add_arguments(parser)
    args = parser.parse_args(argv)
    choice, student = project_params.from_arguments(args), student_config.student(args.params, args.student)
    begin = (Path(student.start.path) if student.start else None,)
    output_files.require_overwritable(args, {"cost": output_files.COST}, folders=("out", "curves"), also_read=begin)
    settings = config.load(choice.recipe(student.model, args.student, args.config), student_config.StudentConfig)
    if launcher := torchrun.wanted(settings.launcher):
        sys.exit(torchrun.launch(launcher, module, sys.argv[1:] if argv is None else list(argv)))
    timer = run_record.Timer()
    cost = train(args, settings, student, config.load(choice.file("views", args.views), views_config.ViewsConfig))
    if cost:
        run_record.write_cost(args.cost, timer, **cost)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--student", required=True, help="name of an entry under students: in params.yaml")
    project_params.add_arguments(parser)
    parser.add_argument("--config", type=Path, help="configs/student/*.yaml, in place of the one that is chosen")
    parser.add_argument("--views", type=Path, help="configs/views/*.yaml, likewise: what the teacher was or is asked")
    parser.add_argument("--shards", type=storage.parse_location, required=True, help="folder of shards, or its URL")
    parser.add_argument("--scratch", type=storage.scratch_folder, required=True, help="folder of checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="the student's folder")
    parser.add_argument("--curves", type=Path, required=True, help="DVCLive's folder")
    parser.add_argument("--cost", type=Path, required=True, help="JSON of what the run cost")


def run() -> None:
    """As a process, which may be one of several ranks."""
    with torchrun.rank():
        command.run_stage(main)


if __name__ == "__main__":
    run()
