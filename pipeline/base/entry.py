"""How a stage ends: quietly, in one clear line, or with the traceback of a bug."""

import sys
from collections.abc import Callable

from pipeline.base import errors, files


def run(main: Callable[[], None]) -> None:
    """Call a stage's main; a refusal becomes one line on stderr and exit code 1, Ctrl-C exit code 130."""
    try:
        with files.full_disk():
            main()
    except errors.TeachonceError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: run the same command again to go on from here\n")
        sys.exit(130)
