"""What is in this cache? `python -m stages.inspect CACHE`: identity, size, fidelity, and the taus it carries."""

from teachonce.core import command
from teachonce.tools.inspect import inspect_command

if __name__ == "__main__":
    command.run(inspect_command.main)
