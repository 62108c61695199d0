"""Command `train-live`: a DeiT with the teacher in the loop and no cache: what a cache is measured against."""

from collections.abc import Sequence
from pathlib import Path

from teachonce.core import arguments, run_record
from teachonce.student import torchrun, train_command


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the paths, train the student, write its cost."""
    parser = arguments.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", type=Path, required=True, help="the teacher's folder")
    train_command.add_train_arguments(parser)
    args = parser.parse_args(argv)
    student, views = train_command.read_configs(args)
    torchrun.launch_if_configured(student.config.launcher, __spec__.name, argv)
    from teachonce.student import student_run  # noqa: PLC0415
    from teachonce.tools.live import train_live  # noqa: PLC0415

    timer = run_record.Timer()
    folders = student_run.RunFolders(args.scratch, args.out, args.curves)
    cost = train_live.train_with_teacher(student, views, args.shards, args.teacher, folders)
    if cost:
        run_record.write_cost(args.cost, timer, **cost)


if __name__ == "__main__":
    torchrun.run_rank(main)
