"""Stage `cache`: run the teacher once and keep its answers, for the training views and for the validation images."""

from teachonce.cache import cache_command
from teachonce.core import command

if __name__ == "__main__":
    command.run_stage(cache_command.main)
