"""The deterministic part of a simulation: time grid of the states, transitions, observations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from afafilter._base.checks import Array, observation_covariances, times
from afafilter._base.steps import distinct_steps
from afafilter.models.discrete import DiscreteModel
from afafilter.models.sde import LinearSDE


class Setting(NamedTuple):
    """Observation noise and times of one call, beyond the model.

    obs_cov as given; late (T,) by how much the observation is taken after its stamp; extra (M,)
    further times at which states are wanted.
    """

    obs_cov: ArrayLike | None = None
    late: Array | None = None
    extra: Array | None = None


class Tables(NamedTuple):
    """K affine Gaussian maps x -> N(mean x + shift, root root^T), and the one of each time."""

    mean: Array  # (K, rows, cols) matrix that multiplies the previous or shown state
    shift: Array  # (K, rows)
    root: Array  # (K, rows, rows) lower triangular, root root^T = covariance
    which: NDArray[np.intp]  # (T,)


class Plan(NamedTuple):
    """The deterministic part of a simulation.

    States live on a grid of their own: with a delay it holds t - delay beside t.
    """

    t: Array
    step: Tables
    observation: Tables
    seen: NDArray[np.intp]  # (T,) index of the state that each observation shows
    state_at: NDArray[np.intp]  # (T,) index of the state at t
    further_at: NDArray[np.intp]  # (M,) index of the states at the further times
    t_first: float
    times: Array  # (S,) of the states

    @property
    def n_states(self) -> int:
        return len(self.step.which)


def make_plan(model: LinearSDE | DiscreteModel, t: ArrayLike | None, setting: Setting) -> Plan:
    if isinstance(model, LinearSDE):
        return _continuous(model, t, setting)
    if t is None:
        if model.length is None:
            raise ValueError("t must be given (labels, one per step) when the model is constant")
        grid = np.arange(float(model.length))
    else:
        grid = times(t)
    if model.length not in (None, len(grid)):
        raise ValueError(f"t must have length {model.length} like the model, got {len(grid)}")
    every = np.arange(len(grid))

    def tables(mean: str, shift: str, cov: str) -> Tables:
        varying = bool({mean, shift, cov} & set(model.time_varying))

        def table(name: str) -> Array:
            value: Array = getattr(model, name)
            if name in model.time_varying:
                return value
            return np.broadcast_to(value, (len(grid) if varying else 1, *value.shape))

        which = every if varying else np.zeros_like(every)
        return Tables(table(mean), table(shift), covariance_root(table(cov)), which)

    observation = _own_noise(tables("H", "d", "R"), setting, model)
    places = every, every, every[:0]
    return Plan(grid, tables("F", "b", "Q"), observation, *places, float(grid[0]), grid)


def _continuous(model: LinearSDE, t: ArrayLike | None, setting: Setting) -> Plan:
    """States at the stamps, where observations show them, and at the further times."""
    if t is None:
        raise TypeError("t must be given for a LinearSDE")
    grid = times(t)
    T = len(grid)
    seen = state_at = np.arange(T)
    states, extra = grid, seen[:0]
    if model.delay > 0 or setting.late is not None or setting.extra is not None:
        shown = grid - model.delay + (0.0 if setting.late is None else setting.late)
        further = np.zeros(0) if setting.extra is None else setting.extra
        states, index = np.unique(np.concatenate([shown, grid, further]), return_inverse=True)
        seen, state_at, extra = index[:T], index[T : 2 * T], index[2 * T :]
    steps, which = distinct_steps(np.diff(states, prepend=states[0]), states)
    Phi, psi, V = model.transition(steps)
    constant = np.zeros(T, dtype=np.intp)
    noise = covariance_root(model.R)[None]
    step = Tables(Phi, psi, covariance_root(V), which)
    table = Tables(model.C[None], model.offset[None], noise, constant)
    observation, places = _own_noise(table, setting, model), (seen, state_at, extra)
    return Plan(grid, step, observation, *places, float(states[0]), states)


def _own_noise(observation: Tables, setting: Setting, model: LinearSDE | DiscreteModel) -> Tables:
    """The observations' tables with noise of their own each, where obs_cov is given."""
    if setting.obs_cov is None:
        return observation
    T = len(observation.which)
    covs = observation_covariances(setting.obs_cov, T, model.obs_dim, model.R)
    at = observation.which
    return Tables(observation.mean[at], observation.shift[at], covariance_root(covs), np.arange(T))


def covariance_root(cov: Array) -> Array:
    """Lower triangular L (..., m, m) with L L^T = cov (..., m, m), symmetric, maybe singular.

    L = D tril(C^{1/2}) with D the standard deviations and C^{1/2} the symmetric root of the
    correlation matrix, made triangular by QR: unlike Cholesky it exists for singular matrices, and
    unlike a root of cov itself it keeps small variances beside large ones.
    """
    sd = np.sqrt(np.diagonal(cov, axis1=-2, axis2=-1))
    safe = np.where(sd > 0, sd, 1.0)
    values, vectors = np.linalg.eigh(cov / (safe[..., :, None] * safe[..., None, :]))
    half = np.sqrt(np.clip(values, 0.0, None))[..., :, None] * np.swapaxes(vectors, -1, -2)
    upper = np.linalg.qr(half, mode="r")
    signs = np.where(np.diagonal(upper, axis1=-2, axis2=-1) < 0, -1.0, 1.0)
    return np.asarray(sd[..., :, None] * np.swapaxes(upper * signs[..., :, None], -1, -2))
