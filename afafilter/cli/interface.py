"""The subcommands of `afafilter`: their arguments, options and help.

Bad input ends with exit status 2 and one line on stderr, a task that failed with 1. Results are
written whole or not at all, and never over a file that exists without --force.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from afafilter._version import __version__

BAD_INPUT = 2
FAILED = 1
ISSUES = "Please report it with the traceback that --debug shows (afafilter --debug ...)."


class OneLineErrors(click.Group):
    """A group whose errors are one line on stderr; `--debug` shows tracebacks."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command and exit with its status (return, where `standalone_mode` is off)."""
        click_group: Any = super()
        if not extra.pop("standalone_mode", True):
            return click_group.main(*args, standalone_mode=False, **extra)
        given = args[0] if args else extra.get("args")
        debug = "--debug" in (sys.argv[1:] if given is None else given)
        try:
            status = click_group.main(*args, standalone_mode=False, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            status = BAD_INPUT
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx else "afafilter"
            status = _fail(f"{error.format_message()} (see {where} --help)")
        except click.ClickException as error:
            status = _fail(error.format_message(), error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            status = _fail("interrupted", 130)
        except BrokenPipeError:
            sys.stdout = None
            status = FAILED
        except (ValueError, TypeError, OSError) as error:
            if debug:
                raise
            status = _fail(_one_line(error))
        except Exception as error:
            if debug:
                raise
            status = _fail(f"internal error: {type(error).__name__}: {error}. {ISSUES}", FAILED)
        sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, status: int = BAD_INPUT) -> int:
    click.echo(f"afafilter: {' '.join(message.split())}", err=True)
    return status


def _one_line(error: Exception) -> str:
    if isinstance(error, FileExistsError) and error.strerror is None:
        return str(error).replace("force overwrites it", "--force overwrites it")
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


@contextmanager
def _short_warnings() -> Iterator[None]:
    """Warnings as one line on stderr."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        click.echo(f"afafilter: warning: {' '.join(str(message).split())}", err=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _names(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
    """Comma separated names."""
    if value is None:
        return None
    names = [part.strip() for part in value.split(",")]
    if not all(names):
        raise click.BadParameter(f"{value!r} is not a list of names separated by commas")
    return names


FILE = click.Path(path_type=Path)


def _some(ctx: click.Context, option: click.Parameter, jobs: int) -> int:
    if jobs == 0:
        raise click.BadParameter("must not be 0; -1 means all cores")
    return jobs


JOBS = click.option(
    "--jobs", default=1, show_default=True, callback=_some, help="Workers; -1 = all cores."
)
FORCE = click.option("--force", is_flag=True, help="Overwrite files that exist.")
OUTPUT = click.option("-o", "--output", type=FILE, help="Where to write (.csv, .tsv or .parquet).")
TIME_UNIT = click.option(
    "--time-unit", default="D", show_default=True,
    help="Unit that dates are turned into: ms, s, min, h, D, W or Y (365.25 days).",
)  # fmt: skip


@click.group(
    cls=OneLineErrors,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="afafilter")
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
@click.pass_context
def main(ctx: click.Context, debug: bool) -> None:
    """Adaptive Filter Attention beside the Kalman filter: simulate, estimate, compare, draw.

    Every command writes its resolved configuration, versions and seed beside its result.
    """
    ctx.with_resource(_short_warnings())


@main.command()
@click.argument("model", type=FILE)
@click.option("--n", "count", type=click.IntRange(1), help="Number of times.")
@click.option("--dt", default=1.0, show_default=True, help="Step between times.")
@click.option("--start", default=0.0, show_default=True, help="First time.")
@click.option("--times", type=FILE, help="Take the times from this CSV or Parquet file instead.")
@click.option("--time", help="Name of its time column (default: the first column).")
@TIME_UNIT
@click.option("--paths", default=1, show_default=True, type=click.IntRange(1))
@click.option("--seed", type=click.IntRange(0), help="Default: a new one, noted in the result.")
@click.option("--x0", help='Start: numbers "20,0", or "stationary". Default: the model\'s prior.')
@click.option("--missing", default=0.0, show_default=True, help="Probability per component.")
@click.option("--outlier-rate", type=float, help="Probability that an observation is an outlier.")
@click.option("--outlier-scale", type=float, help="Size in units of the noise. Default: 10.")
@click.option("--outlier-law", default="gaussian", show_default=True,
              help="gaussian, student_t or mean_doubling.")  # fmt: skip
@click.option("--outlier-df", type=float, help="Degrees of freedom of student_t. Default: 3.")
@OUTPUT
@FORCE
def simulate(model: Path, output: Path | None, force: bool, **options: Any) -> None:
    """Draw states and observations of the MODEL (a TOML file), exactly in law.

    Columns: path (if there are several), t, states x0.., observations z0.. (blank = missing),
    outlier (0 or 1, if asked for).

    \b
    afafilter simulate spiral.toml --n 200 --dt 0.1 --seed 1 -o data.csv
    afafilter simulate spiral.toml --n 200 --x0 20,0 --outlier-rate 0.1 --missing 0.2
    afafilter simulate spiral.toml --times measured.csv --paths 100 -o data.parquet
    """
    from afafilter.cli.simulate import simulate_command

    target = output or Path(f"{model.stem}-simulated.csv")
    _say(simulate_command(model, target, force, **options))


@main.command()
@click.argument("data", type=FILE)
@click.option("--model", type=FILE, required=True, help="TOML file with a table [model].")
@click.option("--estimator", default="kalman", show_default=True,
              help="kalman, rts, wolf, irkf, irks, afa, afa-smoother, afa-exact, "
                   "afa-exact-smoother, filterpy, filterpy-rts or raw.")  # fmt: skip
@click.option("--time", help="Name of the time column: numbers or ISO dates. Default: the first.")
@click.option("--values", callback=_names, help="Names of the value columns. Default: all others.")
@click.option("--by", help="Name of a column that tells paths apart.")
@click.option("--errors", callback=_names, help="Columns with the standard error of each value.")
@TIME_UNIT
@click.option("--weight", help="Robust weight: exponential, power, student_t, rational, imq, "
                               "huber or threshold.")  # fmt: skip
@click.option("--nu", type=float, help="Parameter of exponential, power, student_t.")
@click.option("--kappa", type=float, help="Parameter of power.")
@click.option("--alpha", type=float, help="Parameter of rational.")
@click.option("--c", type=float, help="Parameter of imq, huber, threshold.")
@click.option("--anchor", help="What residuals are measured from: prediction, estimate or (AFA) "
                               "observation. Default with --weight: estimate for AFA, irkf and "
                               "irks, prediction for the others.")  # fmt: skip
@click.option("--iterations", type=click.IntRange(1), help="Rounds of reweighting.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE",
              help="Any other option of the estimator, e.g. --set window=100.")  # fmt: skip
@click.option("--query-times", help="Estimate at these times instead: T,T,.. or START:STOP:STEP. "
                                    "Of dated data T, START and STOP are dates or, like STEP, "
                                    "numbers of --time-unit since the first.")  # fmt: skip
@click.option("--forecast", type=click.FloatRange(min=0, min_open=True),
              help="Go on this far beyond the last time, in steps of the median one.")  # fmt: skip
@OUTPUT
@click.option("--figure", type=FILE, help="Also draw data and estimate (.png, .pdf or .svg).")
@FORCE
def estimate(data: Path, output: Path | None, force: bool, **options: Any) -> None:
    """Estimate states from the measurements in DATA (CSV or Parquet).

    Blank values are missing. Columns of the result: time, states x0.. with their standard
    deviations x0_sd.., and for every value column what the estimate says of it without noise,
    <value>_fit and <value>_fit_sd.

    \b
    afafilter estimate nile.csv --model nile.toml --estimator rts --figure nile.png
    afafilter estimate co2.csv --model co2.toml --time-unit Y --forecast 5
    afafilter estimate data.csv --model m.toml --time t --values z0,z1 --estimator afa \\
        --weight student_t --nu 4 --anchor estimate --iterations 5
    """
    from afafilter.cli.estimate import estimate_command

    target = output or Path(f"{data.stem}-{options['estimator']}.csv")
    _say(estimate_command(data, target, force, **options))


@main.command()
@click.argument("data", type=FILE)
@click.option("--model", type=FILE, help="TOML file with the model to start from.")
@click.option("--family", help='Or a sum of families, e.g. "local_linear_trend + seasonal(1, 2) '
                               '+ noise"; starting values are guessed.')  # fmt: skip
@click.option("--free", callback=_names, help="What may move: of a model A, Q, R, C, drift, offset "
                                              "(default A,Q,R,drift; of presets and sums the "
                                              "noise levels), of a family its parameters "
                                              "(default: all).")  # fmt: skip
@click.option("--method", default="ml", show_default=True, help="ml, em or student_t.")
@click.option("--starts", default=1, show_default=True, type=click.IntRange(1),
              help="Number of starting points.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0),
              help="Seed of the further starting points.")  # fmt: skip
@click.option("--time", help="Name of the time column: numbers or ISO dates. Default: the first.")
@click.option("--values", callback=_names, help="Names of the value columns. Default: all others.")
@click.option("--by", help="Name of a column that tells paths apart.")
@click.option("--errors", callback=_names, help="Columns with the standard error of each value.")
@TIME_UNIT
@click.option("-o", "--output", type=FILE, help="Model to write (.toml). Default: DATA-fit.toml.")
@FORCE
def fit(data: Path, output: Path | None, force: bool, **options: Any) -> None:
    """Fit a model to the measurements in DATA (CSV or Parquet) by maximum likelihood.

    Writes the fitted model as TOML, ready for the other commands, and beside it a CSV with every
    parameter, its standard error and 95 % interval. Exit status 1 if the fit did not converge.
    With --method student_t the degrees of freedom are in the .config.json, and the command that
    estimates with them is printed: the model file alone means Gaussian noise.

    \b
    afafilter fit nile.csv --family "brownian + noise" -o level.toml
    afafilter fit co2.csv --time-unit Y --family "local_linear_trend + seasonal(1, 2) + noise"
    afafilter fit data.csv --model start.toml --free Q,R --values z0,z1
    """
    from afafilter.cli.fit import fit_command

    target = output or Path(f"{data.stem}-fit.toml")
    if not _say(fit_command(data, target, force, **options)):
        raise click.exceptions.Exit(FAILED)


@main.command()
@click.argument("study", type=FILE)
@click.option("-o", "--output", type=FILE, help="Directory. Default: the name of the study.")
@JOBS
@click.option("--retry-failed", is_flag=True, help="Compute cells again that failed.")
@click.option("--reference", help="Also write paired differences to this estimator.")
@FORCE
def compare(study: Path, output: Path | None, force: bool, **options: Any) -> None:
    """Compare estimators as the STUDY (a TOML file) says; a run that was killed goes on.

    Writes scores.csv, times.csv, rmse.csv (pooled over seeds, with intervals) and, with
    --reference, differences.csv. Finished cells are kept in the directory cells.

    \b
    afafilter compare study.toml -o results/study --jobs 2 --reference kalman
    """
    from afafilter.cli.compare import compare_command

    failed = _say(compare_command(study, output or Path(study.stem), force, **options))
    if failed:
        raise click.exceptions.Exit(FAILED)


@main.command()
@click.argument("names", nargs=-1)
@click.option("--list", "list_only", is_flag=True, help="List the experiments and stop.")
@click.option("-o", "--output", type=FILE, default=Path("figures"), show_default=True,
              help="Directory for figures and tables.")  # fmt: skip
@click.option("--full", is_flag=True, help="Full size instead of the quick one.")
@JOBS
@FORCE
def figures(names: Sequence[str], list_only: bool, **options: Any) -> None:
    """Run all experiments of simulations/, or those named, from a checkout.

    One that fails is reported and the others go on.

    \b
    afafilter figures --list
    afafilter figures first_figure real_data --force
    """
    from afafilter.cli.figures import find_experiments, run_experiments

    experiments = find_experiments(names)
    if list_only:
        for experiment in experiments:
            click.echo(f"{experiment.name:24} {experiment.summary}")
        return
    if _say(run_experiments(experiments, **options)):
        raise click.exceptions.Exit(FAILED)


@main.command(name="compile")
@JOBS
def compile_(jobs: int) -> None:
    """Compile all kernels now instead of at their first use.

    They are kept on disk, beside the package or in the directory NUMBA_CACHE_DIR. Worth it where
    many processes start at once (a cluster, tests), or where an image is built.

    \b
    afafilter compile --jobs 2
    """
    from afafilter.cli.compile import compile_kernels

    _say(compile_kernels(jobs))


def _say(lines: Iterator[str]) -> Any:
    """Print what a command reports as it goes; returns what the command returns."""
    while True:
        try:
            click.echo(next(lines))
        except StopIteration as end:
            return end.value
