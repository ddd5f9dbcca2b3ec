"""The command `afafilter`: two modules declare its subcommands, one module each does the work.

Bad input ends with exit status 2 and one line on stderr, a task that failed with 1. Results are
written whole or not at all, and never over a file that exists without --force.
"""

from __future__ import annotations

from afafilter.cli import data_commands, study_commands
from afafilter.cli.group import main

__all__ = ["data_commands", "main", "study_commands"]
