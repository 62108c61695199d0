"""Command `check`: params.yaml and all that it names, read whole and against each other, before anything runs."""

import sys
from collections.abc import Sequence
from pathlib import Path

from teachonce.check import check_settings, dvc_lock, required_files
from teachonce.core import arguments, errors, files, output_files, project_params, storage, terminal

_DONE = b"What params.yaml names was read whole, and fits together.\n"
_KIND = output_files.FileKind("what an earlier check left", text=_DONE)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the paths, check, and write a file that holds the same bytes for all settings."""
    parser = arguments.ArgumentParser(description=__doc__)
    project_params.add_arguments(parser)
    parser.add_argument("--shards", type=Path, default=Path("artifacts/shards"), help="folder of shards")
    parser.add_argument("--counted", action="store_true", help="they are made: check what hangs on how many there are")
    parser.add_argument("--students", type=Path, default=Path("artifacts/students"), help="folder of the students")
    parser.add_argument("--scratch", type=storage.scratch_folder, default=".teachonce", help="folder of finished units")
    parser.add_argument("--lock", type=Path, default=Path("dvc.lock"), help="what DVC knows to have run")
    parser.add_argument("--out", type=Path, help="file that is written where all is well")
    args = parser.parse_args(argv)
    output_files.require_overwritable(args, {"out": _KIND})
    results = required_files.ArtifactPaths(args.shards, args.students, args.scratch, dvc_lock.LastRuns(args.lock))
    findings = check_settings.collect_findings(
        project_params.from_arguments(args), results, args.scratch / "check", counted=args.counted
    )
    for warning in findings.warnings:
        terminal.write_line(f"warning: {warning.line()}", sys.stderr)
    if findings.problems:
        *others, last = findings.problems
        for problem in others:
            terminal.write_line(f"error: {problem.line()}", sys.stderr)
        # Without its count of others, each of which has a line here.
        raise errors.ConfigError(last.where, last.what, last.cure)
    if args.out:
        # Every stage depends on this file: of the same bytes for all settings, it makes none of them run again.
        files.write_bytes(args.out, _DONE)
    else:
        terminal.write_line(f"{args.params}: nothing to correct")
