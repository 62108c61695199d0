"""The basis of a transform tail where units are packed: in any process, on any machine, the one that the tail names."""

import functools
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load

from teachonce.core import errors, files
from teachonce.format import basis, schema

_MOST_BYTES = 4 * (schema.MAX_BASIS + 2 * schema.MAX_CLASSES) + (1 << 16)


@functools.lru_cache(maxsize=1)
def read(path: Path, tail: schema.TransformTail) -> basis.Basis:
    """The basis that a tail names, wherever this process finds it.

    Raises:
        CacheError: the file has changed since it was read for the tail.
    """
    cure = "Run the same command again"
    # The driver verified the file, but a worker reads it later, perhaps on another machine. What it has read must still
    # be the basis that the recipe names: rows coded on another one would decode to wrong logits.
    try:
        fitted = basis.from_arrays(load(files.read_bytes(path, _MOST_BYTES)))
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise errors.CacheError(path, f"cannot be read ({' '.join(str(error).split())})", cure) from error
    if (sha256 := fitted.sha256(tail.step)) != tail.basis_sha256:
        raise errors.CacheError.for_value(path, "sha256 of the basis", tail.basis_sha256, sha256, cure)
    return fitted
