"""Subcommands that compare and draw: compare, figures; and what belongs to the shell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from afafilter.cli.errors import FAILED
from afafilter.cli.formats import ShowsFormat
from afafilter.cli.group import main, say, stem
from afafilter.cli.options import (
    ALLOW_IMPORT,
    ESTIMATORS,
    FILE,
    FORCE,
    JOBS,
    known,
    names,
    reading_options,
    style_options,
)

COMMANDLINE = ParameterSource.COMMANDLINE
OF_A_STUDY = ("jobs", "retry_failed", "reference", "figure", "latex", "plan")
"""Options of `compare` without --hold-out, beside those of `Look`."""
HELD_OUT = ("models", "estimators", "path", "kinds", "pieces", "horizon", "seed")
"""Options of `compare` with --hold-out, beside those of reading."""


@main.command(cls=ShowsFormat, shows="afafilter.studies.toml")
@click.argument("study", metavar="STUDY|DATA", type=FILE)
@click.option(
    "-o",
    "--output",
    type=FILE,
    help="Directory (default: the name of the study); with --hold-out a table.",
)
@JOBS
@click.option("--retry-failed", is_flag=True, help="Compute cells again that failed.")
@click.option("--reference", help="Also write paired differences to this estimator.")
@click.option("--figure", is_flag=True, help="Also draw rmse and its intervals.")
@click.option("--latex", is_flag=True, help="Also write rmse.tex, a float with booktabs.")
@click.option(
    "--plan",
    is_flag=True,
    help="Only tell what the study will cost, from a few cells; they are kept for the run.",
)
@style_options
@click.option(
    "--hold-out",
    is_flag=True,
    help="Compare on measurements in DATA: hide some of them, score what is said of them.",
)
@click.option(
    "--model",
    "models",
    type=FILE,
    multiple=True,
    help="With --hold-out: TOML file with a model; several are compared.",
)
@click.option("--path", help="With --hold-out: which path, where --by tells several apart.")
@click.option(
    "--estimators",
    callback=names,
    shell_complete=known(ESTIMATORS),
    help="With --hold-out: names as of estimate --estimator. Default: kalman,rts,irks,afa,"
    "afa-smoother.",
)
@click.option(
    "--kinds", callback=names, help="With --hold-out: random, blocks, forecast. Default: all."
)
@click.option(
    "--pieces",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="With --hold-out: how often something is hidden.",
)
@click.option(
    "--horizon",
    type=click.IntRange(1),
    help="With --hold-out: times that forecasts reach. Default: a twentieth of them.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="With --hold-out: of what is hidden.",
)
@ALLOW_IMPORT
@reading_options
@FORCE
def compare(study: Path, output: Path | None, force: bool, **options: Any) -> None:
    """Compare estimators as the STUDY (a TOML file) says; a run that was killed goes on.

    Writes scores.csv, times.csv, rmse.csv (pooled over seeds, with intervals) and, with
    --reference, differences.csv. Finished cells are kept in the directory cells. --figure draws
    rmse.png and rmse.pdf in the --style of a journal, --latex writes the table as rmse.tex.

    --plan measures a few cells and writes what all of them, and a million, would take on any number
    of workers: plan.csv, and plan.html with the cost model (needs the extra report).

    With --hold-out, compare estimators and models on your own measurements: some are hidden (at
    random, in blocks, or after an origin), and what each estimator says of them is scored by rmse,
    crps, log density and coverage.

    \b
    afafilter compare study.toml -o results/study --jobs 2 --reference kalman
    afafilter compare study.toml --figure --latex --style ieee
    afafilter compare study.toml --plan --jobs 64
    afafilter compare data.csv --hold-out --model level.toml --model trend.toml
    """
    from afafilter.cli.draw import Look
    from afafilter.cli.reading import taken

    held_out, allow_import = options.pop("hold_out"), options.pop("allow_import")
    own = {k: options.pop(k) for k in OF_A_STUDY}
    look = Look(**{k: options.pop(k) for k in Look._fields})
    held = {k: options.pop(k) for k in HELD_OUT}
    if held_out:
        _refuse_given((*OF_A_STUDY, *look._fields), "goes with a study, not with --hold-out")
        from afafilter.cli.hold_out import hold_out_command

        reading = taken(study, options)
        target = output or Path(f"{stem(study)}-hold-out.csv")
        if say(hold_out_command(reading, target, force, held, allow_import)):
            raise click.exceptions.Exit(FAILED)
        return
    _refuse_given((*HELD_OUT, *options), "goes with --hold-out; a study names its own")
    from afafilter.cli.compare import compare_command

    directory = output or Path(study.stem)
    if own.pop("plan"):
        _refuse_given(
            ("retry_failed", "reference", "figure", "latex", *look._fields),
            "says nothing of a plan",
        )
        from afafilter.cli.compare import plan_command

        _refuse_data(study)
        say(plan_command(study, directory, force, jobs=own["jobs"], allow_import=allow_import))
        return
    _refuse_data(study)
    own["figure"] = look if own["figure"] else None
    failed = say(compare_command(study, directory, force, allow_import=allow_import, **own))
    if failed:
        raise click.exceptions.Exit(FAILED)


def _refuse_data(study: Path) -> None:
    from afafilter.io.source import DATA_SUFFIXES, suffix_of

    if suffix_of(study) in DATA_SUFFIXES:
        raise click.UsageError(
            f"{study} is no study (.toml): --hold-out compares on measurements in it"
        )


def _refuse_given(names: Sequence[str], why: str) -> None:
    """One line for an option of the other kind of comparison that somebody asked for."""
    ctx = click.get_current_context()
    for option in ctx.command.params:
        if option.name in names and ctx.get_parameter_source(option.name) == COMMANDLINE:
            raise click.UsageError(f"{option.opts[-1]} {why}")


@main.command()
@click.argument("chosen", metavar="[NAMES]...", nargs=-1)
@click.option("--list", "list_only", is_flag=True, help="List the experiments and stop.")
@click.option(
    "-o",
    "--output",
    type=FILE,
    default=Path("figures"),
    show_default=True,
    help="Directory for figures and tables.",
)
@click.option("--full", is_flag=True, help="Full size instead of the quick one.")
@style_options
@JOBS
@FORCE
def figures(chosen: Sequence[str], list_only: bool, **options: Any) -> None:
    """Run all experiments of simulations/, or those named, from a checkout.

    One that fails is reported and the others go on.

    \b
    afafilter figures --list
    afafilter figures first_figure real_data --force
    afafilter figures regime_map --style ieee --formats pdf,pgf -o paper
    """
    from afafilter.cli.draw import Look
    from afafilter.cli.figures import find_experiments, run_experiments

    look = Look(**{k: options.pop(k) for k in Look._fields})

    experiments = find_experiments(chosen)
    if list_only:
        for experiment in experiments:
            click.echo(f"{experiment.name:24} {experiment.summary}")
        return
    if say(run_experiments(experiments, look=look, **options)):
        raise click.exceptions.Exit(FAILED)


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes words in SHELL.

    \b
    eval "$(afafilter completion bash)"            # in ~/.bashrc
    eval "$(afafilter completion zsh)"             # in ~/.zshrc
    afafilter completion fish | source             # in ~/.config/fish/config.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(main, {}, "afafilter", "_AFAFILTER_COMPLETE").source())


@main.command(name="compile", hidden=True)
@JOBS
def compile_(jobs: int) -> None:
    """Nothing to do any more: everything is compiled when the package is built."""
    click.echo("nothing to compile: the core is built with the package")
