"""Command `evaluate`: a student's heads on the validation images, beside the teacher's cached answers."""

from collections.abc import Sequence
from pathlib import Path

from teachonce.core import arguments, config, files, output_files, project_params, run_record, storage
from teachonce.evaluate import answer_speed, evaluate_student
from teachonce.student import student_spec
from teachonce.views import views_config

_METRICS = output_files.FileKind("an earlier evaluation", ("weights_sha256", "predictions_sha256", "heads"))


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the paths, evaluate the student, write its metrics."""
    parser = arguments.ArgumentParser(description=__doc__)
    parser.add_argument("--student", required=True, help="name of an entry under students: in params.yaml")
    project_params.add_arguments(parser)
    parser.add_argument("--config", type=Path, help="configs/student/*.yaml, in place of the one that is chosen")
    parser.add_argument("--views", type=Path, help="configs/views/*.yaml, likewise: the evaluation crop")
    parser.add_argument("--shards", type=storage.parse_location, required=True, help="folder of shards, or its URL")
    parser.add_argument(
        "--cache", type=storage.parse_location, required=True, help="store of the validation split, or its URL"
    )
    parser.add_argument("--weights", type=Path, required=True, help="the student's folder")
    parser.add_argument("--out", type=Path, required=True, help="folder of its predictions")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON of its accuracy")
    parser.add_argument("--cost", type=Path, required=True, help="JSON of what the stage cost")
    args = parser.parse_args(argv)
    output_files.require_overwritable(args, {"metrics": _METRICS, "cost": output_files.COST}, folders=("out",))
    timer = run_record.Timer()
    choice = project_params.from_arguments(args)
    student = student_spec.read(choice, args.student, args.config)
    evaluation = evaluate_student.evaluate(
        student,
        config.load(choice.file("views", args.views), views_config.ViewsConfig).evaluation,
        evaluate_student.EvaluationPaths(shards=args.shards, cache=args.cache, weights=args.weights, out=args.out),
    )
    files.write_json(args.metrics, evaluation.model_dump(mode="json", exclude_none=True))
    timer.stop()
    forward = answer_speed.measure_student(student, args.weights, evaluation.classes)
    run_record.write_cost(args.cost, timer, images=evaluation.images, forward=forward.model_dump())
