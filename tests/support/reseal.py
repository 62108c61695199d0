"""JSON that carries its own digest, changed and given a digest again, as a forger would."""

import json
from collections.abc import Collection
from pathlib import Path

from teachonce.core import sealed_files


def change(path: Path, *, drop: Collection[str] = (), **values: object) -> None:
    data = json.loads(path.read_text())
    sealed_files.write_with_digest(
        path, {name: value for name, value in {**data, **values}.items() if name not in {sealed_files.DIGEST, *drop}}
    )
