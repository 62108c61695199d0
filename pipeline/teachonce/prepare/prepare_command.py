"""Command `prepare`: write images into WebDataset tars with an index, or an index of tars that exist."""

from collections.abc import Sequence
from pathlib import Path

from teachonce.core import arguments, files, output_files, project_params, run_record
from teachonce.prepare import dataset_config, prepare_shards

_METRICS = output_files.FileKind("earlier counts of images", ("classes", "skipped_files", "train.tars", "val.tars"))


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the paths, make the folder of shards, write its counts and the cost of this run."""
    parser = arguments.ArgumentParser(prog="prepare", description=__doc__)
    project_params.add_arguments(parser)
    parser.add_argument("--config", type=Path, help="configs/dataset/*.yaml, in place of the one that is chosen")
    parser.add_argument("--source", type=Path, help="folder of the images or tars, in place of the one that is chosen")
    parser.add_argument("--out", type=Path, required=True, help="folder that is made: index.json and tars")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON of counts, equal for equal input")
    parser.add_argument("--cost", type=Path, required=True, help="JSON of the time it took")
    args = parser.parse_args(argv)
    timer = run_record.Timer()
    choice = project_params.from_arguments(args)
    where = choice.file("dataset", args.config)
    settings, source = dataset_config.load(where), choice.source(args.source)
    kinds = {"metrics": _METRICS, "cost": output_files.COST}
    source_folders = (prepare_shards.source_folder(settings, source),)
    output_files.require_overwritable(args, kinds, folders=("out",), also_read=source_folders, parts={"source": ()})
    facts = prepare_shards.prepare(settings, source, args.out, where=where)
    files.write_json(args.metrics, facts)
    run_record.write_cost(args.cost, timer)
