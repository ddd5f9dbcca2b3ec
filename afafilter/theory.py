"""What a linear estimator really does: its weights on the data, and its exact error law.

Every non-robust estimator here is an affine map of the observations,
xhat_i = c_i + sum_j W_ij z_j. Its weights follow from unit impulses, and the covariance of its
error under the true model follows from the weights without simulation.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, ObsMask, positive_int, real_array, scalar, times
from afafilter._base.shown import ShownByFields
from afafilter._base.signatures import told_type
from afafilter._base.tables import given_times
from afafilter.adaptive.estimators import adaptive_filter
from afafilter.adaptive.linear_map import Estimator, LinearMap, calibrate, error_law, linear_map
from afafilter.adaptive.record_length import LongRecordWarning, critical_length, length_error
from afafilter.kalman.estimators import kalman_filter
from afafilter.linalg.integrals import exponential_integral
from afafilter.models.priors import PriorLike
from afafilter.models.sde import LinearSDE
from afafilter.results import Estimate

__all__ = [
    "TUNABLE",
    "ErrorCovariance",
    "LinearMap",
    "TunedAFA",
    "calibrated",
    "critical_length",
    "efficiency",
    "equivalent_weights",
    "error_covariance",
    "isotropic_mse",
    "length_error",
    "linear_map",
    "tune",
]


@dataclass(frozen=True, repr=False)
class ErrorCovariance(ShownByFields):
    """True and claimed error law of an estimator on a time grid.

    t : (T,); cov : (T, d, d) true covariance of estimate minus state; bias : (T, d) its mean;
    claimed : (T, d, d) what the estimator reports.
    """

    t: Array
    cov: Array
    bias: Array
    claimed: Array

    @property
    def mse(self) -> Array:
        """(T, d, d) mean squared error matrix, bias included."""
        bias = np.nan_to_num(self.bias)  # NaN where cov is inf
        return np.asarray(self.cov + bias[..., :, None] * bias[..., None, :])

    @property
    def overconfidence(self) -> Array:
        """(T,) trace of the true mean squared error over the claimed one; 1 = honest."""
        with np.errstate(invalid="ignore"):
            return np.asarray(_trace(self.mse) / _trace(self.claimed))


def equivalent_weights(
    model: LinearSDE,
    t: ArrayLike,
    estimator: Estimator = kalman_filter,
    *,
    observed: ObsMask | None = None,
    **options: Any,
) -> Array:
    """The estimator's own weight matrix on the observations: its "attention map".

    Parameters and errors as for `linear_map`.

    Returns
    -------
    (T, N, d, p)
        Estimate i is a constant plus sum_j weights[i, j] @ z[j].
    """
    return linear_map(model, t, estimator, observed=observed, **options).weights


def error_covariance(
    model: LinearSDE,
    t: ArrayLike,
    estimator: Estimator = kalman_filter,
    *,
    truth: LinearSDE | None = None,
    observed: ObsMask | None = None,
    **options: Any,
) -> ErrorCovariance:
    """Exact error law of a linear estimator under the true model, without simulation.

    Parameters
    ----------
    model : LinearSDE
        The model that the estimator uses.
    t : array_like, shape (N,)
        Observation times.
    estimator, observed, options
        As for `linear_map`.
    truth : LinearSDE, optional
        The model that makes the data; default `model` (no mismatch). Its prior counts: a
        diffuse one means the error for any start, `Prior(x0, zeros)` the error from x0. An
        `obs_cov` option is taken as the true noise of the observations too.

    Returns
    -------
    ErrorCovariance
        Where the estimator is not unbiased along a flat direction of the truth's prior, the
        variance is inf.

    Raises
    ------
    ValueError
        If the estimator is not linear, or `truth` has other dimensions than `model`.

    Examples
    --------
    >>> from afafilter import kalman_filter, spiral, theory
    >>> law = theory.error_covariance(spiral(), range(5), kalman_filter)
    >>> law.overconfidence.round(9).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    if not callable(estimator):
        raise TypeError(
            f"estimator must be a function such as kalman_filter, got {told_type(estimator)}: laws "
            "of theory need times only, no observations"
        )
    truth = model if truth is None else truth
    if (truth.dim, truth.obs_dim) != (model.dim, model.obs_dim):
        raise ValueError(
            f"truth must have the dimensions of model {(model.dim, model.obs_dim)}, "
            f"got {(truth.dim, truth.obs_dim)}"
        )
    grid = times(t)
    law = error_law(model, grid, estimator, truth, observed, options)
    bias, cov = law.report()
    return ErrorCovariance(law.t, cov, bias, law.claimed)


