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
from afafilter.linalg import discretiser
from afafilter.linalg.integrals import augmented
from afafilter.linalg.transitions import transition_adjoint
from afafilter.models.forcing import Forcing, input_nodes


class Slopes(NamedTuple):
    """Gradient by A, C, M and D."""

    A: Array
    C: Array
    gain: Array
    direct: Array


def input_shift(
    A: Array, C: Array, gain: Array, direct: Array, forcing: Forcing, at: tuple[Array, Array, float]
) -> tuple[Array, Callable[[Array], Slopes]]:
    """C x_u + D u (T, p), and the map from its gradient (T, p) to that by A, C, M, D.

    at : times of the states, times of the observations, and the origin, where x_u = 0 (it must not
        lie after the first state).
    """
    states, stamps, origin = at
    d = len(A)
    u = forcing.values(stamps)
    late = states > origin
    moved = bool(late.any()) and (forcing.matrix is not None or bool(gain.any()))
    if not moved:
        x = np.zeros((len(states), d))
    else:
        nodes = input_nodes(forcing, states[late], origin)
        both = discretiser.transition(*augmented(A), nodes.steps)[0]
        Phi, Gamma = both[:, :d, :d], both[:, :d, d:]
        acting = nodes.inputs @ gain.T
        path = np.zeros((len(acting) + 1, d))
        pushed = np.einsum("kij,kj->ki", Gamma[nodes.which], acting)
        for k, which in enumerate(nodes.which):
            path[k + 1] = Phi[which] @ path[k] + pushed[k]
        x = np.zeros((len(states), d))
        x[late] = path[nodes.asked]
    shift = x @ C.T + u @ direct.T

    def pullback(g: Array) -> Slopes:
        gC, gD = g.T @ x, g.T @ u
        if not moved:
            return Slopes(np.zeros((d, d)), gC, np.zeros_like(gain), gD)
        seen = np.zeros((len(acting) + 1, d))
        np.add.at(seen, nodes.asked, g[late] @ C)
        adjoint = np.zeros((len(acting) + 1, d))
        adjoint[-1] = seen[-1]
        for k in range(len(acting) - 1, -1, -1):
            adjoint[k] = Phi[nodes.which[k]].T @ adjoint[k + 1] + seen[k]
        later = adjoint[1:]
        gBoth = np.zeros((len(nodes.steps), 2 * d, 2 * d))
        np.add.at(gBoth[:, :d, :d], nodes.which, later[:, :, None] * path[:-1, None, :])
        np.add.at(gBoth[:, :d, d:], nodes.which, later[:, :, None] * acting[:, None, :])
        none = np.zeros((len(nodes.steps), 2 * d))
        gA = transition_adjoint(augmented(A), nodes.steps, gBoth, none, np.zeros_like(gBoth))[0]
        gM = np.einsum("kij,ki,km->jm", Gamma[nodes.which], later, nodes.inputs)
        return Slopes(gA[:d, :d], gC, gM, gD)

    return shift, pullback
