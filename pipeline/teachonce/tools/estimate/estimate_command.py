"""What will it cost? `teachonce estimate`: hours and bytes of a whole run here, from a short measurement."""

import json
from collections.abc import Sequence
from pathlib import Path

from teachonce.core import arguments, storage, terminal
from teachonce.tools.estimate import estimate_cost, price_table, priced_settings


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the paths, measure, print tables or JSON."""
    parser = arguments.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, required=True, help="params.yaml: what would be run")
    parser.add_argument("--configs", type=Path, required=True, help="folder of the files that it names: configs")
    parser.add_argument(
        "--shards", type=storage.parse_location, required=True, help="folder of shards, or its URL: a few will do"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="to time each piece for, about")
    parser.add_argument("--images", type=int, help="training images to price, where only some of them are here")
    parser.add_argument("--seeds", type=int, help="aug seeds to price, in place of the configured ones")
    parser.add_argument("--epochs", type=int, help="epochs to price, in place of those of all students")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    request = priced_settings.EstimateRequest(
        args.params, args.configs, images=args.images, aug_seeds=args.seeds, epochs=args.epochs
    )
    cost_estimate = estimate_cost.measure_and_price(request, args.shards, args.seconds)
    if args.json:
        terminal.write_line(json.dumps(cost_estimate.model_dump(mode="json"), indent=2))
        return
    terminal.write_line(price_table.format_estimate(cost_estimate).removesuffix("\n"))
