"""Files that nobody vouches for but a digest: what is decoded is the very bytes that were hashed.

A JSON file carries its own digest, so that whatever is changed in it shows; a file of tensors is known by a sha256.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from teachonce.core import errors, files, hashing

DIGEST = "digest"
"""Key in a JSON file: `hashing.json_digest` of all its other keys."""
_MAX_JSON_BYTES = 1 << 24
_MAX_BYTES = 1 << 34  # of a file of tensors


@dataclass(frozen=True, slots=True)
class Refusal:
    """How files of one kind are refused: by which error, and with what cure."""

    error: type[errors.TeachonceError]
    """Class of the error that is raised."""
    cure: str
    """What its line ends with: how to get a sound file."""

    def unreadable(self, path: Path, error: OSError | ValueError) -> errors.TeachonceError:
        """The error for a file that cannot be read, for the system's reason or its own."""
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error).partition("\n")[0]
        return self.error(path, f"cannot be read ({reason})", self.cure)

    def mismatch(self, path: Path, key: str, condition: str, value: object) -> errors.TeachonceError:
        """The error for a file that is sound by itself, but not the one it should be.

        Args:
            path: the file.
            key: what of it differs.
            condition: what that must be.
            value: what it is.
        """
        return self.error.for_value(path, key, condition, value, self.cure)


def read_verified(path: Path, sha256: str, wanted: str, refusal: Refusal, key: str = "sha256") -> bytes:
    """The bytes of a file whose sha256 is known.

    Args:
        path: the file.
        sha256: of its bytes, as 64 hex digits.
        wanted: whose sha256 that is, in words that the message puts in front of it.
        refusal: how it is refused.
        key: what the message calls it.

    Raises:
        TeachonceError: it is missing, no regular file, or has other bytes.
    """
    try:
        data, digest = read_and_hash(path, sha256)
    except (OSError, ValueError) as error:
        raise refusal.unreadable(path, error) from error
    if digest != sha256:
        raise refusal.mismatch(path, key, f"{wanted}{sha256}", digest)
    return data


def read_and_hash(path: Path, sha256: str) -> tuple[bytes, str]:
    """A file's bytes and their sha256; of a file with another sha256 that alone, which takes no memory.

    Raises:
        OSError: it is missing, or no regular file.
        ValueError: it is longer than any file of tensors.
    """
    with files.open_regular(path) as stream:
        size = files.require_length(stream, _MAX_BYTES)
        # Hashed before a byte is held, and before anything decodes it: a file of another's making costs no memory, and
        # reaches no parser.
        if (digest := _sha256(stream)) != sha256:
            return b"", digest
        stream.seek(0)
        data = stream.read(size)
    # Hashed once more, as what is decoded: the file may have been changed between the two readings.
    return data, hashing.sha256(data)


def _sha256(stream: BinaryIO) -> str:
    hasher = hashlib.sha256()
    while part := stream.read(1 << 20):
        hasher.update(part)
    return hasher.hexdigest()


def require_sha256(path: Path, sha256: str, wanted: str, refusal: Refusal, most_bytes: int) -> None:
    """Compare a file with its sha256, without holding its bytes.

    Args:
        path: the file.
        sha256: of its bytes, as 64 hex digits.
        wanted: as in `read_verified`.
        refusal: how it is refused.
        most_bytes: how many bytes it may have.

    Raises:
        TeachonceError: it is missing, no regular file, longer than it may be, or has other bytes.
    """
    try:
        with files.open_regular(path) as stream:
            files.require_length(stream, most_bytes)
            digest = _sha256(stream)
    except (OSError, ValueError) as error:
        raise refusal.unreadable(path, error) from error
    if digest != sha256:
        raise refusal.mismatch(path, "sha256", f"{wanted}{sha256}", digest)


def write_with_digest(path: Path, data: Mapping[str, object]) -> None:
    """Write plain data with its own digest."""
    files.write_json(path, {**data, DIGEST: hashing.json_digest(dict(data))})


def read_with_digest(path: Path, refusal: Refusal, most_bytes: int = _MAX_JSON_BYTES) -> dict[str, object]:
    """The plain data of a file that `write_with_digest` wrote, without the digest.

    Args:
        path: the file.
        refusal: how it is refused.
        most_bytes: how many bytes it may have.

    Raises:
        TeachonceError: it is missing, no such JSON, or was changed.
    """
    try:
        data = files.read_json(path, most_bytes)
        if not isinstance(data, dict) or DIGEST not in data:
            raise refusal.error(path, f"{DIGEST} is missing", refusal.cure)
        # The digest covers all other keys; of the parsed data, not of the text, so that layout does not matter.
        recorded = data.pop(DIGEST)
        digest = hashing.json_digest(data)
    except RecursionError as error:
        raise refusal.unreadable(path, ValueError("is nested too deeply")) from error
    except (OSError, ValueError) as error:
        raise refusal.unreadable(path, error) from error
    if recorded != digest:
        raise refusal.mismatch(path, DIGEST, f"that of what it holds, {digest}", f"{recorded!r:.100}")
    return data
