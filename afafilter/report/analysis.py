"""What a report says of a series: numbers only, by the public functions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from afafilter._base.checks import Array
from afafilter._base.frames import data_frame
from afafilter._base.steps import filled_in, usual_step
from afafilter.adaptive.estimators import adaptive_filter, adaptive_smoother
from afafilter.io.series import Series
from afafilter.kalman.estimators import kalman_filter, rts_smoother
from afafilter.learning.diagnostics import Diagnostics, diagnose
from afafilter.learning.family_text import parse_family
from afafilter.learning.fit import fit
from afafilter.learning.result import FitResult
from afafilter.models.discrete import DiscreteModel
from afafilter.models.forcing import signal
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
MANY = 0.01
"""Share of outliers from which on the robust estimate is shown, which does not follow them."""
AHEAD = 0.1
"""Part of the record that the forecast reaches beyond its end."""
MAP_SIZE = 60
"""Observations in the maps of weights."""
MOST_ROWS = 4000
"""Rows up to which the slower estimators take part in the comparison."""


@dataclass(frozen=True, eq=False)
class Analysis:
    """Everything that a page shows.

    `fitted`: how the model was learned, if it was. Estimates are at t_smooth (T',), data and
    forecast: signal and its standard deviation (T', p), obs_sd (T', p) for a measurement. outliers
    (T, p) by the robust smoother; `robust`: the estimate is that smoother's, since more than `MANY`
    of the values are outliers. map_t, afa_map, kalman_map: times and weights (n, n) of the last
    observations; afa_map is None where AFA cannot be had, and afa_why says why.
    """

    series: Series
    model: LinearSDE | DiscreteModel
    fitted: FitResult | None
    t_smooth: Array
    signal: Array
    signal_sd: Array
    obs_sd: Array
    outliers: Any
    robust: bool
    checks: Diagnostics
    compared: HoldOut
    map_t: Array
    afa_map: Array | None
    kalman_map: Array
    afa_why: str = ""


def analyse(
    series: Series, model: LinearSDE | DiscreteModel | None = None, family: str | None = None
) -> Analysis:
    """Fit (where no model is given), smooth, forecast, check and compare one series."""
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
    weights: dict[str, Any] = {"weight": StudentT(4.0), "anchor": "estimate"}
    late = np.diagonal(model.R, axis1=-2, axis2=-1)
    R = late if noise is None else np.diagonal(noise, axis1=-2, axis2=-1)
    outliers = np.zeros(z.shape, bool)
    if not (R == 0).any():  # exact measurements are none
        robust = rts_smoother(model, t, z, **weights, **extra)
        with np.errstate(invalid="ignore"):
            outliers = np.abs(z - signal(model, robust)[0]) > OUTLIER_SD * np.sqrt(R)
    followed = outliers.sum() <= MANY * np.isfinite(z).sum()
    smooth = _smoothed(model, t, z, extra if followed else extra | weights)
    mean, cov = signal(model, smooth)
    var = np.diagonal(cov, axis1=-2, axis2=-1)
    shown = smooth.t, mean, np.sqrt(var), np.sqrt(var + late), outliers, not followed
    checks = diagnose(fitted or model, t, z, obs_cov=noise)
    compared = hold_out(_estimators(len(t)), model, t, z, obs_cov=noise, pieces=4)
    return Analysis(series, model, fitted, *shown, checks, compared, *weight_maps(model, series))


def _smoothed(
    model: LinearSDE | DiscreteModel, t: Array, z: Array, extra: dict[str, Any]
) -> Estimate:
    """The smoother at the data, between them where the model knows of it, and ahead."""
    count = int(np.clip(AHEAD * len(t), 3, 400))
    ahead = t[-1] + (usual_step(t) or 1.0) * np.arange(1, count + 1)
    if isinstance(model, LinearSDE):
        return rts_smoother(model, t, z, query_times=np.union1d(filled_in(t, 250), ahead), **extra)
    if model.time_varying:
        return rts_smoother(model, t, z, **extra)
    longer = np.concatenate([z, np.full((len(ahead), z.shape[1]), np.nan)])
    if "obs_cov" in extra:
        late = np.broadcast_to(model.R, (len(ahead), *model.R.shape))
        extra = extra | {"obs_cov": np.concatenate([extra["obs_cov"], late])}
    return rts_smoother(model, np.concatenate([t, ahead]), longer, **extra)


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


def weight_maps(
    model: LinearSDE | DiscreteModel, series: Series
) -> tuple[Array, Array | None, Array, str]:
    """Times of the last observations, AFA's attention and the filter's equivalent weights of them.

    Row i: the weight of every observation j in the estimate at i. The filter's are its response to
    a unit impulse in observation j, seen through C: its estimate is linear in the data. First
    component of the values. The last entry says why AFA has no map, where it has none (None).
    """
    seen = np.flatnonzero(np.isfinite(series.z[:, 0]))[-MAP_SIZE:]
    rows = seen if isinstance(model, LinearSDE) else np.arange(seen[0], len(series.t))
    if isinstance(model, DiscreteModel) and model.time_varying:
        return series.t[seen], None, np.zeros((0, 0)), "the model's matrices vary with time"
    t, n = series.t[rows], len(seen)
    at = np.searchsorted(rows, seen)
    # Impulses on top of zero data; the response to zero (drift, offset, prior mean) is taken off.
    z = np.full((n + 1, len(rows), model.obs_dim), np.nan)
    z[:, at] = 0.0
    z[np.arange(n), at, 0] = 1.0
    mean = signal(model, kalman_filter(model, t, z))[0][..., at, 0]
    kalman = np.nan_to_num(mean[:n] - mean[n]).T
    form: Any = model  # a discrete model by its logarithm, where there is one
    try:
        found = adaptive_filter(form, t, series.z[rows], return_weights=True)
    except ValueError as error:
        return series.t[seen], None, kalman, str(error)
    assert found.weights is not None
    return series.t[seen], np.nan_to_num(found.weights[at][:, at]), kalman, ""


def tables(found: Analysis) -> dict[str, pd.DataFrame]:
    """The numbers behind the page, by the name of the file that they can be saved as."""
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
    out = {"estimate": data_frame(estimate), "data": data_frame(data)}
    out["hold_out"] = found.compared.frame
    if found.fitted is not None:
        out["parameters"] = found.fitted.to_pandas().reset_index()
    for name, weights in (("attention", found.afa_map), ("kalman_weights", found.kalman_map)):
        if weights is None or not weights.size:
            continue
        out[name] = data_frame(weights, columns=[f"{t:.12g}" for t in found.map_t])
    return out
