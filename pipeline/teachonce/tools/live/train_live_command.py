"""Command `train-live`: a DeiT with the teacher in the loop and no cache: what a cache is measured against."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from teachonce.core import command
from teachonce.student import student_config, torchrun, train_command
from teachonce.views import views_config


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the paths, train the student, write its cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", type=Path, required=True, help="the teacher's folder")
    train_command.train_by_arguments(parser, argv, __spec__.name, _train)


def _train(
    args: argparse.Namespace,
    settings: student_config.StudentConfig,
    student: student_config.Student,
    views: views_config.ViewsConfig,
) -> dict[str, object] | None:
    from teachonce.tools.live import train_live  # noqa: PLC0415

    paths = train_live.LivePaths(args.shards, args.teacher, args.scratch, args.out, args.curves)
    return train_live.train_with_teacher(args.student, settings, student, views, paths)


def run_live_rank() -> None:
    """As a process, which may be one of several ranks."""
    with torchrun.rank():
        command.run_stage(main)


if __name__ == "__main__":
    run_live_rank()
