"""Command `report`: a page of all students; `--show` prints the tables of a report that is there."""

from collections.abc import Sequence
from pathlib import Path

from teachonce.core import arguments, files, output_files, terminal
from teachonce.report import dvc_metrics, dvc_plots, report_table, write_report

_NEEDED = ("params", "records", "costs", "curves", "shards", "cache", "predictions", "out", "metrics", "plots")
_METRICS = output_files.FileKind("earlier metrics of a report", ("images", "cache.views", "cache.largest_tv_mean"))


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the paths, make the page, say the result; or print the tables."""
    parser = arguments.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, help="params.yaml")
    parser.add_argument("--records", type=Path, help="folder of what the stages say of their results")
    parser.add_argument("--costs", type=Path, help="folder of what the stages cost")
    parser.add_argument("--curves", type=Path, help="folder of the students' training curves")
    parser.add_argument("--shards", type=Path, help="folder of shards")
    parser.add_argument("--cache", type=Path, help="folder of the two stores")
    parser.add_argument("--predictions", type=Path, help="folder of the students' predictions")
    parser.add_argument("--out", type=Path, help="folder of the page and of summary.json, the table's numbers")
    parser.add_argument("--metrics", type=Path, help="JSON of the few numbers that DVC shows")
    parser.add_argument("--plots", type=Path, help="folder of what DVC's plots are drawn from")
    parser.add_argument("--show", type=Path, help="print the tables of this summary.json; with --costs, the costs too")
    parser.add_argument("--markdown", action="store_true", help="print tables as Markdown")
    args = parser.parse_args(argv)
    # Needs neither shards nor cache: a clone that fetched the report alone can print its table.
    if args.show is not None:
        numbers, costs = write_report.read_earlier(args.show, args.costs)
        terminal.write_line(report_table.format_summary(numbers, costs, markdown=args.markdown).removesuffix("\n"))
        return
    missing = [f"--{name}" for name in _NEEDED if getattr(args, name) is None]
    if missing:
        parser.error(f"needed, unless --show is given: {', '.join(missing)}")
    output_files.require_overwritable(args, {"metrics": _METRICS}, folders=("out", "plots"))
    paths = write_report.ReportPaths(**{name: getattr(args, name) for name in _NEEDED[:-2]})
    dvc_plots.plots_output(paths, args.plots).require_replaceable()
    numbers, _ = write_report.build_page(paths)
    dvc_plots.write_plots(paths, args.plots)
    files.write_json(args.metrics, dvc_metrics.headline(numbers))
    # Not the tables: `--show` prints them, and whoever calls both would read them twice.
    terminal.write_line(report_table.format_headline(numbers))
    terminal.write_line(f"Table: teachonce report --show {args.out / write_report.SUMMARY} --costs {args.costs}")
    terminal.write_line(f"Page: {args.out / write_report.PAGE}")
