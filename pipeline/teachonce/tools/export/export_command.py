"""Command `export`: hand over a student as a folder for timm, a hub and ONNX Runtime, with a model card."""

from collections.abc import Sequence
from pathlib import Path

from teachonce.core import arguments, storage, terminal
from teachonce.tools.export import export_student


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the paths, export, print one line."""
    parser = arguments.ArgumentParser(description=__doc__)
    parser.add_argument("--student", required=True, help="its name: the title of the card")
    parser.add_argument("--weights", type=Path, required=True, help="the student's folder: artifacts/students/NAME")
    parser.add_argument("--shards", type=storage.parse_location, required=True, help="folder of shards, or its URL")
    parser.add_argument(
        "--cache", type=storage.parse_location, required=True, help="store of the validation split, or its URL"
    )
    parser.add_argument(
        "--metrics", type=Path, required=True, help="its accuracy: artifacts/records/evaluate/NAME.json"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write, new or an earlier export")
    args = parser.parse_args(argv)
    paths = {name: getattr(args, name) for name in ("weights", "shards", "cache", "metrics", "out")}
    check = export_student.export(args.student, export_student.ExportPaths(**paths))
    terminal.write_line(
        f"{args.out}: ONNX differs from torch by {check.difference:.1e} on {check.images} validation images"
    )
