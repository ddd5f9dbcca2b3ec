"""Kalman filter for data with outliers, known to be a mixture of two Gaussians.

    v_k ~ (1 - e) N(0, R_k) + e N(0, s R_k)

The exact posterior has 2^k components after k observations. This filter keeps one: both updates are
made, weighed by their posterior odds, and replaced by the Gaussian with their mean and covariance
(GPB1; formulas and sources in core/mixture.h). e outlier_rate, s outlier_scale.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, is_definite, positive_int, scalar
from afafilter._base.containers import takes_tables
from afafilter._base.threads import spread
from afafilter.kalman import queries, recursions
from afafilter.kalman.flat_start import FlatStart, with_room
from afafilter.kalman.group import Run
from afafilter.kalman.inputs import Model, checked_inputs
from afafilter.kalman.timeline import Timeline, timeline
from afafilter.models.forcing import honours_forcing
from afafilter.results import Estimate

ITERATIONS = 50
"""Most rounds of learning rate and scale, unless told."""
CONVERGED = 1e-4
"""Relative change of rate and scale at which learning ends."""
LEAST_RATE = 1e-9


class _Found(NamedTuple):
    """A run, and of every observation (n, T) what it says of the contamination (core/mixture.h)."""

    run: Run
    outlier: Array
    distance: Array


@takes_tables
@honours_forcing
def mixture_filter(
    model: Model,
    t: ArrayLike,
    z: ArrayLike | None = None,
    *,
    outlier_rate: float,
    outlier_scale: float,
    estimate: bool = False,
    iterations: int = ITERATIONS,
    obs_cov: ArrayLike | None = None,
    query_times: ArrayLike | None = None,
) -> Estimate:
    """State estimates where some observations have much larger noise, and nobody says which.

    Parameters
    ----------
    model, t, z, obs_cov, query_times
        As for `kalman_filter`.
    outlier_rate : float
        e in [0, 1), probability that an observation is an outlier, all its components
        at once.
    outlier_scale : float
        s >= 1, its noise covariance in units of the ordinary one. Outliers that *add*
        noise of k standard deviations, as `Outliers(scale=k)`, have s = 1 + k^2.
    estimate : bool
        Learn both from the data, all paths together, starting from the values given.
    iterations : int
        Most rounds of learning.

    Returns
    -------
    Estimate
        As from `kalman_filter`; innovation_cov (..., T, p, p) is that of the whole mixture and
        loglik the predictive mixture's, sum over k of log[(1 - e) N(v_k; 0, S_k + R_k) + e N(v_k;
        0, S_k + s R_k)]. `info["outlier_probability"]` (..., T) is the posterior probability given
        the data up to each time, NaN where nothing is observed, and `info["robust_weights"]`
        (..., T) the mean of 1 or 1/s that follows, 1 where nothing is observed;
        `info["outlier_rate"]` and `info["outlier_scale"]` are the values used, and under
        `estimate` there are `info["iterations"]` and `info["converged"]`.

    Raises
    ------
    ValueError, TypeError
        As for `kalman_filter`; a rate outside [0, 1), a scale below 1; with `estimate` a rate of 0,
        a scale of 1, a singular R or no observation at all.

    Notes
    -----
    Generalised pseudo-Bayesian filter of first order (Harrison & Stevens, JRSS B 38 (1976) 205-247;
    Bar-Shalom, Li & Kirubarajan 2001, sec. 11.6.2). Exact at the first observation and where
    outlier_rate = 0 or outlier_scale = 1, where it is the Kalman filter. A flat start is exact as
    well: an observation that nothing predicts keeps its prior odds and the mean of both variances,
    so that an outlier there rarely locks the filter.

    Learning is expectation-maximisation with the filter's own probabilities (not the smoother's),
    e = mean of r_k, s = sum r_k E d2_k / sum r_k p_k; of all rounds the one of largest likelihood
    counts.

    About twice the time of `kalman_filter` for one path: O(n T (d^3 + p d^2)), as no two paths
    share covariances; memory O(n T d^2).

    Examples
    --------
    >>> from afafilter import mixture_filter, simulate, spiral
    >>> data = simulate(spiral(), [0.1 * k for k in range(50)], rng=0)
    >>> found = mixture_filter(spiral(), data.t, data.z, outlier_rate=0.1, outlier_scale=100.0)
    >>> found.info["outlier_probability"].shape
    (1, 50)
    """
    rate, scale = _contamination(outlier_rate, outlier_scale, estimate)
    iterations = positive_int(iterations, "iterations")
    if not estimate and iterations != ITERATIONS:
        raise ValueError(f"iterations={iterations} would change nothing without estimate=True")
    given = checked_inputs(model, t, z, obs_cov, query_times)
    grid, data, asked = given.grid, given.z, given.asked
    lead, flat = data.shape[:-2], np.ascontiguousarray(given.paths)

    def whole(part: Array) -> Array:
        return part.reshape(*lead, *part.shape[1:])

    line = timeline(model, grid, given.R, None)
    facts: dict[str, object] = {}
    if estimate:
        rate, scale, facts = _learn(line, flat, rate, scale, iterations)
    found = _run(line, flat, rate, scale)
    mean, cov, open_laws = queries.filtered(model, line, found.run, grid, asked)
    outlier, loglik = found.outlier, whole(found.run.loglik)
    weights = np.where(np.isnan(outlier), 1.0, 1.0 - outlier + outlier / scale)
    return Estimate(
        asked,
        whole(mean),
        whole(cov),
        loglik=loglik.sum(axis=-1),
        loglik_steps=loglik,
        innovation=whole(found.run.innovation),
        innovation_cov=whole(found.run.innovation_cov),
        label="mixture filter",
        info={
            "outlier_rate": rate,
            "outlier_scale": scale,
            "outlier_probability": whole(outlier),
            "robust_weights": whole(weights),
            **facts,
        },
        open_laws=open_laws,
    )


def _contamination(outlier_rate: float, outlier_scale: float, learn: bool) -> tuple[float, float]:
    """Rate and scale, checked."""
    rate = scalar(outlier_rate, "outlier_rate", low=0.0)
    scale = scalar(outlier_scale, "outlier_scale", low=1.0)
    if rate >= 1:
        raise ValueError(f"outlier_rate must be a probability below 1, got {rate:g}")
    if learn and (rate == 0 or scale == 1):
        raise ValueError(
            "estimate=True starts from outlier_rate > 0 and outlier_scale > 1 (0.05 and 25, say), "
            f"got {rate:g} and {scale:g}"
        )
    return rate, scale


def _learn(
    line: Timeline, z: Array, rate: float, scale: float, iterations: int
) -> tuple[float, float, dict[str, object]]:
    """Rate and scale of largest likelihood among the rounds of EM, and how it went."""
    if not is_definite(line.chain.R).all():
        raise ValueError("estimate=True needs a positive definite R (or obs_cov)")
    count = np.count_nonzero(~np.isnan(z), axis=-1)
    seen = count > 0
    if not seen.any():
        raise ValueError("estimate=True needs observations; all of z is missing")
    best, now, rounds, converged = (-np.inf, rate, scale), (rate, scale), 0, False
    while True:
        found = _run(line, z, *now)
        best = max(best, (float(found.run.loglik.sum()), *now))
        if converged or rounds == iterations:
            break
        r = found.outlier[seen]
        # E step: r_k and E[d2 | outlier]; M step: their means (Dempster, Laird & Rubin 1977).
        rate = max(float(r.mean()), LEAST_RATE)
        scale = max(float((r * found.distance[seen]).sum() / (r * count[seen]).sum()), 1.0)
        converged = bool(np.abs(np.log([rate / now[0], scale / now[1]])).max() < CONVERGED)
        now, rounds = (rate, scale), rounds + 1
        if scale == 1.0:
            break
    return best[1], best[2], {"iterations": rounds, "converged": converged}


def _run(line: Timeline, z: Array, rate: float, scale: float) -> _Found:
    """Filter the paths z (n, T, p)."""
    chain, (n, T, _), N = line.chain, z.shape, len(line.times)
    seen = ~np.isnan(z)
    run = Run.empty(line, z, np.arange(n), n)
    outlier, distance = np.empty((n, T)), np.empty((n, T))

    filled = (run.mean, run.cov, run.innovation, run.innovation_cov, run.loglik, outlier, distance)

    def one(i: int) -> None:
        out = tuple(part[i] for part in filled)
        run.flat[i] = _one_path(line, z[i], seen[i], rate, scale, out)

    spread(one, range(n), n * N)
    noise = ((1.0 - rate) + rate * scale) * chain.R[chain.cfg]
    unknown = np.isinf(np.diagonal(run.innovation_cov, axis1=-2, axis2=-1))
    run.innovation_cov[...] += np.where(unknown[..., :, None] | unknown[..., None, :], 0.0, noise)
    return _Found(run, outlier, distance)


def _one_path(
    line: Timeline, z: Array, seen: Array, rate: float, scale: float, out: tuple[Array, ...]
) -> FlatStart | None:
    """Fill the answers of one path; what a flat start leaves open."""
    (_, _, D), (N, d), q = line.law, out[0].shape, line.law.diffuse.shape[1]
    kept: tuple[Any, ...] = ()
    flat = 0

    def attempt(root: Array, size: int) -> tuple[int, bool]:
        nonlocal kept, flat
        M, rounding = np.empty((size, q, d)), np.empty((size, q, d))
        T, s, count = np.empty((size, q, q)), np.empty((size, q)), np.empty(size, np.int64)
        kept, outcome = (M, rounding, T, s, count), np.empty(2, np.int64)
        along = line.chain, line.times, line.sizes, rate, scale
        start = root.copy(), line.law.mean, np.ascontiguousarray(D.T)
        recursions.filter_mixture(*along, *start, z, seen, out, kept, outcome)
        flat, singular = outcome.tolist()
        return singular, flat <= size

    with_room(line, attempt)
    if flat == 0:
        return None
    none = np.empty((N - flat, 0, d))
    M, rounding, T, s, count = (part[:flat] for part in kept)
    return FlatStart(M, rounding, T, s[None], count, none, none)
