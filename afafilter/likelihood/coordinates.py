"""Coordinates of an SDE in which its transitions over long intervals keep their digits.

Over a long interval the powers of t in e^{At} cancel in every basis but one that tells their
degrees apart, and so do the terms of V and of the gradient, whose components differ by powers of t
as well. In the Schur basis of each block of A, balanced by powers of two S so that units do not
count, x = U y with U = S times orthonormal columns, B = U^-1 A U, what is small stands by itself.
With T = U^-T the log-likelihood is the same, its gradient by A that by B as G_A = T G_B U^T, and
so on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from afafilter._base.checks import Array
from afafilter.likelihood.chain import PriorArrays, System
from afafilter.linalg.doubling import balanced, schur_form

_ZERO = 1e-15
"""Relative size of an entry of a product with U up to which it counts as zero."""


def in_schur_coordinates(system: System) -> tuple[System, Callable[[System], System]]:
    """The system of y = U^-1 x, and the map of a gradient by its arrays to one by the system's.

    What should cancel in it, does: a row of C sees nothing of a direction across it.
    """
    scale, A = balanced(system.A)
    B, U = schur_form(A)
    U, T = scale[:, None] * U, U / scale[:, None]
    prior, d = system.prior, len(system.A)
    if prior == "diffuse":
        prior = PriorArrays(np.zeros(d), np.zeros((d, d)), np.eye(d))
    if isinstance(prior, PriorArrays):
        # flat directions D W: an orthonormal W keeps their measure, and U^-1 D W is triangular
        W = np.linalg.qr(_product(prior.flat.T, T), mode="complete")[0]
        flat = _product(T.T @ prior.flat, W)
        prior = PriorArrays(T.T @ prior.mean, _turned(prior.cov, T), flat, prior.t0)
    gain = system.gain
    moved = system._replace(
        A=B,
        Q=_turned(system.Q, T),
        drift=T.T @ system.drift,
        C=_product(system.C, U),
        prior=prior,
        gain=None if gain is None else T.T @ gain,
    )

    def back(g: System) -> System:
        first: Any = system.prior
        if isinstance(first, PriorArrays):
            assert isinstance(g.prior, PriorArrays)
            mean, cov, flat, _ = g.prior
            first = PriorArrays(T @ mean, T @ cov @ T.T, T @ flat @ W.T)
        return g._replace(
            A=T @ g.A @ U.T,
            Q=T @ g.Q @ T.T,
            drift=T @ g.drift,
            C=g.C @ U.T,
            prior=first,
            gain=None if g.gain is None else T @ g.gain,
        )

    return moved, back


def _product(X: Array, Y: Array) -> Array:
    """X Y, 0 where only rounding is left of an entry."""
    product = X @ Y
    return np.where(np.abs(product) > _ZERO * (np.abs(X) @ np.abs(Y)), product, 0.0)


def _turned(P: Array, T: Array) -> Array:
    """The covariance T^T P T, without directions of which only rounding is left."""
    turned, size = T.T @ P @ T, np.abs(T.T) @ np.abs(P) @ np.abs(T)
    left = np.diagonal(turned) > _ZERO * np.diagonal(size)
    return np.asarray(np.where(np.outer(left, left), 0.5 * (turned + turned.T), 0.0))
