"""Columns of a result: states, what the estimate says of each value, bands, weights, flags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from afafilter._base.checks import Array, ObsMask
from afafilter._base.normal import half_width
from afafilter.io.series import Series
from afafilter.models.discrete import DiscreteModel
from afafilter.models.forcing import signal
from afafilter.models.sde import LinearSDE
from afafilter.results import Estimate

OUTLIER = 0.999
"""A residual is an outlier beyond this quantile of the noise."""


@dataclass(frozen=True)
class Rows:
    """One path: its time column as the user wrote it, the times as numbers, and the rest."""

    time: Any
    elapsed: Array
    columns: dict[str, Any]


def observed(estimate: Estimate, model: LinearSDE | DiscreteModel) -> Estimate:
    """The estimate of C x + b: what an observation without noise would show."""
    mean, cov = signal(model, estimate)
    return Estimate(estimate.t, mean, cov, label=estimate.label, info=estimate.info)


def rows_of(
    found: Estimate,
    model: LinearSDE | DiscreteModel,
    series: Series,
    beside: Series | None,
    levels: Sequence[float],
    weight: Any,
) -> list[Rows]:
    """The rows of every path of one estimate, beside measurements at its times (None: elsewhere).

    Columns: states x0.. with x0_sd..; per value its measurement <value>, <value>_fit and
    <value>_fit_sd (the signal, without noise), <value>_obs_sd (a measurement of it); for each level
    <value>_fit_low50.. and <value>_obs_low50..; forecast (1 after the data), where other times are
    asked for; under a robust weight the weight of the row and outlier (1 beyond `OUTLIER`).
    """
    seen = observed(found, model)
    T, d, p = len(found.t), model.dim, model.obs_dim
    noise = np.diagonal(model.R, axis1=-2, axis2=-1)
    if beside is not None and beside.obs_cov is not None:
        noise = np.diagonal(beside.obs_cov, axis1=-2, axis2=-1)
    n = len(series.paths) or 1
    shape = (n, T, d)
    mean = found.mean.reshape(shape)
    sd = np.broadcast_to(found.std, found.mean.shape).reshape(shape)
    fit = seen.mean.reshape(n, T, p)
    fit_sd = np.broadcast_to(seen.std, seen.mean.shape).reshape(n, T, p)
    obs_sd = np.sqrt(fit_sd**2 + noise)
    z = None if beside is None else beside.z.reshape(n, T, p)
    robust = None if z is None or weight is None else _robust(found, fit, z, noise, weight)
    time = _stamps(series, found.t)
    late = (found.t > series.t[-1]).astype(np.int64)
    out = []
    for k in range(n):
        columns: dict[str, Any] = {}
        for i in range(d):
            columns[f"x{i}"], columns[f"x{i}_sd"] = mean[k, :, i], sd[k, :, i]
        for i, name in enumerate(series.columns):
            if z is not None:
                columns[name] = z[k, :, i]
            bands = (fit[k, :, i], fit_sd[k, :, i], obs_sd[k, :, i])
            columns |= _bands(name, *bands, levels)
        if beside is not series:
            columns["forecast"] = late
        if robust is not None:
            columns["weight"], columns["outlier"] = robust[0][k], robust[1][k]
        out.append(Rows(time, found.t, columns))
    return out


def _bands(
    name: str, fit: Array, fit_sd: Array, obs_sd: Array, levels: Sequence[float]
) -> dict[str, Any]:
    """Columns of one value: signal, its sd, sd of a measurement, and intervals of both."""
    columns = {f"{name}_fit": fit, f"{name}_fit_sd": fit_sd, f"{name}_obs_sd": obs_sd}
    for level in levels:
        half = half_width(0.01 * level)
        for kind, sd in (("fit", fit_sd), ("obs", obs_sd)):
            with np.errstate(invalid="ignore"):
                columns[f"{name}_{kind}_low{level:g}"] = fit - half * sd
                columns[f"{name}_{kind}_high{level:g}"] = fit + half * sd
    return columns


def _robust(found: Estimate, fit: Array, z: Array, noise: Array, weight: Any) -> tuple[Array, Any]:
    """Weight of each row, (n, T), and whether its residual is an outlier under the noise.

    The weight is the estimator's own where it has one per observation, else that of the residual
    of the estimate at the same time.
    """
    from scipy.special import chdtri

    residual: Array = z - fit
    usable: ObsMask = np.isfinite(residual)
    d2 = (np.where(usable, residual, 0.0) ** 2 / np.maximum(noise, 1e-300)).sum(axis=-1)
    count = usable.sum(axis=-1)
    limit = chdtri(np.arange(1, z.shape[-1] + 1), 1 - OUTLIER)[np.maximum(count, 1) - 1]
    own = found.info.get("robust_weights")
    if own is not None:
        weights = np.full(count.shape, np.nan)
        weights[:, : np.shape(own)[-1]] = np.reshape(own, (len(count), -1))
    else:
        weights = np.asarray(weight(d2, np.maximum(count, 1)))
    weights = np.where(count > 0, weights, np.nan)
    return weights, ((d2 > limit) & (count > 0)).astype(np.int64)


def _stamps(series: Series, t: Array) -> Any:
    """The time column as the data have it; dates with a time zone as text."""
    stamps = series.stamps
    if stamps is None:
        return t
    values = stamps.at(t)
    return stamps.text(values) if stamps.dated and stamps.zone is not None else values
