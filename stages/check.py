"""Stage `check`: params.yaml and all that it names, read whole and against each other, before anything runs."""

from teachonce.check import check_command
from teachonce.core import command

if __name__ == "__main__":
    command.run_stage(check_command.main)
