"""Write docs/configuration.md and docs/schema/*.json from the classes that read the configurations: `make docs`."""

import json
from collections.abc import Sequence
from pathlib import Path

from teachonce.core import arguments, files
from teachonce.tools.reference import config_reference, config_schemas


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page and the schemas."""
    parser = arguments.ArgumentParser(prog="reference", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the page and of schema/")
    args = parser.parse_args(argv)
    for name, text in reference_files().items():
        files.write_bytes(args.out / name, text.encode())


def reference_files() -> dict[str, str]:
    """Texts of the page and of the schemas, by their names below docs."""
    schemas = config_schemas.build_schemas()
    texts = {f"schema/{name}.json": f"{json.dumps(schema, indent=1)}\n" for name, schema in schemas.items()}
    return {"configuration.md": config_reference.format_reference(schemas), **texts}


if __name__ == "__main__":
    main()