def efficiency(
    model: LinearSDE,
    t: ArrayLike,
    estimator: Estimator = adaptive_filter,
    *,
    reference: Estimator = kalman_filter,
    prior: PriorLike = "diffuse",
    per_component: bool = False,
    observed: ObsMask | None = None,
    **options: Any,
) -> Array:
    """Variance of the optimal linear estimator over that of `estimator`, at every time.

    Parameters
    ----------
    model, t, estimator, observed, options
        As for `error_covariance`.
    reference : callable
        The optimal estimator of the same kind: `kalman_filter` for causal estimators
        (its covariance is the Riccati, that is Cramer-Rao, bound), `rts_smoother` for two-sided.
    prior : Prior or str
        prior given to both, and of the truth. AFA has none, so the fair one is "diffuse".
    per_component : bool
        (T, d) ratios of variances instead of (T,) ratios of traces.

    Returns
    -------
    ndarray, shape (T,) or (T, d)
        in [0, 1]; NaN while the state is not determined.

    Examples
    --------
    A circular spiral: plain AFA wastes four fifths of the information after 100 steps.

    >>> from afafilter import spiral, theory
    >>> t = 0.1 * np.arange(100)
    >>> theory.efficiency(spiral(), t)[[1, 5, 20, 99]].round(3)
    array([1.   , 0.975, 0.602, 0.204])
    """
    if not isinstance(model, LinearSDE):
        raise TypeError(f"model must be a LinearSDE, got {told_type(model)}")
    shared = replace(model, prior=prior)
    passed_on = {key: options[key] for key in ("obs_cov", "query_times") if key in options}
    best = error_covariance(shared, t, reference, observed=observed, **passed_on).mse
    own = error_covariance(shared, t, estimator, observed=observed, **options).mse
    pick = (lambda M: np.einsum("taa->ta", M)) if per_component else _trace
    with np.errstate(invalid="ignore"):
        return np.asarray(pick(best) / pick(own))


def calibrated(estimator: Estimator, *, truth: LinearSDE | None = None) -> Estimator:
    """The same linear estimator, claiming its true covariance instead of its own.

    Parameters
    ----------
    estimator : callable
        ``f(model, t, z, **options) -> Estimate``, affine in z.
    truth : LinearSDE, optional
        The model that makes the data; default the estimator's own.

    Returns
    -------
    callable
        The estimator with the mean squared error matrix of `error_covariance` for a flat prior (or
        truth's) as its `cov`. Observations may be missing where they are missing in every path.

    Raises
    ------
    ValueError
        On the call, if the estimator is not linear or missing patterns differ between paths.
    """

    def run(model: LinearSDE, t: ArrayLike, z: ArrayLike, **options: Any) -> Estimate:
        return calibrate(estimator, model, t, z, truth=truth, **options)

    return run


