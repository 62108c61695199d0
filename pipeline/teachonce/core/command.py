"""How a stage begins and ends: paths in UTF-8; quietly, in one clear line, or with the traceback of a bug."""

import os
import sys
from collections.abc import Callable

from teachonce.core import allocator, disk_errors, errors, terminal


def run_stage(main: Callable[[], None]) -> None:
    """Call a stage's main; a refusal becomes one line on stderr and exit code 1, Ctrl-C exit code 130.

    A run that was asked to end and can go on: exit code 75, which sysexits.h calls a temporary failure. A reader of the
    output that went away: 141, as for any tool of Unix.
    """
    _require_utf8()
    # Before main, which starts threads: a thread's own arena is not taken back by a later setting.
    allocator.keep_freed_memory()
    with terminal.handle_closed_pipe():
        try:
            with disk_errors.explain_write_errors("the output"):
                main()
                # Here, not at the interpreter's end: a full disk and a closed pipe must still become one line.
                if sys.stdout is not None:
                    sys.stdout.flush()
        except errors.TeachonceError as error:
            kind = "stopped" if isinstance(error, errors.StoppedError) else "error"
            # One line, whatever a name in it holds; but of a list, which gives each unit its own.
            text = str(error) if isinstance(error, errors.UnitsError) else terminal.printable(str(error))
            terminal.write_line(f"{kind}: {text}", sys.stderr)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            terminal.write_line("interrupted: run the same command again to go on from here", sys.stderr)
            sys.exit(130)


def _require_utf8() -> None:
    """Begin again in Python's UTF-8 mode where the locale would read the names of files otherwise.

    Keys are names of files, and decide what a view looks like: the same files must have the same keys everywhere.
    """
    if sys.getfilesystemencoding() == "utf-8":
        return
    terminal_encoding = sys.stdout.encoding if sys.stdout is not None else "ascii"
    environment = {"PYTHONIOENCODING": terminal_encoding, **os.environ, "PYTHONUTF8": "1"}
    # The option, too: an interpreter told to ignore the environment would begin again for ever.
    os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], environment)  # noqa: S606 - no shell
