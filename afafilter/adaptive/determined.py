"""Triangles of least squares, R x = s, solved for what the observations determine.

A triangle is graded: modes that decay apart give rows and columns of any size, so that its singular
values do not tell what is known. Which directions of the state are open is decided by the rule of
flat starts (`afafilter.linalg.subspaces`). Along an open direction every state is as good as any:
one component for each of them is set to 0, and the others are solved for.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from afafilter._base.checks import Array, ObsMask
from afafilter.adaptive.coordinates import Coordinates
from afafilter.adaptive.geometry import Index
from afafilter.linalg.subspaces import ROUNDING, Unseen, unseen
from afafilter.models.sde import LinearSDE


def solve_triangles(
    triangle: Array,
    known: Unseen | None,
    own: ObsMask,
    look: Callable[[int, int], Unseen],
    columns: Callable[[Index, Array, Array], Array],
) -> tuple[Array, ObsMask, ObsMask]:
    """X (L, n, d, d) with X triangle = identity on what is known; what is not.

    Parameters
    ----------
    triangle : ndarray, shape (L, n, d, d)
        Upper triangular, of n queries and L paths.
    known : Unseen or None
        What the observations leave open of every query, unless it is a case of its own.
    own : ndarray of bool, shape (L, n)
        Queries that are.
    look : callable
        What the observations leave open of query i on path p.
    columns : callable
        From what `left_open` says of open directions here and at the first observation (m, d, d),
        as rows, of queries (m,): the same in the triangle's coordinates.

    Returns
    -------
    X : ndarray, shape (L, n, d, d)
    unknown : ndarray of bool, shape (L, n, d)
        Components of the state that are open.
    lost : ndarray of bool, shape (L, n, d)
        Coordinates of which nothing is left within the range of floating-point numbers.
    """
    if not np.isfinite(triangle).all():
        raise ValueError(
            "the model grows beyond the floating-point range between observations, so that their "
            "estimates cannot be combined; give shorter series, or use a Kalman filter"
        )
    unknown: ObsMask = np.zeros(triangle.shape[:-1], dtype=bool)
    fixed: ObsMask = np.zeros(triangle.shape[:-1], dtype=bool)
    largest = np.abs(triangle).max(axis=-2, keepdims=True)
    unit = np.where(largest > 0, largest, 1.0)
    scaled, empty = triangle / unit, largest[..., 0, :] == 0.0
    if known is not None:
        unknown |= known.components
        for p in range(len(triangle)):
            open_ = columns(known.at, known.here, known.first) * unit[p, known.at]
            fixed[p, known.at] = _one_each(open_)
    if own.any():
        pivot = np.abs(np.einsum("...aa->...a", scaled))
        for p, i in np.argwhere(own & (pivot <= LOOK_CLOSER).any(axis=-1)):
            found = look(int(p), int(i))
            unknown[p, i], fixed[p, i] = found.components.any(axis=0), False
            if len(found.at):
                open_ = columns(np.array([i]), found.here, found.first) * unit[p, i]
                fixed[p, i] = _one_each(open_)[0]
    turn = None
    fixed |= empty & fixed.any(axis=-1, keepdims=True)  # their rows may hold equations of others
    some = fixed.any(axis=-1)
    if some.any():
        turn, scaled[some] = _without(scaled[some], fixed[some])
    lost: ObsMask = (np.einsum("...aa->...a", scaled) == 0.0) | empty
    X = _inverse(scaled, lost)
    if lost.any():  # and what is known only together with them
        tied = np.abs(X @ scaled) > ROUNDING * (np.abs(X) @ np.abs(scaled))
        lost = lost | (tied & lost[..., None, :]).any(axis=-1)
    if turn is not None:
        X[some] = X[some] @ turn
    X[fixed] = 0.0
    return X / np.swapaxes(unit, -1, -2), unknown, lost


def _one_each(open_: Array) -> ObsMask:
    """One component (m, d) for each direction (m, d, d): the largest, after those before it."""
    left, m = open_.copy(), np.arange(len(open_))
    chosen: ObsMask = np.zeros(left.shape[:-1], dtype=bool)
    for _ in range(left.shape[-1] if len(left) else 0):
        size = np.abs(left).max(axis=-1, keepdims=True)
        left = np.divide(left, size, out=np.zeros_like(left), where=(size > 0) & np.isfinite(size))
        row, column = np.divmod(np.abs(left).reshape(len(left), -1).argmax(axis=-1), left.shape[-1])
        some = np.abs(left[m, row, column]) > 0
        chosen[m[some], column[some]] = True
        pivot = np.where(some, left[m, row, column], 1.0)
        left = left - left[m, :, column][..., None] * (left[m, row] / pivot[:, None])[:, None]
        left[m, row] = 0.0
        left[m, :, column] = 0.0
    return chosen


def _without(triangle: Array, fixed: ObsMask) -> tuple[Array, Array]:
    """Q^T (m, d, d) and triangle R: Q R is the given one with the fixed components at 0.

    Rows in the order of their size, so that the small ones keep their digits (Cox & Higham,
    "Stability of Householder QR factorization for weighted least squares problems", 1998).
    """
    d = triangle.shape[-1]
    kept = np.where(fixed[..., None, :], 0.0, triangle)
    rows = np.concatenate([kept, np.eye(d) * fixed[..., None]], axis=-2)
    order = np.argsort(-np.abs(rows).max(axis=-1), axis=-1, kind="stable")[..., None]
    q, R = np.linalg.qr(np.take_along_axis(rows, order, axis=-2))
    whole = np.zeros_like(rows)
    np.put_along_axis(whole, order, q, axis=-2)
    return np.swapaxes(whole[..., :d, :], -1, -2), R


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
"""A column that the others explain but for this part: whether by rounding is looked up.

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
) -> Unseen:
    """What of a flat state the first `used` observations seen (n, p) leave open.

    coords : None where the state at the first one is flat, and forgotten as it decays. Else pairs
    know nothing but what they show, and open directions are those of the coordinates xi.
    """
    if coords is None:
        return unseen(model.A, model.component_sizes, model.C, stamps, seen, times, used)
    C, L = coords.shown(model.C), coords.sign * coords.L
    return unseen(L, coords.sizes, C, stamps, seen, times, used, scaled=True, show=coords.W)