@dataclass(frozen=True)
class TunedAFA:
    """AFA with the free knobs that minimise its closed-form error.

    model : the model to give to `adaptive_filter` (process noise scaled).
    anchor_cov : (p, p) gamma^2 I or None; inverse_temperature : beta.
    process_scale : factor on Q. efficiency : (T,) against the Kalman filter.
    plain_efficiency : (T,) of AFA without tuning.
    """

    model: LinearSDE
    anchor_cov: Array | None
    inverse_temperature: float
    process_scale: float
    efficiency: Array
    plain_efficiency: Array

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments for `adaptive_filter`."""
        return {"anchor_cov": self.anchor_cov, "inverse_temperature": self.inverse_temperature}


TUNABLE = ("gamma", "inverse_temperature", "process_scale")


def tune(
    model: LinearSDE,
    t: ArrayLike,
    *,
    free: tuple[str, ...] = TUNABLE,
    steps: slice | int = -1,
    max_inverse_temperature: float = 16.0,
    max_evaluations: int = 400,
) -> TunedAFA:
    """The (gamma, inverse temperature, noise scale) that minimise AFA's closed-form error.

    Parameters
    ----------
    model : LinearSDE
        The true model; C must be invertible (gamma and the temperature act on pulled-forward
        observations).
    t : array_like, shape (N,)
        Times.
    free : tuple of str
        Which of "gamma", "inverse_temperature", "process_scale" may move.
    steps : slice or int
        Time step(s) whose mean squared error is minimised; default the last.
    max_inverse_temperature : float
        Bound of the search; without one it can run away along a valley.
    max_evaluations : int
        Bound on the number of closed-form evaluations.

    Raises
    ------
    ValueError
        Unknown name in `free`, or bad bounds.

    Notes
    -----
    Nelder-Mead over logarithms from the best points of a coarse grid, one for each of its
    temperatures; each evaluation is one `error_covariance`.
    """
    from scipy.optimize import minimize

    unknown = [name for name in free if name not in TUNABLE]
    if unknown or not free:
        raise ValueError(f"free must name some of {TUNABLE}, got {free!r}")
    if "inverse_temperature" not in free and max_inverse_temperature != 16.0:
        raise ValueError(
            f"max_inverse_temperature={max_inverse_temperature} would change nothing without "
            "'inverse_temperature' among free"
        )
    top = np.log(scalar(max_inverse_temperature, "max_inverse_temperature", low=1.0, strict=True))
    positive_int(max_evaluations, "max_evaluations")
    grid = times(t)
    model = replace(model, prior="diffuse")
    noise = float(np.trace(model.R)) / model.obs_dim
    bounds = {
        "gamma": (np.log(1e-4), np.log(1e2)),
        "inverse_temperature": (-top, top),
        "process_scale": (np.log(1e-4), np.log(1e4)),
    }

    def build(theta: Array) -> tuple[LinearSDE, dict[str, Any], float]:
        value = dict(zip(free, np.exp(theta), strict=True))
        scale = float(value.get("process_scale", 1.0))
        options: dict[str, Any] = {}
        if "gamma" in value:
            options["anchor_cov"] = value["gamma"] ** 2 * noise * np.eye(model.obs_dim)
        if "inverse_temperature" in value:
            options["inverse_temperature"] = float(value["inverse_temperature"])
        return replace(model, Q=scale * model.Q), options, scale

    def quietly(used: LinearSDE, **options: Any) -> Array:
        with warnings.catch_warnings():  # settings that are only tried, and the one to be bettered
            warnings.simplefilter("ignore", LongRecordWarning)
            error = error_covariance(used, grid, adaptive_filter, truth=model, **options)
        return _trace(error.mse)

    def loss(theta: Array) -> float:
        used, options, _ = build(theta)
        return float(np.log(np.mean(quietly(used, **options)[steps])))

    grids = {
        "gamma": (1e-3, 1.0),
        "inverse_temperature": (1.0, 3.0, 8.0),
        "process_scale": (1.0, 5.0),
    }
    coarse = product(*(np.log(np.clip(grids[name], *np.exp(bounds[name]))) for name in free))
    ranked = sorted((np.array(theta) for theta in coarse), key=loss)
    hot = free.index("inverse_temperature") if "inverse_temperature" in free else 0
    starts = list({float(theta[hot]): theta for theta in reversed(ranked)}.values())
    budget = max(20, (max_evaluations - 12) // len(starts))
    how: dict[str, Any] = {"method": "Nelder-Mead", "bounds": [bounds[name] for name in free]}
    how["options"] = {"maxfev": budget, "xatol": 1e-3, "fatol": 1e-6}
    found = min((minimize(loss, x, **how) for x in starts), key=lambda result: float(result.fun))
    used, options, scale = build(found.x)
    best = _trace(error_covariance(model, grid, kalman_filter).mse)
    tuned = _trace(error_covariance(used, grid, adaptive_filter, truth=model, **options).mse)
    plain = quietly(model)
    knobs = options.get("anchor_cov"), options.get("inverse_temperature", 1.0), scale
    return TunedAFA(used, *knobs, best / tuned, best / plain)


def isotropic_mse(
    weights: ArrayLike, t: ArrayLike, *, decay: float, process_var: float, obs_var: float
) -> Array:
    """Mean squared error per component of causal isotropic AFA with the given attention weights.

    ::

        MSE_i / d = sum_j V(tau) (c_ij^2 - c_i,j-1^2) + sum_j W_ij^2 eta^2 e^{-2 mu tau}

    with tau = t_i - t_j and c_ij the running sum of row i: the closed form for the flat prior.

    Parameters
    ----------
    weights : array_like, shape (N, N)
        Rows sum to one, zero above the diagonal.
    t : array_like, shape (N,)
        Times.
    decay : float
        mu >= 0.
    process_var : float
        sigma^2.
    obs_var : float
        eta^2.

    Raises
    ------
    ValueError
        Wrong shape, or rows that do not sum to one.
    """
    grid = given_times(t)
    W = real_array(weights, "weights")
    if W.shape != (len(grid), len(grid)):
        raise ValueError(f"weights must have shape {(len(grid),) * 2}, got {W.shape}")
    if np.abs(W.sum(axis=1) - 1).max() > 1e-8 or np.abs(np.triu(W, 1)).max() > 0:
        raise ValueError("weights must be causal rows that sum to one")
    lag = np.clip(grid[:, None] - grid[None, :], 0.0, None)
    V = process_var * exponential_integral(-2 * decay, lag)
    total = np.cumsum(W, axis=1)
    before = total - W
    shared = np.sum(V * (total**2 - before**2), axis=1)
    return np.asarray(shared + np.sum(W**2 * obs_var * np.exp(-2 * decay * lag), axis=1))


def _trace(M: Array) -> Array:
    return np.asarray(np.trace(M, axis1=-2, axis2=-1))
