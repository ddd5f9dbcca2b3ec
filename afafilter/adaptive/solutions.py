"""Estimates of queries from the equations of their pairs, and what is not determined.

By exact correlation: the errors of pulled observations share process noise; weighting by the
inverse of their joint covariance (dense) is solved here in O(N) per query. The observations form a
Markov chain: given the state theta at the first one, each is predicted from the one before, so that
residuals decorrelate one by one; theta itself, flat, is then estimated by least squares from them.
No dynamics are inverted on the way, so that long gaps, singular Q and unstable A are normal input.
Beyond the paper, which counts errors as independent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import Array, ObsMask
from afafilter._base.unknown import OpenLaw, functional_laws, mark
from afafilter.adaptive.dense import Pattern, Plan, Tile, spread_out, tile_data
from afafilter.adaptive.determined import Directions, Solved, left_open, solve_triangles
from afafilter.adaptive.geometry import DECAY_FLOOR, Index, steps
from afafilter.adaptive.recursions import (
    Chain,
    QuerySteps,
    one_by_one,
    pair_shares,
    plain_triangles,
    sweep_each,
    sweep_shared,
    weighted_triangles,
)
from afafilter.linalg.subspaces import DECAYED, ROUNDING, Unobservable


class Solution(NamedTuple):
    """Of the queries, leading P or 1 paths.

    mean (P, nq, d) in their coordinates and units; root (., nq, d, k) of the covariance in xi;
    unknown (., nq, d) : components of the state that are not determined; shares (., nq, T) of the
    information, or None; magnified (., nq) and open_ of `Solved`; lost (., nq, d) : coordinates xi
    of which nothing is left, or None.
    """

    mean: Array
    root: Array
    unknown: ObsMask
    shares: Array | None
    magnified: Array
    open_: Directions | None
    lost: ObsMask | None


def settle(
    pattern: Pattern,
    queries: slice,
    triangle: Array,
    columns: Callable[[Index, Array, Array], Array],
    *,
    early: bool = False,
    counted: tuple[int, NDArray[np.bool_]] | None = None,
) -> Solved:
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

    asked: dict[tuple[int, bytes], Unobservable] = {}  # most paths see the same

    def look(path: int, i: int) -> Unobservable:
        js, seen = pattern.js[first[i] : last[i]], pattern.seen[first[i] : last[i]]
        if counted is not None:
            low, weighty = counted
            seen = seen & weighty[path, i, first[i] - low : last[i] - low, None]
        key = i, seen.tobytes()
        if key not in asked:
            here, n = plan.spans.times[queries][i : i + 1], np.array([len(js)])
            stamps = plan.spans.stamps[js]
            asked[key] = left_open(plan.model, pattern.coords, stamps, seen, here, n)
        return asked[key]

    some = None if known is None else known.of(queries)
    unit = None
    if pattern.coords is not None:
        unit = np.exp(np.minimum(pattern.exponent[queries], DECAY_FLOOR))
    found = solve_triangles(triangle, some, own, look, columns, unit, plan.coords.begins)
    if pattern.coords is None or not found.lost.any():
        return found
    # What the rule finds determined and equations have lost: is it too small to count, or rounding?
    stamps, times = pattern.inputs.flow.stamps[:, None], plan.spans.times[queries]
    decay = np.ptp(plan.coords.rate) * np.abs(times - stamps[[0, -1]]).max(axis=0)
    eaten = found.lost.any(axis=-1) & ~found.unknown.any(axis=-1) & (decay < -np.log(DECAYED))
    return found._replace(magnified=np.where(eaten, np.inf, found.magnified))


def reached(plan: Plan, lost: ObsMask) -> ObsMask:
    """Components of the state that lost coordinates xi (..., d) reach."""
    reach: NDArray[np.bool_] = np.any(lost[..., None, :] & (plan.coords.W != 0), axis=-1)
    return reach


def _settled(
    pattern: Pattern, found: Solved, decay: Array, mean: Array, root: Array, shares: Array | None
) -> Solution:
    """The solution; what of lost coordinates is left here by decay (..., d, d) is lost, too."""
    unknown, lost = found.unknown, None
    if found.lost.any():
        lost = np.asarray(np.any((decay > DECAYED) & found.lost[..., None, :], axis=-1))
        unknown = unknown | reached(pattern.plan, lost)
    return Solution(mean, root, unknown, shares, found.magnified, found.open_, lost)


def _decay(pattern: Pattern, queries: slice) -> Array:
    return np.asarray(
        np.exp(-pattern.exponent[queries])[..., None] * np.eye(pattern.plan.model.dim)
    )


def weighty(tile: Tile, w: Array) -> tuple[int, NDArray[np.bool_]]:
    """Which of the tile's pairs have weights w (L, bundles, n, 8) > 0, (L, nq, n), from low on."""
    positive: NDArray[np.bool_] = np.asarray(one_by_one(w, len(tile.exponent)) > 0)
    return tile.low, positive


