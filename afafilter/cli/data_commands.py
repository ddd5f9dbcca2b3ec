"""Subcommands that work on measurements: simulate, estimate, animate, fit, report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from afafilter.cli.group import carry_out, main, stem
from afafilter.cli.options import (
    ALLOW_IMPORT,
    ESTIMATORS,
    FILE,
    FORCE,
    FORMAT,
    MODEL,
    OUTPUT,
    PATH,
    ShowsFormat,
    densities,
    known,
    limits,
    listed,
    names,
    numbers,
    output,
    reading_options,
    refuse_given,
    robust_options,
)


@main.command(cls=ShowsFormat, shows="afafilter.io.model_toml")
@click.argument("model", type=FILE)
@click.option("--n", "count", type=click.IntRange(1), help="Number of times.")
@click.option("--dt", default=1.0, help="Step between times.")
@click.option("--start", default=0.0, help="First time.")
@click.option("--times", type=FILE, help="Take the times from this CSV or Parquet file instead.")
@click.option("--time", help="Name of its time column (default: the first column).")
@click.option("--time-unit", help="Unit that dates are turned into. Default: the model's, or D.")
@click.option("--paths", default=1, type=click.IntRange(1))
@click.option("--seed", type=click.IntRange(0), help="Default: a new one, noted in the result.")
@click.option("--x0", help='Start: numbers "20,0", or "stationary". Default: the model\'s prior.')
@click.option("--missing", default=0.0, help="Probability per component.")
@click.option("--outlier-rate", type=float, help="Probability that an observation is an outlier.")
@click.option("--outlier-scale", type=float, help="Size in units of the noise. Default: 10.")
@click.option("--outlier-law", default="gaussian", help="gaussian, student_t or mean_doubling.")
@click.option("--outlier-df", type=float, help="Degrees of freedom of student_t. Default: 3.")
@OUTPUT
@FORMAT
@FORCE
def simulate(model: Path, **options: Any) -> None:
    """Draw states and observations of the MODEL (a TOML file), exactly in law.

    Other commands read the file without options. Columns: path (if there are several), t, states
    x0.., observations z0.. (blank = missing), outlier (0 or 1, if asked for).

    \b
    afafilter simulate spiral.toml --n 200 --dt 0.1 --seed 1 -o data.csv
    afafilter simulate spiral.toml --n 200 --x0 20,0 --outlier-rate 0.1 --missing 0.2
    afafilter simulate spiral.toml --times measured.csv --paths 100 -o data.parquet
    """
    from afafilter.cli.simulate import simulate_command

    if options["times"] is None:
        refuse_given({"time", "time_unit"}, "goes with --times")
    else:
        refuse_given({"start", "dt"}, "goes with --n, not with --times")
    carry_out(simulate_command, model, f"{model.stem}-simulated.csv", options)


@main.command(cls=ShowsFormat, shows="afafilter.io.model_toml")
@click.argument("data", type=FILE)
@click.option("--model", type=FILE, required=True, help="TOML file with a table [model].")
@click.option(
    "--estimator", default="kalman", shell_complete=known(ESTIMATORS), help=f"{listed(ESTIMATORS)}."
)
@ALLOW_IMPORT
@reading_options
@robust_options
@click.option(
    "--query-times",
    help="Estimate at these times instead: T,T,.. or START:STOP:STEP. Of dated data T, START and "
    "STOP are dates or, like STEP, numbers of --time-unit since the first.",
)
@click.option(
    "--forecast",
    type=click.FloatRange(min=0, min_open=True),
    help="Go on this far beyond the last time, in steps of the median one.",
)
@click.option(
    "--levels", callback=numbers, help="Also write intervals at these percentages, e.g. 50,90,95."
)
@OUTPUT
@FORMAT
@click.option("--figure", type=FILE, help="Also draw data and estimate (.png, .pdf or .svg).")
@FORCE
def estimate(data: Path, **options: Any) -> None:
    """Estimate states from the measurements in DATA (CSV, JSON lines or Parquet; - is stdin).

    Blank values are missing. Columns of the result: the time as in DATA (and, of dates, the elapsed
    time t), states x0.. with their standard deviations x0_sd.., and for every value column the
    measurement, what the estimate says of it without noise, <value>_fit and <value>_fit_sd, and the
    standard deviation of a measurement, <value>_obs_sd. With --levels the intervals of both, with
    --forecast a flag, under a robust weight the weight of each row and whether it is an outlier
    (its residual beyond 99.9 % of the noise). Every sd is one standard error.

    \b
    afafilter estimate nile.csv --model nile.toml --estimator rts --figure nile.png
    afafilter estimate co2.csv --model co2.toml --time-unit Y --forecast 5 --levels 50,95
    afafilter estimate data.csv --model m.toml --time t --values z0,z1 --estimator afa \\
        --weight student_t --nu 4 --anchor estimate --iterations 5
    zcat data.csv.gz | afafilter estimate - --model m.toml -o - --format jsonl
    """
    from afafilter.cli.estimate import estimate_command

    usual = "-" if str(data) == "-" else f"{stem(data)}-{options['estimator']}.csv"
    carry_out(estimate_command, data, usual, options)


@main.command(cls=ShowsFormat, shows="afafilter.io.model_toml")
@click.argument("data", type=FILE, required=False)
@MODEL
@click.option("--preset", help="Or a preset with its defaults, e.g. spiral.")
@PATH
@click.option("--n", "count", type=click.IntRange(2), help="Without DATA: times. Default: 100.")
@click.option("--dt", type=float, help="Without DATA: step between times. Default: 0.1.")
@click.option("--seed", type=click.IntRange(0), help="Without DATA: of the draw. Default: 0.")
@click.option(
    "--x0",
    help='Without DATA: start, numbers "20,0". Default: the first state at ten standard deviations '
    "of the measurement noise, the others at 0.",
)
@click.option(
    "--outlier-rate", type=float, help="Without DATA: share of outliers, ten times the noise."
)
@click.option(
    "--components",
    callback=names,
    help="The two states of the plane, or the observed value over time. Default: 0,1.",
)
@click.option("--frames", default=120, type=click.IntRange(2), help="At most.")
@click.option("--fps", default=12, type=click.IntRange(1), help="Frames per second.")
@reading_options
@robust_options
@output("Film to write (.gif, or .mp4 with ffmpeg). Default: DATA-attention.gif.")
@FORCE
def animate(data: Path | None, **options: Any) -> None:
    """Film adaptive filter attention at work, on DATA or on data drawn from the model.

    Each frame is one present: the path so far, what every observation says of the present once it
    is pulled forward, the larger and darker the more weight, the estimate with its 95 % region, and
    the weights over time. A plane of two states where one observation tells them all; otherwise one
    observed value over time.

    \b
    afafilter animate --preset spiral -o spiral.gif
    afafilter animate --preset spiral --outlier-rate 0.1 --weight student_t --nu 4 -o robust.gif
    afafilter animate nile.csv --model nile.toml --set window=6 -o nile.gif
    """
    from afafilter.cli.animate import animate_command

    about = stem(data) if data else options["preset"] or "model"
    carry_out(animate_command, data, f"{about}-attention.gif", options)


@main.command(cls=ShowsFormat, shows="afafilter.io.model_toml")
@click.argument("data", type=FILE)
@click.option("--model", type=FILE, help="TOML file with the model to start from.")
@click.option(
    "--family",
    help='Or a sum of families, e.g. "local_linear_trend + seasonal(1, 2) '
    '+ noise"; starting values are guessed.',
)
@click.option(
    "--bound",
    "bounds",
    multiple=True,
    callback=limits,
    metavar="NAME=LOW:HIGH",
    help="Keep a parameter within bounds; may be given for several.",
)
@click.option(
    "--prior",
    "priors",
    multiple=True,
    callback=densities,
    metavar="NAME=KIND:A:B",
    help="What is known of a parameter: lognormal:MEDIAN:SIGMA or normal:MEAN:SD.",
)
@click.option(
    "--free",
    callback=names,
    help="What may move: of a model A, Q, R, C, drift, offset (default A,Q,R,drift; of presets and "
    "sums the noise levels), of a family its parameters (default: all).",
)
@click.option("--method", default="ml", help="ml, em or student_t.")
@click.option("--starts", default=1, type=click.IntRange(1), help="Number of starting points.")
@click.option(
    "--seed", default=0, type=click.IntRange(0), help="Seed of the further starting points."
)
@click.option(
    "--each",
    is_flag=True,
    help="Fit every path of --by by itself, all side by side; without it paths share a model.",
)
@reading_options
@output("Model to write (.toml). Default: DATA-fit.toml; with --each a table, DATA-fits.csv.")
@FORCE
def fit(data: Path, **options: Any) -> None:
    """Fit a model to the measurements in DATA (CSV, JSON lines or Parquet) by maximum likelihood.

    Writes the fitted model as TOML, ready for the other commands, and beside it a CSV with every
    parameter, its standard error and 95 % interval. Exit status 1 if the fit did not converge.
    With --method student_t the degrees of freedom are in the .config.json, and the command that
    estimates with them is printed: the model file alone means Gaussian noise.

    With --each the result is a table, one row for every path, with the parameters, their standard
    errors, whether its fit converged, and the file of its model in a folder called like the table.

    \b
    afafilter fit nile.csv --family "brownian + noise" -o level.toml
    afafilter fit co2.csv --time-unit Y --family "local_linear_trend + seasonal(1, 2) + noise"
    afafilter fit data.csv --model start.toml --free Q,R --values z0,z1
    afafilter fit sales.csv --family "brownian + noise" --input price --bound obs_var=0.1:
    afafilter fit tracks.csv --by track --each --family "brownian + noise" -o fits.csv
    """
    from afafilter.cli.fit import fit_command, fit_each_command

    if options["starts"] == 1:
        refuse_given({"seed"}, "goes with --starts: it draws the further ones")
    command, ending = (
        (fit_each_command, "fits.csv") if options["each"] else (fit_command, "fit.toml")
    )
    carry_out(command, data, f"{stem(data)}-{ending}", options)


@main.command(cls=ShowsFormat, shows="afafilter.io.model_toml")
@click.argument("data", type=FILE)
@MODEL
@click.option(
    "--family",
    help='Or a sum of families to fit, e.g. "brownian + noise". Default: the better of a few.',
)
@PATH
@click.option("--title", help="Of the page. Default: the name of DATA.")
@reading_options
@output("Page to write (.html). Default: DATA-report.html.")
@FORCE
def report(data: Path, **options: Any) -> None:
    """Write a page about DATA: one HTML file with zoom and hover that needs no network.

    The series with gaps and outliers, the model with its intervals, smoothed and forecast bands,
    checks of the residuals, estimators compared on held-out values, AFA's attention beside the
    Kalman filter's weights, and all numbers to save. Needs pip install 'afafilter[report]'.

    \b
    afafilter report nile.csv -o nile.html
    afafilter report co2.csv --model co2.toml --time-unit Y
    """
    from afafilter.cli.report import report_command

    carry_out(report_command, data, f"{stem(data)}-report.html", options)
