"""Subcommands whose help ends with the TOML format that they read."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import click


class ShowsFormat(click.Command):
    """A subcommand that reads a TOML file.

    Parameters
    ----------
    shows : str
        Module whose docstring describes the format; loaded when the help is asked for.
    """

    def __init__(self, *args: Any, shows: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.shows = shows

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the format below the options, as it stands: lines are not filled."""
        text = inspect.getdoc(importlib.import_module(self.shows)) or ""
        title, _, body = text.partition("\n")
        with formatter.section(title.rstrip(".")):
            for line in body.replace("::\n", "", 1).strip("\n").splitlines():
                formatter.write(f"  {line}".rstrip() + "\n")
