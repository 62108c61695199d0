"""What the JSON beside the images of a tar says of their labels; only names are taken from it."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

from teachonce.core import errors

_NAME_KEYS = ("class_name", "label_name", "category_name", "class", "category", "label", "name")
_LABEL_KEYS = ("label", "cls", "class", "class_id", "label_id", "category", "category_id", *_NAME_KEYS)
_MOST_BYTES = 1 << 20
_MOST_MEMBERS = 100_000


def class_names(tar: Path, count: int) -> list[str] | None:
    """Names of the classes 0 to count − 1, where the JSON of a tar gives each label one name, and all of them."""
    name_by_label: dict[int, str] = {}
    for members in _samples(tar):
        label, name = members.get("cls", b"").strip(), _text(members.get("json", b""))
        if label.isdigit() and name is not None and name_by_label.setdefault(int(label[:9]), name) != name:
            return None
    names = [name_by_label.get(label) for label in range(count)]
    if any(name is None for name in names) or len(set(names)) < count:
        return None
    return [str(name) for name in names]


def refuse_alone(tar: Path) -> None:
    """Refuse a tar without `.cls` whose labels are in JSON.

    Raises:
        DataError: it is one.
    """
    for members in _samples(tar):
        data = _object(members.get("json", b""))
        key = next((key for key in _LABEL_KEYS if key in data), None)
        if key is not None and "cls" not in members:
            cure = f"Write the tars again with the number of the class, from 0, in a .cls beside each image ({key})"
            raise errors.DataError(tar, f"has its labels in .json ({key}) alone, where they are not read", cure)


def _samples(tar: Path) -> Iterator[dict[str, bytes]]:
    """The `cls` and `json` of each sample of a tar that has one of them."""
    with tarfile.open(tar) as archive:
        stem, members = "", dict[str, bytes]()
        for _, member in zip(range(_MOST_MEMBERS), archive, strict=False):
            name, _, ending = member.name.rpartition(".")
            if not member.isfile() or member.size > _MOST_BYTES or ending.lower() not in ("cls", "json"):
                continue
            if name != stem and members:
                yield members
                members = {}
            stem = name
            stream = archive.extractfile(member)
            members[ending.lower()] = stream.read() if stream else b""
        if members:
            yield members


def _object(text: bytes) -> dict[str, object]:
    try:
        data = json.loads(text or b"{}")
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _text(text: bytes) -> str | None:
    data = _object(text)
    return next((value for key in _NAME_KEYS if isinstance(value := data.get(key), str) and value), None)
