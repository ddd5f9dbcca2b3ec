"""What `afafilter estimate` does: read, estimate, write the states, and draw them if asked."""

from __future__ import annotations

import inspect
import tomllib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from afafilter._base.checks import Array, observations
from afafilter._base.progress import waiting
from afafilter._base.steps import filled_in
from afafilter._base.time_scales import warn_if_unlike
from afafilter.catalog import CATALOG, WEIGHT_PARAMETERS, estimator_from_spec, options_of
from afafilter.cli.draw import draw_series
from afafilter.cli.queries import appended, asked_times, in_steps, rows_at
from afafilter.cli.reading import Task, forced, read, together
from afafilter.cli.rows import Rows, observed, rows_of
from afafilter.cli.shared import finish, importing, prepare
from afafilter.io.model_toml import read_model
from afafilter.io.output import table_path
from afafilter.io.series import Panel, Series
from afafilter.models.discrete import DiscreteModel
from afafilter.models.sde import LinearSDE
from afafilter.results import Estimate

FIGURE_SUFFIXES = (".png", ".pdf", ".svg")


def estimate_command(task: Task) -> Iterator[str]:
    """Behind `afafilter estimate`."""
    reading, options, force = task.reading, task.options, task.force
    model, estimator, figure = options["model"], options["estimator"], options["figure"]
    prepare(table_path(task.target), force, figure, inputs=(reading.data, model))
    if figure is not None and figure.suffix.lower() not in FIGURE_SUFFIXES:
        raise ValueError(f"{figure}: the figure's name must end in {', '.join(FIGURE_SUFFIXES)}")
    spec = estimator_options(estimator, options)
    allowed = options["allow_import"]
    with importing(allowed):
        function = estimator_from_spec(estimator, spec, allow_import=allowed)
    resolved = _resolved(function, options)
    system = read_model(model)
    with waiting(f"reading {reading.data}"):
        panel = read(reading, system)
    total = sum(len(series.t) for series in panel.series)
    pieces: dict[int, Rows] = {}
    loglik, label = None, ""
    for series, members in together(panel):
        own = forced(system, series)
        with waiting(f"estimating {total} rows"):
            found, beside, asked = _run(function, own, series, options)
        label = found.label
        warn_if_unlike(own, found, "--time-unit")
        if found.loglik is not None:
            loglik = (loglik or 0.0) + float(np.sum(found.loglik))
        weight = function.keywords.get("weight")
        if figure is not None and not pieces:
            seen = _dense(function, own, series, asked, found, estimator)
            draw_series(figure, seen, own.R, series, force)
        pieces |= zip(members, rows_of(found, own, series, beside, options["levels"], weight))
    table = _joined(panel, [pieces[k] for k in sorted(pieces)])
    told = zip(panel.columns, panel.series[0].value_units)
    config = {
        "command": "estimate",
        "model": system,
        "estimator": estimator,
        "options": resolved,
        "label": label,
        **reading.config(),
        "values": panel.columns,
        "units": {name: unit for name, unit in told if unit},
        "time_unit": panel.series[0].time_unit or None,
        **{key: options[key] for key in ("query_times", "forecast", "levels")},
        "loglik": loglik,
        "seed": None,
    }
    if figure is not None:
        yield f"wrote {figure}"
    if loglik is not None:
        yield f"log-likelihood {loglik:.4f}{_because(estimator, system, panel)}"
    with waiting(f"writing {task.target}"):
        said = finish(table, task, config)
    yield said


def _run(
    function: partial[Estimate],
    system: LinearSDE | DiscreteModel,
    series: Series,
    options: Mapping[str, Any],
) -> tuple[Estimate, Series | None, Array | None]:
    """One estimate, the series that it stands beside (None: query times), the times asked for."""
    name, query_times = options["estimator"], options["query_times"]
    asked = asked_times(series, query_times, options["forecast"])
    if series.inputs is not None and asked is not None and asked[-1] > series.t[-1]:
        warnings.warn(
            "inputs keep their last value after the data; rows with blank values may say others",
            stacklevel=1,
        )
    beside: Series | None = series
    if asked is not None:
        stepwise = isinstance(system, DiscreteModel)
        ahead = asked[asked > series.t[-1]]
        longer = appended(series, in_steps(series, ahead) if stepwise else ahead, system)
        beside = longer if query_times is None else None
        if stepwise:
            found = _called(function, system, longer, None, name)
            return found if query_times is None else rows_at(found, asked), beside, asked
    return _called(function, system, series, asked, name), beside, asked


