"""Stage `report`: one page and one table of all students; `--show` prints an earlier report's table again."""

from teachonce.core import command
from teachonce.report import report_command

if __name__ == "__main__":
    command.run_stage(report_command.main)
