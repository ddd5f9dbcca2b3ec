"""Reduction of errors and claimed covariances to sums per path and per step.

Arrays are (n, S, d): paths, steps, components; covariances (n, S, d, d) or (1, S, d, d) where the
paths share them. A value enters with a count of 0 where it is undefined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from afafilter._base.checks import Array, ObsMask
from afafilter._base.normal import half_width
from afafilter.scoring.gaussian import (
    Whitened,
    crps_gaussian,
    energy_gaussian,
    interval_score,
    ljung_box,
    pit_counts,
    whiten,
)

BAND = 0.95
"""Level of all intervals and bands that are not asked for otherwise."""


@dataclass(frozen=True)
class Tally:
    """Sums and counts of one metric, per path (n, k) and per step (S, k); k = d or 1."""

    path_sum: Array
    path_count: Array
    step_sum: Array
    step_count: Array


@dataclass(frozen=True)
class Ratio:
    """A metric as a ratio of sums over independent paths; `root`: its square root (RMSE).

    sums, counts : (n,).
    """

    sums: Array
    counts: Array
    root: bool = False

    @staticmethod
    def join(parts: Sequence[Ratio]) -> Ratio:
        """The ratio over the paths of all parts."""
        sums, counts = (np.concatenate(x) for x in zip(*((r.sums, r.counts) for r in parts)))
        return Ratio(sums, counts, parts[0].root)

    @property
    def value(self) -> float:
        """Pooled value; NaN when nothing was counted."""
        return float(self.of(self.sums.sum(), self.counts.sum()))

    def of(self, total: Any, count: Any) -> Array:
        """The metric from sums and counts of any shape."""
        return _metric(total, count, self.root)

    def interval(self, level: float = BAND) -> tuple[float, float, float]:
        """Standard error, lower and upper end of Student's interval over paths (NaN for n = 1)."""
        _, *found = pooled(self.sums, self.counts, self.root, level)
        se, low, high = (float(x) for x in found)
        return se, low, high

    def row(self, name: str) -> dict[str, float]:
        """The value under this name, and the ends of its interval as low and high."""
        _, low, high = self.interval()
        return {name: self.value, "low": low, "high": high}


def _metric(total: Any, count: Any, root: Any) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.asarray(np.where(count > 0, total / count, np.nan))
        return np.where(root, np.sqrt(mean), mean) if np.any(root) else mean


def pooled(
    sums: Array, counts: Array, root: Any = False, level: float = BAND
) -> tuple[Array, Array, Array, Array]:
    """Ratios of sums over paths, with their standard errors and Student's intervals.

    Parameters
    ----------
    sums, counts : ndarray, shape (..., n)
        Of a metric, path by path.
    root : bool or ndarray, shape (...)
        Whether the metric is the square root of the ratio.
    level : float
        Of the intervals.

    Returns
    -------
    value, se, low, high : ndarray, shape (...)
        NaN where nothing was counted, the last three also for n = 1.

    Notes
    -----
    Linearised ratio estimator: the spread of s_i - r c_i over paths. The interval of a root is the
    root of the interval.
    """
    from scipy.special import stdtrit

    n, total = sums.shape[-1], np.asarray(counts.sum(-1))
    mean = _metric(sums.sum(-1), total, False)
    if n < 2:
        none = np.full(mean.shape, np.nan)
        return _metric(sums.sum(-1), total, root), none, none, none
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = sums - mean[..., None] * counts
        se = np.sqrt(n / (n - 1) * (spread**2).sum(-1)) / total
        half = float(stdtrit(n - 1, 0.5 + 0.5 * level)) * se
        low, high = mean - half, mean + half
        value = np.where(root, np.sqrt(mean), mean)
        se = np.where(root, np.where(mean > 0, se / (2.0 * np.sqrt(mean)), 0.0), se)
        low = np.where(root, np.sqrt(np.maximum(low, 0.0)), low)
        high = np.where(root, np.sqrt(high), high)
    se, low, high = np.where(np.isfinite(mean), np.stack([se, low, high]), np.nan)
    return value, se, low, high


def chi2_band(dof: Any, level: float = BAND) -> tuple[Any, Any]:
    """Central interval of chi-square / dof (NaN where dof = 0)."""
    from scipy.special import gammaincinv

    k = np.asarray(dof, dtype=np.float64)
    half = 0.5 * np.where(k > 0, k, np.nan)
    tail = 0.5 * (1.0 - level)
    low, high = gammaincinv(half, tail) / half, gammaincinv(half, 1.0 - tail) / half
    return (float(low), float(high)) if k.ndim == 0 else (low, high)