def _called(
    function: partial[Estimate],
    system: LinearSDE | DiscreteModel,
    series: Series,
    asked: Array | None,
    name: str,
) -> Estimate:
    """The estimator's answer; a user's own estimator is answerable for what goes wrong in it."""
    extra: dict[str, Any] = {}
    if asked is not None:
        extra["query_times"] = asked
    if series.obs_cov is not None:
        extra["obs_cov"] = series.obs_cov
    unknown = set(extra) - set(options_of(function.func))
    if unknown:
        raise ValueError(f"estimator {name!r} takes no {', '.join(sorted(unknown))}")
    z = observations(series.z, len(series.t), system.obs_dim)
    try:
        found = function(system, series.t, z, **extra)
    except Exception as error:
        if ":" not in name:
            raise
        raise ValueError(f"estimator {name!r} failed: {type(error).__name__}: {error}") from error
    if not isinstance(found, Estimate):
        raise TypeError(f"estimator {name!r} must return an Estimate, got {type(found).__name__}")
    return found


def _joined(panel: Panel, pieces: Sequence[Rows]) -> dict[str, Any]:
    """The columns of all paths, one below the other, with their labels."""
    table: dict[str, Any] = {}
    if panel.labels:
        counts = [len(piece.time) for piece in pieces]
        table[panel.by] = np.repeat(np.asarray(panel.labels), counts)
    stamps = panel.series[0].stamps
    name = "t" if stamps is None else stamps.name
    table[name] = np.concatenate([piece.time for piece in pieces])
    if panel.series[0].dates is not None:
        table["t" if name != "t" else "elapsed"] = np.concatenate([p.elapsed for p in pieces])
    for column in pieces[0].columns:
        table[column] = np.concatenate([piece.columns[column] for piece in pieces])
    return table


def _because(estimator: str, system: LinearSDE | DiscreteModel, panel: Panel) -> str:
    """Why filterpy's likelihood is another one than that of the Kalman filter."""
    if not estimator.startswith("filterpy") or isinstance(system, DiscreteModel):
        return ""
    open_ = system.initial_law(float(panel.series[0].t[0])).diffuse.shape[1]
    if not open_:
        return ""
    from afafilter.kalman.estimators import kalman_filter

    exact = 0.0
    for s, _ in together(panel):
        one = kalman_filter(forced(system, s), s.t, s.z, obs_cov=s.obs_cov).loglik
        exact += 0.0 if one is None else float(np.sum(one))
    return (
        f" (filterpy has no flat prior and starts {open_} state{'s' * (open_ > 1)} with the "
        f"variance 1e7 instead; the exact diffuse likelihood, as kalman gives it, is {exact:.4f})"
    )


def estimator_options(estimator: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of the estimator from the command line."""
    usual = CATALOG[estimator].options.get("weight") if estimator in CATALOG else None
    spec = {key: options[key] for key in ("anchor", "iterations") if options[key] is not None}
    parameters = {key: options[key] for key in WEIGHT_PARAMETERS if options[key] is not None}
    if options["weight"] is not None:
        spec["weight"] = {"name": options["weight"], **parameters}
    elif parameters and usual is not None:
        spec["weight"] = {"name": usual[0], **parameters}
    elif parameters:
        shown = ", ".join("--" + key for key in parameters)
        raise ValueError(f"{shown} needs --weight, e.g. --weight student_t --nu 4")
    for setting in options["settings"]:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"--set wants KEY=VALUE, got {setting!r}")
        spec[key.strip()] = text
        for parse in (lambda text: tomllib.loads(f"value = {text}")["value"], float):
            with suppress(ValueError, RecursionError):
                spec[key.strip()] = parse(text)
                break
    if "weight" in spec and estimator.startswith("afa"):
        spec.setdefault("anchor", "estimate")
    return spec


def _resolved(function: partial[Estimate], options: Mapping[str, Any]) -> dict[str, Any]:
    """The estimator's options, with the defaults that a robust weight brings into play."""
    found = dict(function.keywords)
    ignored = [f"--{key}" for key in ("anchor", "iterations") if options[key] is not None]
    if found.get("weight") is None:
        if ignored:
            raise ValueError(f"{', '.join(ignored)} needs --weight: plain weights are never redone")
        return found
    takes = inspect.signature(function.func).parameters
    defaults = {key: takes[key].default for key in ("anchor", "iterations") if key in takes}
    return defaults | found


def _dense(
    function: partial[Estimate],
    system: LinearSDE | DiscreteModel,
    series: Series,
    asked: Array | None,
    found: Estimate,
    name: str,
) -> Estimate:
    """What is drawn: between distant observations by the model, not by straight lines."""
    shown = series.t if asked is None else np.union1d(series.t, asked)
    dense = filled_in(shown, 400)
    plain = isinstance(system, LinearSDE) and function.keywords.get("anchor") != "observation"
    if len(dense) > len(np.unique(shown)) and plain and "query_times" in options_of(function.func):
        found = _called(function, system, series, dense, name)
    return observed(found, system)
