"""Command `report`: one page and one table of all students; `--show` prints an earlier report's table again."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from teachonce.core import files, output_files, terminal
from teachonce.report import load_metrics, report_table, write_report

_NEEDED = ("params", "metrics", "shards", "cache", "predictions", "out", "summary")
_SUMMARY = output_files.FileKind("an earlier report", ("order", "groups", "disagreement"))


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the paths, make the page, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, help="params.yaml")
    parser.add_argument("--metrics", type=Path, help="folder of the metrics of all stages")
    parser.add_argument("--shards", type=Path, help="folder of shards")
    parser.add_argument("--cache", type=Path, help="folder of the two stores")
    parser.add_argument("--predictions", type=Path, help="folder of the students' predictions")
    parser.add_argument("--out", type=Path, help="folder of the page")
    parser.add_argument("--summary", type=Path, help="JSON of the table's numbers")
    parser.add_argument("--show", type=Path, help="print the table of this JSON; with --metrics, the costs too")
    parser.add_argument("--markdown", action="store_true", help="print tables as Markdown")
    args = parser.parse_args(argv)
    if args.show is not None:
        numbers, costs = write_report.read_earlier(args.show, args.metrics)
        terminal.write_line(report_table.format_summary(numbers, costs, markdown=args.markdown).removesuffix("\n"))
        return
    missing = [f"--{name}" for name in _NEEDED if getattr(args, name) is None]
    if missing:
        parser.error(f"needed, unless --show is given: {', '.join(missing)}")
    parts = {"metrics": load_metrics.PARTS}
    output_files.require_overwritable(args, {"summary": _SUMMARY}, folders=("out",), parts=parts)
    paths = {name: getattr(args, name) for name in _NEEDED if name != "summary"}
    numbers, costs = write_report.build_page(write_report.ReportPaths(**paths))
    files.write_json(args.summary, numbers.model_dump(mode="json", exclude_none=True))
    terminal.write_line(report_table.format_summary(numbers, costs, markdown=args.markdown))
    terminal.write_line(f"Page: {args.out / write_report.PAGE}")