def score_states(
    mean: Array,
    cov: Array,
    truth: Array,
    levels: Sequence[float],
    componentwise: dict[str, Tally],
    joint: dict[str, Tally],
) -> Array:
    """Fill in the metrics of Gaussian estimates; returns counts of the PIT (n, d, BINS)."""
    floor = 1e-9 * np.abs(truth).max((0, 1))
    known, error, cov = determined(truth - mean, cov)
    var = np.diagonal(cov, axis1=-2, axis2=-1)
    if (var < 0).any():
        raise ValueError(f"claimed variances must be >= 0, got {var.min():.3g}")
    std = np.broadcast_to(np.sqrt(var), error.shape)
    certain = std == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        w = np.where(certain, np.where(np.abs(error) > floor, np.inf, 0.0), error / std)
        density = 0.5 * (w * w + np.log(2.0 * np.pi * std * std))
    has_density = known & ~(certain & (w == 0))
    componentwise["rmse"] = _tally(error**2, known)
    componentwise["bias"] = _tally(-error, known)
    componentwise["crps"] = _tally(crps_gaussian(w, std, error), known)
    componentwise["nlpd"] = _tally(np.where(certain, np.inf, density), has_density)
    for level in levels:
        inside = np.abs(w) <= half_width(level)
        componentwise[level_name("coverage", level)] = _tally(inside.astype(np.float64), known)
    for level in levels:
        cost = interval_score(error, std, level)
        componentwise[level_name("interval", level)] = _tally(cost, known)
    white = whiten(error, cov, floor)
    square, rank, unknown = _joint_square(white, known)
    joint["nees"] = _joint_tally(square, rank - unknown)
    free = np.maximum(error.shape[-1] - unknown, 0.0)
    with np.errstate(invalid="ignore"):
        nlpd = 0.5 * (square + white.logdet + free * np.log(2.0 * np.pi))
    singular = np.broadcast_to(np.isinf(white.logdet), square.shape)
    counted = (free > 0) & (~singular | np.isinf(square))
    density = np.where(counted, np.where(singular, np.inf, nlpd), 0.0)
    joint["nlpd"] = _joint_tally(density, counted.astype(np.float64))
    return pit_counts(w, known)


def score_points(mean: Array, truth: Array, componentwise: dict[str, Tally]) -> None:
    """Metrics of point estimates; the CRPS of a point is its absolute error."""
    known = np.isfinite(mean)
    error = np.where(known, truth - mean, 0.0)
    componentwise["rmse"] = _tally(error**2, known)
    componentwise["bias"] = _tally(-error, known)
    componentwise["crps"] = _tally(np.abs(error), known)


def score_energy(mean: Array, cov: Array, truth: Array, joint: dict[str, Tally]) -> None:
    known, error, cov = determined(truth - mean, cov)
    whole = np.asarray(known.all(-1))
    joint["energy"] = _joint_tally(energy_gaussian(error, cov), whole.astype(np.float64))


def score_innovations(residual: Array, cov: Array, lags: int, joint: dict[str, Tally]) -> None:
    floor = 1e-9 * np.nan_to_num(np.abs(residual)).max((0, 1))
    known, error, cov = determined(residual, cov)
    white = whiten(error, cov, floor)
    square, rank, unknown = _joint_square(white, known)
    joint["nis"] = _joint_tally(square, rank - unknown)
    if lags > 0:
        finite = np.where(np.isfinite(white.y), white.y, 0.0)
        statistic, dof = ljung_box(finite, known, lags)
        none = np.zeros((residual.shape[1], 1))
        joint["ljung_box"] = Tally(
            statistic.sum(-1, keepdims=True), dof.sum(-1, keepdims=True), none, none
        )


def determined(error: Array, cov: Array) -> tuple[ObsMask, Array, Array]:
    """Mask of determined components; error 0, variance 1 and covariances 0 in the others."""
    var = np.diagonal(cov, axis1=-2, axis2=-1)
    known = np.isfinite(error) & np.isfinite(var)
    if known.all():
        return known, error, cov
    mask = known[:1] if len(cov) == 1 and (known == known[:1]).all() else known
    pair = mask[..., :, None] & mask[..., None, :]
    filled = np.where(pair, cov, np.eye(cov.shape[-1]))
    return known, np.where(known, error, 0.0), filled


def _joint_square(white: Whitened, known: ObsMask) -> tuple[Array, Array, Array]:
    square = (white.y**2).sum(-1)
    unknown = (~known).sum(-1).astype(np.float64)
    return square, np.broadcast_to(white.rank, square.shape), unknown


def _tally(values: Array, used: ObsMask) -> Tally:
    kept = values if used.all() else np.where(used, values, 0.0)
    count = used.astype(np.float64)
    return Tally(kept.sum(1), count.sum(1), kept.sum(0), count.sum(0))


def _joint_tally(values: Array, count: Array) -> Tally:
    kept = np.where((count > 0) | np.isinf(values), values, 0.0)[..., None]
    count = count[..., None]
    return Tally(kept.sum(1), count.sum(1), kept.sum(0), count.sum(0))


def level_name(metric: str, level: float) -> str:
    """Metric name of a level: 0.95 -> "coverage95"."""
    return f"{metric}{100 * level:.6g}"


def join_tallies(parts: Sequence[Tally]) -> Tally:
    """The tally of all paths, in this order."""
    paths = (np.concatenate(x) for x in zip(*((p.path_sum, p.path_count) for p in parts)))
    steps = (np.sum(x, axis=0) for x in zip(*((p.step_sum, p.step_count) for p in parts)))
    return Tally(*paths, *steps)
