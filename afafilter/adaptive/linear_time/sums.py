"""The plain weight of AFA as a short sum of exponentials, with its verified error.

    causal:   1/Sig(tau),              Sig = Vp + eta^2 E^2 + gamma^2
    acausal:  1/[Vp + eta^2 + gamma^2 E^2]   (the bracket; the estimator carries E and E^2)
    E = e^{-mu tau},  Vp = sigma^2 (1 - e^{-2 mu tau}) / (2 mu)

Both are 1/(a (1 + b (1 - e^{-x}) / (2 mu))), x = 2 mu tau, that is 1/(1 + r e^{-x}) up to scale,
with r = -b / (2 mu + b). The equation: Racioppo, "Attention as an Adaptive Filter",
arXiv:2509.04154, isotropic case; its exponential sums are beyond the paper. For r <= -1/2 the
weight is completely monotone, and real exponents on a fixed ladder are fitted by least squares;
else the exponents are found by the matrix pencil of Hua and Sarkar (IEEE Trans. ASSP 38, 1990).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from afafilter._base.checks import Array, choice, frozen, real_array, scalar
from afafilter.linalg.integrals import exponential_integral

SETTLED = 36.0
"""e^-36 < 2^-52: lags, in units of 1/(2 mu), after which the weight no longer changes."""

_LADDERS = ((12, 0.33), (16, 0.30), (20, 0.28))  # integers to start with, log-spacing after them
_PENCIL_ORDERS = (4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 27, 30)
_PENCIL_SIZE = 401


@dataclass(frozen=True, eq=False)
class ExponentialSum:
    """w(tau) ~ Re sum_k coefficients_k exp(-rates_k tau) for 0 <= tau <= horizon.

    Attributes
    ----------
    coefficients : ndarray, shape (K,)
        Real, or complex with one term of each conjugate pair (already doubled).
    rates : ndarray, shape (K,)
        1/time, real or complex alike.
    bound : float
        Largest relative error on [0, horizon]: maximum over a dense grid that resolves every
        exponent, plus the rounding of the sum.
    horizon : float
        Time up to which `bound` holds; may be inf.
    """

    coefficients: NDArray[Any]
    rates: NDArray[Any]
    bound: float
    horizon: float

    def __call__(self, tau: ArrayLike) -> Array:
        """The sum at lags tau (...), shape (...)."""
        lags = real_array(tau, "tau")
        return np.asarray((np.exp(-lags[..., None] * self.rates) @ self.coefficients).real)

    @property
    def n_terms(self) -> int:
        """Number of terms K; a conjugate pair counts once."""
        return len(self.rates)


def plain_weight(
    tau: ArrayLike,
    decay: float,
    process_var: float,
    obs_var: float,
    anchor_var: float = 0.0,
    side: str = "causal",
) -> Array:
    """The exact weight (see `plain_weights_exponentials`) at lags tau >= 0, shape of tau."""
    lags = real_array(tau, "tau")
    start, slope = _start_and_slope(decay, process_var, obs_var, anchor_var, side)
    if slope == -2 * decay:
        with np.errstate(over="ignore"):
            return np.asarray(np.exp(2 * decay * lags) / start)
    return np.asarray(1 / (start * _growth(lags, decay, slope)))


def plain_weights_exponentials(
    decay: float,
    process_var: float,
    obs_var: float,
    anchor_var: float = 0.0,
    *,
    horizon: float = np.inf,
    tolerance: float = 2e-10,
    side: str = "causal",
) -> ExponentialSum:
    """Sum of exponentials for the plain (not residual-weighted) precision kernel of AFA.

    Parameters
    ----------
    decay : float
        mu >= 0, 1/time.
    process_var : float
        sigma^2 >= 0, state^2/time.
    obs_var : float
        eta^2 >= 0.
    anchor_var : float
        gamma^2 >= 0.
    horizon : float
        Largest lag; inf is legal when decay > 0 or process_var = 0.
    tolerance : float
        Relative error wanted; the fewest terms that reach it are returned, or, where none
        does, the best sum found (see its `bound`).
    side : str
        "causal", or "acausal" for observations after the query: there the weight is
        1/(Vp + eta^2 + gamma^2 e^{-2 mu tau}); the estimator carries the factor e^{-2 mu tau}.

    Returns
    -------
    ExponentialSum
        With r = (eta^2 - s2)/(s2 + gamma^2), s2 = sigma^2/(2 mu) (the variances swapped on the
        acausal side): about 45 real terms for r >= -0.9999, 8 to 10 complex ones for r up to 10;
        beyond r = 30 rounding limits the bound (1e-9 at r = 100, 3e-8 at 1e3, 2e-3 at 1e6) unless
        the horizon is short.

    Raises
    ------
    ValueError
        Negative arguments; both observation and anchor variance 0 (the weight at lag 0 is
        infinite); an infinite horizon where the weight never settles.

    Notes
    -----
    Cached; a first call costs some tens of milliseconds.
    """
    decay = scalar(decay, "decay", low=0.0)
    start, slope = _checked(decay, process_var, obs_var, anchor_var, side)
    tolerance = scalar(tolerance, "tolerance", low=0.0, strict=True)
    if isinstance(horizon, bool) or not isinstance(horizon, (int, float, np.number)):
        raise TypeError(f"horizon must be a number, got {horizon!r}")
    if not horizon >= 0:
        raise ValueError(f"horizon must be >= 0, got {horizon}")
    if slope == 0:
        return _sum(start, np.ones(1), np.zeros(1), 0.0, np.inf)
    if slope == -2 * decay:
        return _sum(start, np.ones(1), np.array([-2 * decay]), 0.0, np.inf)
    if decay == 0 and np.isinf(horizon):
        raise ValueError("horizon must be finite when decay = 0 and process_var > 0")
    if horizon == 0:
        return _sum(start, np.ones(1), np.zeros(1), 0.0, 0.0)
    if np.isfinite(horizon):
        horizon = float(2.0 ** np.ceil(np.log2(horizon)))  # few distinct values: the cache is hit
    if 2 * decay * horizon > 1e6:
        horizon = np.inf
    coefficients, rates, bound = _fit(decay, slope, horizon, tolerance)
    return _sum(start, coefficients, rates, bound, horizon)


def separable_weights(
    decay: float, process_var: float, obs_var: float, anchor_var: float = 0.0, side: str = "causal"
) -> ExponentialSum:
    """The paper's separable approximation: two exponentials, exact at lag 0 and at infinity.

    1/(1 + a e^{-x}) ~ 1 - a/(1+a) e^{-x/(1+a)}, x = 2 mu tau, a = (eta^2 - s2)/(s2 + gamma^2).
    `bound` is its largest relative error over all lags. Passed to `linear_time_filter` as
    `weights`, it turns the batch MLE into a recursion with O(1) memory.

    Raises
    ------
    ValueError
        Negative arguments; decay = 0 or process_var = anchor_var = 0 (there the form degenerates).

    Examples
    --------
    >>> from afafilter import separable_weights
    >>> round(separable_weights(0.1, 0.05, 0.5, 0.3).bound, 3)
    0.022
    """
    decay = scalar(decay, "decay", low=0.0, strict=True)
    start, slope = _checked(decay, process_var, obs_var, anchor_var, side)
    settle = slope + 2 * decay
    if settle == 0:
        raise ValueError("the separable form needs process_var > 0 or a non-decaying variance > 0")
    a = -slope / settle
    coefficients = np.array([1.0, -a / (1 + a)]) * (1 + a)
    rates = np.array([0.0, 2 * decay / (1 + a)])
    bound = _error(coefficients, rates, decay, slope, np.inf)
    return _sum(start, coefficients, rates, bound, np.inf)


def _checked(
    decay: float, process_var: float, obs_var: float, anchor_var: float, side: str
) -> tuple[float, float]:
    """`_start_and_slope` of numbers that a user gave."""
    process_var = scalar(process_var, "process_var", low=0.0)
    obs_var = scalar(obs_var, "obs_var", low=0.0)
    anchor_var = scalar(anchor_var, "anchor_var", low=0.0)
    choice(side, "side", ("causal", "acausal"))
    if obs_var + anchor_var == 0:
        raise ValueError("obs_var + anchor_var must be > 0: without noise the weight is infinite")
    return _start_and_slope(decay, process_var, obs_var, anchor_var, side)


def _start_and_slope(
    decay: float, process_var: float, obs_var: float, anchor_var: float, side: str
) -> tuple[float, float]:
    """Sig(0), and the slope of Sig(tau) / Sig(0) there."""
    start = obs_var + anchor_var
    fading = obs_var if side == "causal" else anchor_var
    if process_var == 0 and fading == start:
        return start, -2 * decay
    return start, (process_var - 2 * decay * fading) / start


def _growth(tau: Array, decay: float, slope: float) -> Array:
    """Sig(tau) / Sig(0)."""
    return np.asarray(1 + slope * exponential_integral(-2 * decay, tau))


def _sum(
    start: float, coefficients: NDArray[Any], rates: NDArray[Any], bound: float, horizon: float
) -> ExponentialSum:
    return ExponentialSum(frozen(coefficients / start), frozen(rates + 0.0), bound, horizon)


@lru_cache(maxsize=256)
def _fit(
    decay: float, slope: float, horizon: float, tolerance: float
) -> tuple[NDArray[Any], NDArray[Any], float]:
    """Coefficients, rates and bound for 1/(Sig/Sig(0))."""
    monotone = slope > decay  # r < -1/2
    candidates = (_ladder_rates if monotone else _pencil_rates)(decay, slope, horizon)
    best: tuple[NDArray[Any], NDArray[Any], float] | None = None
    for rates in candidates:
        coefficients = _least_squares(rates, decay, slope, horizon)
        bound = _error(coefficients, rates, decay, slope, horizon)
        if best is None or bound < best[2]:
            best = coefficients, rates, bound
        if bound <= tolerance:
            break
    assert best is not None
    return best


def _ladder_rates(decay: float, slope: float, horizon: float) -> Iterator[Array]:
    """Real rates: exact integers of 2 mu, then a geometric ladder beyond the weight's start."""
    steepest = 25 * (slope + 2 * decay)
    for integers, spacing in _LADDERS:
        if 2 * decay * horizon > 2:
            head = 2 * decay * np.arange(integers + 1)
            low = head[-1] * np.exp(spacing)
        else:
            head = np.zeros(1)
            low = 0.1 / horizon
        n = max(1, int(np.ceil(np.log(max(steepest, 2 / horizon) / low) / spacing)) + 1)
        yield np.concatenate([head, low * np.exp(spacing * np.arange(n))])


