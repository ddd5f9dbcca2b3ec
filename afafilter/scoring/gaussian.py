"""Closed-form scores of Gaussian predictions, vectorised: the arithmetic behind `score`.

Arrays are (n, S, d): paths, steps, components; covariances (n, S, d, d) or (1, S, d, d) where the
paths share them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from afafilter._base.checks import Array, ObsMask
from afafilter._base.normal import half_width

SINGULAR = 1e-13
"""Smallest pivot of a correlation matrix that counts as nonzero."""

BINS = 20
"""Number of equal bins of u; even, so that central intervals are made of whole bins."""


class Whitened(NamedTuple):
    """Residuals in units of their claimed covariance.

    y : (n, S, d) with |y|^2 the squared Mahalanobis distance (inf where a residual leaves the
        range of a singular covariance); rank : (1 or n, S); logdet : (1 or n, S) log determinant,
        -inf where singular.
    """

    y: Array
    rank: Array
    logdet: Array


def whiten(residual: Array, cov: Array, floor: Array) -> Whitened:
    """L^-1 residual with cov = L L^T; `floor` (d,): residuals below it are rounding.

    A singular covariance is inverted on its range; the squared Mahalanobis
    distance of a residual outside of the range is infinite.

    ValueError: If a covariance is indefinite.
    """
    d = residual.shape[-1]
    scale = np.sqrt(np.diagonal(cov, axis1=-2, axis2=-1))
    scale = np.where(scale > 0, scale, 1.0)
    corr = cov / (scale[..., :, None] * scale[..., None, :])
    scaled = residual / scale
    log_scale = 2.0 * np.log(scale).sum(-1)
    try:
        L = np.linalg.cholesky(corr)
    except np.linalg.LinAlgError:
        return _whiten_singular(scaled, corr, log_scale, floor / scale)
    pivots = np.diagonal(L, axis1=-2, axis2=-1)
    if (pivots**2 <= SINGULAR).any():
        return _whiten_singular(scaled, corr, log_scale, floor / scale)
    y = np.empty_like(scaled)
    for i in range(d):
        known = np.einsum("...j,...j->...", L[..., i, :i], y[..., :i])
        y[..., i] = (scaled[..., i] - known) / pivots[..., i]
    rank = np.full(pivots.shape[:-1], float(d))
    return Whitened(y, rank, 2.0 * np.log(pivots).sum(-1) + log_scale)


def _whiten_singular(scaled: Array, corr: Array, log_scale: Array, floor: Array) -> Whitened:
    """`whiten` by the eigenvectors of the correlation matrix with nonzero eigenvalues."""
    values, vectors = np.linalg.eigh(corr)
    if (values[..., 0] < -1e-9).any():
        raise ValueError(
            f"claimed covariance must be positive semidefinite, got one whose correlation matrix "
            f"has the eigenvalue {values.min():.3g}"
        )
    in_range = values > SINGULAR * corr.shape[-1]
    along = np.einsum("...ji,...j->...i", vectors, scaled)
    tolerance = np.sqrt((floor**2).sum(-1, keepdims=True))
    outside = np.where(np.abs(along) > tolerance, np.inf, 0.0)
    y = np.where(in_range, along / np.sqrt(np.where(in_range, values, 1.0)), outside)
    rank = in_range.sum(-1).astype(np.float64)
    logs = np.log(np.where(in_range, values, 1.0)).sum(-1) + log_scale
    return Whitened(y, rank, np.where(in_range.all(-1), logs, -np.inf))


def crps_gaussian(standardised: Array, std: Array, error: Array) -> Array:
    """Continuous ranked probability score of N(m, std^2), in the units of the state.

    std [w (2 Phi(w) - 1) + 2 phi(w) - 1/sqrt(pi)], w = error / std (Gneiting & Raftery 2007,
    eq. 21); the absolute error where std = 0.
    """
    from scipy.special import ndtr

    w = np.where(std > 0, standardised, 0.0)
    density = np.exp(-0.5 * w * w) / np.sqrt(2.0 * np.pi)
    smooth = std * (w * (2.0 * ndtr(w) - 1.0) + 2.0 * density - 1.0 / np.sqrt(np.pi))
    return np.where(std > 0, smooth, np.abs(error))


def pit_counts(standardised: Array, known: ObsMask) -> Array:
    """Counts (n, d, BINS) of u from (x - m) / s and its mask, both (n, S, d)."""
    from scipy.special import ndtr

    n, _, d = standardised.shape
    at = np.minimum((ndtr(standardised) * BINS).astype(np.intp), BINS - 1)
    series = np.arange(n)[:, None, None] * d + np.arange(d)
    flat = (series * BINS + at)[known]
    return np.bincount(flat, minlength=n * d * BINS).reshape(n, d, BINS).astype(np.float64)


def interval_score(error: Array, std: Array, level: float) -> Array:
    """Interval score of the central interval of N(m, std^2), in the units of the state.

    (u - l) + 2/alpha [(l - x)_+ + (x - u)_+], alpha = 1 - level (Winkler, JASA 67 (1972) 187;
    Gneiting & Raftery 2007, eq. 43).
    """
    half = half_width(level) * std
    return np.asarray(2.0 * half + 2.0 / (1.0 - level) * np.maximum(np.abs(error) - half, 0.0))


def energy_gaussian(error: Array, cov: Array) -> Array:
    """Energy score E|X - x| - E|X - X'| / 2 of X ~ N(m, cov), error = m - x; shape (n, S).

    The expectations are not sampled but integrated (`mean_norm`), to about 1e-8.
    """
    values, vectors = np.linalg.eigh(cov)
    values = np.clip(values, 0.0, None)
    along = np.einsum("...ji,...j->...i", vectors, error)
    spread = mean_norm(np.zeros_like(values), 2.0 * values)
    return mean_norm(along, np.broadcast_to(values, along.shape)) - 0.5 * spread


def mean_norm(mean: Array, var: Array) -> Array:
    """E|Y| for Y ~ N(mean, diag(var)), arrays (..., d) -> (...).

    E|Y| = (4 pi)^-1/2 int_0^inf (1 - E exp(-s|Y|^2)) s^-3/2 ds (Schilling, Song & Vondracek,
    Bernstein Functions, ch. 1: the square root). The Laplace transform of |Y|^2 is elementary.
    Against an exponential law of the same mean the integrand decays at both ends, so that the
    trapezoidal rule in log s converges geometrically.
    """
    square = mean**2
    size = (square + var).sum(-1)
    unit = np.where(size > 0, size, 1.0)
    square, var = square / unit[..., None], var / unit[..., None]
    h = 0.4
    total = np.zeros(size.shape)
    for u in np.arange(-16.0, 26.0, h):
        s = np.exp(u)
        spread = 1.0 + 2.0 * s * var
        laplace = np.exp(-(s * square / spread).sum(-1)) / np.sqrt(spread.prod(-1))
        total += (1.0 / (1.0 + s) - laplace) * np.exp(-0.5 * u)
    reference = 0.5 * np.sqrt(np.pi)
    return np.where(size > 0, np.sqrt(unit) * (reference + h * total / np.sqrt(4.0 * np.pi)), 0.0)


def ljung_box(x: Array, present: ObsMask, lags: int) -> tuple[Array, Array]:
    """Ljung-Box statistic of each series of mean zero, and its degrees of freedom.

    Q = m (m + 2) sum_k r_k^2 / m_k with m values present and m_k pairs present at lag k: m - k when
    nothing is missing (Ljung & Box 1978, Biometrika 65, 297), and the same variance argument with
    gaps (Stoffer & Toloi 1992, Statistics & Probability Letters 13, 391). The sample mean is not
    subtracted: then E Q is the degrees of freedom exactly, for white Gaussian series of any
    length. Series along axis -2: x (n, S, p) -> (n, p). A series too short, too gappy or all zero
    has 0 degrees of freedom.
    """
    count = present.sum(-2)
    x = np.where(present, x, 0.0)
    power = (x**2).sum(-2)
    usable = (count > lags) & (power > 0)
    total = np.zeros(power.shape)
    for k in range(1, lags + 1):
        pairs = (present[..., k:, :] & present[..., :-k, :]).sum(-2)
        r = (x[..., k:, :] * x[..., :-k, :]).sum(-2) / np.where(power > 0, power, 1.0)
        total += r**2 / np.maximum(pairs, 1)
        usable &= pairs > 0
    return np.where(usable, count * (count + 2) * total, 0.0), np.where(usable, float(lags), 0.0)