def solve_plain(pattern: Pattern, paths: slice) -> Solution:
    """zbar and (sum P)^-1 of every query, all weights 1."""
    y = np.moveaxis(pattern.y[paths], 0, -1)
    rows = plain_triangles(pattern.inputs, y)
    d, every = rows.shape[1], slice(None)
    found = settle(pattern, every, rows[None, ..., :d], _here(pattern, every))
    mean = np.moveaxis(found.X[0] @ rows[..., d:], -1, 0)
    root = _root(pattern, every, found.X)
    return _settled(pattern, found, _decay(pattern, every), mean, root, None)


def _here(pattern: Pattern, queries: slice) -> Callable[[Index, Array, Array], Array]:
    """Open directions (m, d, d) of queries (m,), in the units in which their equations are."""
    exponent = pattern.exponent[queries]

    def columns(at: Index, here: Array, _first: Array) -> Array:
        return np.asarray(np.exp(np.minimum(exponent[at], DECAY_FLOOR))[:, None] * here)

    return columns


def _root(pattern: Pattern, queries: slice, solve: Array) -> Array:
    """(sum P)^{-1/2} in xi, of what is left of each coordinate.

    What is known as well as the largest factor lets an equation say is known better: 0.
    """
    left = np.exp(-pattern.exponent[queries])[..., None]
    flow, channels, times, _ = pattern.inputs
    if flow.rate.min() * times.longest_lag.max(initial=0.0) < -DECAY_FLOOR:
        shown = np.abs(channels.C)
        least = np.where(shown > 0, shown, np.inf).min(axis=(0, 1), initial=np.inf)
        size = np.abs(solve).max(axis=-1, keepdims=True)
        left = np.where(size <= 2.0 * np.exp(-DECAY_FLOOR) / least[:, None], 0.0, left)
    return np.asarray(left * np.where(left > 0, solve, 0.0))


