"""Adaptive filter under process noise whose strength follows a known course in time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from afafilter._base.checks import Array, is_definite, observations
from afafilter._base.containers import chosen_unit, take
from afafilter._base.patterns import require_whole_rows
from afafilter._base.signatures import told_type
from afafilter._base.tables import given_times
from afafilter.adaptive.coordinates import coordinates, free_path
from afafilter.adaptive.forms import is_invertible
from afafilter.models.forcing import refuse_forcing
from afafilter.models.sde import LinearSDE
from afafilter.models.structured_noise import StructuredNoise, structured_covariance
from afafilter.results import Estimate


def structured_adaptive_filter(
    model: LinearSDE, noise: StructuredNoise, t: ArrayLike, z: ArrayLike | None = None
) -> Estimate:
    """Plain causal AFA under structured process noise.

    zbar_i = (sum_j P_ij)^-1 sum_j P_ij zhat_ij, P_ij^-1 = V(t_j, t_i) + Phi C^-1 R C^-T Phi^T: what
    `adaptive_filter` computes, with V of the noise's own course.

    Parameters
    ----------
    model : LinearSDE
        C invertible, R positive definite, no delay.
    t : array_like
        (T,).
    z : array_like, shape (..., T, d)
        Rows wholly NaN
        are missing; paths that miss the same rows share the weights.

    Returns
    -------
    Estimate
        mean (..., T, d), claimed covariance (..., T, d, d).

    Raises
    ------
    ValueError
        C not invertible, R singular, delay > 0, rows missing in part, q negative.

    Notes
    -----
    O(T^2 d^3) time, O(T d^2) memory: every covariance is carried one step by its law.

    Examples
    --------
    >>> from afafilter import StructuredNoise, simulate, spiral, structured_adaptive_filter
    >>> data = simulate(spiral(), [0.1 * k for k in range(50)], rng=0)
    >>> noise = StructuredNoise([1.0, 0.5], [0.0, -0.1])
    >>> structured_adaptive_filter(spiral(), noise, data.t, data.z).mean.shape
    (1, 50, 2)
    """
    refuse_forcing(model, "structured_adaptive_filter")
    if not isinstance(noise, StructuredNoise):
        raise TypeError(
            f"noise must be a StructuredNoise, got {told_type(noise)}; the order is (model, noise, "
            "t, z)"
        )
    t, z, stamps = take(t, z, chosen_unit(model, None), obs_dim=model.obs_dim)
    grid = given_times(t)
    if stamps is not None and stamps.shifted and not stamps.dated and noise.origin:
        noise = replace(noise, origin=noise.origin - float(stamps.values[0]))
    d = model.dim
    data = observations(z, len(grid), model.obs_dim)
    if not is_invertible(model):
        raise ValueError(f"C must be invertible, got shape {model.C.shape}")
    if model.delay:
        raise ValueError("delay must be 0 with structured noise")
    if not is_definite(model.R):
        raise ValueError("R must be positive definite, got a singular matrix")
    require_whole_rows(data, "NaN the whole row")
    coords = coordinates(model, float(grid[-1] - grid[0]))
    inward, turn = coords.W_inv @ np.linalg.inv(model.C), coords.W.T
    path = free_path(coords, grid, float(grid[0] if coords.sign > 0 else grid[-1]))
    state = (data - model.offset) @ inward.T - path
    noise_cov = inward @ model.R @ inward.T
    inner = LinearSDE(coords.sign * coords.L, Q=coords.Q, R=np.eye(d), prior="diffuse")
    rate = coords.unit_rate if coords.sign > 0 else np.zeros(d)  # of what fades without noise:
    unit = np.exp(-rate * (grid - grid[0])[:, None])  # counted in units that fade alike
    Phi, _, _ = replace(inner, A=inner.A + np.diag(rate)).transition(np.diff(grid))
    V = structured_covariance(inner, noise, grid[:-1], grid[1:])
    paths = np.moveaxis(state.reshape(-1, len(grid), d), 0, 1)  # (T, P, d)
    seen = ~np.isnan(paths[..., 0])
    pulled = np.where(seen[..., None], paths, 0.0)
    spread = np.tile(noise_cov, (len(grid), 1, 1))
    mean = np.full((len(grid), paths.shape[1], d), np.nan)
    cov = np.broadcast_to(
        np.where(np.eye(d, dtype=bool), np.inf, 0.0), (*mean.shape[:2], d, d)
    ).copy()
    shared = bool((seen == seen[:, :1]).all())
    for i in range(len(grid)):
        if i:
            step = Phi[i - 1]
            spread[:i] = step @ spread[:i] @ step.T + V[i - 1]
            pulled[:i] = pulled[:i] @ step.T
        gain = unit[: i + 1, :, None] * _inverse(spread[: i + 1])
        P = gain * unit[: i + 1, None, :]
        use = seen[: i + 1, :1] if shared else seen[: i + 1]
        total = np.einsum("jp,jkl->pkl", use.astype(float), P)
        total = np.broadcast_to(total, (paths.shape[1], d, d))
        known = np.broadcast_to(use.any(0), paths.shape[1])
        if known.any():
            moment = np.einsum("jp,jkl,jpl->pk", seen[: i + 1].astype(float), gain, pulled[: i + 1])
            found, here = _inverse(total[known]), unit[i][:, None] * turn
            mean[i, known] = (found @ moment[known][..., None])[..., 0] @ here + path[i] @ turn
            cov[i, known] = here.T @ found @ here
    lead = data.shape[:-2]
    return Estimate(
        grid,
        np.moveaxis(mean, 0, 1).reshape(*lead, len(grid), d),
        np.moveaxis(cov, 0, 1).reshape(*lead, len(grid), d, d),
        label="AFA structured noise",
        info={"method": "structured"},
        index=stamps,
    )


def _inverse(cov: Array) -> Array:
    """Inverses of covariances (..., d, d), each taken in units of its own: they are graded."""
    unit = np.sqrt(np.einsum("...aa->...a", cov))
    scale = unit[..., :, None] * unit[..., None, :]
    return np.asarray(np.linalg.inv(cov / scale) / scale)
