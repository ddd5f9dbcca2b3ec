"""What is determined, and what only rounding touches: one rule for filter, smoother and likelihood.

The rule is in core/rank.h: a flat direction n of the state is seen by a row h where h n is larger
than what rounding makes of it, followed from where it arises, in the units of each component. This
module says what the rule needs to know of a model, and carries directions from node to node.

A component is driven by others along the entries of A; those that drive each other, directly or
in turn (a strongly connected block), are one system, whose transition is as exact as its largest
entry: sin(pi k), 1e-16 k in floating point, is 0. Between blocks every entry stands for itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import Array
from afafilter._core import core

ROUNDING: float = core.rank_rounding()
"""Relative size up to which what should cancel counts as zero."""


class ComponentSizes(NamedTuple):
    """How exact a transition is, by component of the state.

    block (d,) number of the strongly connected block; unit (d,) scale of the component at which its
    block of A is balanced; rate (d,) norm of that balanced block, 1/time, 0 where transitions are
    given and not computed.
    """

    block: NDArray[np.int64]
    unit: Array
    rate: Array


def component_sizes(A: Array, *, given: bool = False) -> ComponentSizes:
    """Blocks and units of the dynamics A (d, d), or of transitions that are `given`.

    A stack (k, d, d) counts with the largest size of each entry.
    """
    size = np.ascontiguousarray(np.abs(A).reshape(-1, *A.shape[-2:]).max(axis=0))
    d = len(size)
    block, unit, rate = np.empty(d, np.int64), np.empty(d), np.empty(d)
    core.component_sizes(size, given, block, unit, rate)
    return ComponentSizes(block, unit, rate)


def carry(
    Phi: Array, tau: Array, stamp: Array, sizes: ComponentSizes, directions: Array, rounding: Array
) -> tuple[Array, Array]:
    """Directions (k, q, d), as rows, and their rounding after one step each.

    Parameters
    ----------
    Phi, tau, stamp : (k, d, d) transitions over tau (k,), between time stamps as large as stamp.
    sizes : of the dynamics.
    directions, rounding : (k, q, d); an entry of the directions counts as zero up to its rounding.
    """
    out = np.array(directions, order="C"), np.array(rounding, order="C")
    columns = np.ascontiguousarray(np.swapaxes(Phi, -1, -2))
    core.move_directions(
        columns, np.array(tau, dtype=float), np.array(stamp, dtype=float), sizes, *out
    )
    return out
