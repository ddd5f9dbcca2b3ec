"""What `afafilter estimate` does: read, estimate, write the states, and draw them if asked."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afafilter._base.checks import Array, observations, scalar
from afafilter.catalog import WEIGHT_PARAMETERS, estimator_from_spec, options_of
from afafilter.cli.shared import finish, measurements, prepare
from afafilter.io.files import atomic_path, table_path
from afafilter.io.model_toml import read_model
from afafilter.io.series import SECONDS, Series
from afafilter.models.sde import LinearSDE
from afafilter.results import Estimate

if TYPE_CHECKING:
    import pandas as pd


UNITS = {
    "ms": "milliseconds", "s": "seconds", "min": "minutes", "h": "hours", "D": "days",
    "W": "weeks", "Y": "years",
}  # fmt: skip
MOST_QUERIES = 10_000_000
FIGURE_SUFFIXES = (".png", ".pdf", ".svg")


def estimate_command(
    data: Path, target: Path, force: bool, *, model: Path, estimator: str, time: str | None,
    values: Sequence[str] | None, by: str | None, errors: Sequence[str] | None, time_unit: str,
    query_times: str | None, forecast: float | None, figure: Path | None, settings: Sequence[str],
    **options: Any,
) -> Iterator[str]:  # fmt: skip
    """Behind `afafilter estimate`."""
    prepare(table_path(target), force, figure, inputs=(data, model))
    if figure is not None and figure.suffix.lower() not in FIGURE_SUFFIXES:
        raise ValueError(f"{figure}: the figure's name must end in {', '.join(FIGURE_SUFFIXES)}")
    spec = _estimator_options(options, settings)
    if "weight" in spec and estimator.startswith("afa"):
        spec.setdefault("anchor", "estimate")
    function = estimator_from_spec(estimator, spec)
    resolved = _resolved(function, options)
    system = read_model(model)
    p = system.obs_dim
    series, noise = measurements(data, p, time, values, by, errors, time_unit)
    asked = _query(series, query_times, forecast)
    extra: dict[str, Any] = {}
    if asked is not None:
        extra["query_times"] = asked
    if noise is not None:
        extra["obs_cov"] = noise
    unknown = set(extra) - set(options_of(function.func))
    if unknown:
        raise ValueError(f"estimator {estimator!r} takes no {', '.join(sorted(unknown))}")
    z = observations(series.z, len(series.t), p)
    found = function(system, series.t, z, **extra)
    seen = observed(found, system)
    frame = _estimate_frame(found, seen, series)
    if series.paths:
        frame["path"] = np.repeat(np.asarray(series.paths), len(found.t))
        if by not in frame:
            frame = frame.rename(columns={"path": by})
    config = {
        "command": "estimate", "data": data, "model": system, "estimator": estimator,
        "options": resolved, "label": found.label, "time": time,
        "values": series.columns, "errors": errors, "by": by,
        "time_unit": series.time_unit or None, "query_times": query_times, "forecast": forecast,
        "loglik": found.loglik, "seed": None,
    }  # fmt: skip
    if figure is not None:
        dense = _between(series.t if asked is None else np.union1d(series.t, asked))
        if (
            dense is not None
            and "query_times" in options_of(function.func)
            and (resolved.get("anchor") != "observation")
        ):
            drawn = function(system, series.t, z, **(extra | {"query_times": dense}))
            seen = observed(drawn, system)
        _draw(figure, force, seen, series, by)
        yield f"wrote {figure}"
    if found.loglik is not None:
        yield f"log-likelihood {np.sum(found.loglik):.4f}"
    yield finish(frame, target, force, config)


def _estimator_options(options: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Keyword arguments of the estimator from the command line."""
    spec = {key: options[key] for key in ("anchor", "iterations") if options[key] is not None}
    parameters = {key: options[key] for key in WEIGHT_PARAMETERS if options[key] is not None}
    if options["weight"] is not None:
        spec["weight"] = {"name": options["weight"], **parameters}
    elif parameters:
        raise ValueError(f"{', '.join('--' + key for key in parameters)} needs --weight")
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"--set wants KEY=VALUE, got {setting!r}")
        try:
            spec[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            spec[key.strip()] = text
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


def _query(series: Series, text: str | None, forecast: float | None) -> Array | None:
    """The times asked for, or None for those of the data."""
    if text is None and forecast is None:
        return None
    if text is None:
        asked = series.t
    elif text.count(":") == 2 and (series.dates is None or "T" not in text.upper()):
        *ends, by = (part.strip() for part in text.split(":"))
        low, high = series.time_of(ends)
        try:
            step = scalar(float(by), "STEP")
        except ValueError:
            raise ValueError(
                f"--query-times START:STOP:STEP needs a number as STEP, got {by!r}"
            ) from None
        if step <= 0 or high < low:
            raise ValueError(f"--query-times START:STOP:STEP must go upwards, got {text!r}")
        asked = low + step * np.arange(_steps((high - low) / step, "--query-times") + 1)
    else:
        asked = series.time_of([part.strip() for part in text.split(",")])
    if forecast is not None:
        gaps = np.diff(np.unique(series.t))
        gap = float(np.median(gaps)) if gaps.size else forecast
        ahead = series.t[-1] + gap * np.arange(1, _steps(forecast / gap, "--forecast") + 1)
        if not ahead.size:
            raise ValueError(f"--forecast must reach one step ({gap:g}), got {forecast:g}")
        asked = np.concatenate([asked, ahead])
    return np.sort(asked)


def _steps(count: float, option: str) -> int:
    """Whole steps in a range, refused before they fill the memory."""
    if not count < MOST_QUERIES:
        raise ValueError(f"{option} asks for {count:.3g} times; at most {MOST_QUERIES:,} are taken")
    return int(np.floor(count + 1e-9))


def observed(estimate: Estimate, model: LinearSDE) -> Estimate:
    """The estimate of C x + b: what an observation without noise would show."""
    mean, cov = estimate.through(model.C)
    return Estimate(estimate.t, mean + model.offset, cov, label=estimate.label)


def _estimate_frame(found: Estimate, seen: Estimate, series: Series) -> pd.DataFrame:
    frame = found.to_pandas()
    fit = seen.to_pandas([f"{name}_fit" for name in series.columns])
    for name in fit.columns.difference(["path", "t"], sort=False):
        frame[name] = fit[name]
    if series.dates is not None:
        elapsed = (frame["t"].to_numpy() - series.t[0]) * SECONDS[series.time_unit]
        dates = series.dates[0] + np.round(1e3 * elapsed).astype("timedelta64[ms]")
        frame.insert(list(frame.columns).index("t"), "date", dates)
    return frame


def _between(t: Array, points: int = 400) -> Array | None:
    """The times and, in gaps wider than 1/points of the whole, times between; None if no gap is."""
    fine = np.linspace(t[0], t[-1], points)
    after = np.clip(np.searchsorted(t, fine, side="right"), 1, max(len(t) - 1, 1))
    if len(t) < 2 or t[0] == t[-1]:
        return None
    wide = t[after] - t[after - 1] > (t[-1] - t[0]) / points
    return np.union1d(t, fine[wide]) if wide.any() else None


def _draw(path: Path, force: bool, seen: Estimate, series: Series, by: str | None) -> None:
    import os

    os.environ.setdefault("MPLBACKEND", "Agg")
    import afafilter.plotting as plotting

    p = len(series.columns)
    with plotting.paper_style():
        fig, axes = plotting.figure(p, 1, height=0.6 + 1.6 * p, squeeze=False, sharex=True)
        for i, (ax, name) in enumerate(zip(axes[:, 0], series.columns)):
            plotting.observations(series.t, series.z, i, ax=ax)
            plotting.band(seen, i, ax=ax)
            ax.set_ylabel(name)
        axes[0, 0].legend()
        if series.paths:
            axes[0, 0].set_title(f"{by} = {series.paths[0]}, the first of {len(series.paths)}")
        axis = "time"
        if series.dates is not None:
            start = str(series.dates[0])[:16].replace("T00:00", "")
            axis = f"{UNITS[series.time_unit]} since {start}"
        axes[-1, 0].set_xlabel(axis)
        with atomic_path(path, force=force) as temporary:
            fig.savefig(temporary, format=path.suffix[1:].lower())
