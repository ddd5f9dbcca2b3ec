"""Adaptive Filter Attention as an estimator: every observation pulled to the query, then averaged.

    zbar_i = ( sum_j w_ij P_ij )^-1 sum_j w_ij P_ij zhat_ij,   P_ij = Cov(zhat_ij)^-1

(P. Racioppo, "Attention as an Adaptive Filter", arXiv:2509.04154, sec. 4), for any linear SDE: C of
any shape, missing components, irregular and repeated times. Symbols: zhat_ij = observation j
propagated to query i, w_ij robust weight, a_i anchor of query i, Gam = anchor_cov, beta =
inverse_temperature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import (
    Array,
    covariance,
    given,
    observation_covariances,
    observations,
    times,
)
from afafilter._base.containers import takes_tables
from afafilter._base.steps import asked_times
from afafilter.adaptive.linear_map import calibrate
from afafilter.adaptive.methods import query_noise, require_definite, run_method
from afafilter.adaptive.options import Options, make_spans
from afafilter.adaptive.run import Outcome
from afafilter.models.forcing import honours_forcing
from afafilter.models.logarithm import takes_discrete
from afafilter.models.sde import LinearSDE
from afafilter.results import Estimate, Source
from afafilter.weights import Weight, as_weight

if TYPE_CHECKING:
    from afafilter.models.radial import RadialTangentialSDE


@takes_tables
@takes_discrete
@honours_forcing
def adaptive_filter(
    model: LinearSDE | RadialTangentialSDE,
    t: ArrayLike,
    z: ArrayLike | None = None,
    *,
    weight: Weight | str | None = None,
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
    calibrated: bool = False,
) -> Estimate:
    """Causal AFA estimate of the state: each time from the observations up to it.

    Parameters
    ----------
    model : LinearSDE or RadialTangentialSDE
        LinearSDE (its prior is not used: AFA starts flat; R must be positive definite), or a
        `RadialTangentialSDE`, which takes weight, anchor, iterations, step, anchor_cov = gamma^2 I,
        query_times and tolerance only (see `radial_adaptive_filter`).
    t : array_like, shape (T,)
        Non-decreasing times.
    z : array_like, shape (..., T, p), optional
        Observations, NaN = missing component, booleans 0 and 1, leading axes = paths.
    weight : Weight or str, optional
        Robust weight w(d2, dim) of the squared Mahalanobis distance between a pulled
        observation and the query's anchor; None = plain.
    anchor : str
        What the distances are measured from. "observation" (the paper): the query's own
        observation; where it is missing (also in part), the query is off the grid, or C is not
        invertible, the plain estimate. "estimate": the plain estimate. "prediction": the plain
        estimate from the observations before the query's own (with a window, the last `window` of
        them); where they do not determine it, the plain one. An anchor that the data do not
        determine leaves the weights of that query at 1.
    iterations : int
        Most rounds of reweighting; only the anchor moves, never the observations.
    step, momentum : float
        s in (0, 1] and g in [0, 1): the anchor moves by
        a_{k+1} = (1 + g - s) a_k - g a_{k-1} + s zbar_k, and the last one is the estimate.
        Critical damping: g = (sqrt(s) - 1)^2.
    inverse_temperature : float
        beta > 0. Matrix weights are det(P)^{(beta - 1)/r} w^beta P, r the number
        of independent observed components (beyond the paper for C that is not invertible: det is
        the product of the nonzero eigenvalues of the information on x).
    anchor_cov : array_like, shape (p, p), optional
        Query-side noise Gam, added to every pair's covariance, in the prior
        precision and in the distance alike. Needs an invertible C.
    correlation : str
        "independent" (the paper) counts the pulled observations' errors as independent;
        "exact" uses their joint law: generalised least squares, which is the Kalman filter with a
        flat prior (two-sided: the RTS smoother). With a robust weight every query re-decides the
        weight of every observation in its whole history, R_j -> R_j / w_ij.
    method : str
        "dense" (full matrices, any model); "modal" (A, Q and C^-1 R C^-T share their
        eigenvectors: every mode its own precision); "isotropic" (attention in tiles; all modes
        alike, once C^-1 R C^-T is whitened: the paper's 2-D system is one such); "linear" and
        "fft" (plain weights of isotropic models, to the `error_bound` in info; "fft" on regular
        grids); "auto": the cheapest exact one. Where several apply they agree to 1e-9 of the
        largest entry.
    obs_cov : array_like, shape (T, p, p), optional
        Noise covariances that replace R, or None.
    query_times : array_like, shape (Tq,), optional
        Non-decreasing times to estimate at; None = t. On the grid estimate i uses
        observations j <= i by index, at a query time all with t_j <= that time.
    window : int, optional
        Use only so many observations nearest to the query (two-sided: on each side), missing
        rows not counted; None = all.
    tolerance : float
        Rounds stop when no anchor moves by more than this times its own size, or that of most.
    return_weights : bool
        Also return the weights, O(T^2) memory.
    calibrated : bool
        Claim the true covariance, from the exact error law (beyond the paper), instead of
        (sum w P)^-1; plain weights only. Costs a run on T p unit impulses, memory O(T Tq p d).

    Returns
    -------
    Estimate
        mean (..., Tq, d); cov (..., Tq, d, d), the covariance that the independence assumption
        *claims*, (sum w P)^-1 (NaN for beta != 1, where none is claimed); weights (..., Tq, T) on
        request: the share tr[(sum w P)^-1 w_ij P_ij] / d of each observation, rows sum to one
        (isotropic models: the attention A_ij itself); for correlation="exact" the robust weights
        w_ij, 1 where there is no `weight`. Components that the data do not determine: mean NaN,
        variance inf. info holds the method, the correlation and `change`, the largest move of an
        anchor per round.

    Warns
    -----
    LongRecordWarning
        A record so long that old observations, pulled to zero, outvote the others
        (`theory.critical_length`), where that at least doubles the error: give a window.
    LostDigits
        Estimates by full matrices that move by more than 1e-6 standard deviations with the last
        digits of the model's numbers: states told barely apart, data far larger than the noise.

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

    Examples
    --------
    >>> from afafilter import adaptive_filter, simulate, spiral
    >>> data = simulate(spiral(), [0.1 * k for k in range(50)], rng=0)
    >>> found = adaptive_filter(spiral(), data.t, data.z)
    >>> found.mean.shape, found.cov.shape
    ((1, 50, 2), (1, 50, 2, 2))
    """
    return _estimate(causal=True, **locals())


@takes_tables
@takes_discrete
@honours_forcing
def adaptive_smoother(
    model: LinearSDE | RadialTangentialSDE,
    t: ArrayLike,
    z: ArrayLike | None = None,
    *,
    weight: Weight | str | None = None,
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
    calibrated: bool = False,
) -> Estimate:
    """Two-sided AFA estimate: each time from all observations.

    Parameters, returned values, errors and cost as for `adaptive_filter`; later observations are
    pulled backward, with the noise that lies between (the paper's acausal form). `window` counts
    on both sides. For stable models pulled values grow like ``e^{mu |tau|}``; nothing overflows.

    Examples
    --------
    >>> from afafilter import adaptive_smoother, simulate, spiral
    >>> data = simulate(spiral(), [0.1 * k for k in range(50)], rng=0)
    >>> adaptive_smoother(spiral(), data.t, data.z, weight="student_t").mean.shape
    (1, 50, 2)
    """
    return _estimate(causal=False, **locals())


def _estimate(
    model: LinearSDE | RadialTangentialSDE,
    t: ArrayLike,
    z: ArrayLike | None,
    weight: Weight | str | None,
    **named: Any,
) -> Estimate:
    options = Options(weight=as_weight(weight), **named)
    if options.calibrated:
        if options.weight is not None or not isinstance(model, LinearSDE):
            raise ValueError("calibrated needs plain weights of a LinearSDE: leave out weight")
        estimator = adaptive_filter if options.causal else adaptive_smoother
        left_out = ("causal", "calibrated")
        kept = {name: value for name, value in named.items() if name not in left_out}
        return calibrate(estimator, model, t, given(z), **kept)
    if not isinstance(model, LinearSDE):
        return _radial(model, t, z, options)
    options.require_use()
    grid = times(t)
    data = observations(z, len(grid), model.obs_dim)
    R = model.R
    if options.obs_cov is None:
        require_definite(model)
    else:
        R = observation_covariances(
            options.obs_cov, len(grid), model.obs_dim, R, data, definite=True
        )
    asked = None if options.query_times is None else asked_times(options.query_times, grid)
    gamma = query_noise(model, options)
    spans = make_spans(grid, asked, model.delay, options)
    paths = data.reshape(-1, len(grid), model.obs_dim)
    outcome, info = run_method(model, spans, options, paths, R, gamma)
    info["correlation"] = options.correlation
    queries = grid if asked is None else asked
    noise = R if asked is None else model.R
    source = Source(model.C, model.offset, noise, model.parts)
    return _package(outcome, options, queries, data.shape[:-2], info, source)


def _radial(model: Any, t: ArrayLike, z: ArrayLike | None, options: Options) -> Estimate:
    """AFA of a radial-tangential SDE, whose precision is diagonal plus rank one."""
    from afafilter.adaptive.radial import radial_adaptive_filter
    from afafilter.models.radial import RadialTangentialSDE

    if not isinstance(model, RadialTangentialSDE):
        raise TypeError(
            f"model must be a LinearSDE or a RadialTangentialSDE, got {type(model).__name__}"
        )
    unsupported = {
        "momentum": options.momentum != 0.0,
        "inverse_temperature": options.inverse_temperature != 1.0,
        "correlation": options.exact,
        "method": options.method != "auto",
        "obs_cov": options.obs_cov is not None,
        "window": options.window is not None,
        "return_weights": options.return_weights,
    }
    changed = [name for name, differs in unsupported.items() if differs]
    if changed:
        raise ValueError(
            f"a RadialTangentialSDE takes no {', '.join(changed)}; leave at the default"
        )
    variance = 0.0
    if options.anchor_cov is not None:
        gamma = covariance(options.anchor_cov, "anchor_cov", (model.dim, model.dim))
        variance = float(gamma[0, 0])
        if not np.array_equal(gamma, variance * np.eye(model.dim)):
            raise ValueError("anchor_cov must be gamma^2 I for a RadialTangentialSDE")
    shared = ("weight", "anchor", "iterations", "step", "query_times", "tolerance")
    given = {name: getattr(options, name) for name in shared}
    two_sided = not options.causal
    return radial_adaptive_filter(model, t, z, two_sided=two_sided, anchor_var=variance, **given)


def _package(
    outcome: Outcome,
    options: Options,
    queries: Array,
    lead: tuple[int, ...],
    info: dict[str, Any],
    source: Source,
) -> Estimate:
    if options.inverse_temperature != 1.0:  # inf where nothing is known
        outcome.cov = np.where(np.isinf(outcome.cov), np.inf, np.nan)
        outcome.open_laws = [
            law._replace(cov=np.full_like(law.cov, np.nan)) for law in outcome.open_laws
        ]
        info["cov"] = "none claimed: inverse_temperature is not 1"
    if options.weight is not None:
        info["change"] = np.array(outcome.change)
        info["iterations"] = len(outcome.change)
    count = len(outcome.mean)

    def shape(array: Array) -> Array:
        if len(array) == count:
            return array.reshape(*lead, *array.shape[1:])
        return np.broadcast_to(array[0], (*lead, *array.shape[1:]))

    label = "AFA" + (" exact" if options.exact else "")
    label += "" if options.causal else " smoother"
    label += "" if options.weight is None else " robust"
    return Estimate(
        queries,
        shape(outcome.mean),
        shape(outcome.cov),
        weights=None if outcome.weights is None else shape(outcome.weights),
        label=label,
        info=info,
        open_laws=tuple(outcome.open_laws),
        source=source,
    )
