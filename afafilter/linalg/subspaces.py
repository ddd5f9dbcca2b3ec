"""What is determined, and what only rounding touches: one rule for filter, smoother and likelihood.

The rule is in core/rank.h: a flat direction n of the state is seen by a row h where h n is larger
than what rounding makes of it, followed from where it arises, in the units of each component. This
module says what the rule needs to know of a model, and carries directions from node to node.

A component is driven by others along the entries of A; those that drive each other, directly or
in turn (a strongly connected block), are one system, whose transition is as exact as its largest
entry: sin(pi k), 1e-16 k in floating point, is 0. Between blocks every entry stands for itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import Array, ObsMask
from afafilter._core import core
from afafilter.linalg.discretiser import Discretiser

ROUNDING: float = core.rank_rounding()
"""Relative size up to which what should cancel counts as zero."""

DECAYED: float = core.rank_decayed()
"""A direction that has decayed by more than this is forgotten."""


NOTHING_KEPT = -1e3
"""Logarithm of what a step keeps of states of which it keeps nothing."""


class ComponentSizes(NamedTuple):
    """How exact a transition is, by component of the state.

    block (d,) number of the strongly connected block; unit (d,) scale of the component at which its
    block of A is balanced; rate (d,) norm of that balanced block, growth (d,) largest mean growth
    rate of the block and what it drives, both 1/time (1/step where transitions are given), and A
    (d, d) itself; rate and A are 0 where transitions are given and not computed.
    """

    block: NDArray[np.int64]
    unit: Array
    rate: Array
    growth: Array
    A: Array


def component_sizes(A: Array, *, given: bool = False) -> ComponentSizes:
    """Blocks and units of the dynamics A (d, d), or of transitions that are `given`.

    A stack (k, d, d) counts with the largest size of each entry.
    """
    stack = np.asarray(A).reshape(-1, *A.shape[-2:])
    A = np.array(np.abs(stack).max(axis=0) if given else stack[0], order="C")  # aligned, too
    d = len(A)
    block, unit, rate, growth = np.empty(d, np.int64), np.empty(d), np.empty(d), np.empty(d)
    core.component_sizes(A, given, block, unit, rate, growth)
    if given:
        growth = _growth_of_steps(stack, A, block)
    return ComponentSizes(block, unit, rate, growth, np.zeros((d, d)) if given else A)


def _growth_of_steps(F: Array, size: Array, block: NDArray[np.int64]) -> Array:
    """Growth (d,) per step of steps F (k, d, d), entries up to size (d, d): log |det| by blocks."""
    d = len(block)
    own = np.empty(d)
    for b in np.unique(block):
        mine = np.flatnonzero(block == b)
        logs = np.linalg.slogdet(F[:, mine[:, None], mine])[1]
        own[mine] = np.round(np.maximum(logs, NOTHING_KEPT).mean() / len(mine), 10)  # 0 of a turn
    drives = np.linalg.matrix_power((size > 0) | np.eye(d, dtype=bool), d)  # [j, i]: i drives j
    return np.asarray(np.where(drives, own[:, None], -np.inf).max(axis=0))


def balanced_units(sizes: ComponentSizes, C: Array, R: Array) -> Array:
    """Units (d,), powers of two: A is balanced, and C x + N(0, R) shows each block alike."""
    unit = np.array(sizes.unit)
    sd = np.sqrt(np.diag(R))
    shown = np.abs(C) * unit / np.where(sd > 0, sd, 1.0)[:, None]
    for block in np.unique(sizes.block):
        mine = sizes.block == block
        largest = shown[:, mine].max(initial=0.0)
        unit[mine] /= largest if largest > 0 else unit[mine].max()
    return np.asarray(2.0 ** np.rint(np.log2(unit)))


def rank_of(M: Array) -> int:
    """Rank of a matrix, whatever the units of its rows and columns."""
    for axis in (1, 0):
        size = np.abs(M).max(axis=axis, keepdims=True, initial=0.0)
        M = M / np.where(size > 0, size, 1.0)
    return int(np.linalg.matrix_rank(M)) if M.any() else 0


def carry(
    Phi: Array,
    tau: Array,
    stamp: Array,
    sizes: ComponentSizes,
    directions: Array,
    rounding: Array,
    growth: Array | None = None,
) -> tuple[Array, Array]:
    """Directions (k, q, d), as rows, and their rounding after one step each.

    Parameters
    ----------
    Phi, tau, stamp : ndarray, shape (k, d, d)
        Transitions over tau (k,), between time stamps as large as stamp.
    sizes : ComponentSizes
        Of the dynamics.
    directions, rounding : ndarray, shape (k, q, d)
        An entry of the directions counts as zero up to its rounding.
    growth : ndarray, shape (k, d), optional
        Given: only directions count, not their sizes, and e^growth stands before Phi.
    """
    out = np.array(directions, order="C"), np.array(rounding, order="C")
    columns = np.ascontiguousarray(np.swapaxes(Phi, -1, -2))
    scaled = growth is not None
    factors = np.ascontiguousarray(growth) if scaled else np.zeros(Phi.shape[:2])
    core.move_directions(
        columns, np.array(tau, float), np.array(stamp, float), sizes, *out, factors, scaled
    )
    return out


class Unobservable(NamedTuple):
    """What observations leave open of a flat state, for each of k queries.

    components : (k, d) which ones; at : (m,) the queries of which anything is open; here, first :
    (m, d, d) their open directions, as rows, at the query and at the first observation: rows of
    zeros for what is determined, zeros also where there is only rounding; shown, rounding : (m, d,
    d) those here as they are shown, and up to where an entry counts as zero; doubtful : (m,)
    whether rounding may have decided which ones.
    """

    components: ObsMask
    at: NDArray[np.int64]
    here: Array
    first: Array
    shown: Array
    rounding: Array
    doubtful: ObsMask

    def of(self, queries: slice) -> Unobservable:
        """Of some of the queries."""
        n = len(self.components)
        start, stop, _ = queries.indices(n)
        some = slice(*np.searchsorted(self.at, [start, stop]))
        rest: list[Any] = [part[some] for part in self[2:]]
        return Unobservable(self.components[queries], self.at[some] - start, *rest)


def unobservable(
    A: Array,
    sizes: ComponentSizes,
    C: Array,
    stamps: Array,
    seen: ObsMask,
    times: Array,
    used: NDArray[np.int64],
    *,
    rate: Array | None = None,
    show: Array | None = None,
) -> Unobservable:
    """What of a flat state at `times` the first `used` observations leave open.

    Parameters
    ----------
    A, sizes
        Dynamics (d, d) and what `component_sizes` says of them.
    C, stamps, seen
        Observations show C x (p, d) at stamps (T,), those components that are seen
        (T, p).
    times, used : ndarray, shape (k,)
        Of each query, and how many of the first observations it uses.
    rate : ndarray, shape (d,), optional
        Given: only directions count, not their sizes: what decays to nothing is forgotten beside
        what decays less, and what no observation shows is open for ever. The dynamics are A +
        diag(rate), which commute. None: what decays to nothing is forgotten, as a flat start is.
    show : ndarray, shape (d, d), optional
        `components` are those of show x, `shown` its directions. None: of x.
    """
    d, T, flow = C.shape[1], len(stamps), _flow(A)
    if T == 0:
        all_ = np.broadcast_to(np.eye(d), (len(times), d, d))
        sure, every = np.zeros(len(times), dtype=bool), np.arange(len(times))
        known, exact = np.ones((len(times), d), dtype=bool), np.zeros(all_.shape)
        return Unobservable(known, every, all_, all_, all_, exact, sure)
    n = min(T, 4 * d + 4)
    node = np.searchsorted(stamps, times, side="right")
    turned = rate is None or bool((node < used).any())
    while True:
        F = flow.or_nan(np.diff(stamps[:n], prepend=stamps[0]))[0]
        M, rounding, count = np.empty((n, d, d)), np.empty((n, d, d)), np.empty(n, np.int64)
        columns = np.ascontiguousarray(F.swapaxes(-1, -2))
        data = np.array(stamps[:n]), sizes, np.array(C), np.array(seen[:n])
        how = np.zeros(d) if rate is None else np.array(rate), rate is not None, turned
        done = core.observability(columns, *data, M, rounding, count, *how)
        whole = done > 0 and count[done - 1] == d
        if whole or n == T:
            break
        n = T
    open_ = np.flatnonzero((used < done) if whole else np.ones(len(used), dtype=bool))
    out = np.zeros((len(times), d), dtype=bool)
    if not len(open_):
        none = np.zeros((0, d, d))
        return Unobservable(out, open_, none, none, none, none, np.zeros(0, dtype=bool))
    base = np.maximum(np.minimum(node, used)[open_] - 1, 0)
    lag = times[open_] - stamps[base]
    early = np.arange(d) < count[np.maximum(used[open_] - 1, 0)][:, None]
    Phi = np.empty((len(open_), d, d))
    for part, way in ((lag >= 0, flow), (lag < 0, None)):
        if part.any():
            Phi[part] = (way or _flow(-A)).or_nan(np.abs(lag[part]))[0]
    stamp = np.maximum(np.abs(times[open_]), np.abs(stamps[base]))
    directions, rough = (np.where(early[..., None], 0.0, part[base]) for part in (M, rounding))
    with np.errstate(over="ignore", invalid="ignore"):
        growth = None if rate is None else lag[:, None] * rate
        moved, zero = carry(Phi, np.abs(lag), stamp, sizes, directions, rough, growth)
        here = np.where(np.abs(moved) <= zero, 0.0, moved)
    first = np.where(early[..., None] | (np.abs(M[0]) <= rounding[0]), 0.0, M[0])
    nothing = used[open_] == 0
    here[nothing] = first[nothing] = np.eye(d)
    zero[nothing] = 0.0
    shown, size = here, np.where(here != 0, zero, 0.0)
    if show is not None:
        shown = here @ show.T
        size = np.where(here != 0, zero + ROUNDING * np.abs(here), 0.0) @ np.abs(show.T)
    out[open_] = (np.abs(shown) > size).any(axis=1)
    doubtful = _decided_by_rounding(here, zero, sizes, C)
    return Unobservable(out, open_, here, first, shown, size, doubtful)


CLEAR = 8.0
"""Times the size that counts as zero: what is larger is no doubt there."""


def _decided_by_rounding(here: Array, zero: Array, sizes: ComponentSizes, C: Array) -> ObsMask:
    """Whether (m,) rounding may have decided which components directions here (m, q, d) open.

    By entries hardly larger than what counts as zero (m, q, d); or by this, where it hides as much
    of other components as a direction has, in units in which they compare.
    """
    size = np.abs(here)
    opens = np.asarray((size > 0).any(axis=1))
    found = opens & ~(size > CLEAR * zero).any(axis=1)
    hiding = np.where(opens[:, None], 0.0, zero)
    if hiding.any():
        unit = balanced_units(sizes, C, np.eye(len(C)))
        largest = (size / unit).max(axis=-1, keepdims=True)
        found |= ((hiding / unit > largest) & (largest > 0)).any(axis=1)
    return np.asarray(found.any(axis=-1))


def _flow(A: Array) -> Discretiser:
    """e^{A lag} of any lag, without noise."""
    return Discretiser(A, np.zeros_like(A), np.zeros(len(A)))
