"""Triangles of least squares, R x = s, solved for what the observations determine.

A triangle is graded: modes that decay apart give rows and columns of any size, so that its singular
values do not tell what is known. Which directions of the state are open is decided by the rule of
flat starts (`afafilter.linalg.subspaces`). Along an open direction every state is as good as any:
one component for each of them is set to 0, and the others are solved for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from afafilter._base.checks import Array, ObsMask
from afafilter.adaptive.coordinates import Coordinates
from afafilter.adaptive.geometry import Index
from afafilter.linalg.subspaces import DECAYED, ROUNDING, Unobservable, unobservable
from afafilter.models.sde import LinearSDE

Directions = tuple[Array, Array]


class Solved(NamedTuple):
    """X (L, n, d, d) with X triangle = identity on what is known; what is not.

    unknown (L, n, d) : components of the state that are open; lost (L, n, d) : further coordinates
    of which nothing is left within the range of floating-point numbers; magnified (L, n) : by how
    much X magnifies roundings of the triangle's columns, inf where equations show what counts as
    open; open_ : open directions of the state, as rows, and their rounding (L, n, d, d), or None.
    """

    X: Array
    unknown: ObsMask
    lost: ObsMask
    magnified: Array
    open_: Directions | None


def solve_triangles(
    triangle: Array,
    known: Unobservable | None,
    own: ObsMask,
    look: Callable[[int, int], Unobservable],
    columns: Callable[[Index, Array, Array], Array],
    unit_of_state: Array | None,
    begins: Index,
) -> Solved:
    """Triangles solved for what the observations determine.

    Parameters
    ----------
    triangle : ndarray, shape (L, n, d, d)
        Upper triangular, of n queries and L paths.
    known : Unobservable or None
        What the observations leave open of every query, unless it is a case of its own.
    own : ndarray of bool, shape (L, n)
        Queries that are.
    look : callable
        What the observations leave open of query i on path p.
    columns : callable
        From what `left_open` says of open directions here and at the first observation (m, d, d),
        as rows, of queries (m,): the same in the triangle's coordinates.
    unit_of_state : ndarray, shape (n, d), optional
        Of each coordinate. Given: what an equation shows of a coordinate that open directions have
        part in, by DECAYED of what else it shows, is forgotten.
    begins : ndarray of int
        First coordinate of each group that grows alike.
    """
    if not np.isfinite(triangle).all():
        raise ValueError(
            "the model grows beyond the floating-point range between observations, so that their "
            "estimates cannot be combined; give shorter series, or use a Kalman filter"
        )
    unknown: ObsMask = np.zeros(triangle.shape[:-1], dtype=bool)
    fixed: ObsMask = np.zeros(triangle.shape[:-1], dtype=bool)
    apart: ObsMask = np.zeros(triangle.shape[:-1], dtype=bool)  # has no part in what is open
    doubt: ObsMask = np.zeros(triangle.shape[:-2], dtype=bool)
    largest = np.abs(triangle).max(axis=-2, keepdims=True)
    unit = np.where(largest > 0, largest, 1.0)
    scaled, empty = triangle / unit, largest[..., 0, :] == 0.0
    sizes = np.ones((triangle.shape[1], 1, triangle.shape[-1]))
    if unit_of_state is not None:
        sizes = unit_of_state[:, None, :]
    of_state = triangle * sizes

    directions: Directions | None = None

    def leave_open(p: int, at: Index, found: Unobservable) -> None:
        nonlocal directions
        if directions is None:
            directions = np.zeros(triangle.shape), np.zeros(triangle.shape)
        directions[0][p, at], directions[1][p, at] = found.shown, found.rounding
        open_ = columns(at, found.here, found.first)
        fixed[p, at], apart[p, at] = _one_each(open_), (open_ == 0).all(axis=-2)
        doubt[p, at] = found.doubtful | _is_seen(of_state[p, at], open_ / sizes[at])

    if known is not None and len(known.at):
        unknown |= known.components
        for p in range(len(triangle)):
            leave_open(p, known.at, known)
    if own.any():
        near = np.abs(np.einsum("...aa->...a", scaled)) <= LOOK_CLOSER
        group = np.maximum.reduceat(largest[..., 0, :], begins, axis=-1)
        group = np.repeat(group, np.diff(begins, append=triangle.shape[-1]), axis=-1)
        near |= largest[..., 0, :] <= LOOK_CLOSER * group
        near = own & near.any(axis=-1)
        for p in np.flatnonzero(near.any(axis=-1)).tolist():
            at = np.flatnonzero(near[p])
            found = _joined(at, [look(p, int(i)) for i in at])
            unknown[p, at], fixed[p, at] = found.components, False
            if directions is not None:
                directions[0][p, at] = directions[1][p, at] = 0.0
            if len(found.at):
                leave_open(p, found.at, found)
    turn = None
    # The rows of empty columns may hold equations of others.
    open_, fixed = fixed, fixed | (empty & fixed.any(axis=-1, keepdims=True))
    some: ObsMask = np.asarray(fixed.any(axis=-1))
    if some.any():
        if unit_of_state is not None:
            shown = np.abs(of_state)
            gone = shown < DECAYED * shown.max(axis=-1, keepdims=True)
            scaled = np.where(gone & some[..., None, None] & ~apart[..., None, :], 0.0, scaled)
        turn, scaled[some] = _without(scaled[some], fixed[some])
    lost: ObsMask = (np.einsum("...aa->...a", scaled) == 0.0) | empty
    X = _inverse(scaled, lost)
    if lost.any():  # and what is known only together with them
        tied = np.abs(X @ scaled) > ROUNDING * (np.abs(X) @ np.abs(scaled))
        lost = lost | (tied & lost[..., None, :]).any(axis=-1)
    if turn is not None:
        lost &= ~open_
        X[some] = X[some] @ turn
    X[fixed] = 0.0
    magnified = np.where(doubt, np.inf, np.abs(X).max(axis=(-2, -1), initial=0.0))
    return Solved(X / np.swapaxes(unit, -1, -2), unknown, lost, magnified, directions)


def _joined(at: Index, found: list[Unobservable]) -> Unobservable:
    """Of queries `at`, found one by one, together."""
    rest: list[Any] = [np.concatenate(parts) for parts in zip(*(f[2:] for f in found), strict=True)]
    counts = [len(f.at) for f in found]
    return Unobservable(np.concatenate([f.components for f in found]), np.repeat(at, counts), *rest)


CANCELLED = 1e-10
"""What is left of open directions, or of what equations show of them, that counts as nothing."""


def _is_seen(triangle: Array, open_: Array) -> ObsMask:
    """Whether triangles (m, d, d) show open directions (m, d, d), in units of the state."""
    shown = np.abs(triangle @ np.swapaxes(open_, -1, -2)).max(axis=-2)
    largest = np.abs(triangle).max(axis=(-2, -1), initial=0.0)[:, None]
    return np.asarray((shown > CANCELLED * largest * np.abs(open_).max(axis=-1)).any(axis=-1))


def _one_each(open_: Array) -> ObsMask:
    """One component (m, d) for each direction (m, d, d): the largest, after those before it.

    As large as the directions say: in units of the triangle's columns, what rounding leaves in a
    direction of what lasts would be larger than what has decayed.
    """
    left, m = open_.copy(), np.arange(len(open_))
    chosen: ObsMask = np.zeros(left.shape[:-1], dtype=bool)
    for _ in range(left.shape[-1] if len(left) else 0):
        size = np.abs(left).max(axis=-1, keepdims=True)
        left = np.divide(left, size, out=np.zeros_like(left), where=(size > 0) & np.isfinite(size))
        row, column = np.divmod(np.abs(left).reshape(len(left), -1).argmax(axis=-1), left.shape[-1])
        some = np.abs(left[m, row, column]) > 0
        chosen[m[some], column[some]] = True
        pivot = np.where(some, left[m, row, column], 1.0)
        off = left[m, :, column][..., None] * (left[m, row] / pivot[:, None])[:, None]
        rounding = CANCELLED * (np.abs(left) + np.abs(off))
        left = np.where(np.abs(left - off) > rounding, left - off, 0.0)
        left[m, row] = 0.0
        left[m, :, column] = 0.0
    return chosen


def _without(triangle: Array, fixed: ObsMask) -> tuple[Array, Array]:
    """Q^T (m, d, d) and triangle R: Q R is the given one with the fixed components at 0.

    Each row that has lost its pivot is rotated into those below it, pivot by pivot, so that small
    rows and columns keep their digits (Golub & Van Loan, "Matrix computations", section 6.5.2).
    Rows and columns of R for fixed components are those of the identity.
    """
    d = triangle.shape[-1]
    one = np.eye(d)
    rows = np.concatenate([triangle, np.broadcast_to(one, triangle.shape)], axis=-1)
    rows[..., :d][np.broadcast_to(fixed[..., None, :], triangle.shape)] = 0.0
    for f in np.flatnonzero(fixed.any(axis=0)):
        for c in range(f + 1, d):
            pivot, other = rows[:, c, c], np.where(fixed[:, f], rows[:, f, c], 0.0)
            length = np.hypot(pivot, other)
            turned = (other != 0) & (length > 0)
            cos = np.divide(pivot, length, out=np.ones_like(pivot), where=turned)[:, None]
            sin = np.divide(other, length, out=np.zeros_like(pivot), where=turned)[:, None]
            upper, lower = rows[:, c].copy(), rows[:, f]
            rows[:, c], rows[:, f] = cos * upper + sin * lower, cos * lower - sin * upper
            rows[turned, f, c] = 0.0
    R = np.where(fixed[..., None], one, rows[..., :d])
    return rows[..., d:], R


def _inverse(triangle: Array, lost: ObsMask) -> Array:
    """R^-1 (..., d, d) by substitution from below, rows of zeros for what is lost."""
    d = triangle.shape[-1]
    X = np.zeros_like(triangle)
    for a in range(d - 1, -1, -1):
        row = -(triangle[..., a, None, :] @ X)[..., 0, :]
        row[..., a] += 1.0
        pivot = np.where(lost[..., a], np.inf, triangle[..., a, a])
        X[..., a, :] = row / pivot[..., None]
    return X


LOOK_CLOSER = 1e-7
"""A column that the others explain but for this part, or that is so small beside those that grow
alike: whether by rounding is looked up.

