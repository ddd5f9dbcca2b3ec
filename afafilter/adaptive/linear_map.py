"""A linear estimator as a map: weights from unit impulses, its error law, its claim put right.

An estimate  xhat_i = c_i + sum_j W_ij z_j  of the state x_i of a model has the error

    xhat_i - x_i = g_i + G_i0 x_0 + sum_{l >= 1} G_il w_l + sum_j W_ij v_j
    G_il = W_il C - [l = i] I + G_i,l+1 Phi_l+1        (backward in l, over the merged time line)

so that its covariance is a sum of positive semidefinite terms: nothing cancels. Beyond the paper,
which has no error law; for the isotropic causal case `theory.isotropic_mse` is its closed form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, ObsMask, observation_covariances, observations, times
from afafilter._base.unknown import mark
from afafilter.models.forcing import refuse_forcing
from afafilter.models.sde import LinearSDE
from afafilter.results import Estimate

Estimator = Callable[..., Estimate]


@dataclass(frozen=True)
class LinearMap:
    """The affine map of an estimator.

    Attributes
    ----------
    weights : ndarray, shape (T, N, d, p)
        Weight of observation j in estimate i; NaN where the data do not determine the component.
    constant : ndarray, shape (T, d)
        What drift, offset and prior mean contribute.
    claimed : ndarray, shape (T, d, d)
        The covariance that the estimator claims.
    t : ndarray, shape (T,)
        Times of the estimates.
    """

    weights: Array
    constant: Array
    claimed: Array
    t: Array


def linear_map(
    model: LinearSDE,
    t: ArrayLike,
    estimator: Estimator,
    *,
    observed: ObsMask | None = None,
    **options: Any,
) -> LinearMap:
    """Weights, constant and claimed covariance of a linear estimator.

    Parameters
    ----------
    model : LinearSDE
        The model that the estimator uses.
    t : array_like, shape (N,)
        Observation times.
    estimator : callable
        ``f(model, t, z, **options) -> Estimate``, affine in z: no robust weight.
    observed : array_like, shape (N, p), optional
        False = missing. Default: everything is observed.
    options
        Passed on to the estimator (query_times, obs_cov, anchor_cov...).

    Returns
    -------
    LinearMap

    Raises
    ------
    ValueError
        If the estimator is not affine in z (a robust weight is on).

    Notes
    -----
    The estimator runs once on N p + 2 paths of unit impulses: its cost on that batch, memory
    O(T N d p).

    Examples
    --------
    >>> from afafilter import rts_smoother, spiral, theory
    >>> theory.linear_map(spiral(), range(4), rts_smoother).weights.shape
    (4, 4, 2, 2)
    """
    found, unknown = _filled_map(model, times(t), estimator, observed, options)
    weights = np.where(unknown[:, None, :, None], np.nan, found.weights)
    return replace(found, weights=weights, constant=np.where(unknown, np.nan, found.constant))


def _filled_map(
    model: LinearSDE,
    grid: Array,
    estimator: Estimator,
    observed: ObsMask | None,
    options: Mapping[str, Any],
) -> tuple[LinearMap, ObsMask]:
    """The same with numbers for all, and which components (T, d) are not determined.

    Those numbers are of the laws with open directions, given that these are 0.
    """
    n, p = len(grid), model.obs_dim
    seen = np.ones((n, p), bool) if observed is None else np.asarray(observed, bool)
    if seen.shape != (n, p):
        raise ValueError(f"observed must have shape {(n, p)}, got {seen.shape}")
    unit = np.sqrt(np.where(np.diag(model.R) > 0, np.diag(model.R), 1.0))  # of each component
    impulses = np.zeros((n * p + 2, n, p))
    impulses[:-2].reshape(n * p, n * p)[np.diag_indices(n * p)] = np.tile(unit, n)
    probe = unit * np.sin(1.0 + 7.0 * np.arange(n * p).reshape(n, p) ** 1.3)
    impulses[-1] = probe
    impulses[:, ~seen] = np.nan
    estimate = estimator(model, grid, impulses, **options)
    mean = estimate.mean.copy()
    for law in estimate.open_laws:
        mean[np.ix_(law.paths, law.at)] = law.mean
    mean = np.nan_to_num(mean)
    constant = mean[-2]
    responses = (mean[:-2] - constant) / np.tile(unit, n)[:, None, None]
    weights = np.ascontiguousarray(
        np.moveaxis(responses.reshape(n, p, *responses.shape[1:]), (0, 1), (1, 3))
    )
    weights[:, ~seen.any(axis=1)] = 0.0
    np.moveaxis(weights, 2, 3)[:, ~seen] = 0.0
    predicted = constant + np.einsum("ijab,jb->ia", weights, probe)
    terms = np.abs(constant) + np.einsum("ijab,jb->ia", np.abs(weights), np.abs(probe))
    scale = np.max(terms, axis=1, initial=1e-6, keepdims=True)
    if np.any(np.abs(predicted - mean[-1]) > 1e-6 * scale):
        raise ValueError(
            "estimator must be affine in the observations; leave out its robust weight"
        )
    found = LinearMap(weights, constant, estimate.cov[-2], estimate.t)
    return found, np.isnan(estimate.mean[-2])


FLAT_TOLERANCE = 1e-7
"""A gain along a flat direction below this, relative to the largest term of a sum, is zero."""


class ErrorLaw(NamedTuple):
    """Estimate minus state: bias (T, d) and cov (T, d, d) but for flat directions of the truth.

    moved : (T, q, d) by how much these move it, up to rounding (T, q, d); unknown : (T, d) what the
    data do not determine; t (T,) and claimed (T, d, d) of the estimate.
    """

    bias: Array
    cov: Array
    moved: Array
    rounding: Array
    unknown: ObsMask
    t: Array
    claimed: Array

    def report(self) -> tuple[Array, Array]:
        """Bias and cov, NaN and inf where the variance is infinite: not determined, or not unbiased
        along a flat direction."""
        unbounded = ~(np.abs(self.moved) <= self.rounding).all(axis=-2)
        return mark(self.bias, self.cov, self.unknown | unbounded)


def error_law(
    model: LinearSDE,
    grid: Array,
    estimator: Estimator,
    truth: LinearSDE,
    observed: ObsMask | None,
    options: Mapping[str, Any],
) -> ErrorLaw:
    """The error of a linear estimator under `truth`; grid (N,) : of the observations.

    Time O((N + T) T d^3), memory O(T d^2) beyond the weights.
    """
    refuse_forcing(truth, "the error law, which a known input does not change,")
    found, unknown = _filled_map(model, grid, estimator, observed, options)
    R = observation_covariances(options.get("obs_cov"), len(grid), truth.obs_dim, truth.R)
    W = found.weights
    d = truth.dim
    n_queries = len(found.t)
    stamps = np.concatenate([grid - truth.delay, found.t])
    order = np.argsort(stamps, kind="stable")
    line = stamps[order]
    F, psi, V = truth.transition(np.diff(line))
    mean0, P0, flat = truth.initial_law(line[0])

    G = np.zeros((n_queries, d, d))
    size = np.zeros((n_queries, d, d))
    cov = np.einsum("ijab,jbc,ijdc->iad", W, R, W, optimize=True)
    bias = found.constant + np.einsum("ijab,b->ia", W, truth.offset)
    for k in range(len(line) - 1, -1, -1):
        source = order[k]
        if source < len(grid):
            term = W[:, source] @ truth.C
            G += term
            size += np.abs(term)
        else:
            query = source - len(grid)
            G[query] -= np.eye(d)
            size[query] += np.eye(d)
        if k > 0:
            bias += G @ psi[k - 1]
            cov += G @ V[k - 1] @ np.swapaxes(G, -1, -2)
            G = G @ F[k - 1]
            size = size @ np.abs(F[k - 1])
    bias += G @ mean0
    cov += G @ P0 @ np.swapaxes(G, -1, -2)
    cov = 0.5 * (cov + np.swapaxes(cov, -1, -2))
    # G_ab counts state a in terms of state b: judged in standard deviations of both.
    unit = np.sqrt(np.diagonal(cov, axis1=-2, axis2=-1))
    unit = np.where(unit > 0, unit, 1.0)
    largest = (size * unit[:, None, :] / unit[..., None]).max(axis=(-2, -1))
    reach = (np.abs(flat.T) / unit[:, None, :]).max(axis=-1)
    bound = FLAT_TOLERANCE * unit[:, None, :] * (largest[:, None] * reach)[..., None]
    moved = np.swapaxes(G @ flat, -1, -2)
    return ErrorLaw(bias, cov, moved, bound, unknown, found.t, found.claimed)


def calibrate(
    estimator: Estimator,
    model: LinearSDE,
    t: ArrayLike,
    z: ArrayLike,
    *,
    truth: LinearSDE | None = None,
    **options: Any,
) -> Estimate:
    """The estimate with the mean squared error matrix of its exact law as covariance.

    Raises
    ------
    ValueError
        If the estimator is not linear, or paths miss different components.
    """
    grid = times(t)
    estimate = estimator(model, grid, z, **options)
    data = observations(z, len(grid), model.obs_dim)
    patterns = ~np.isnan(data).reshape(-1, *data.shape[-2:])
    if (patterns != patterns[0]).any():
        raise ValueError("z must miss the same components in every path to be calibrated")
    true = replace(model, prior="diffuse") if truth is None else truth
    law = error_law(model, grid, estimator, true, patterns[0], options)
    law = law._replace(cov=law.cov + law.bias[..., :, None] * law.bias[..., None, :])
    open_laws = []
    for known in estimate.open_laws:
        directions = np.concatenate([known.directions, law.moved[known.at]], axis=-2)
        rounding = np.concatenate([known.rounding, law.rounding[known.at]], axis=-2)
        functionals = {"cov": law.cov[known.at], "directions": directions, "rounding": rounding}
        open_laws.append(known._replace(**functionals))
    return replace(
        estimate,
        cov=np.broadcast_to(law.report()[1], estimate.cov.shape),
        open_laws=tuple(open_laws),
        label=f"{estimate.label}, calibrated",
        info={**estimate.info, "cov": "exact error law"},
    )
