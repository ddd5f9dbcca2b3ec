"""Kalman filter of the radial-tangential SDE: noise along the direction of its own prediction.

    m_k^- = e^{A dt} m_{k-1},   u_k = m_k^- / |m_k^-|
    P_k^- = e^{A dt} P_{k-1} e^{A^T dt} + V
    V     = (1 - e^{-2 mu dt}) / (2 mu) [st^2 (I - u u^T) + sr^2 u u^T]
    z_k   = x_k + v_k,   v_k ~ N(0, et^2 (I - u u^T) + er^2 u u^T)

The sequential peer of `radial_adaptive_filter`, which takes its directions from its own estimates
too. Symbols as in `RadialTangentialSDE`'s module.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, ObsMask, observations, times
from afafilter._base.containers import takes_tables
from afafilter.models.radial import RadialTangentialSDE, directions, rank_one
from afafilter.results import Estimate


class _Law(NamedTuple):
    """Means (n, d) and covariances (n, d, d)."""

    mean: Array
    cov: Array


@takes_tables
def radial_kalman_filter(
    model: RadialTangentialSDE, t: ArrayLike, z: ArrayLike | None = None
) -> Estimate:
    """State estimates of a radial-tangential SDE by a Kalman filter that looks where it is.

    Parameters
    ----------
    model : RadialTangentialSDE
        RadialTangentialSDE. With `radius` estimates are brought back to the sphere after every
        step, and only noise along the sphere counts.
    t : array_like, shape (T,)
        Times, non-decreasing.
    z : array_like, shape (..., T, d), optional
        Observations, NaN = missing. Later than the first observation single components
        may be missing; the first one starts the filter (flat prior) and must be complete.

    Returns
    -------
    Estimate
        mean (..., T, d), cov (..., T, d, d), loglik (...,) of the Gaussian predictions, flat at the
        first observation, loglik_steps (..., T), innovation (..., T, d) and innovation_cov
        (..., T, d, d). Before the first observation means are NaN and variances inf.

    Raises
    ------
    ValueError, TypeError
        Not a RadialTangentialSDE; bad times or shapes; a first observation with missing components;
        a mean of exactly zero, which has no direction; measurement noise of variance 0.

    Notes
    -----
    To first order in the noise the linear filter for the true directions; the direction is wrong by
    about sd / r at the radius r, so that it holds where r is large beside the estimate's standard
    deviation.
    Independent of which direction the state has. O(n T d^3), vectorised over paths.

    Examples
    --------
    >>> from afafilter import RadialTangentialSDE, radial_kalman_filter, simulate
    >>> model = RadialTangentialSDE(0.0, 1.0, radial_var=0.1, tangential_var=0.2,
    ...     obs_radial_var=0.5, obs_tangential_var=0.5)
    >>> data = simulate(model, range(20), rng=0, x0=[9.0, 0.0])
    >>> radial_kalman_filter(model, data.t, data.z).mean.shape
    (1, 20, 2)
    """
    if not isinstance(model, RadialTangentialSDE):
        raise TypeError(f"model must be a RadialTangentialSDE, got {type(model).__name__}")
    grid = times(t)
    data = observations(z, len(grid), model.dim)
    if model.obs_tangential_var == 0 or (model.radius is None and model.obs_radial_var == 0):
        raise ValueError(
            "obs_radial_var and obs_tangential_var must be > 0, got "
            f"{model.obs_radial_var:g} and {model.obs_tangential_var:g}"
        )
    lead, paths = data.shape[:-2], data.reshape(-1, len(grid), model.dim)
    (n, T, d), shape = paths.shape, paths.shape
    seen = ~np.isnan(paths)
    mean, innovation = np.full(shape, np.nan), np.full(shape, np.nan)
    cov = np.broadcast_to(np.where(np.eye(d), np.inf, 0.0), (*shape, d)).copy()
    spread, loglik = cov.copy(), np.zeros((n, T))
    started = np.zeros(n, bool)
    law = _Law(np.zeros((n, d)), np.zeros((n, d, d)))
    for k in range(T):
        going = np.flatnonzero(started)
        if len(going):
            dt = grid[k] - grid[k - 1]
            now = _predict(model, _Law(law.mean[going], law.cov[going]), dt)
            now, innovation[going, k], spread[going, k], loglik[going, k] = _update(
                model, now, paths[going, k], seen[going, k]
            )
            law.mean[going], law.cov[going] = now
        fresh = np.flatnonzero(~started & seen[:, k].any(axis=1))
        if len(fresh):
            if not seen[fresh, k].all():
                raise ValueError(
                    f"z[{k}] is the first observation of a path and is missing in part; the first "
                    "one must have all components (leave the row out by making all of it NaN)"
                )
            law.mean[fresh], law.cov[fresh] = _start(model, paths[fresh, k])
            loglik[fresh, k] = -0.5 * d * np.log(2 * np.pi)
            started[fresh] = True
        mean[started, k], cov[started, k] = law.mean[started], law.cov[started]
    return Estimate(
        grid,
        mean.reshape(data.shape),
        cov.reshape(*data.shape, d),
        loglik=loglik.sum(axis=-1).reshape(lead),
        loglik_steps=loglik.reshape(*lead, T),
        innovation=innovation.reshape(data.shape),
        innovation_cov=spread.reshape(*data.shape, d),
        label="radial Kalman",
    )


def _start(model: RadialTangentialSDE, z: Array) -> _Law:
    """After a first observation under a flat prior: x ~ N(z, R)."""
    u = directions(z, "an observation")
    return _on_sphere(model, _Law(z, _noise(model.obs_tangential_var, model.obs_radial_var, u)))


def _predict(model: RadialTangentialSDE, law: _Law, dt: float) -> _Law:
    """e^{A dt} m, and e^{A dt} P e^{A^T dt} + V with V along the direction of that mean."""
    flow = model.flow(np.eye(model.dim), np.full(model.dim, dt)).T
    mean = law.mean @ flow.T
    u, time = directions(mean, "a predicted mean"), float(model.spread(dt))
    noise = _noise(time * model.tangential_var, time * model.radial_var, u)
    return _on_sphere(model, _Law(mean, flow @ law.cov @ flow.T + noise))


def _update(
    model: RadialTangentialSDE, law: _Law, z: Array, seen: ObsMask
) -> tuple[_Law, Array, Array, Array]:
    """Condition on z (n, d): law, innovations, their covariances and log-likelihoods (n,).

    Joseph's form, P = (I - K) P^- (I - K)^T + K R K^T; K has columns of zeros where nothing is
    seen.
    """
    d, u = model.dim, directions(law.mean, "a predicted mean")
    # On a sphere no radial error is left, P u = 0: er^2 has no influence, and must only not be 0.
    radial = model.obs_radial_var if model.radius is None else model.obs_tangential_var
    R = _noise(model.obs_tangential_var, radial, u)
    S = law.cov + R
    pair = seen[:, :, None] & seen[:, None, :]
    e = np.where(seen, z - law.mean, 0.0)
    inner = np.where(pair, S, np.eye(d))
    K = np.swapaxes(np.linalg.solve(inner, np.where(seen[:, :, None], law.cov, 0.0)), -1, -2)
    left = np.eye(d) - K
    cov = left @ law.cov @ np.swapaxes(left, -1, -2) + K @ R @ np.swapaxes(K, -1, -2)
    size = (e * np.linalg.solve(inner, e[..., None])[..., 0]).sum(axis=-1)
    volume = np.linalg.slogdet(inner)[1] + seen.sum(axis=-1) * np.log(2 * np.pi)
    mean = law.mean + (K @ e[..., None])[..., 0]
    found = _on_sphere(model, _Law(mean, cov))
    return found, np.where(seen, e, np.nan), S, -0.5 * (size + volume)


def _on_sphere(model: RadialTangentialSDE, law: _Law) -> _Law:
    """The mean brought back to its radius, the covariance to the tangent space; if there is one."""
    if model.radius is None:
        return law
    u = directions(law.mean, "an estimate")
    across = np.eye(model.dim) - u[:, :, None] * u[:, None, :]
    return _Law(model.radius * u, across @ law.cov @ across)


def _noise(tangential: float, radial: float, u: Array) -> Array:
    """tangential (I - u u^T) + radial u u^T for every row of u."""
    ones = np.ones(len(u))
    return rank_one(tangential * ones, radial * ones, u)