def _pencil_rates(decay: float, slope: float, horizon: float) -> Iterator[NDArray[Any]]:
    """Rates of growing number from the signal space of the Hankel matrix of samples."""
    r = -slope / (2 * decay + slope)
    settled = (SETTLED + max(np.log(abs(r)), 0.0)) / (2 * decay)
    span = min(horizon, settled)
    tau = np.linspace(0.0, span, 2 * _PENCIL_SIZE - 1)
    plateau = 1 / (1 + slope / (2 * decay))
    samples = 1 / _growth(tau, decay, slope) - plateau
    hankel = np.lib.stride_tricks.sliding_window_view(samples, _PENCIL_SIZE)
    values, space = np.linalg.eigh(hankel)  # symmetric: these are its singular vectors
    space = space[:, np.argsort(-np.abs(values))]
    for order in _PENCIL_ORDERS:
        basis = space[:, :order]
        nodes = np.linalg.eigvals(np.linalg.lstsq(basis[:-1], basis[1:], rcond=None)[0])
        rates = -np.log(nodes.astype(complex)) / tau[1]
        rates = rates[(rates.imag <= 0) & (rates.imag > -0.99 * np.pi / tau[1])]
        rates = rates[rates.real * span > (1.0 if span < horizon else -20.0)]
        rates = np.concatenate([np.zeros(1), rates])
        yield rates.real if not rates.imag.any() else rates