def solve_independent(
    pattern: Pattern, tile: Tile, paths: slice, scale: Array, *, shares: bool, early: bool
) -> Solution:
    """zbar and (sum s P)^-1 of the tile's queries, the pairs counted as independent."""
    n_queries, d = tile.exponent.shape
    top = scale.max(axis=-2, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    root = np.exp(0.5 * (scale - top))
    y = tile_data(pattern, tile, paths)
    y = np.moveaxis(y, 0, -1)[None] if len(scale) == 1 else y[..., None]
    rows = weighted_triangles(tile.pairs, y, root, d, n_queries)
    triangle, columns = rows[..., :d], _here(pattern, tile.queries)
    counted = weighty(tile, root)
    found = settle(pattern, tile.queries, triangle, columns, early=early, counted=counted)
    solve = found.X
    mean = solve @ rows[..., d:]
    mean = np.moveaxis(mean[0], -1, 0) if len(scale) == 1 else mean[..., 0]
    size = one_by_one(np.exp(-0.5 * top), n_queries)
    spread = _root(pattern, tile.queries, solve) * size[..., None]
    share = None
    if shares:
        rank = np.maximum(np.rint(np.einsum("...ab,...ba->...", solve, triangle)), 1.0)
        share = spread_out(pattern, tile, pair_shares(tile.pairs, solve, root)) / rank[..., None]
    return _settled(pattern, found, _decay(pattern, tile.queries), mean, spread, share)


def make_chain(pattern: Pattern) -> Chain:
    """Transitions along the observations of one missing pattern, in xi."""
    flow, channels, _, _ = pattern.inputs
    F, N = steps(pattern.plan.coords.forward, np.diff(flow.stamps, prepend=flow.stamps[0]))
    return Chain(F, N, channels.C, channels.rank)


def make_query_steps(pattern: Pattern, ends: tuple[Index, Index]) -> QuerySteps:
    """Transitions to the queries, which use the observations first <= j < last = ends."""
    stamps, (first, last) = pattern.inputs.flow.stamps, ends
    split = np.clip(pattern.inputs.queries.split, first, last)
    past = pattern.plan.spans.times - stamps[np.maximum(split - 1, 0)]
    ahead = stamps[np.minimum(split, len(stamps) - 1)] - pattern.plan.spans.times
    moves = (
        move
        for lag, some in ((past, split > first), (ahead, split < last))
        for move in steps(pattern.plan.coords.forward, np.where(some, np.maximum(lag, 0.0), 0.0))
    )
    return QuerySteps(first, split, last, *moves)


def solve_exact(
    pattern: Pattern,
    along: Chain,
    query_steps: QuerySteps,
    queries: slice,
    paths: slice,
    reweighted: tuple[Tile, Array] | None,
    *,
    shares: bool,
    early: bool,
) -> Solution:
    """Estimates of these queries; reweighted : their tile and robust weights, None = all 1."""
    plan = pattern.plan
    d = plan.model.dim
    query_steps = query_steps.at(queries)
    weights = counted = None
    if reweighted is None:
        a, B, L, tri = sweep_shared(along, query_steps, np.moveaxis(pattern.y[paths], 0, -1))
    else:
        tile, w = reweighted
        weights, counted = spread_out(pattern, tile, w) if shares else None, weighty(tile, w)
        a, B, L, tri = sweep_each(along, query_steps, pattern.y[paths], tile.low, w)

    def columns(_at: Index, _here: Array, first: Array) -> Array:
        return np.asarray(first @ plan.coords.W_inv.T)

    found = settle(pattern, queries, tri[..., :d], columns, early=early, counted=counted)
    X, magnified = found.X, found.magnified
    if magnified.max(initial=0.0) > MOST:
        known = _magnified(tri[..., :d], X, B)
        found = found._replace(magnified=np.where(np.isinf(magnified), magnified, known))
    mean = a + B @ (X @ tri[..., d:])
    with np.errstate(over="ignore", invalid="ignore"):  # of `finish`
        root = np.concatenate([L, B @ X], axis=-1)
    mean = np.moveaxis(mean[0], -1, 0) if reweighted is None else mean[..., 0]
    unit = np.exp(np.minimum(pattern.exponent[queries], DECAY_FLOOR))
    return _settled(pattern, found, np.abs(B), mean * unit, root, weights)


MOST = 1.0 / (64 * np.finfo(np.float64).eps)
"""A column of the triangle that the others explain but for less than 1 / MOST: is it forgotten."""


def _magnified(triangle: Array, X: Array, B: Array) -> Array:
    """By how much R^-1 = X magnifies roundings, but for directions that x = B theta forgets."""
    size = np.abs(triangle).max(axis=-2)[..., None]
    with np.errstate(over="ignore", invalid="ignore"):
        left = np.abs(B @ X).max(axis=-2) > DECAYED * np.abs(X).max(axis=-2)
        columns = np.where(left, (np.abs(X) * size).max(axis=-2), 0.0)
    return np.asarray(columns.max(axis=-1))


def finish(
    pattern: Pattern, queries: slice, solution: Solution, paths: Index
) -> tuple[Array, Array, list[OpenLaw]]:
    """Mean and covariance of x; what is not determined is NaN, with variance inf.

    A component whose variance exceeds the floating-point range is not determined. Beside them what
    is known of functionals of the `paths`, numbered as in the answer.
    """
    turn, root, unknown = pattern.plan.coords.W, solution.root, solution.unknown
    lost = solution.lost
    W = turn * np.exp(-pattern.exponent[queries])[:, None, :]
    with np.errstate(over="ignore", invalid="ignore"):
        far = ~np.isfinite(np.sum(root**2, axis=-1))
    if far.any():
        unknown = unknown | reached(pattern.plan, far)
        lost = far if lost is None else lost | far
        root = np.where(far[..., None], 0.0, root)
    mean = np.where(far, 0.0, solution.mean)
    mean = (W @ mean[..., None])[..., 0] + pattern.plan.path[queries] @ turn.T
    root = turn @ root
    cov = root @ np.swapaxes(root, -1, -2)
    if not unknown.any():
        return mean, cov, []
    rows = [] if solution.open_ is None else [solution.open_]
    if lost is not None:
        columns = np.where(lost[..., None], turn.T, 0.0)
        rows.append((columns, ROUNDING * np.abs(columns)))
    directions, rounding = (np.concatenate(part, axis=-2) for part in zip(*rows, strict=True))
    laws = functional_laws(paths, queries.start, mean, cov, directions, rounding)
    return *mark(mean, cov, unknown), laws
