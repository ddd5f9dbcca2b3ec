"""Forms of a model in which AFA is cheap, remembered with it: models never change.

A model whose noises and dynamics share their eigenvectors is, in coordinates in which its
measurement noise is the identity, a set of independent modes (MATH: simultaneous diagonalisation);
where all modes decay and drive alike it is isotropic, A = -mu I + skew, Q = sigma^2 I, R = eta^2 I.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from afafilter._base.checks import Array
from afafilter._base.remembered import remembered
from afafilter.adaptive.geometry import Index
from afafilter.adaptive.linear_time.bank import IsotropicParameters, isotropic_parameters
from afafilter.linalg.rotation import PLANE_TOLERANCE, invariant_planes, plane_rates
from afafilter.linalg.subspaces import rank_of
from afafilter.models.sde import LinearSDE


def is_invertible(model: LinearSDE) -> bool:
    """Whether one observation determines the state: C is square and regular."""
    p, d = model.C.shape
    if p != d:
        return False
    return remembered(model, "invertible", lambda: bool(rank_of(model.C) == d))


class Isotropic(NamedTuple):
    """The isotropic form of a model: y = to_form (z - b) shows x = from_form y with noise eta^2 I.

    state_model : the model of y (C = I, no offset); anchor_var : gamma^2; unit : of x where y has
    the identity, from_form from_form^T; numbers : what attention calls the parameters.
    """

    parameters: IsotropicParameters
    state_model: LinearSDE
    anchor_var: float
    to_form: Array
    from_form: Array
    unit: Array
    numbers: dict[str, Array]


def isotropic_form(model: LinearSDE, anchor_cov: Array | None) -> Isotropic | None:
    """The isotropic form of a model with query noise anchor_cov (p, p), or None if it has none."""
    key = ("isotropic", None if anchor_cov is None else anchor_cov.tobytes())
    return remembered(model, key, lambda: _isotropic_form(model, anchor_cov))


def _isotropic_form(model: LinearSDE, anchor_cov: Array | None) -> Isotropic | None:
    if not is_invertible(model):
        return None
    d = model.dim
    to_state = np.asarray(np.linalg.inv(model.C))
    R = _symmetric(to_state @ model.R @ to_state.T)
    L: Array = np.eye(d)
    if not _is_multiple(R):  # in units of the noise
        L = np.asarray(np.linalg.cholesky(R))
        R = np.eye(d)
    back: Array = np.asarray(np.linalg.inv(L))
    gamma = np.zeros((d, d))
    if anchor_cov is not None:
        gamma = _symmetric(back @ to_state @ anchor_cov @ to_state.T @ back.T)
    if not _is_multiple(gamma):
        return None
    Q = _symmetric(back @ model.Q @ back.T)
    if not _is_multiple(Q):
        return None
    observed = LinearSDE(
        A=_cleaned(back @ model.A @ L),
        Q=Q,
        R=R,
        drift=back @ model.drift,
        delay=model.delay,
        prior="diffuse",
    )
    parameters = isotropic_parameters(observed)
    if parameters is None:
        return None
    anchor_var, (decay, frequency, *noise, _) = float(gamma[0, 0]), parameters
    names = "decay", "value_decay", "process_var", "key_var", "query_var", "omega", "omega_value"
    values = decay, decay, *noise, anchor_var, frequency, frequency
    numbers = {name: np.asarray(value, float) for name, value in zip(names, values, strict=True)}
    return Isotropic(parameters, observed, anchor_var, back @ to_state, L, L @ L.T, numbers)


def _symmetric(M: Array) -> Array:
    """M made symmetric, and an exact multiple of the identity where rounding parts it from one."""
    M = 0.5 * (M + M.T)
    if np.abs(M - M[0, 0] * np.eye(len(M))).max() <= 1e-14 * len(M) * np.abs(M).max():
        return np.asarray(np.trace(M) / len(M) * np.eye(len(M)))
    return np.asarray(M)


def _is_multiple(M: Array) -> bool:
    """Whether M is a multiple of the identity."""
    return bool((M[0, 0] * np.eye(len(M)) == M).all())


def _cleaned(A: Array) -> Array:
    """A without the rounding that parts it from a multiple of the identity plus a skew matrix."""
    decay = np.trace(A) / len(A)
    skew = 0.5 * (A - A.T)
    near = decay * np.eye(len(A)) + skew
    return near if np.abs(A - near).max() <= 4e-15 * len(A) * np.abs(A).max() else A


class Modal(NamedTuple):
    """Modes y = to_modes x: planes (two channels each), then axes (padded to two by zeros).

    decay, process_var, query_var : (n,) per mode; frequency : (planes,); real : (n,) how many of
    a mode's channels are real components of y.
    """

    to_modes: Array
    decay: Array
    frequency: Array
    process_var: Array
    query_var: Array
    real: Index


def modal_form(model: LinearSDE, anchor_cov: Array | None) -> Modal | None:
    """The modal form of a model with query noise anchor_cov (p, p), or None if it has none."""
    key = ("modal", None if anchor_cov is None else anchor_cov.tobytes())
    return remembered(model, key, lambda: _modal_form(model, anchor_cov))


def _modal_form(model: LinearSDE, anchor_cov: Array | None) -> Modal | None:
    if not is_invertible(model):
        return None
    d = model.dim
    whiten = np.linalg.solve(np.linalg.cholesky(model.R), model.C)
    A = whiten @ np.linalg.solve(whiten.T, model.A.T).T
    parts = [A, A.T, whiten @ model.Q @ whiten.T]
    if anchor_cov is not None:
        lower = np.linalg.inv(np.linalg.cholesky(model.R))
        parts.append(lower @ anchor_cov @ lower.T)
    sizes = [max(float(np.abs(part).max()), 1e-300) for part in parts]
    for i, (X, a) in enumerate(zip(parts, sizes, strict=True)):
        for Y, b in zip(parts[:i], sizes, strict=False):
            if np.abs(X @ Y - Y @ X).max() > PLANE_TOLERANCE * d * a * b:
                return None
    mixed = sum(
        c / size * part
        for c, size, part in zip((1.0, 0.0, 0.7312, 0.3917), sizes, parts, strict=False)
    )
    basis, planes = invariant_planes(mixed)
    turn = basis.T
    turned = [turn @ part @ turn.T for part in parts]
    blocks = [slice(i, i + 2) for i in range(0, 2 * planes, 2)]
    blocks += [slice(i, i + 1) for i in range(2 * planes, d)]
    mask = np.ones((d, d), bool)
    for block in blocks:
        mask[block, block] = False
    left = [np.abs(M[mask]).max(initial=0.0) / size for M, size in zip(turned, sizes, strict=True)]
    if max(left) > 10 * PLANE_TOLERANCE * d:
        return None

    def per_mode(M: Array) -> Array:
        return np.array([np.trace(M[block, block]) / len(M[block]) for block in blocks])

    decay = -per_mode(turned[0])
    decay[np.abs(decay) <= PLANE_TOLERANCE * sizes[0]] = 0.0
    if (decay < 0).any():
        return None
    frequency = plane_rates(turned[0], planes)
    noise = np.maximum(per_mode(turned[2]), 0.0)
    query = np.maximum(per_mode(turned[3]), 0.0) if len(turned) > 3 else np.zeros(len(blocks))
    real = np.array([b.stop - b.start for b in blocks], dtype=np.intp)
    return Modal(turn @ whiten, decay, frequency, noise, query, real)
