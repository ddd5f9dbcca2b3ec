"""Estimates of queries from the equations of their pairs, and what is not determined."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import Array, ObsMask
from afafilter.adaptive.dense import Pattern, Plan, Tile, spread_out, tile_data
from afafilter.adaptive.determined import check_range, left_open, solve_triangles
from afafilter.adaptive.geometry import Index
from afafilter.adaptive.recursions import (
    one_by_one,
    pair_shares,
    plain_triangles,
    weighted_triangles,
)
from afafilter.linalg.subspaces import DECAYED, Unseen

RANK_RTOL = 1e-11
"""Singular values below this, relative to the largest after scaling the columns, count as zero."""

LEAK_TOL = 1e-9
"""A component counts as determined when undetermined directions reach it by less than this."""


class Solution(NamedTuple):
    """Of the queries, leading P or 1 paths.

    mean (P, nq, d) in their coordinates and units; cov (., nq, d, d) in xi; unknown (., nq, d):
    components of the state that are not determined; shares (., nq, T) of the information, or None.
    """

    mean: Array
    cov: Array
    unknown: ObsMask
    shares: Array | None


def settle(
    pattern: Pattern,
    queries: slice,
    triangle: Array,
    columns: Callable[[Index, Array, Array], Array],
    *,
    early: bool = False,
    counted: tuple[int, NDArray[np.bool_]] | None = None,
) -> tuple[Array, ObsMask, ObsMask]:
    """`solve_triangles` for these queries, triangle (L, nq, d, d).

    early : by the observations that an anchor before the query's own rests on; counted : those from
    an index on that have a weight (L, nq, n), None if all have.
    """
    plan, which = pattern.plan, int(early)
    known = pattern.open_[which]
    first, last = (end[queries] for end in (pattern.used, pattern.earlier)[which])
    own: NDArray[np.bool_] = np.full(triangle.shape[:2], known is None)
    if counted is not None:
        own |= np.asarray(counted[1]).sum(axis=-1) < last - first

    def look(path: int, i: int) -> Unseen:
        js = pattern.js[first[i] : last[i]]
        seen: NDArray[np.bool_] = np.asarray(pattern.seen)[js]
        if counted is not None:
            low, weighty = counted
            seen = seen & weighty[path, i, first[i] - low : last[i] - low, None]
        here = plan.times[queries][i : i + 1]
        return left_open(plan.model, plan.stamps[js], seen, here, np.array([len(js)]))

    some = None if known is None else known.of(queries)
    return solve_triangles(triangle, some, own, look, columns)


def reached(plan: Plan, lost: ObsMask, decay: Array) -> ObsMask:
    """Components of the state that lost coordinates (..., d) reach by decay (..., d, d)."""
    open_: NDArray[np.bool_] = np.any((decay > DECAYED) & lost[..., None, :], axis=-1)
    reach: NDArray[np.bool_] = np.any(open_[..., None, :] & (plan.coords.W != 0), axis=-1)
    return reach


def weighty(tile: Tile, w: Array) -> tuple[int, NDArray[np.bool_]]:
    """Which of the tile's pairs have weights w (L, bundles, n, 8) > 0, (L, nq, n), from low on."""
    positive: NDArray[np.bool_] = np.asarray(one_by_one(w, len(tile.kappa)) > 0)
    return tile.low, positive


def solve_plain(pattern: Pattern, paths: slice) -> Solution:
    """zbar and (sum P)^-1 of every query, all weights 1."""
    y = np.moveaxis(pattern.y[paths], 0, -1)
    rows = plain_triangles(pattern.walk, y)
    d = rows.shape[1]
    solve, cov, unknown = _settled(pattern, slice(None), rows[None, ..., :d])
    mean = np.moveaxis(solve[0] @ rows[..., d:], -1, 0)
    return Solution(mean, cov, unknown, None)


def _settled(
    pattern: Pattern, queries: slice, triangle: Array, *, early: bool = False
) -> tuple[Array, Array, ObsMask]:
    """X, (sum P)^-1 in xi and unknown components, of triangles (L, n, d, d) of independent pairs.

    Each pair has noise of its own, so that little may be known of what a flat state would show:
    singular values decide as well, those of columns of unit length.
    """
    check_range(triangle)
    length = np.linalg.norm(triangle, axis=-2)
    scale = np.where(length > 0, 1.0 / np.where(length > 0, length, 1.0), 1.0)
    U, s, Vt = np.linalg.svd(triangle * scale[..., None, :])
    known = s > RANK_RTOL * s[..., :1]
    inverse = np.where(known, 1.0 / np.where(known, s, 1.0), 0.0)
    V = np.swapaxes(Vt, -1, -2)
    X = scale[..., :, None] * (V * inverse[..., None, :]) @ np.swapaxes(U, -1, -2)
    free = np.where(np.abs(V) > LEAK_TOL, V, 0.0) * ~known[..., None, :]
    null = scale[..., :, None] * free
    turn, kappa = pattern.plan.coords.W, pattern.kappa[queries]
    W = turn * np.exp(-kappa)[:, None, :]
    reach = np.abs(W @ null) > LEAK_TOL * (np.abs(turn) @ np.abs(null))
    unknown: NDArray[np.bool_] = np.any(reach, axis=-1)
    by_rule = pattern.open_[int(early)]
    if by_rule is not None:
        unknown = unknown | by_rule.components[queries]
    root = np.exp(-kappa)[..., None] * X
    return X, np.asarray(root @ np.swapaxes(root, -1, -2)), unknown


def solve_independent(
    pattern: Pattern, tile: Tile, paths: slice, scale: Array, *, shares: bool, early: bool
) -> Solution:
    """zbar and (sum s P)^-1 of the tile's queries, the pairs counted as independent."""
    n_queries, d = tile.kappa.shape
    top = scale.max(axis=-2, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    root = np.exp(0.5 * (scale - top))
    y = tile_data(pattern, tile, paths)
    y = np.moveaxis(y, 0, -1)[None] if len(scale) == 1 else y[..., None]
    rows = weighted_triangles(tile.pairs, y, root, d, n_queries)
    triangle = rows[..., :d]
    solve, cov, unknown = _settled(pattern, tile.queries, triangle, early=early)
    mean = solve @ rows[..., d:]
    mean = np.moveaxis(mean[0], -1, 0) if len(scale) == 1 else mean[..., 0]
    size = one_by_one(np.exp(-top), n_queries)
    cov = cov * size[..., None]
    share = None
    if shares:
        rank = np.maximum(np.rint(np.einsum("...ab,...ba->...", solve, triangle)), 1.0)
        share = spread_out(pattern, tile, pair_shares(tile.pairs, solve, root)) / rank[..., None]
    return Solution(mean, cov, unknown, share)


def finish(pattern: Pattern, queries: slice, solution: Solution) -> tuple[Array, Array]:
    """Mean and covariance of x; what is not determined is NaN, with variance inf."""
    turn = pattern.plan.coords.W
    W = turn * np.exp(-pattern.kappa[queries])[:, None, :]
    mean = (W @ solution.mean[..., None])[..., 0] + pattern.plan.path[queries] @ turn.T
    cov = turn @ solution.cov @ turn.T
    cov = 0.5 * (cov + np.swapaxes(cov, -1, -2))
    unknown = solution.unknown
    if unknown.any():
        mean = np.where(unknown, np.nan, mean)
        cov = np.where(unknown[..., :, None] | unknown[..., None, :], 0.0, cov)
        np.einsum("...aa->...a", cov)[unknown] = np.inf
    return mean, cov
