"""Stage `cache`: run the teacher once and keep its answers, for the training views and for the validation images."""

import argparse
from pathlib import Path

from teachonce.base import chosen, config, entry, files, outputs, places, record, terminal
from teachonce.cache import config as cache_config
from teachonce.shards import index
from teachonce.teacher import config as teacher_config
from teachonce.teacher import stores
from teachonce.views import config as views_config


def main() -> None:
    """Parse the paths, make both stores, write their metrics."""
    parser = argparse.ArgumentParser(description=__doc__)
    chosen.add_arguments(parser)
    parser.add_argument("--config", type=Path, help="configs/cache/*.yaml, in place of the one that is chosen")
    parser.add_argument("--views", type=Path, help="configs/views/*.yaml, likewise")
    parser.add_argument("--teacher-config", type=Path, help="configs/teacher/*.yaml, likewise: batch_size, compile")
    parser.add_argument("--shards", type=Path, required=True, help="folder of shards")
    parser.add_argument("--teacher", type=Path, required=True, help="the teacher's folder")
    parser.add_argument("--scratch", type=places.scratch, required=True, help="folder of finished units")
    parser.add_argument("--out", type=Path, required=True, help="folder of the two stores")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON of their facts")
    parser.add_argument("--cost", type=Path, required=True, help="JSON of what the stage cost")
    args = parser.parse_args()
    outputs.require_files(args.metrics, args.cost)
    timer = record.Timer()
    choice = chosen.parsed(args)
    network = config.load(choice.file("teacher", args.teacher_config), teacher_config.TeacherConfig)
    made = stores.make(
        index.read(args.shards),
        teacher=args.teacher,
        views=config.load(choice.file("views", args.views), views_config.ViewsConfig),
        settings=config.load(choice.file("cache", args.config), cache_config.CacheConfig),
        batch_size=network.batch_size,
        compiled=network.compile,
        scratch=args.scratch,
        out=args.out,
        tell=terminal.say,
    )
    files.write_json(args.metrics, made.metrics)
    record.write_cost(args.cost, timer, **made.work)


if __name__ == "__main__":
    entry.run(main)
