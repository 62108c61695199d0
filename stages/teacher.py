"""Stage `teacher`: get a CNN with weights, trained here, from a file or from timm."""

from teachonce.core import command
from teachonce.teacher import teacher_command

if __name__ == "__main__":
    command.run_stage(teacher_command.main)
