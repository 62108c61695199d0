"""Command `teacher`: make a CNN with weights, trained here, from a file or from timm."""

from collections.abc import Sequence
from pathlib import Path

from teachonce.core import arguments, config, files, forward_speed, output_files, project_params, run_record, storage
from teachonce.shards import index
from teachonce.teacher import build_teacher, teacher_config, teacher_network
from teachonce.views import views_config

_METRICS = output_files.FileKind("earlier facts of a teacher", ("architecture", "parameters", "val_images"))


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the paths, make the teacher, write its metrics."""
    parser = arguments.ArgumentParser(description=__doc__)
    project_params.add_arguments(parser)
    parser.add_argument("--config", type=Path, help="configs/teacher/*.yaml, in place of the one that is chosen")
    parser.add_argument("--views", type=Path, help="configs/views/*.yaml, likewise: the evaluation crop")
    parser.add_argument("--shards", type=Path, required=True, help="folder of shards")
    parser.add_argument("--scratch", type=storage.scratch_folder, required=True, help="folder of unfinished trainings")
    parser.add_argument("--out", type=Path, required=True, help="the teacher's folder")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON of its accuracy")
    parser.add_argument("--cost", type=Path, required=True, help="JSON of what the stage cost")
    args = parser.parse_args(argv)
    timer = run_record.Timer()
    choice = project_params.from_arguments(args)
    where = choice.file("teacher", args.config)
    settings = config.load(where, teacher_config.TeacherConfig)
    weights = (build_teacher.configured_weights(settings),)
    kinds = {"metrics": _METRICS, "cost": output_files.COST}
    output_files.require_overwritable(args, kinds, folders=("out",), also_read=weights)
    evaluation = config.load(choice.file("views", args.views), views_config.ViewsConfig).evaluation
    metrics = build_teacher.create_and_measure(
        settings, index.read(args.shards), evaluation, args.out, args.scratch, where=where
    )
    files.write_json(args.metrics, metrics)
    timer.stop()
    network = teacher_network.load(args.out, teacher_network.default_device())
    run_record.write_cost(args.cost, timer, forward=forward_speed.measure_forward(network, settings.size).model_dump())
