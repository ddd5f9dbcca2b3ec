"""Coordinates of an SDE in which its transitions over long intervals keep their digits.

Over a long interval the powers of t in e^{At} cancel in every basis but one that tells their
degrees apart, and so do the terms of V and of the gradient, whose components differ by powers of t
as well. In the Schur basis of each block of A, y = U^T x, B = U^T A U, what is small stands by
itself. The log-likelihood is the same, its gradient by A that by B as G_A = U G_B U^T, and so on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from afafilter._base.checks import Array
from afafilter.likelihood.chain import PriorArrays, System
from afafilter.linalg.doubling import schur_form

_ZERO = 1e-15
"""Relative size of an entry of a product with U up to which it counts as zero."""


def in_schur_coordinates(system: System) -> tuple[System, Callable[[System], System]]:
    """The system of y = U^T x, and the map of a gradient by its arrays to one by the system's.

    What should cancel in it, does: a row of C sees nothing of a direction across it.
    """
    B, U = schur_form(system.A)
    prior, d = system.prior, len(system.A)
    if prior == "diffuse":
        prior = PriorArrays(np.zeros(d), np.zeros((d, d)), np.eye(d))
    if isinstance(prior, PriorArrays):
        # flat directions D W: an orthonormal W keeps their measure, and U^T D W is triangular
        W = np.linalg.qr(_product(prior.flat.T, U), mode="complete")[0]
        flat = _product(U.T @ prior.flat, W)
        prior = PriorArrays(U.T @ prior.mean, _turned(prior.cov, U), flat, prior.t0)
    gain = system.gain
    moved = system._replace(
        A=B,
        Q=_turned(system.Q, U),
        drift=U.T @ system.drift,
        C=_product(system.C, U),
        prior=prior,
        gain=None if gain is None else U.T @ gain,
    )

    def back(g: System) -> System:
        first: Any = system.prior
        if isinstance(first, PriorArrays):
            assert isinstance(g.prior, PriorArrays)
            mean, cov, flat, _ = g.prior
            first = PriorArrays(U @ mean, U @ cov @ U.T, U @ flat @ W.T)
        return g._replace(
            A=U @ g.A @ U.T,
            Q=U @ g.Q @ U.T,
            drift=U @ g.drift,
            C=g.C @ U.T,
            prior=first,
            gain=None if g.gain is None else U @ g.gain,
        )

    return moved, back


def _product(X: Array, U: Array) -> Array:
    """X U, 0 where only rounding is left of an entry."""
    product = X @ U
    return np.where(np.abs(product) > _ZERO * (np.abs(X) @ np.abs(U)), product, 0.0)


def _turned(P: Array, U: Array) -> Array:
    """The covariance U^T P U, without directions of which only rounding is left."""
    turned, size = U.T @ P @ U, np.abs(U.T) @ np.abs(P) @ np.abs(U)
    left = np.diagonal(turned) > _ZERO * np.diagonal(size)
    return np.asarray(np.where(np.outer(left, left), 0.5 * (turned + turned.T), 0.0))
