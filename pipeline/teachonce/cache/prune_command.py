"""Command `prune`: remove finished units that no run has use for from the scratch folder, and say how much it freed."""

from collections.abc import Sequence

from tqdm import tqdm

from teachonce.cache import prune
from teachonce.core import arguments, storage, terminal


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the path, remove, print one line."""
    parser = arguments.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--scratch", type=storage.scratch_folder, required=True, help="folder of finished units: .teachonce/units"
    )
    parser.add_argument("--dry-run", action="store_true", help="only count")
    args = parser.parse_args(argv)
    counts = prune.remove_unused(args.scratch, dry_run=args.dry_run)
    verb, freed = ("would remove", "to free") if args.dry_run else ("removed", "freed")
    line = f"{verb} {counts.removed} of {counts.removed + counts.in_use} units: {_size(counts.freed_bytes)} {freed}"
    if counts.linked_bytes:
        line += f"; {_size(counts.linked_bytes)} are linked from a store or DVC's cache and stay there (dvc gc)"
    terminal.write_line(line)


def _size(count: int) -> str:
    return str(tqdm.format_sizeof(count, "B"))
