"""Command `cache`: run the teacher once and keep its answers, for the training views and for the validation images."""

from collections.abc import Sequence
from pathlib import Path

from teachonce.cache import assembly, cache_config
from teachonce.core import arguments, config, files, output_files, project_params, run_record, storage, terminal
from teachonce.shards import index
from teachonce.teacher import teacher_config
from teachonce.views import views_config

_METRICS = output_files.FileKind("earlier facts of a cache", ("train.bytes_a_view", "train.fidelity", "val.views"))


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the paths, make both stores, write their metrics and the cost of this run."""
    parser = arguments.ArgumentParser(description=__doc__)
    project_params.add_arguments(parser)
    parser.add_argument("--config", type=Path, help="configs/cache/*.yaml, in place of the one that is chosen")
    parser.add_argument("--views", type=Path, help="configs/views/*.yaml, likewise")
    parser.add_argument("--teacher-config", type=Path, help="configs/teacher/*.yaml, likewise: batch_size, compile")
    parser.add_argument("--shards", type=Path, required=True, help="folder of shards")
    parser.add_argument("--teacher", type=Path, required=True, help="the teacher's folder")
    parser.add_argument("--scratch", type=storage.scratch_folder, required=True, help="folder of finished units")
    parser.add_argument("--out", type=Path, required=True, help="folder of the two stores")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON of their facts")
    parser.add_argument("--cost", type=Path, required=True, help="JSON of what the stage cost")
    args = parser.parse_args(argv)
    output_files.require_overwritable(args, {"metrics": _METRICS, "cost": output_files.COST}, folders=("out",))
    timer = run_record.Timer()
    choice = project_params.from_arguments(args)
    network = config.load(choice.file("teacher", args.teacher_config), teacher_config.TeacherConfig)
    result = assembly.build_stores(
        index.read(args.shards),
        teacher=args.teacher,
        views=config.load(choice.file("views", args.views), views_config.ViewsConfig),
        settings=config.load(choice.file("cache", args.config), cache_config.CacheConfig),
        batch_size=network.batch_size,
        compiled=network.compile,
        scratch=args.scratch,
        out=args.out,
        write_line=terminal.write_line,
    )
    files.write_json(args.metrics, result.metrics)
    run_record.write_cost(args.cost, timer, **result.unit_counts)
