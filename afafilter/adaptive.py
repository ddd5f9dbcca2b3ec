"""Adaptive Filter Attention as an estimator: every observation pulled to the query, then averaged.

    zbar_i = ( sum_j w_ij P_ij )^-1 sum_j w_ij P_ij zhat_ij,   P_ij = Cov(zhat_ij)^-1

(P. Racioppo, "Attention as an Adaptive Filter", arXiv:2509.04154, sec. 4), for any linear SDE: C of
any shape, missing components, irregular and repeated times. Symbols: zhat_ij = observation j
propagated to query i, w_ij robust weight, a_i anchor of query i, Gam = anchor_cov, beta =
inverse_temperature.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from afafilter._adaptive_dense import make_plan
from afafilter._adaptive_isotropic import (
    Isotropic,
    Spans,
    isotropic_form,
    run_isotropic,
    run_linear,
)
from afafilter._adaptive_run import Outcome, Settings, run_dense, without_covariance
from afafilter._pull_forward import Index
from afafilter._validate import (
    Array,
    choice,
    covariance,
    observation_covariances,
    observations,
    positive_int,
    scalar,
    times,
)
from afafilter.models import LinearSDE
from afafilter.results import Estimate
from afafilter.weights import Weight, as_weight

ANCHORS = ("observation", "estimate", "prediction")
CORRELATIONS = ("independent", "exact")
METHODS = ("auto", "dense", "modal", "isotropic", "linear", "fft")

LINEAR_FROM = 4096
"""Number of observations from which "auto" takes linear time for plain isotropic AFA."""

LINEAR_TOLERANCE = 1e-9
"""Relative error that "auto" accepts of the sum of exponentials."""


def adaptive_filter(
    model: LinearSDE,
    t: ArrayLike,
    z: ArrayLike,
    *,
    weight: Weight | None = None,
    anchor: str = "observation",
    iterations: int = 1,
    step: float = 1.0,
    momentum: float = 0.0,
    inverse_temperature: float = 1.0,
    anchor_cov: ArrayLike | None = None,
    correlation: str = "independent",
    method: str = "auto",
    obs_cov: ArrayLike | None = None,
    query_times: ArrayLike | None = None,
    window: int | None = None,
    tolerance: float = 1e-10,
    return_weights: bool = False,
) -> Estimate:
    """Causal AFA estimate of the state: each time from the observations up to it.

    Parameters
    ----------
    model : LinearSDE. Its prior is not used: AFA starts flat. R must be positive definite.
    t : (T,) non-decreasing times.
    z : (..., T, p) observations, NaN = missing component, leading axes = paths.
    weight : robust weight w(d2, dim) of the squared Mahalanobis distance between a pulled
        observation and the query's anchor; None = plain.
    anchor : what the distances are measured from. "observation" (the paper): the query's own
        observation; where it is missing (also in part), the query is off the grid, or C is not
        invertible, the plain estimate. "estimate": the plain estimate. "prediction": the plain
        estimate from the observations before the query only. An anchor that the data do not
        determine leaves the weights of that query at 1.
    iterations : most rounds of reweighting; only the anchor moves, never the observations.
    step, momentum : s in (0, 1] and g in [0, 1): the anchor moves by
        a_{k+1} = (1 + g - s) a_k - g a_{k-1} + s zbar_k, and the last one is the estimate.
        Critical damping: g = (sqrt(s) - 1)^2.
    inverse_temperature : beta > 0. Matrix weights are det(P)^{(beta - 1)/r} w^beta P, r the number
        of independent observed components (beyond the paper for C that is not invertible: det is
        the product of the nonzero eigenvalues of the information on x).
    anchor_cov : (p, p) query-side noise Gam, added to every pair's covariance, in the prior
        precision and in the distance alike. Needs an invertible C.
    correlation : "independent" (the paper) counts the pulled observations' errors as independent;
        "exact" uses their joint law: generalised least squares, which is the Kalman filter with a
        flat prior (two-sided: the RTS smoother). With a robust weight every query re-decides the
        weight of every observation in its whole history, R_j -> R_j / w_ij.
    method : "dense" (full matrices, any model); "modal" (A, Q and C^-1 R C^-T share their
        eigenvectors: every mode its own precision); "isotropic" (attention in tiles); "linear" and
        "fft" (plain weights of isotropic models, to the `error_bound` in info; "fft" on regular
        grids); "auto": the cheapest exact one. Where several apply they agree to 1e-9 of the
        largest entry.
    obs_cov : (T, p, p) noise covariances that replace R, or None.
    query_times : (Tq,) non-decreasing times to estimate at; None = t. On the grid estimate i uses
        observations j <= i by index, at a query time all with t_j <= that time.
    window : use only so many observations nearest to the query (two-sided: on each side), missing
        rows not counted; None = all.
    tolerance : rounds stop when no anchor moves by more than this times the largest anchor.
    return_weights : also return the weights, O(T^2) memory.

    Returns
    -------
    Estimate
        mean (..., Tq, d); cov (..., Tq, d, d), the covariance that the independence assumption
        *claims*, (sum w P)^-1 (NaN for beta != 1, where none is claimed); weights (..., Tq, T) on
        request: the share tr[(sum w P)^-1 w_ij P_ij] / d of each observation, rows sum to one
        (isotropic models: the attention A_ij itself); for correlation="exact" the robust weights
        w_ij. Components that the data do not determine: mean NaN, variance inf. info holds the
        method, the correlation and `change`, the largest move of an anchor per round.

    Raises
    ------
    ValueError, TypeError
        Bad shapes or values, unknown words, R not positive definite, `anchor_cov` with a C that is
        not invertible or nothing to act on, a temperature with correlation="exact".

    Notes
    -----
    Isotropic: time O(T Tq d), memory O((T + Tq) d) beyond the covariances; linear: O((T + Tq) d).
    Dense: time O(T Tq r d^2) per path that has its own weights or missing pattern, plain weights
    being shared by all paths (then O(T Tq p d) per path); memory bounded by tiles, O((T + Tq) d^2)
    beyond. Exact: O(T d^3) in all without a robust weight.
    """
    return _estimate(
        model, t, z, causal=True, weight=weight, anchor=anchor, iterations=iterations, step=step,
        momentum=momentum, inverse_temperature=inverse_temperature, anchor_cov=anchor_cov,
        correlation=correlation, method=method, obs_cov=obs_cov, query_times=query_times,
        window=window, tolerance=tolerance, return_weights=return_weights,
    )  # fmt: skip


def adaptive_smoother(
    model: LinearSDE,
    t: ArrayLike,
    z: ArrayLike,
    *,
    weight: Weight | None = None,
    anchor: str = "observation",
    iterations: int = 1,
    step: float = 1.0,
    momentum: float = 0.0,
    inverse_temperature: float = 1.0,
    anchor_cov: ArrayLike | None = None,
    correlation: str = "independent",
    method: str = "auto",
    obs_cov: ArrayLike | None = None,
    query_times: ArrayLike | None = None,
    window: int | None = None,
    tolerance: float = 1e-10,
    return_weights: bool = False,
) -> Estimate:
    """Two-sided AFA estimate: each time from all observations.

    Parameters, returned values, errors and cost as for `adaptive_filter`; later observations are
    pulled backward, with the noise that lies between (the paper's acausal form). `window` counts
    on both sides. For stable models the pulled values grow like e^{mu |tau|}; nothing overflows.
    """
    return _estimate(
        model, t, z, causal=False, weight=weight, anchor=anchor, iterations=iterations, step=step,
        momentum=momentum, inverse_temperature=inverse_temperature, anchor_cov=anchor_cov,
        correlation=correlation, method=method, obs_cov=obs_cov, query_times=query_times,
        window=window, tolerance=tolerance, return_weights=return_weights,
    )  # fmt: skip


def _estimate(
    model: LinearSDE, t: ArrayLike, z: ArrayLike, *, causal: bool, weight: Weight | None,
    anchor: str, iterations: int, step: float, momentum: float, inverse_temperature: float,
    anchor_cov: ArrayLike | None, correlation: str, method: str, obs_cov: ArrayLike | None,
    query_times: ArrayLike | None, window: int | None, tolerance: float, return_weights: bool,
) -> Estimate:  # fmt: skip
    if not isinstance(model, LinearSDE):
        raise TypeError(f"model must be a LinearSDE, got {type(model).__name__}")
    grid = times(t)
    p = model.obs_dim
    data = observations(z, len(grid), p)
    R = observation_covariances(obs_cov, len(grid), p, model.R)
    if obs_cov is None:
        _require_definite(model.R)
    weight = as_weight(weight)
    choice(anchor, "anchor", ANCHORS)
    choice(correlation, "correlation", CORRELATIONS)
    choice(method, "method", METHODS)
    queries = grid if query_times is None else times(query_times, "query_times")
    width = None if window is None else positive_int(window, "window")
    on_grid = query_times is None
    split, before = _past(grid, queries, model.delay, on_grid, causal)
    settings = Settings(
        weight=weight,
        anchor=anchor,
        iterations=positive_int(iterations, "iterations"),
        step=_between(step, "step", low_open=True, high=1.0, high_open=False),
        momentum=_between(momentum, "momentum", low_open=False, high=1.0, high_open=True),
        beta=scalar(inverse_temperature, "inverse_temperature", low=0.0, strict=True),
        tolerance=scalar(tolerance, "tolerance", low=0.0),
        exact=correlation == "exact",
        return_weights=bool(return_weights),
        before=before,
    )
    gamma = _query_noise(model, anchor_cov)
    if settings.exact:
        _check_exact(settings, gamma)
    paths = data.reshape(-1, len(grid), p)
    own = np.arange(len(grid)) if on_grid else np.full(len(queries), -1)
    spans = Spans(grid - model.delay, queries, split, own, causal, width, on_grid)
    form = isotropic_form(model, gamma) if obs_cov is None and not settings.exact else None
    wanted = _choose(method, form, spans, settings, paths)
    info: dict[str, Any] = {"correlation": correlation}
    if wanted in ("linear", "fft"):
        assert form is not None
        chosen = wanted if method != "auto" else "auto"
        outcome, bound, wanted = run_linear(form, spans, model, paths, chosen)
        info["error_bound"] = bound
        if method == "auto" and bound > LINEAR_TOLERANCE:
            wanted = "isotropic"
            del info["error_bound"]
    if wanted == "isotropic":
        assert form is not None
        outcome = run_isotropic(model, form, spans, paths, settings)
    elif wanted == "dense":
        last = split if causal else np.full_like(split, len(grid))
        plan = make_plan(
            model, spans.stamps, queries, np.zeros_like(split), last, own, R, gamma, obs_cov is None
        )
        outcome = run_dense(plan, paths, settings, None if width is None else (split, width))
    info["method"] = wanted
    return _package(outcome, settings, queries, data.shape[:-2], causal, info)


def _past(
    grid: Array, queries: Array, delay: float, on_grid: bool, causal: bool
) -> tuple[Index, Index]:
    """How many observations each query may use as its past, and how many before its own."""
    if on_grid:
        present, before = np.arange(1, len(grid) + 1), np.arange(len(grid))
    else:
        present = np.searchsorted(grid, queries, side="right")
        before = np.searchsorted(grid, queries, side="left")
    if not causal and delay > 0:
        present = np.searchsorted(grid - delay, queries, side="right")
    return present, before


def _choose(method: str, form: Isotropic | None, spans: Spans, settings: Settings, z: Array) -> str:
    """The cheapest exact method, or the one asked for if it applies."""
    if settings.exact:
        if method not in ("auto", "dense"):
            raise ValueError(f"correlation='exact' has no method {method!r}; use 'auto'")
        return "dense"
    missing = np.isnan(z)
    whole = bool((missing.all(axis=-1) == missing.any(axis=-1)).all())
    plain = settings.weight is None and settings.beta == 1.0 and settings.step == 1.0
    plain = plain and settings.momentum == 0.0 and spans.window is None
    plain = plain and not settings.return_weights
    reason = ""
    if form is None:
        reason = (
            "an isotropic model: A = -mu I + skew with mu >= 0, Q, C^-1 R C^-T and C^-1 anchor_cov "
            "C^-T multiples of the identity, no obs_cov"
        )
    elif not whole:
        reason = "rows of z that are complete or wholly missing"
    elif method in ("linear", "fft") and not plain:
        reason = (
            "plain weights: weight=None, inverse_temperature=1, step=1, no window, "
            "return_weights=False"
        )
    if method in ("isotropic", "linear", "fft") and reason:
        raise ValueError(f"method {method!r} needs {reason}; use method='dense' or 'auto'")
    if method != "auto":
        return method
    if reason:
        return "dense"
    return "linear" if plain and len(spans.stamps) >= LINEAR_FROM else "isotropic"


def _require_definite(R: Array) -> None:
    values = np.linalg.eigvalsh(R)
    if values[0] <= 1e-15 * values[-1] or values[-1] <= 0:
        raise ValueError(
            "R must be positive definite for adaptive estimators, got a singular matrix "
            f"(smallest eigenvalue {values[0]:.3g}); give R a small positive variance"
        )


def _between(value: Any, name: str, *, low_open: bool, high: float, high_open: bool) -> float:
    x = scalar(value, name, low=0.0, strict=low_open)
    if x > high or (high_open and x == high):
        raise ValueError(f"{name} must be {'<' if high_open else '<='} {high:g}, got {x:g}")
    return x


def _query_noise(model: LinearSDE, anchor_cov: ArrayLike | None) -> Array | None:
    if anchor_cov is None:
        return None
    p, d = model.C.shape
    gamma = covariance(anchor_cov, "anchor_cov", (p, p))
    if p != d or np.linalg.matrix_rank(model.C) < d:
        raise ValueError(
            f"anchor_cov needs an invertible C, got C of shape {(p, d)} and rank "
            f"{np.linalg.matrix_rank(model.C)}"
        )
    return gamma if gamma.any() else None


def _check_exact(settings: Settings, gamma: Array | None) -> None:
    if settings.beta != 1.0:
        raise ValueError(
            "inverse_temperature must be 1 with correlation='exact', "
            f"got {settings.beta:g}; joint errors have one likelihood"
        )
    if gamma is not None and settings.weight is None:
        raise ValueError(
            "anchor_cov enters correlation='exact' through the distances of a robust weight; "
            "give a weight, or use correlation='independent'"
        )


def _package(
    outcome: Outcome, settings: Settings, queries: Array, lead: tuple[int, ...], causal: bool,
    info: dict[str, Any],
) -> Estimate:  # fmt: skip
    if settings.beta != 1.0:
        outcome = without_covariance(outcome)
        info["cov"] = "none claimed: inverse_temperature is not 1"
    if settings.weight is not None:
        info["change"] = np.array(outcome.change)
        info["iterations"] = len(outcome.change)
    count = len(outcome.mean)

    def shape(array: Array) -> Array:
        full = np.broadcast_to(array, (count, *array.shape[1:]))
        if len(array) == count:
            return array.reshape(*lead, *array.shape[1:])
        return np.broadcast_to(array[0], (*lead, *full.shape[1:]))

    label = "AFA" + (" exact" if settings.exact else "")
    label += "" if causal else " smoother"
    label += "" if settings.weight is None else " robust"
    return Estimate(
        queries,
        shape(outcome.mean),
        shape(outcome.cov),
        weights=None if outcome.weights is None else shape(outcome.weights),
        label=label,
        info=info,
    )
