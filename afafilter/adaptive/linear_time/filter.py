"""Plain AFA of isotropic models in linear time: sums of exponentials, FFT, streams, layers.

Without residual weights AFA is a ratio of two convolutions over the lag,

    zbar_i = sum_j E_ij P_ij e^{Omega (t_i - t_j)} z_j / sum_j P_ij,   claimed cov I / sum_j P_ij,

(Racioppo, "Attention as an Adaptive Filter", arXiv:2509.04154, isotropic case, w = 1). With
P(tau) ~ sum_k c_k e^{-s_k tau} both are banks of first-order recurrences: O(T K d) time and
O(K d) memory for irregular times, one observation at a time if wanted, and the same thing as a
diagonal state-space layer. On regular grids the convolution can be done by FFT instead.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, choice, observations, scalar, times
from afafilter._base.containers import takes_tables
from afafilter._base.steps import asked_times, regular_step
from afafilter.adaptive.linear_time.bank import (
    IsotropicParameters,
    Side,
    by_exponentials,
    by_fft,
    isotropic_covariance,
    missing_groups,
    require_isotropic,
)
from afafilter.adaptive.linear_time.sums import (
    ExponentialSum,
    plain_weight,
    plain_weights_exponentials,
)
from afafilter.models.sde import LinearSDE
from afafilter.results import Estimate

METHODS = ("auto", "linear", "fft")
FFT_WORTH = 4.0  # terms of the recurrence that cost as much as the FFT, per log2 T (measured)
FFT_SPREAD = 1e4
"""Largest ratio between weights for which the FFT's absolute rounding is harmless."""


class OutOfReachError(ValueError):
    """No sum of exponentials comes near the weights: the estimate would mean nothing."""


class PlainEstimate(NamedTuple):
    """Means (..., M, d), claimed variances per component (..., M), and how they were made."""

    mean: Array
    variance: Array
    method: str
    error_bound: float
    n_terms: tuple[int, ...]


@takes_tables
def linear_time_estimate(
    model: LinearSDE,
    t: ArrayLike,
    z: ArrayLike | None = None,
    *,
    two_sided: bool = False,
    anchor_var: float = 0.0,
    query_times: ArrayLike | None = None,
    method: str = "auto",
    tolerance: float = 1e-9,
    weights: ExponentialSum | None = None,
) -> PlainEstimate:
    """Plain AFA (no residual weights) of an isotropic model in O(T K d) or O(T d log T).

    Parameters
    ----------
    model : LinearSDE
        Isotropic: A = -mu I + skew, mu >= 0, Q = sigma^2 I, R = eta^2 I, C = I; drift, offset
        and delay are allowed.
    t : array_like, shape (T,)
        Observation times.
    z : array_like, shape (..., T, d)
        Rows wholly NaN are missing.
    two_sided : bool
        Use observations of both sides (smoother) instead of the past only.
    anchor_var : float
        gamma^2 >= 0, noise on the query's side, state^2.
    query_times : array_like, shape (M,), optional
        Times of the estimates; default t.
    method : str
        "linear" (exponentials), "fft" (regular grid, no query_times, no delay), or "auto":
        the FFT where it is possible and costs less, or where the exponentials miss the tolerance.
    tolerance : float
        Relative error wanted of the estimates; `error_bound` tells the one achieved.
    weights : ExponentialSum, optional
        Causal only: use this sum instead of the fitted one; `separable_weights(...)` makes
        this the paper's recursive approximation of the batch MLE, with O(1) memory.

    Returns
    -------
    PlainEstimate
        Before the first observation the mean is NaN and the variance inf. `error_bound` bounds
        the error of a mean relative to the weighted mean of |zhat_ij|, and that of the variance.

    Raises
    ------
    ValueError
        The model is not isotropic, a row is missing in part, obs_var + anchor_var = 0, "fft"
        without a regular grid, `weights` of too short a horizon; no sum of exponentials comes
        near the weights (an error bound of 1 or more).

    Notes
    -----
    Paths that miss the same rows share one pass. Memory beyond input and output: O(K d) per path
    for "linear", O(T d) for "fft".
    """
    parameters = require_isotropic(model)
    gamma2 = scalar(anchor_var, "anchor_var", low=0.0)
    choice(method, "method", METHODS)
    stamps = times(t)
    queries = asked_times(query_times, stamps)
    data = observations(z, len(stamps), model.dim)
    seen = stamps - model.delay
    if query_times is None and not (two_sided and model.delay):
        visible = np.arange(1, len(stamps) + 1)
    else:
        visible = np.searchsorted(seen if two_sided else stamps, queries, side="right")
    sides = _sides(parameters, gamma2, seen, queries, two_sided, 0.2 * tolerance, weights)
    paths = data.reshape(-1, len(stamps), model.dim) - model.offset
    groups = missing_groups(paths)
    step = regular_step(seen) if query_times is None and model.delay == 0 else None
    bound = 2 * max(side.weights.bound for side in sides)
    lags = np.asarray(np.arange(len(stamps)) * (step or 0.0), dtype=np.float64)

    def exact(tau: Array) -> list[Array]:
        kinds = ("causal", "acausal")[: 1 + two_sided]
        return [plain_weight(tau, *parameters.noise, gamma2, kind) for kind in kinds]

    if method == "auto":
        method = "linear"
        if step is not None and weights is None:
            costly = _cost(sides) > FFT_WORTH * np.log2(len(stamps))
            safe = all(max(w) <= FFT_SPREAD * min(w) for w in exact(lags[[0, -1]]))  # monotone
            if safe and (costly or bound > tolerance):
                method = "fft"
    if method == "linear" and weights is None:
        require_reach(bound)
    if method == "fft":
        if step is None or weights is not None:
            raise ValueError(
                "method 'fft' needs equally spaced t and no query_times, delay or weights; "
                "use method 'linear'"
            )
        kernels = exact(lags)
        if not np.isfinite(kernels).all():
            raise ValueError("method 'fft' overflows: the weights grow too far; use 'linear'")

    drifted = parameters.drift_path(model.drift, seen - seen[0])
    mean = np.empty((len(paths), len(queries), model.dim))
    variance = np.empty((len(paths), len(queries)))
    for members, valid in groups:
        rows = paths[members] - drifted
        rows[:, ~valid] = 0.0
        y = parameters.to_planes(rows)
        if method == "fft":
            assert step is not None
            x, var, bound = by_fft(y, valid, step, kernels, parameters.decay, parameters.frequency)
        else:
            x, var = by_exponentials(y, valid, seen, queries, visible, sides, parameters.frequency)
        mean[members] = parameters.from_planes(x)
        variance[members] = var
    mean += parameters.drift_path(model.drift, queries - seen[0])
    lead = data.shape[:-2]
    n_terms = tuple(side.weights.n_terms for side in sides) if method == "linear" else ()
    return PlainEstimate(
        mean.reshape(*lead, *mean.shape[1:]),
        variance.reshape(*lead, variance.shape[1]),
        method,
        bound,
        n_terms,
    )


