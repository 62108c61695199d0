"""What the system says where nothing can be written, as one line that names the cure."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from teachonce.core import errors

_AGAIN = "run the same command again: what was finished is kept"
_ALLOW = f"Allow it (ls -ld tells who may), or name another place, and {_AGAIN}"
_IN_THE_WAY = f"Something else stands in its place: remove that, or name another place, and {_AGAIN}"
_CURES = {
    errno.ENOSPC: f"Make room and {_AGAIN}",
    errno.EDQUOT: f"Make room and {_AGAIN}",
    errno.EFBIG: f"Raise the limit of a file's size (ulimit -f), or choose another disk, and {_AGAIN}",
    errno.EACCES: _ALLOW,
    errno.EPERM: _ALLOW,
    errno.EROFS: f"Its disk is mounted to be read only: name another place, and {_AGAIN}",
    **dict.fromkeys((errno.EEXIST, errno.EISDIR, errno.ENOTDIR), _IN_THE_WAY),
    errno.ELOOP: f"Its links lead round in a circle: name another place, and {_AGAIN}",
    errno.ENAMETOOLONG: f"Use shorter names, and {_AGAIN}",
    errno.EMFILE: f"Raise the limit of open files (ulimit -n), and {_AGAIN}",
    errno.ENFILE: f"End other processes, which have too many files open, and {_AGAIN}",
    errno.EIO: f"See what ails the disk (dmesg), and {_AGAIN}",
}
_WRITING_CODES = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Codes of a write, which name no file; any other code must name one, or it is not of a file of ours."""


@contextmanager
def explain_write_errors(where: object = "a disk") -> Iterator[None]:
    """Turn what the system says where there is no room, or no right, to write into one line.

    Args:
        where: what is written to, for the message; the system does not always tell.

    Raises:
        DiskError: the disk is full or read-only, a quota or another limit is used up, or a file may not be opened.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _CURES or not (error.filename or error.errno in _WRITING_CODES):
            raise
        verb = "written" if error.errno in _WRITING_CODES else "opened or written"
        raise errors.DiskError(
            error.filename or where, f"cannot be {verb} ({error.strerror})", _CURES[error.errno]
        ) from error
