"""Stage `evaluate`: a student's heads on the validation images, beside the teacher's cached answers."""

from teachonce.core import command
from teachonce.evaluate import evaluate_command

if __name__ == "__main__":
    command.run_stage(evaluate_command.main)
