"""The continuous-time model behind a discrete one: the real logarithm of its transition.

With steps of length 1, F = e^A, V = int_0^1 e^{As} Q e^{A^T s} ds and b = int_0^1 e^{As} u ds, so

    A = log F (principal),   vec Q = (int_0^1 e^{As} x e^{As} ds)^{-1} vec V,   u likewise,

where a real logarithm with eigenvalues of imaginary part below pi exists if F is invertible and has
no eigenvalue on the negative real axis (Higham, Functions of Matrices, SIAM 2008, thm 1.31). Q must
come out positive semidefinite: a discrete model need not have a continuous one behind it (Elfving's
embedding problem).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np

from afafilter._base.checks import Array, correlations
from afafilter.linalg import discretiser
from afafilter.linalg.integrals import augmented
from afafilter.models.discrete import DiscreteModel
from afafilter.models.sde import LinearSDE
from afafilter.results import Estimate

F = TypeVar("F", bound=Callable[..., Estimate])
AGREEMENT = 1e-9
"""Largest relative difference of e^A from F."""
NEGATIVE = 1e-8
"""How far below 0 an eigenvalue of the correlations of Q may lie by rounding."""


def continuous_form(model: DiscreteModel) -> LinearSDE:
    """The `LinearSDE` that has this discrete form on the times 0, 1, 2, ...

    ValueError: Time-varying matrices; an F without real logarithm; a Q that no diffusion makes.
    """
    if model.time_varying:
        raise ValueError(
            f"a DiscreteModel with time-varying {', '.join(model.time_varying)} is no LinearSDE on "
            "regular times; give the LinearSDE behind it"
        )
    d = model.dim
    A = _real_logarithm(model.F)
    unit, none = np.array([1.0]), np.zeros((d, d))
    # exp([[A, I], [0, 0]]) = [[e^A, int_0^1 e^{As} ds], [0, I]], and the same for A (+) A
    pair = np.kron(A, np.eye(d)) + np.kron(np.eye(d), A)
    Q = np.linalg.solve(_integral(pair), model.Q.ravel()).reshape(d, d)
    Q = 0.5 * (Q + Q.T)
    drift = np.linalg.solve(_integral(A), model.b)
    again = discretiser.transition(A, none, np.zeros(d), unit)[0][0]
    if np.abs(again - model.F).max() > AGREEMENT * np.abs(model.F).max():
        raise ValueError("F has no accurate logarithm: e^(log F) differs from F")
    Q = _semidefinite(Q)
    return LinearSDE(A, Q=Q, R=model.R, C=model.H, drift=drift, offset=model.d, prior=model.prior)


def _real_logarithm(F: Array) -> Array:
    from scipy.linalg import logm

    values = np.linalg.eigvals(F)
    size = np.abs(values).max()
    if np.abs(values).min() <= 1e-13 * max(size, 1e-300):
        raise ValueError(
            "F is singular, so that no continuous-time model has it for its transition; adaptive "
            "estimators need a LinearSDE or a DiscreteModel with an invertible F"
        )
    negative = (values.real < 0) & (np.abs(values.imag) <= 1e-12 * np.abs(values))
    if negative.any():
        raise ValueError(
            f"F has the negative eigenvalue {values[negative][0].real:.4g} and so no real "
            "logarithm: no continuous-time model has it for its transition; adaptive estimators "
            "need a LinearSDE or a DiscreteModel without such eigenvalues"
        )
    A = np.asarray(logm(F.copy()))  # some releases of scipy write where they read
    return np.ascontiguousarray(A.real, dtype=np.float64)


def _integral(M: Array) -> Array:
    """int_0^1 e^{Ms} ds."""
    n = len(M)
    return discretiser.transition(*augmented(M), np.ones(1))[0][0, :n, n:]


def _semidefinite(Q: Array) -> Array:
    """Q without the rounding that made it indefinite; ValueError where it is more than that."""
    scale = np.abs(Q).max()
    if scale == 0:
        return Q
    _, correlation = correlations(Q)
    values, vectors = np.linalg.eigh(Q)
    lowest = np.linalg.eigvalsh(correlation)[0]
    if lowest < -NEGATIVE or values[0] < -NEGATIVE * scale:
        raise ValueError(
            "Q is the noise of no continuous-time model: its diffusion would have the eigenvalue "
            f"{values[0]:.3g}; adaptive estimators need a LinearSDE or a DiscreteModel that "
            "comes from one"
        )
    return np.asarray((vectors * np.clip(values, 0.0, None)) @ vectors.T)


def takes_discrete(estimator: F) -> F:
    """Decorator of an estimator of a `LinearSDE` f(model, t, z, ...): a `DiscreteModel` works too.

    It may leave the times out, f(model, z); labels t are given back. Results are at its steps.
    """

    @wraps(estimator)
    def either(model: Any, t: Any = None, z: Any = None, **options: Any) -> Estimate:
        if not isinstance(model, DiscreteModel):
            return estimator(model, t, z, **options)
        if options.get("query_times") is not None:
            raise ValueError(
                "query_times need a LinearSDE; a DiscreteModel is known at its steps only"
            )
        if z is None:
            t, z = None, t
        shape = np.shape(z)
        if not shape or 0 in shape:
            raise ValueError(f"z must have shape (..., T, p) with p = {model.obs_dim}, got {shape}")
        T = shape[0] if len(shape) == 1 else shape[-2]
        labels = np.arange(float(T)) if t is None else np.asarray(t, dtype=np.float64)
        if labels.shape != (T,):
            raise ValueError(f"t must have length {T} like z, got shape {labels.shape}")
        found = estimator(continuous_form(model), np.arange(float(T)), z, **options)
        return replace(found, t=labels)

    return cast(F, either)
