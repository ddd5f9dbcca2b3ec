"""What a report says of a series: numbers only, by the public functions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from afafilter._base.checks import Array
from afafilter.adaptive.estimators import adaptive_filter, adaptive_smoother
from afafilter.io.series import Series
from afafilter.kalman.estimators import kalman_filter, rts_smoother
from afafilter.learning.diagnostics import Diagnostics, diagnose
from afafilter.learning.family_text import parse_family
from afafilter.learning.fit import fit
from afafilter.learning.result import FitResult
from afafilter.models.forcing import shown_offset
from afafilter.models.sde import LinearSDE
from afafilter.results import Estimate
from afafilter.studies.hold_out import HoldOut, hold_out
from afafilter.weights import StudentT

if TYPE_CHECKING:
    import pandas as pd

CANDIDATES = ("brownian{} + noise{}", "local_linear_trend{} + noise{}")
"""Families that are tried where the user names none; the one of the least BIC is taken."""
OUTLIER_SD = 3.29
"""A residual of the robust estimate is an outlier beyond so many standard deviations (99.9 %)."""
AHEAD = 0.1
"""Part of the record that the forecast reaches beyond its end."""
MAP_SIZE = 60
"""Observations in the maps of weights."""
MOST_ROWS = 4000
"""Rows up to which the slower estimators take part in the comparison."""


@dataclass(frozen=True, eq=False)
class Analysis:
    """Everything that a page shows.

    Attributes
    ----------
    series : Series
        The data.
    model, fitted
        The model and, where it was learned, how.
    smooth : estimate at `t_smooth`, data and forecast; signal and signal_sd (T', p), obs_sd (T', p)
        for a measurement.
    outliers : array_like, shape (T, p)
        By the robust smoother.
    checks : Diagnostics
        Standardised one-step errors and the tests of them.
    compared : HoldOut
        Hold-out scores.
    map_t, afa_map, kalman_map : ndarray
        Times and weights (n, n) of the last observations.
    """

    series: Series
    model: LinearSDE
    fitted: FitResult | None
    t_smooth: Array
    signal: Array
    signal_sd: Array
    obs_sd: Array
    outliers: Any
    checks: Diagnostics
    compared: HoldOut
    map_t: Array
    afa_map: Array
    kalman_map: Array


def analyse(series: Series, model: LinearSDE | None = None, family: str | None = None) -> Analysis:
    """Fit (where no model is given), smooth, forecast, check and compare.

    Raises
    ------
    ValueError
        Several paths in one series; a model that does not fit the columns; too few observations.
    """
    if series.z.ndim != 2:
        raise ValueError("a report is about one series: choose one path")
    fitted = None
    if model is None:
        fitted = _learned(series, family)
        found = fitted.model
        assert isinstance(found, LinearSDE)
        model = found
    t, z, noise = series.t, series.z, series.obs_cov
    extra: dict[str, Any] = {} if noise is None else {"obs_cov": noise}
    ahead = _ahead(t)
    asked = np.union1d(_between(t), ahead)
    smooth = rts_smoother(model, t, z, query_times=asked, **extra)
    mean, cov = smooth.through(model.C)
    var = np.diagonal(cov, axis1=-2, axis2=-1)
    robust = rts_smoother(model, t, z, weight=StudentT(4.0), anchor="estimate", **extra)
    R = np.diag(model.R) if noise is None else np.diagonal(noise, axis1=-2, axis2=-1)
    residual = z - robust.through(model.C)[0] - shown_offset(model, robust.t)
    with np.errstate(invalid="ignore", divide="ignore"):
        outliers = np.abs(residual) > OUTLIER_SD * np.sqrt(R)
    map_t, afa_map, kalman_map = weight_maps(model, series)
    return Analysis(
        series,
        model,
        fitted,
        asked,
        mean + shown_offset(model, asked),
        np.sqrt(var),
        np.sqrt(var + np.diag(model.R)),
        outliers,
        diagnose(fitted or model, t, z, obs_cov=noise),
        hold_out(_estimators(len(t)), model, t, z, obs_cov=noise, pieces=4),
        map_t,
        afa_map,
        kalman_map,
    )


def _learned(series: Series, family: str | None) -> FitResult:
    p = len(series.columns)
    if family is not None:
        texts = [family]
    else:
        axes = f"({p})" if p > 1 else ""
        texts = [text.format(axes, axes) for text in CANDIDATES[: 1 if p > 1 else None]]
    fits = [
        fit(parse_family(text), series.t, series.z, obs_cov=series.obs_cov, inputs=series.inputs)
        for text in texts
    ]
    best = min(fits, key=lambda found: found.bic)
    return replace(best, time_unit=series.time_unit)


def _estimators(rows: int) -> Mapping[str, Callable[..., Estimate]]:
    """Those that a page compares, slow ones on short records only."""
    robust = StudentT(4.0)
    quick: dict[str, Callable[..., Estimate]] = {
        "Kalman filter": kalman_filter,
        "RTS smoother": rts_smoother,
        "robust RTS (Student-t)": functools.partial(rts_smoother, weight=robust, anchor="estimate"),
    }
    if rows > MOST_ROWS:
        return quick
    return quick | {
        "AFA": adaptive_filter,
        "AFA smoother": adaptive_smoother,
        "AFA smoother, exact": functools.partial(adaptive_smoother, correlation="exact"),
    }


def _ahead(t: Array) -> Array:
    gaps = np.diff(t)
    gaps = gaps[gaps > 0]
    step = float(np.median(gaps)) if gaps.size else 1.0
    count = int(np.clip(AHEAD * len(t), 3, 400))
    return np.asarray(t[-1] + step * np.arange(1, count + 1))


def _between(t: Array, points: int = 500) -> Array:
    """The times, and times between in wide gaps."""
    fine = np.linspace(t[0], t[-1], points)
    after = np.clip(np.searchsorted(t, fine, side="right"), 1, max(len(t) - 1, 1))
    if len(t) < 2 or t[0] == t[-1]:
        return np.unique(t)
    wide = t[after] - t[after - 1] > 2 * (t[-1] - t[0]) / points
    return np.union1d(t, fine[wide])


def weight_maps(model: LinearSDE, series: Series) -> tuple[Array, Array, Array]:
    """AFA's attention and the filter's equivalent weights over the last observations.

    Row i: the weight of every observation j in the estimate at i. The filter's are its response to
    a unit impulse in observation j, seen through C: its estimate is linear in the data. First
    component of the values.
    """
    seen = np.flatnonzero(np.isfinite(series.z[:, 0]))[-MAP_SIZE:]
    t, n, p = series.t[seen], len(seen), model.obs_dim
    # Impulses on top of zero data; the response to zero (drift, offset, prior mean) is taken off.
    z = np.zeros((n + 1, n, p))
    z[np.arange(n), np.arange(n), 0] = 1.0
    mean = kalman_filter(model, t, z).through(model.C)[0][..., 0]
    kalman = np.nan_to_num(mean[:n] - mean[n]).T
    attention = adaptive_filter(model, t, series.z[seen], return_weights=True).weights
    assert attention is not None
    return t, np.nan_to_num(attention), kalman


def tables(found: Analysis) -> dict[str, pd.DataFrame]:
    """The numbers behind the page, by the name of the file that they can be saved as."""
    import pandas as pd

    series = found.series
    estimate: dict[str, Any] = {"t": found.t_smooth}
    data: dict[str, Any] = {"t": series.t}
    for i, name in enumerate(series.columns):
        estimate[f"{name}_fit"] = found.signal[:, i]
        estimate[f"{name}_fit_sd"] = found.signal_sd[:, i]
        estimate[f"{name}_obs_sd"] = found.obs_sd[:, i]
        data[name] = series.z[:, i]
        data[f"{name}_outlier"] = found.outliers[:, i].astype(int)
        data[f"{name}_standardised_innovation"] = found.checks.residuals[:, i]
    estimate["forecast"] = (found.t_smooth > series.t[-1]).astype(int)
    out = {"estimate": pd.DataFrame(estimate), "data": pd.DataFrame(data)}
    out["hold_out"] = found.compared.frame
    if found.fitted is not None:
        out["parameters"] = found.fitted.to_pandas().reset_index()
    for name, weights in (("attention", found.afa_map), ("kalman_weights", found.kalman_map)):
        out[name] = pd.DataFrame(weights, columns=[f"{t:.12g}" for t in found.map_t])
    return out
