"""prepare: images into WebDataset tars with an index, or an index over tars that exist."""

from teachonce.core import command
from teachonce.prepare import prepare_command

if __name__ == "__main__":
    command.run_stage(prepare_command.main)
