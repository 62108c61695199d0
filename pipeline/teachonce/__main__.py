"""`python -m teachonce`: the command `teachonce`."""

from teachonce import cli

if __name__ == "__main__":
    cli.entry_point()
