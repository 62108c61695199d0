"""prepare: images into WebDataset tars with an index, or an index over tars that exist."""

import argparse
from pathlib import Path

from teachonce.base import chosen, entry, files, outputs, record
from teachonce.prepare import config, run


def main() -> None:
    """Read the arguments, make the folder, leave metrics and cost."""
    parser = argparse.ArgumentParser(prog="prepare", description=__doc__)
    chosen.add_arguments(parser)
    parser.add_argument("--config", type=Path, help="configs/data/*.yaml, in place of the one that is chosen")
    parser.add_argument("--source", type=Path, help="folder of the images or tars, in place of the one that is chosen")
    parser.add_argument("--out", type=Path, required=True, help="folder that is made: index.json and tars")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON of counts, equal for equal input")
    parser.add_argument("--cost", type=Path, required=True, help="JSON of the time it took")
    arguments = parser.parse_args()
    outputs.require_files(arguments.metrics, arguments.cost)
    timer = record.Timer()
    choice = chosen.parsed(arguments)
    data = config.load(choice.file("data", arguments.config))
    facts = run.prepare(data, choice.source(arguments.source), arguments.out)
    files.write_json(arguments.metrics, facts)
    record.write_cost(arguments.cost, timer)


if __name__ == "__main__":
    entry.run(main)
