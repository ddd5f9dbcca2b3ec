"""Subcommands that compare and draw: compare, figures; and what belongs to the shell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from afafilter.cli.errors import FAILED
from afafilter.cli.group import carry_out, main, say, stem
from afafilter.cli.options import (
    ALLOW_IMPORT,
    ESTIMATORS,
    FILE,
    FORCE,
    JOBS,
    ShowsFormat,
    known,
    names,
    output,
    reading_options,
    refuse_given,
    style_options,
)

STYLE = {"style", "formats", "tex"}
OF_A_STUDY = {"jobs", "retry_failed", "reference", "figure", "latex", "plan"} | STYLE
"""Options of `compare` that say nothing with --hold-out."""
OF_BOTH = {"study", "output", "hold_out", "allow_import", "force"}


@main.command(cls=ShowsFormat, shows="afafilter.studies.toml")
@click.argument("study", metavar="STUDY|DATA", type=FILE)
@output("Directory (default: the name of the study); with --hold-out a table.")
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
    help="With --hold-out: how often something is hidden.",
)
@click.option(
    "--horizon",
    type=click.IntRange(1),
    help="With --hold-out: times that forecasts reach. Default: a twentieth of them.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, help="With --hold-out: of what is hidden."
)
@ALLOW_IMPORT
@reading_options
@FORCE
def compare(study: Path, **options: Any) -> None:
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
    from afafilter.cli.compare import compare_command, plan_command
    from afafilter.cli.hold_out import hold_out_command
    from afafilter.io.source import DATA_SUFFIXES, suffix_of

    if options["hold_out"]:
        refuse_given(OF_A_STUDY, "goes with a study, not with --hold-out")
        carry_out(hold_out_command, study, f"{stem(study)}-hold-out.csv", options)
        return
    refuse_given(
        options.keys() - OF_A_STUDY - OF_BOTH, "goes with --hold-out; a study names its own"
    )
    if options["plan"]:
        refuse_given(OF_A_STUDY - {"jobs", "plan"}, "says nothing of a plan")
    if suffix_of(study) in DATA_SUFFIXES:
        raise click.UsageError(
            f"{study} is no study (.toml): --hold-out compares on measurements in it"
        )
    carry_out(plan_command if options["plan"] else compare_command, study, study.stem, options)


@main.command()
@click.argument("chosen", metavar="[NAMES]...", nargs=-1)
@click.option("--list", "list_only", is_flag=True, help="List the experiments and stop.")
@output("Directory for figures and tables.", default=Path("figures"))
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

    look = Look.of(options)
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
