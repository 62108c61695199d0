"""What is in this cache? `teachonce inspect`: identity, size, fidelity, and the taus it carries."""

import json
from collections.abc import Sequence

from teachonce.core import arguments, storage, terminal
from teachonce.store import tau_range
from teachonce.tools.inspect import describe, inspect_table


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the path, print a table or JSON."""
    parser = arguments.ArgumentParser(description=__doc__)
    parser.add_argument("cache", type=storage.parse_location, help="folder of stores, or one store; or its URL")
    parser.add_argument(
        "--max-tv", type=float, default=tau_range.BOUND, help="mean total variation of a tau that is carried"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, the recipe whole")
    args = parser.parse_args(argv)
    description = describe.summarise_cache(args.cache, args.max_tv)
    if args.json:
        terminal.write_line(json.dumps(description.model_dump(mode="json"), indent=2))
        return
    terminal.write_line(inspect_table.format_description(description).removesuffix("\n"))
