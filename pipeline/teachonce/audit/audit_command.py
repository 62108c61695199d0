"""Command `audit`: check every object, row, tar and canary of a cache; with a teacher, recompute some rows."""

from collections.abc import Sequence
from pathlib import Path

from teachonce.audit import audit_cache
from teachonce.core import arguments, errors, files, output_files, storage, terminal

_REPORT = output_files.FileKind("an earlier audit", ("findings", "count", "stores"))


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the paths, audit, write the report, print the summary."""
    parser = arguments.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--cache", type=storage.parse_location, required=True, help="folder of the two stores, or its URL"
    )
    parser.add_argument("--shards", type=storage.parse_location, required=True, help="folder of shards, or its URL")
    parser.add_argument("--teacher", type=Path, help="the teacher's folder; without it no row is recomputed")
    parser.add_argument("--no-teacher", dest="teacher", action="store_const", const=None, help="as if none were named")
    parser.add_argument("--rows", type=int, default=256, help="views of each store that the teacher is asked again")
    parser.add_argument("--seed", type=int, default=0, help="which views")
    parser.add_argument("--out", type=Path, required=True, help="folder of the figure")
    parser.add_argument("--report", type=Path, required=True, help="JSON of the findings")
    args = parser.parse_args(argv)
    if args.rows < 1:
        parser.error("--rows must be at least 1")
    output_files.require_overwritable(args, {"report": _REPORT}, folders=("out",))
    paths = audit_cache.AuditPaths(cache=args.cache, shards=args.shards, teacher=args.teacher)
    outcome = audit_cache.audit(paths, out=args.out, rows=args.rows, seed=args.seed)
    files.write_json(args.report, outcome.report())
    terminal.write_line(outcome.text())
    if outcome.findings:
        raise errors.AuditError(args.cache, f"has {len(outcome.findings)} findings", f"Read them: {args.report}")
