"""What will it cost? `python -m stages.estimate`: hours and bytes of a whole run here, from a short measurement."""

from teachonce.core import command
from teachonce.tools.estimate import estimate_command

if __name__ == "__main__":
    command.run(estimate_command.main)