@takes_tables
def linear_time_filter(
    model: LinearSDE,
    t: ArrayLike,
    z: ArrayLike | None = None,
    *,
    two_sided: bool = False,
    anchor_var: float = 0.0,
    query_times: ArrayLike | None = None,
    method: str = "auto",
    tolerance: float = 1e-9,
    weights: ExponentialSum | None = None,
) -> Estimate:
    """`linear_time_estimate` as an `Estimate` with full covariances; same arguments.

    info: method, error_bound, n_terms. Covariances take O(M d^2) memory; where that hurts use
    `linear_time_estimate`, which returns one variance per time.

    Examples
    --------
    >>> from afafilter import linear_time_filter, simulate, spiral
    >>> data = simulate(spiral(), [0.1 * k for k in range(50)], rng=0)
    >>> linear_time_filter(spiral(), data.t, data.z).mean.shape
    (1, 50, 2)
    """
    found = linear_time_estimate(
        model,
        t,
        z,
        two_sided=two_sided,
        anchor_var=anchor_var,
        query_times=query_times,
        method=method,
        tolerance=tolerance,
        weights=weights,
    )
    return Estimate(
        asked_times(query_times, times(t)),
        found.mean,
        isotropic_covariance(found.variance, np.eye(model.dim)),
        label="AFA two-sided" if two_sided else "AFA",
        info={
            "method": found.method,
            "error_bound": found.error_bound,
            "n_terms": found.n_terms,
        },
    )


def _sides(
    p: IsotropicParameters,
    anchor_var: float,
    seen: Array,
    queries: Array,
    two_sided: bool,
    tolerance: float,
    weights: ExponentialSum | None,
) -> tuple[Side, ...]:
    ahead = max(0.0, float(queries[-1] - seen[0]))
    if weights is not None:
        if two_sided:
            raise ValueError("weights replace the causal kernel; use two_sided = False")
        if weights.horizon < ahead:
            raise ValueError(f"weights hold up to lag {weights.horizon:g}, {ahead:g} is needed")
        return (Side(weights, p.decay, 0.0),)

    def fitted(horizon: float, side: str) -> ExponentialSum:
        return plain_weights_exponentials(
            *p.noise, anchor_var, horizon=horizon, tolerance=tolerance, side=side
        )

    causal = Side(fitted(ahead, "causal"), p.decay, 0.0)
    if not two_sided:
        return (causal,)
    behind = max(0.0, float(seen[-1] - queries[0]))
    return causal, Side(fitted(behind, "acausal"), p.decay, 2 * p.decay)


def require_reach(bound: float) -> None:
    if bound >= 1:
        raise OutOfReachError(
            "no sum of exponentials comes near the weights of this model over these lags "
            f"(relative error bound {bound:.2g}; process noise far below obs_var): use "
            "adaptive_filter(..., method='isotropic')"
        )


def _cost(sides: tuple[Side, ...]) -> int:
    """Real multiplications per sample and component, up to a constant."""
    return sum(
        side.weights.n_terms * (4 if np.iscomplexobj(side.weights.rates) else 1) for side in sides
    )