Changes how much is looked up, not what is answered, where windows or weights of 0 leave each query
observations of its own.
"""


def left_open(
    model: LinearSDE,
    coords: Coordinates | None,
    stamps: Array,
    seen: ObsMask,
    times: Array,
    used: Index,
) -> Unobservable:
    """What of a flat state the first `used` observations seen (n, p) leave open.

    coords : None where the state at the first one is flat, and forgotten as it decays. Else pairs
    know nothing but what they show, and open directions are those of the coordinates xi.
    """
    if coords is None:
        return unobservable(model.A, model.component_sizes, model.C, stamps, seen, times, used)
    C, rate = coords.shown(model.C), coords.sign * coords.rate
    turn = coords.sign * coords.L - np.diag(rate)

    def walk(begin: int) -> Unobservable:
        some = np.maximum(used - begin, 0)
        return unobservable(
            turn,
            coords.sizes,
            C,
            stamps[begin:],
            seen[begin:],
            times,
            some,
            rate=rate,
            show=coords.W,
        )

    found = walk(0)
    if len(found.at):  # where faster modes have faded, later observations may tell on their own
        faded = np.diff(stamps) * np.ptp(coords.rate) > -np.log(ROUNDING)
        begins = 1 + np.flatnonzero(faded[: max(int(used[found.at].max()) - 1, 0)])
        for begin in begins[-LATER:]:
            found = _fewer(found, walk(int(begin)))
    return found


LATER = 16
"""Latest observations from which on what is open is looked up anew."""


def _fewer(one: Unobservable, other: Unobservable) -> Unobservable:
    """Of each query what leaves fewer directions open."""
    count = np.zeros((2, len(one.components)), np.int64)
    for k, part in enumerate((one, other)):
        count[k, part.at] = (part.here != 0).any(axis=-1).sum(axis=-1)
    better = count[1] < count[0]
    here, there = ~better[one.at], better[other.at]
    order = np.argsort(np.concatenate([one.at[here], other.at[there]]), kind="stable")
    rest: list[Any] = [
        np.concatenate([a[here], b[there]])[order] for a, b in zip(one[1:], other[1:], strict=True)
    ]
    components = np.where(better[:, None], other.components, one.components)
    return Unobservable(components, *rest)
