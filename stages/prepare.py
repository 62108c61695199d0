"""prepare: images into WebDataset tars with an index, or an index over tars that exist."""

import argparse
from pathlib import Path

from pipeline.base import entry, files, outputs, record
from pipeline.prepare import config, run


def main() -> None:
    """Read the arguments, make the folder, leave metrics and cost."""
    parser = argparse.ArgumentParser(prog="prepare", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="a file of configs/data")
    parser.add_argument("--source", type=Path, required=True, help="folder of the images or tars")
    parser.add_argument("--out", type=Path, required=True, help="folder that is made: index.json and tars")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON of counts, equal for equal input")
    parser.add_argument("--cost", type=Path, required=True, help="JSON of the time it took")
    arguments = parser.parse_args()
    outputs.require_files(arguments.metrics, arguments.cost)
    timer = record.Timer()
    facts = run.prepare(config.load(arguments.config), arguments.source, arguments.out)
    files.write_json(arguments.metrics, facts)
    record.write_cost(arguments.cost, timer)


if __name__ == "__main__":
    entry.run(main)
