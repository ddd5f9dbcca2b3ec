"""Baselines with the signature of `kalman_filter`: filterpy's filter and smoother, raw data.

The adapters run filterpy 2.0.0 as its documentation intends, one path at a time, and go round its
pitfalls: `batch_filter` and NaN do not mix (rows are reduced here), the free function `update`
returns a wrong likelihood (the class is used), `KalmanFilter.rts_smoother` knows no drift (removed
and added back), and the free `rts_smoother` indexes varying transitions differently (not used).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import scalar
from afafilter._base.containers import takes_tables
from afafilter._base.unknown import mark
from afafilter.kalman.inputs import Model, checked_inputs, rows_of
from afafilter.linalg.subspaces import rank_of
from afafilter.models.discrete import DiscreteModel
from afafilter.models.forcing import honours_forcing
from afafilter.models.sde import LinearSDE
from afafilter.results import Estimate


@takes_tables
@honours_forcing
def filterpy_filter(
    model: Model,
    t: ArrayLike,
    z: ArrayLike | None = None,
    *,
    obs_cov: ArrayLike | None = None,
    diffuse_var: float = 1e7,
) -> Estimate:
    """Kalman filter by `filterpy.kalman.KalmanFilter`.

    Parameters
    ----------
    model, t, z, obs_cov
        As for `kalman_filter`; a delay is not supported.
    diffuse_var : float
        Variance, state^2, in place of a flat prior, which filterpy does not have.

    Returns
    -------
    Estimate
        mean (..., T, d), cov (..., T, d, d), log-likelihood and innovations.

    Raises
    ------
    ValueError, TypeError
        Bad times, shapes or covariances; a model with delay.

    Notes
    -----
    A Python loop over paths and times, O(n T d^3): for comparison, not for speed.

    Examples
    --------
    >>> from afafilter import filterpy_filter, simulate, spiral
    >>> data = simulate(spiral(), [0.1 * k for k in range(50)], rng=0)
    >>> filterpy_filter(spiral(), data.t, data.z).mean.shape
    (1, 50, 2)
    """
    return _filterpy("filterpy", False, model, t, z, obs_cov, diffuse_var)


@takes_tables
@honours_forcing
def filterpy_smoother(
    model: Model,
    t: ArrayLike,
    z: ArrayLike | None = None,
    *,
    obs_cov: ArrayLike | None = None,
    diffuse_var: float = 1e7,
) -> Estimate:
    """RTS smoother by `filterpy.kalman.KalmanFilter.rts_smoother`.

    Parameters, result and errors as for `filterpy_filter`; in addition ValueError where a predicted
    covariance is singular (filterpy inverts it).

    Examples
    --------
    >>> from afafilter import filterpy_smoother, simulate, spiral
    >>> data = simulate(spiral(), [0.1 * k for k in range(50)], rng=0)
    >>> filterpy_smoother(spiral(), data.t, data.z).mean.shape
    (1, 50, 2)
    """
    return _filterpy("filterpy RTS", True, model, t, z, obs_cov, diffuse_var)


@takes_tables
def raw_observation(
    model: Model, t: ArrayLike, z: ArrayLike | None = None, *, obs_cov: ArrayLike | None = None
) -> Estimate:
    """Each state from its own observation alone: C^-1 (z - b), predicted over the delay.

    Parameters
    ----------
    model, t, z, obs_cov
        As for `kalman_filter`; the observation matrix must be invertible.

    Returns
    -------
    Estimate
        mean (..., T, d) and cov (..., T, d, d); NaN and inf in the components that a missing
        observation leaves open.

    Raises
    ------
    ValueError, TypeError
        Bad times or shapes; an observation matrix that is not square or not invertible.

    Examples
    --------
    >>> from afafilter import raw_observation, simulate, spiral
    >>> data = simulate(spiral(), [0.1 * k for k in range(50)], rng=0)
    >>> bool((raw_observation(spiral(), data.t, data.z).mean == data.z).all())
    True
    """
    given = checked_inputs(model, t, z, obs_cov, None)
    data, T, d = given.z, len(given.grid), model.dim
    if isinstance(model, DiscreteModel):
        H, b, R = (rows_of(model, name, T) for name in ("H", "d", "R"))
    else:
        H, b, R = np.broadcast_to(model.C, (T, *model.C.shape)), model.offset, model.R
    R = R if given.R is None else given.R
    if model.obs_dim != d or any(rank_of(part) < d for part in np.unique(H, axis=0)):
        raise ValueError(
            "raw_observation needs an invertible observation matrix, got "
            f"{'one of shape ' + str(H.shape[1:]) if model.obs_dim != d else 'a singular one'}"
        )
    inverse = np.linalg.inv(H)
    move, shift, spread = np.eye(d), np.zeros(d), np.zeros((d, d))
    if isinstance(model, LinearSDE) and model.delay > 0:
        move, shift, spread = model.transition(model.delay)
    root = move @ inverse
    missing = np.isnan(data)
    mean = np.einsum("tij,...tj->...ti", root, np.where(missing, 0.0, data) - b) + shift
    cov = root @ R @ np.swapaxes(root, -1, -2) + spread
    cov = 0.5 * (cov + np.swapaxes(cov, -1, -2))
    cov = np.broadcast_to(cov, (*mean.shape, d))
    if missing.any():
        open_ = np.asarray(((np.abs(root) > 0) & missing[..., None, :]).any(axis=-1))
        mean, cov = mark(mean, cov, open_)
    return Estimate(given.grid, mean, cov, label="raw")


def _filterpy(
    label: str,
    smooth: bool,
    model: Model,
    t: ArrayLike,
    z: ArrayLike | None,
    obs_cov: ArrayLike | None,
    diffuse_var: float,
) -> Estimate:
    from filterpy.kalman import KalmanFilter

    given = checked_inputs(model, t, z, obs_cov, None)
    grid, data, paths = given.grid, given.z, given.paths
    scale = scalar(diffuse_var, "diffuse_var", low=0.0, strict=True)
    discrete = model.discretize(grid) if isinstance(model, LinearSDE) else model
    T, d, p = len(grid), discrete.dim, discrete.obs_dim
    F, Q, H, b, offset, R = (rows_of(discrete, name, T) for name in ("F", "Q", "H", "b", "d", "R"))
    R = R if given.R is None else given.R
    mean0, cov0, D = discrete.initial_law()
    n = len(paths)
    mean, cov, loglik = np.empty((n, T, d)), np.empty((n, T, d, d)), np.zeros((n, T))
    innovation, innovation_cov = np.full((n, T, p), np.nan), np.empty((n, T, p, p))
    for i in range(n):
        kf: Any = KalmanFilter(dim_x=d, dim_z=p)
        kf.x, kf.P = mean0.copy(), cov0 + scale * D @ D.T
        for k in range(T):
            if k > 0:
                kf.predict(u=b[k], B=np.eye(d), F=F[k], Q=Q[k])
            innovation_cov[i, k] = H[k] @ kf.P @ H[k].T + R[k]
            seen = np.flatnonzero(~np.isnan(paths[i, k]))
            if len(seen):
                value = paths[i, k, seen] - offset[k, seen]
                kf.update(value, R=R[k][np.ix_(seen, seen)], H=H[k, seen])
                innovation[i, k, seen] = kf.y
                loglik[i, k] = kf.log_likelihood
            mean[i, k], cov[i, k] = kf.x, kf.P
        if smooth:
            driven = np.zeros((T, d))
            for k in range(1, T):
                driven[k] = F[k] @ driven[k - 1] + b[k]
            try:
                smoothed, cov[i], _, _ = kf.rts_smoother(mean[i] - driven, cov[i], F, Q)
            except np.linalg.LinAlgError:
                raise ValueError(
                    "filterpy inverts the predicted covariance, which is singular for this model "
                    "(no process noise and a known state); use rts_smoother"
                ) from None
            mean[i] = smoothed + driven
    lead = data.shape[:-2]
    steps = loglik.reshape(*lead, T)
    return Estimate(
        grid,
        mean.reshape(*lead, T, d),
        cov.reshape(*lead, T, d, d),
        loglik=steps.sum(axis=-1),
        loglik_steps=steps,
        innovation=innovation.reshape(data.shape),
        innovation_cov=innovation_cov.reshape(*lead, T, p, p),
        label=label,
    )