def _check_lags(
    rates: NDArray[Any], decay: float, slope: float, horizon: float, n: int
) -> tuple[Array, Array]:
    """Lags that resolve every rate: dense in the logarithm, and even over the first stretch."""
    fastest = max(float(np.abs(rates).max()), 2 * decay, 1e-3 / min(horizon, 1e300))
    end = horizon
    if 2 * decay * horizon > SETTLED:
        r = -slope / (2 * decay + slope)
        end = min(horizon, 3 * (SETTLED + max(np.log(abs(r)), 0.0)) / (2 * decay))
    fine = np.geomspace(min(1e-3 / fastest, end / 2), end, n)
    return np.append(0.0, fine), np.linspace(0, end, n // 2)


def _least_squares(rates: NDArray[Any], decay: float, slope: float, horizon: float) -> NDArray[Any]:
    """Coefficients that minimise the relative error over the lags."""
    tau = np.concatenate(_check_lags(rates, decay, slope, horizon, 24 * len(rates) + 200))
    terms = np.exp(-tau[:, None] * rates) * _growth(tau, decay, slope)[:, None]
    turning = rates.imag != 0
    design = np.hstack([terms.real, -terms.imag[:, turning]])
    norms = np.linalg.norm(design, axis=0)
    solution = np.linalg.lstsq(design / norms, np.ones(len(tau)), rcond=1e-15)[0] / norms
    if not turning.any():
        return np.asarray(solution)
    coefficients = solution[: len(rates)].astype(complex)
    coefficients[turning] += 1j * solution[len(rates) :]
    return np.asarray(coefficients)


def _error(
    coefficients: NDArray[Any], rates: NDArray[Any], decay: float, slope: float, horizon: float
) -> float:
    """Largest relative error: on the lags, what it may rise between them, and rounding."""
    worst = 0.0
    for tau in _check_lags(rates, decay, slope, horizon, 3000):
        terms = np.exp(-tau[:, None] * rates) * coefficients
        exact = _growth(tau, decay, slope)
        error = terms.real.sum(axis=1) * exact - 1
        rounding = np.finfo(float).eps * np.abs(terms).sum(axis=1) * exact
        between = np.pad(np.abs(np.diff(error, 2)), 1, mode="edge") / 4
        worst = max(worst, float((np.abs(error) + rounding + between).max()))
    return worst
