"""`train_live`: a DeiT with the teacher in the loop and no cache: the baseline, outside the graph of `dvc repro`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from teachonce.core import command, config, output_files, project_params, run_record, storage
from teachonce.student import student_config, torchrun
from teachonce.views import views_config


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the paths, train the student, write its cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--student", required=True, help="name of an entry under students: in params.yaml")
    project_params.add_arguments(parser)
    parser.add_argument("--config", type=Path, help="configs/student/*.yaml, in place of the one that is chosen")
    parser.add_argument("--views", type=Path, help="configs/views/*.yaml, likewise")
    parser.add_argument("--shards", type=storage.where, required=True, help="folder of shards, or its URL")
    parser.add_argument("--teacher", type=Path, required=True, help="the teacher's folder")
    parser.add_argument("--scratch", type=storage.scratch, required=True, help="folder of checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="the student's folder")
    parser.add_argument("--curves", type=Path, required=True, help="DVCLive's folder")
    parser.add_argument("--cost", type=Path, required=True, help="JSON of what the run cost")
    args = parser.parse_args(argv)
    choice, student = project_params.parsed(args), student_config.student(args.params, args.student)
    begin = (Path(student.start.path) if student.start else None,)
    output_files.require(args, {"cost": output_files.COST}, folders=("out", "curves"), also_read=begin)
    settings = config.load(choice.recipe(student.model, args.student, args.config), student_config.StudentConfig)
    if launcher := torchrun.wanted(settings.launcher):
        sys.exit(torchrun.launch(launcher, __spec__.name, sys.argv[1:] if argv is None else list(argv)))
    # A launcher, which only waits, need not spend seconds on all of this.
    from teachonce.tools.live import train_live  # noqa: PLC0415

    timer = run_record.Timer()
    done = train_live.train(
        args.student,
        settings,
        student,
        config.load(choice.file("views", args.views), views_config.ViewsConfig),
        train_live.Paths(
            shards=args.shards, teacher=args.teacher, scratch=args.scratch, out=args.out, curves=args.curves
        ),
    )
    if done:
        run_record.write_cost(args.cost, timer, **done)


def run() -> None:
    """As a process, which may be one of several ranks."""
    with torchrun.rank():
        command.run(main)


if __name__ == "__main__":
    run()
