"""Command `prune`: remove finished units that no run has use for from the scratch folder, and say how much it freed."""

from teachonce.cache import prune_command
from teachonce.core import command

if __name__ == "__main__":
    command.run(prune_command.main)
