"""Tables as text: the same in a terminal, a pipe and a file."""

import io

from rich.console import Console
from rich.table import Table


def format_table(table: Table, width: int) -> str:
    """A table as lines without trailing spaces, cells of more than `width` characters a line wrapped."""
    stream = io.StringIO()
    # Of a given width, since that of the terminal would cut columns away; and without markup, since names of classes
    # and students are anyone's, and may look like it.
    console = Console(file=stream, width=width, color_system=None, legacy_windows=False, markup=False, emoji=False)
    console.print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())
