"""Where text leaves: whatever is written to stdout or stderr reaches a terminal printable, in letters that it has.

Names of files, classes, keys and versions are anyone's, and a terminal obeys what it is sent: an escape rewrites what
stands above, a mark of direction turns what follows. So the streams themselves clean, whoever writes to them: a stage,
argparse, a logger, a warning, the traceback of a bug. Line ends alone pass. Progress bars, which move the cursor, have
a way of their own and carry no text of others.

stdout is the result, and a run ends where nobody takes it. stderr tells how a run fares, and ends none: once it cannot
be written to, what goes there is dropped.
"""

import codecs
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

_UNPRINTABLE = "\N{REPLACEMENT CHARACTER}"
_CLOSED_PIPE = 128 + 13  # as a shell tells of a process that SIGPIPE ended

# What the project itself prints, in ASCII; the lines of tables among it.
_ASCII = {
    "α": "alpha",
    "τ": "tau",
    "±": "+-",
    "×": "x",
    "·": ".",
    "…": "...",
    "–": "-",
    "−": "-",
    "→": "->",
    "≤": "<=",
    "─": "-",
    "━": "-",
    "│": "|",
    "’": "'",
    "“": '"',
    "”": '"',
}


def printable(text: str) -> str:
    """The text as a part of one line: controls, line ends, marks of direction and the like replaced."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else _UNPRINTABLE for letter in text)


def printable_lines(text: str) -> str:
    """The text with its line ends, and everything else printable."""
    return "\n".join(map(printable, text.split("\n")))


def write_line(text: str, stream: TextIO | None = None) -> None:
    """Write a line, on stdout unless told otherwise."""
    stream = stream or sys.stdout
    # A process may have none.
    if stream is not None:
        stream.write(f"{printable_lines(text)}\n")


def sanitize_streams() -> None:
    """From here on this process's stdout and stderr clean what is written to them, and replace what they cannot encode.

    And stderr raises no error of the system any more. To be called in each process that may write of data. In place:
    loggers keep the streams that they were given.
    """
    codecs.register_error("teachonce", _in_ascii)
    for stream in _streams():
        # Registered above: what an ASCII terminal lacks is spelt out, where Python would raise in the middle of a line.
        stream.reconfigure(errors="teachonce")
        cleaning = _NeverFailing(stream) if stream is sys.stderr else _Cleaning(stream)
        stream.write = cleaning.write  # type: ignore[method-assign]
        stream.flush = cleaning.flush  # type: ignore[method-assign]


class _Cleaning:
    """What stands in for a stream's `write` and `flush`."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        # The class's method: the stream's own name for it is this one.
        type(self._stream).write(self._stream, printable_lines(text))
        return len(text)

    def flush(self) -> None:
        type(self._stream).flush(self._stream)


class _NeverFailing(_Cleaning):
    """The same, of a stream that ends no run."""

    def write(self, text: str) -> int:
        with _ignoring_errors(self._stream):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with _ignoring_errors(self._stream):
            super().flush()


@contextmanager
def _ignoring_errors(stream: TextIO) -> Iterator[None]:
    """Write; where that fails, what the stream holds and what comes later goes nowhere."""
    try:
        yield
    except BlockingIOError:
        # It is read, too slowly for once.
        pass
    except OSError:
        _discard(stream)


class BarStream:
    """stderr as a progress bar needs it: what moves the cursor passes."""

    def write(self, text: str) -> int:
        """Write to stderr past what cleans it; where that fails, drop the text."""
        with _ignoring_errors(sys.stderr):
            type(sys.stderr).write(sys.stderr, text)
        return len(text)

    def __getattr__(self, name: str) -> object:
        """Everything else is stderr's."""
        return getattr(sys.stderr, name)


@contextmanager
def handle_closed_pipe() -> Iterator[None]:
    """`sanitize_streams`, and a quiet end where nobody reads on: `… | head` closes the pipe behind it.

    Raises:
        SystemExit: with the exit code of a process that SIGPIPE ended.
    """
    sanitize_streams()
    try:
        yield
    except BrokenPipeError:
        # A broken pipe to a child or a socket is a bug, and keeps its traceback.
        if not any(map(_is_unread, _streams())):
            raise
        _deliver()
        sys.exit(_CLOSED_PIPE)
    except BaseException:
        _deliver()
        raise
    if not _deliver():
        sys.exit(_CLOSED_PIPE)


def _streams() -> list[io.TextIOWrapper]:
    return [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, io.TextIOWrapper)]


def _is_unread(stream: io.TextIOWrapper) -> bool:
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _deliver() -> bool:
    """Write out what is buffered; False where nobody takes it, which Python would report once more at its end."""
    delivered = True
    for stream in _streams():
        try:
            stream.flush()
        except OSError:
            delivered = False
            _discard(stream)
    return delivered


def _discard(stream: TextIO) -> None:
    with suppress(OSError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - no path of data
        # The descriptor itself leads nowhere from here on: what is buffered, and what Python flushes at its end, fails
        # no more.
        os.dup2(nowhere.fileno(), stream.fileno())


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_ASCII.get(letter, "?") for letter in error.object[error.start : error.end]), error.end
