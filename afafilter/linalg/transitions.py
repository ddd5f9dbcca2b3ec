"""Transitions over many intervals by the native core (core/transition.h), and their adjoint.

`from_base` serves `Discretiser`; `transitions` and its derivative serve the likelihood's gradient.
"""

from __future__ import annotations

import numpy as np

from afafilter._base.checks import Array
from afafilter._core import core

from_base = core.from_base


def transitions(A: Array, Q: Array, u: Array, steps: Array) -> tuple[Array, Array, Array]:
    """Phi (n, d, d), psi (n, d), V (n, d, d) over every interval, by Taylor series and doubling.

    Kept beside its derivative, so that the gradient is that of the very numbers used. Error about
    eps ||A|| dt; `afafilter.linalg.discretiser` covers what is stiffer than that allows.
    """
    n, d = len(steps), len(A)
    Phi, psi, V = np.empty((n, d, d)), np.empty((n, d)), np.empty((n, d, d))
    core.transitions(A, Q, u, steps, Phi, psi, V)
    return Phi, psi, V


def transition_adjoint(
    system: tuple[Array, Array, Array], steps: Array, gPhi: Array, gpsi: Array, gV: Array
) -> tuple[Array, Array, Array]:
    """Gradient by A, Q, u (the system) from those by Phi, psi, V over every interval.

    Reverse mode through a Taylor step of length dt / 2^k and k doublings: right for every A
    (defective, singular, unstable), and nothing like e^{-A dt} occurs.
    """
    gA, gQ, gu = (np.zeros(part.shape) for part in system)
    core.transition_adjoint(*system, steps, gPhi, gpsi, gV, gA, gQ, gu)
    return gA, gQ, gu


def lower_roots(V: Array) -> Array:
    """Columns of the lower roots of semidefinite V (n, d, d); null pivots make null columns."""
    roots = np.empty(V.shape)
    core.lower_roots(np.ascontiguousarray(V, dtype=np.float64), roots)
    return roots


def by_columns(Phi: Array, psi: Array, V: Array) -> tuple[Array, Array, Array]:
    """Columns of Phi (n, d, d), psi, and columns of the lower roots of V (n, d, d)."""
    return np.ascontiguousarray(Phi.swapaxes(-1, -2)), psi, lower_roots(V)
