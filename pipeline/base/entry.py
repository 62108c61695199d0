"""How a stage ends: quietly, in one clear line, or with the traceback of a bug."""

import sys
from collections.abc import Callable

from pipeline.base import errors, files, memory


def run(main: Callable[[], None]) -> None:
    """Call a stage's main; a refusal becomes one line on stderr and exit code 1, Ctrl-C exit code 130.

    A run that was asked to end and can go on: exit code 75, which sysexits.h calls a temporary failure.
    """
    memory.keep()
    try:
        with files.full_disk():
            main()
    except errors.TeachonceError as error:
        # A received cache's texts are anyone's, and a terminal obeys what it prints.
        text = "".join(letter if letter.isprintable() or letter == "\n" else "�" for letter in str(error))
        sys.stderr.write(f"{'stopped' if isinstance(error, errors.StoppedError) else 'error'}: {text}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: run the same command again to go on from here\n")
        sys.exit(130)
