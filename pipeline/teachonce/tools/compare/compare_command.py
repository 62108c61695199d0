"""Compare students across DVC's experiments, branches and the working folder: `teachonce compare [REV…]`."""

import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from teachonce.core import arguments, errors, progress, terminal
from teachonce.tools.compare import (
    compared_students,
    comparison,
    comparison_page,
    comparison_table,
    revisions,
    snapshot,
)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the revisions, print the table, write the page."""
    parser = arguments.ArgumentParser(description=__doc__)
    parser.add_argument(
        "revisions",
        nargs="*",
        metavar="REV",
        help="an experiment, a branch, a tag, a commit, or workspace; all experiments where none is given",
    )
    parser.add_argument("--records", type=PurePosixPath, required=True, help="folder of what the stages say")
    parser.add_argument("--costs", type=PurePosixPath, required=True, help="folder of what the stages cost")
    parser.add_argument("--curves", type=PurePosixPath, required=True, help="folder of the students' training curves")
    parser.add_argument("--predictions", type=PurePosixPath, required=True, help="folder of the students' predictions")
    parser.add_argument("--out", type=Path, required=True, help="folder of the page and of comparison.json")
    args = parser.parse_args(argv)
    paths = snapshot.ResultPaths(args.records, args.costs, args.curves, args.predictions)
    out = comparison_page.page_output(args.out)
    out.require_replaceable()
    collection = _collect(args.revisions, paths)
    result = comparison.compare(collection.students, collection.notes)
    comparison_page.write_page(out, result, collection.students)
    terminal.write_line(comparison_table.format_comparison(result))
    terminal.write_line(f"Page: {args.out / comparison_page.PAGE}")


def _collect(names: Sequence[str], paths: snapshot.ResultPaths) -> compared_students.Collection:
    collection = compared_students.Collection()
    with revisions.open_repository() as repository:
        chosen = list(revisions.select(repository, names))
        for revision in progress.bar(chosen, label="compare", total=len(chosen), unit="revision"):
            with tempfile.TemporaryDirectory() as scratch:
                try:
                    collection.add(snapshot.take(repository, revision, paths, Path(scratch)), paths)
                except errors.TeachonceError as error:
                    # One of many that cannot be read, as of a time before the project: the others are shown.
                    collection.notes.append(f"{revision.name}: {Path(error.where).name} {error.what}")
        waiting = {} if names else repository.waiting_runs()
    if waiting:
        counts = ", ".join(f"{count} {state}" for state, count in waiting.items())
        collection.notes.append(f"Runs without a result: {counts}. Look: dvc queue status")
    return collection


if __name__ == "__main__":
    main()
