"""The command's frame: its options before the subcommands, and how subcommands report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from afafilter._version import __version__
from afafilter.cli.errors import FAILED, OneLineErrors, short_warnings

AT_ONCE: dict[str, Any] = {"is_flag": True, "expose_value": False, "is_eager": True}


def _version(ctx: click.Context, param: click.Parameter, asked: bool) -> None:
    if asked:
        from afafilter._core import core_info

        core = ", ".join(f"{key} {value}" for key, value in core_info().items())
        click.echo(f"afafilter, version {__version__} (core: {core})")
        ctx.exit()


def _cite(ctx: click.Context, param: click.Parameter, asked: bool) -> None:
    if asked:
        from afafilter.cli.citation import citation

        click.echo(citation())
        ctx.exit()


@click.group(
    cls=OneLineErrors,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "show_default": True,
    },
)
@click.option(
    "--version",
    callback=_version,
    **AT_ONCE,
    help="Show the version, the core's level and compiler, and exit.",
)
@click.option(
    "--cite",
    callback=_cite,
    **AT_ONCE,
    help="Show how to cite the program and the paper (BibTeX), and exit.",
)
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
@click.pass_context
def main(ctx: click.Context, debug: bool) -> None:
    """Adaptive Filter Attention beside the Kalman filter: simulate, estimate, compare, draw.

    Every command writes its resolved configuration, versions and seed beside its result.
    Completion of words: afafilter completion --help.
    """
    ctx.with_resource(short_warnings())


def stem(data: Path) -> str:
    """The name of a file without its suffixes: data.csv.gz -> data."""
    packed = data.suffix.lower() in (".gz", ".bz2", ".xz")
    return Path(data.stem).stem if packed else data.stem


def carry_out(
    command: Callable[..., Iterator[str]], data: Path | None, usual: str, options: dict[str, Any]
) -> None:
    """Run what is behind a subcommand on its options; `usual` is what it writes without -o.

    Exit with status 1 where it returns that something failed.
    """
    from afafilter.cli.reading import Task, taken

    may_print, form = "form" in options, options.pop("form", None)
    target = options.pop("output") or Path(usual)
    if form is not None and str(target) != "-":
        raise click.UsageError("--format is for stdout (-o -); a file is written by its suffix")
    reading = taken(data or Path("-"), options)
    task = Task(data, reading, target, options.pop("force"), form and f".{form}", options)
    if say(command(task), err=may_print and str(target) == "-"):
        raise click.exceptions.Exit(FAILED)


def say(lines: Iterator[str], err: bool = False) -> Any:
    """Print what a command reports as it goes; returns what the command returns."""
    while True:
        try:
            click.echo(next(lines), err=err)
        except StopIteration as end:
            return end.value
