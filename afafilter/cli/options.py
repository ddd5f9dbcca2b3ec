"""Options that several commands share; nothing but click is imported: help comes at once."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence, Set
from functools import reduce
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

FILE = click.Path(path_type=Path)
ESTIMATORS = (
    *("kalman", "rts", "wolf", "irkf", "irks", "huber", "variational", "imm", "particles"),
    *("mixture", "afa", "afa-smoother", "afa-exact", "afa-exact-smoother", "filterpy"),
    *("filterpy-rts", "raw"),
)
COMMANDLINE = ParameterSource.COMMANDLINE
STYLES = ("plain", "ieee", "neurips", "icml", "nature")
WEIGHTS = ("exponential", "power", "student_t", "rational", "imq", "huber", "threshold")


def listed(words: Sequence[str]) -> str:
    """A, B or C."""
    return f"{', '.join(words[:-1])} or {words[-1]}"


def known(words: Sequence[str]) -> Callable[..., list[str]]:
    """Completion of an option that takes one of these words, or several after commas."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [before + comma + word for word in words if word.startswith(last)]

    return complete


def names(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    """Comma separated names."""
    if value is None:
        return None
    names = tuple(part.strip() for part in value.split(","))
    if not all(names):
        raise click.BadParameter(f"{value!r} is not a list of names separated by commas")
    return names


def _sep(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    words = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "space": " ", "pipe": "|"}
    return None if value is None else words.get(value, value)


def together(*options: Callable[..., Any]) -> Callable[..., Any]:
    """One decorator of several options, which the help lists in this order."""
    return lambda function: reduce(lambda inner, option: option(inner), options[::-1], function)


reading_options = together(
    click.option(
        "--time",
        callback=names,
        help="Name of the time column (numbers or dates), "
        "or two: date,clock. Default: the first column.",
    ),
    click.option(
        "--values", callback=names, help="Names of the value columns. Default: all others."
    ),
    click.option(
        "--by", help="Name of a column that tells paths apart, each with times of its own."
    ),
    click.option("--errors", callback=names, help="Columns with the standard error of each value."),
    click.option(
        "--input",
        "inputs",
        callback=names,
        help="Columns of known inputs (regressors). Default: those that the model names.",
    ),
    click.option(
        "--time-unit",
        help="Unit that dates are turned into, and that numbers have: "
        "ns, us, ms, s, min, h, D, W or Y (365.25 days). Default: the model's, or D.",
    ),
    click.option(
        "--time-format",
        help='How times are written, e.g. "%d.%m.%Y %H:%M"; unix, unix-ms, unix-ns (since 1970); '
        "number (20240131 is no date). Default: ISO dates or numbers.",
    ),
    click.option("--sort", is_flag=True, help="Put the rows in the order of their times."),
    click.option(
        "--sep", callback=_sep, help="Character between fields, or tab, space. Default: found."
    ),
    click.option("--decimal", help="Decimal point or comma. Default: found."),
    click.option(
        "--header",
        type=click.IntRange(0),
        help="Line with the names of the columns; "
        "0: there is none, they are called 0, 1, .... Default: found.",
    ),
    click.option("--na", callback=names, help="Further words that mean missing, e.g. -9999."),
    click.option("--encoding", default="utf-8", help="Of the text, e.g. cp1252."),
)
"""By which every command reads measurements."""


def limits(ctx: click.Context, param: click.Parameter, value: Any) -> dict[str, Any]:
    """NAME=LOW:HIGH, either end may be left out."""
    out = {}
    for text in value:
        name, _, ends = text.partition("=")
        try:
            low, high = (float(end) if end.strip() else None for end in ends.split(":"))
        except ValueError:
            raise click.BadParameter(
                f"wanted is NAME=LOW:HIGH, as obs_var=0.1:2, got {text!r}"
            ) from None
        out[name.strip()] = (low, high)
    return out


def densities(ctx: click.Context, param: click.Parameter, value: Any) -> dict[str, Any]:
    """NAME=lognormal:MEDIAN:SIGMA or NAME=normal:MEAN:SD."""
    out = {}
    for text in value:
        name, _, words = text.partition("=")
        try:
            kind, centre, width = words.split(":")
            out[name.strip()] = (kind.strip(), float(centre), float(width))
        except ValueError:
            kind = ""
        if kind.strip() not in ("lognormal", "normal"):
            raise click.BadParameter(
                f"wanted is NAME=lognormal:MEDIAN:SIGMA or NAME=normal:MEAN:SD, got {text!r}"
            )
    return out


def some(ctx: click.Context, option: click.Parameter, jobs: int) -> int:
    """A number of workers."""
    if jobs == 0:
        raise click.BadParameter("must not be 0; -1 means all cores")
    return jobs


def numbers(ctx: click.Context, option: click.Parameter, value: str | None) -> tuple[float, ...]:
    """Percentages separated by commas."""
    if value is None:
        return ()
    try:
        levels = tuple(float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a list of numbers such as 50,90,95") from None
    for level in levels:
        if not 0 < level < 100:
            raise click.BadParameter(f"levels are percentages between 0 and 100, got {level:g}")
    return levels


robust_options = together(
    click.option(
        "--weight", shell_complete=known(WEIGHTS), help=f"Robust weight: {listed(WEIGHTS)}."
    ),
    click.option("--nu", type=float, help="Parameter of exponential, power, student_t."),
    click.option("--kappa", type=float, help="Parameter of power."),
    click.option("--alpha", type=float, help="Parameter of rational."),
    click.option("--c", type=float, help="Parameter of imq, huber, threshold."),
    click.option(
        "--anchor",
        help="What residuals are measured from: prediction, estimate, (Kalman) variational or "
        "(AFA) observation. Default with --weight: estimate for AFA, irkf and "
        "irks, prediction for the others.",
    ),
    click.option("--iterations", type=click.IntRange(1), help="Rounds of reweighting."),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="Any other option of the estimator, e.g. --set window=100.",
    ),
)
"""Weight, anchor and any other option of an estimator."""


JOBS = click.option("--jobs", default=1, callback=some, help="Workers; -1 = all cores.")
ALLOW_IMPORT = click.option(
    "--allow-import",
    is_flag=True,
    help="Let estimators of your own be named by import path (mypackage:my_filter): runs its code.",
)
FORCE = click.option("--force", is_flag=True, help="Overwrite files that exist.")


def output(help_: str, **more: Any) -> Callable[..., Any]:
    """The option -o of a command that says what it writes."""
    return click.option("-o", "--output", type=FILE, help=help_, **more)


OUTPUT = output("Where to write (.csv, .tsv, .jsonl or .parquet; - is stdout).")
MODEL = click.option("--model", type=FILE, help="TOML file with a table [model].")
PATH = click.option("--path", help="Which path, where --by tells several apart.")
FORMAT = click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "tsv", "jsonl", "parquet"]),
    help="Of stdout, where -o is -.",
)


style_options = together(
    click.option(
        "--style", type=click.Choice(STYLES), default="plain", help="Widths and type of a journal."
    ),
    click.option(
        "--formats",
        callback=names,
        default="png,pdf",
        help="Of figures: png, pdf, svg, pgf (pgf needs xelatex).",
    ),
    click.option("--tex", is_flag=True, help="Figures' text set by TeX (needs latex, dvipng)."),
)
"""In what style and formats figures are drawn."""


class ShowsFormat(click.Command):
    """A subcommand that reads TOML: its help ends with the docstring of the module `shows`."""

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


def refuse_given(names: Set[str], why: str) -> None:
    """One line for an option that somebody asked for and that would do nothing here."""
    ctx = click.get_current_context()
    for option in ctx.command.params:
        if option.name in names and ctx.get_parameter_source(option.name) == COMMANDLINE:
            raise click.UsageError(f"{option.opts[-1]} {why}")
