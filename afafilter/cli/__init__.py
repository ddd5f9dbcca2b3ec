"""The command `afafilter`: `interface` declares its subcommands, one module each does the work."""

from __future__ import annotations

from afafilter.cli.interface import main

__all__ = ["main"]
