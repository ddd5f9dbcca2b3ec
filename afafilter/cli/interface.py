"""The command `afafilter` with all its subcommands.

Bad input ends with exit status 2 and one line on stderr, a task that failed with 1. Results are
written whole or not at all, and never over a file that exists without --force.
"""

from __future__ import annotations

from afafilter.cli import data_commands, study_commands
from afafilter.cli.group import main

COMMANDS = (data_commands, study_commands)
"""Modules that add their subcommands to `main` when they are imported."""

__all__ = ["COMMANDS", "main"]
