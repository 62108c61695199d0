"""Stage `audit`: may this cache be trusted? Every object, row, tar, canary; with a teacher, some rows again."""

from teachonce.audit import audit_command
from teachonce.core import command

if __name__ == "__main__":
    command.run_stage(audit_command.main)
