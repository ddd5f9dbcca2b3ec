"""What known inputs do to observations, C x_u + D u, and the way of a gradient through it.

x_u is that of `afafilter.models.forcing`: from node to node x_u <- Phi x_u + Gamma M u, 0 at the
origin. The likelihood sees it as a shift of the observations, so that a gradient by the shift s_k
at each time leads to C, D, M and, by the adjoint recursion lambda <- Phi^T lambda, to A.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from afafilter._base.checks import Array
from afafilter.linalg.integrals import augmented
from afafilter.linalg.transitions import transition_adjoint
from afafilter.models.forcing import Forcing, driven_nodes, input_nodes


class InputGradient(NamedTuple):
    """Gradient by A, C, M and D."""

    A: Array
    C: Array
    gain: Array
    direct: Array


def input_shift(
    A: Array, C: Array, gain: Array, direct: Array, forcing: Forcing, at: tuple[Array, Array, float]
) -> tuple[Array, Callable[[Array], InputGradient]]:
    """C x_u + D u (T, p), and the map from its gradient (T, p) to that by A, C, M, D.

    at : times of the states, times of the observations, and the origin, where x_u = 0 (it must not
        lie after the first state).
    """
    states, stamps, origin = at
    d = len(A)
    u = forcing.values(stamps)
    late = states > origin
    moved = bool(late.any()) and (forcing.matrix is not None or bool(gain.any()))
    x = np.zeros((len(states), d))
    if moved:
        nodes = input_nodes(forcing, states[late], origin)
        path, Phi, _, Gamma = driven_nodes(A, gain, nodes)
        x[late] = path[nodes.asked]
    shift = x @ C.T + u @ direct.T

    def pullback(g: Array) -> InputGradient:
        gC, gD = g.T @ x, g.T @ u
        if not moved:
            return InputGradient(np.zeros((d, d)), gC, np.zeros_like(gain), gD)
        adjoint = np.zeros(path.shape)
        np.add.at(adjoint, nodes.asked, g[late] @ C)
        for k in range(len(path) - 2, -1, -1):
            adjoint[k] += Phi[nodes.which[k]].T @ adjoint[k + 1]
        later, acting = adjoint[1:], nodes.inputs @ gain.T
        gBoth = np.zeros((len(nodes.steps), 2 * d, 2 * d))
        np.add.at(gBoth[:, :d, :d], nodes.which, later[:, :, None] * path[:-1, None, :])
        np.add.at(gBoth[:, :d, d:], nodes.which, later[:, :, None] * acting[:, None, :])
        none = np.zeros((len(nodes.steps), 2 * d))
        gA = transition_adjoint(augmented(A), nodes.steps, gBoth, none, np.zeros_like(gBoth))[0]
        gM = np.einsum("kij,ki,km->jm", Gamma[nodes.which], later, nodes.inputs)
        return InputGradient(gA[:d, :d], gC, gM, gD)

    return shift, pullback
