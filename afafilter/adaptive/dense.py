"""Full-matrix AFA: any C, any missing pattern, one tile of queries at a time.

Each query solves the least-squares problem  min_x sum_j s_ij |T_ij y_j - G_ij x|^2  over its
whitened pairs (see `_pull_forward`) by QR of the stacked rows: the condition number is not squared,
and the rank tells which components the data determine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import Array, ObsMask
from afafilter.adaptive.geometry import (
    DECAY_FLOOR,
    Channel,
    Coordinates,
    Index,
    Rows,
    channel,
    coordinates,
    free_path,
    pair_rows,
)
from afafilter.models.sde import LinearSDE
from afafilter.weights import Weight

RANK_RTOL = 1e-11
"""Singular values below this, relative to the largest after scaling the columns, count as zero."""

LEAK_TOL = 1e-9
"""A component counts as determined when undetermined directions reach it by less than this."""

TILE_NUMBERS = 2**21
"""Numbers (float64) that the largest array of a tile may hold."""


class Plan(NamedTuple):
    """What is the same for every path.

    stamps : (T,) times that the observations show; times : (Tq,) of the queries.
    first, last : (Tq,) query i uses observations first[i] <= j < last[i].
    own : (Tq,) index of the query's own observation, -1 where there is none.
    anchor_cov : (d, d) in xi coordinates or None.
    path : (Tq, d) noise-free path at the queries, seen : (T, p) C times it at the stamps.
    """

    model: LinearSDE
    coords: Coordinates
    stamps: Array
    times: Array
    first: Index
    last: Index
    own: Index
    R: Array
    anchor_cov: Array | None
    lags: Lags
    uniform_noise: bool
    path: Array
    seen: Array


class Lags(NamedTuple):
    """Numbering of equal lags: ticks of a regular grid, or nothing."""

    query: NDArray[np.int64] | None
    stamp: NDArray[np.int64] | None
    step: float


@dataclass
class Group:
    """Observations with the same missing pattern, for paths that share it.

    js : (n,) their indices; channel : how they see the state; y : (P, n, r) rotated observations;
    rest : (P, n) squared length of what the redundant rows add; dim : observed components.
    """

    js: Index
    channel: Channel
    y: Array
    rest: Array
    dim: int


@dataclass
class Part:
    """The pairs of one group in one tile: rows, allowed (nq, n), log det of the information."""

    group: Group
    rows: Rows
    allowed: ObsMask
    columns: Index
    log_det: Array | None


class Tile(NamedTuple):
    """Consecutive queries, their pairs, and the units e^{-kappa} (nq, d) of their states."""

    queries: slice
    parts: list[Part]
    kappa: Array


class Solution(NamedTuple):
    """In the coordinates and units of the tile, leading P or 1 paths.

    mean (P, nq, d); cov (., nq, d, d); null (., nq, d, d): columns span what is not determined;
    shares (., nq, T) of the information, or None.
    """

    mean: Array
    cov: Array
    null: Array
    shares: Array | None


def make_lags(stamps: Array, times: Array) -> Lags:
    """Ticks when all times lie on one regular grid (gaps allowed) to within rounding."""
    both = np.sort(np.concatenate([stamps, times]))
    steps = np.diff(both)
    tol = 32 * np.finfo(float).eps * max(np.abs(both).max(), 1e-300)
    steps = steps[steps > tol]
    if not len(steps):
        return Lags(None, None, 0.0)
    start = both[0]
    count = np.rint((both[-1] - start) / steps.min())
    step = float((both[-1] - start) / count)
    if count > 4 * len(both):
        return Lags(None, None, 0.0)
    ticks = [np.rint((x - start) / step) for x in (times, stamps)]
    off = max(
        np.abs(x - start - k * step).max() for x, k in zip((times, stamps), ticks, strict=True)
    )
    if off > tol:
        return Lags(None, None, 0.0)
    return Lags(ticks[0].astype(np.int64), ticks[1].astype(np.int64), step)


def make_plan(
    model: LinearSDE, stamps: Array, times: Array, first: Index, last: Index, own: Index,
    R: Array, anchor_cov: Array | None, uniform_noise: bool,
) -> Plan:  # fmt: skip
    """Coordinates and lag numbering for these queries and observations; anchor_cov in z units."""
    span = float(max(times.max(), stamps.max()) - min(times.min(), stamps.min()))
    coords = coordinates(model, span)
    if anchor_cov is not None:
        to_state = coords.W_inv @ np.linalg.inv(model.C)
        anchor_cov = to_state @ anchor_cov @ to_state.T
        coords = coords._replace(quiet=np.zeros(model.dim))
    both = np.concatenate([stamps, times])
    path = free_path(coords, both, float(both.min() if coords.sign > 0 else both.max()))
    return Plan(
        model, coords, stamps, times, first, last, own, R, anchor_cov, make_lags(stamps, times),
        uniform_noise, path[len(stamps) :], path[: len(stamps)] @ (model.C @ coords.W).T,
    )  # fmt: skip


def make_groups(plan: Plan, z: Array, seen: ObsMask) -> list[Group]:
    """Observations z (P, T, p) by their missing pattern seen (T, p), shared by the paths."""
    out = []
    for pattern in np.unique(seen, axis=0):
        if not pattern.any():
            continue
        js = np.flatnonzero((seen == pattern).all(axis=1))
        R = plan.R[:1] if plan.uniform_noise else plan.R[js]
        R = R[:, pattern][:, :, pattern]
        how = channel(plan.coords, plan.model.C[pattern], R[0] if plan.uniform_noise else R)
        centred = (z[:, js] - plan.seen[js] - plan.model.offset)[..., pattern]
        white = (how.whiten @ centred[..., None])[..., 0]
        rest = np.sum(white[..., how.rank :] ** 2, axis=-1)
        out.append(Group(js, how, white[..., : how.rank], rest, int(pattern.sum())))
    return out


def tiles(plan: Plan, groups: list[Group]) -> Iterator[slice]:
    """Consecutive queries whose pairs fit the memory bound."""
    d = plan.model.dim
    budget = max(TILE_NUMBERS // (d * max((g.channel.rank for g in groups), default=1)), 1)
    start, n = 0, len(plan.times)
    while start < n:
        stop = start + 1
        while stop < n:
            width = plan.last[start : stop + 1].max() - plan.first[start : stop + 1].min()
            if (stop + 1 - start) * width > budget:
                break
            stop += 1
        yield slice(start, stop)
        start = stop


def make_tile(plan: Plan, groups: list[Group], queries: slice, *, determinants: bool) -> Tile:
    """Geometry of every pair of these queries with the observations they may use."""
    first, last = plan.first[queries], plan.last[queries]
    reach = np.zeros(len(first))
    chosen = []
    for group in groups:
        columns = np.flatnonzero((group.js >= first.min()) & (group.js < last.max()))
        if not len(columns) or not group.channel.rank:
            continue
        js = group.js[columns]
        allowed = (js >= first[:, None]) & (js < last[:, None])
        lag = plan.coords.sign * (plan.times[queries, None] - plan.stamps[js])
        reach = np.maximum(reach, np.max(lag, axis=1, initial=0.0, where=allowed))
        chosen.append((group, columns, allowed))
    kappa = reach[:, None] * plan.coords.quiet
    parts = []
    for group, columns, allowed in chosen:
        rows = _tile_rows(plan, group, queries, columns, allowed, kappa)
        log_det = _log_det(plan.coords, rows.G, kappa) if determinants else None
        parts.append(Part(group, rows, allowed, columns, log_det))
    return Tile(queries, parts, kappa)


def _tile_rows(
    plan: Plan, group: Group, queries: slice, columns: Index, allowed: ObsMask, kappa: Array
) -> Rows:
    js = group.js[columns]
    C, shared = group.channel.C, group.channel.C.ndim == 2
    lag = plan.times[queries, None] - plan.stamps[js]
    if not shared or kappa.any():
        picked = pair_rows(
            plan.coords, C if shared else C[np.broadcast_to(columns, allowed.shape)[allowed]],
            lag[allowed], plan.anchor_cov, kappa[np.nonzero(allowed)[0]],
        )  # fmt: skip
    else:
        if plan.lags.query is not None and plan.lags.stamp is not None:
            number = plan.lags.query[queries, None] - plan.lags.stamp[js]
            unit = plan.lags.step
        else:
            far = max(np.abs(plan.times).max(), np.abs(plan.stamps).max(), 1e-300)
            unit = 16 * np.finfo(float).eps * far
            number = np.rint(lag / unit)
        distinct, inverse = np.unique(number[allowed], return_inverse=True)
        rows = pair_rows(plan.coords, C, distinct * unit, plan.anchor_cov, None)
        picked = Rows(*(part[inverse] for part in rows))
    full = []
    for part in picked:
        array = np.zeros((*allowed.shape, *part.shape[1:]))
        array[allowed] = part
        full.append(array)
    return Rows(*full)


def _log_det(coords: Coordinates, G: Array, kappa: Array) -> Array:
    """log pseudo-determinant of the pair's information on x, per row: log det(P) / r."""
    G = G * np.exp(np.minimum(kappa, DECAY_FLOOR))[:, None, None, :]
    triangle = np.linalg.qr(np.swapaxes(G @ coords.W_inv, -1, -2), mode="r")
    with np.errstate(divide="ignore"):
        diagonal = np.log(np.abs(np.diagonal(triangle, axis1=-2, axis2=-1)))
    return np.asarray(2.0 * diagonal.mean(axis=-1))


def distances(part: Part, paths: slice, anchor: Array) -> Array:
    """Squared Mahalanobis distances d2 (P, nq, n) of the pairs from anchors (P, nq, d)."""
    from afafilter._core.adaptive_kernels import pair_distances

    y = np.ascontiguousarray(part.group.y[paths][:, part.columns])
    rest = np.ascontiguousarray(part.group.rest[paths][:, part.columns])
    d2 = np.empty((len(anchor), *part.allowed.shape))
    pair_distances(*part.rows, y, rest, np.ascontiguousarray(anchor), part.allowed, d2)
    return d2


def log_scales(
    tile: Tile, paths: slice, anchor: Array | None, weight: Weight | None, beta: float
) -> list[Array]:
    """Log of the scalar factor of each pair's precision, (P or 1, nq, n), -inf where not allowed.

    A query whose anchor is not determined (NaN) keeps the plain weights.
    """
    out = []
    for part in tile.parts:
        scale = np.where(part.allowed, 0.0, -np.inf)[None]
        if part.log_det is not None:
            scale = scale + (beta - 1.0) * np.where(part.allowed, part.log_det, 0.0)
        if weight is not None and anchor is not None:
            d2 = distances(part, paths, anchor)
            log_w = weight.log(np.where(np.isnan(d2), 0.0, d2), part.group.dim)
            log_w = np.where(np.isnan(anchor).any(axis=-1, keepdims=True), 0.0, log_w)
            scale = scale + beta * log_w
        out.append(scale)
    return out


def solve_independent(
    plan: Plan, tile: Tile, paths: slice, n_paths: int, scales: list[Array], *, shares: bool
) -> Solution:
    """zbar and (sum s P)^-1 of every query, the pairs counted as independent."""
    n_queries, d = tile.kappa.shape
    lead = scales[0].shape[0] if scales else 1
    top = np.full((lead, n_queries), -np.inf)
    for scale in scales:
        np.maximum(top, scale.max(axis=-1), out=top)
    top = np.where(np.isfinite(top), top, 0.0)
    roots = [np.exp(0.5 * (scale - top[..., None])) for scale in scales]
    fit = _fit_shared if lead == 1 else _fit_each
    mean, triangle, solve, null = fit(tile.parts, roots, paths, (n_paths, n_queries, d))
    cov = solve @ np.swapaxes(solve, -1, -2) * np.exp(-top)[..., None, None]
    share = _shares(plan, tile.parts, roots, triangle, solve) if shares else None
    return Solution(mean, cov, null, share)


def _fit_shared(
    parts: list[Part], roots: list[Array], paths: slice, shape: tuple[int, int, int]
) -> tuple[Array, Array, Array, Array]:
    """Means, triangular factor, its solver and null directions; all paths weigh alike."""
    n_paths, n_queries, d = shape
    blocks = [np.zeros((n_queries, d, d))]
    for part, root in zip(parts, roots, strict=True):
        blocks.append((root[0, ..., None, None] * part.rows.G).reshape(n_queries, -1, d))
    Q, triangle = np.linalg.qr(np.concatenate(blocks, axis=-2))
    solve, null = scaled_solver(triangle)
    target = np.zeros(shape)
    start = d
    for part, root in zip(parts, roots, strict=True):
        n, r = part.rows.T.shape[1:3]
        picked = Q[:, start : start + n * r].reshape(n_queries, n, r, d)
        start += n * r
        maps = np.swapaxes(picked, -1, -2) * root[0, ..., None, None] @ part.rows.T
        flat = np.moveaxis(maps, 1, 0).reshape(n, n_queries * d, r).swapaxes(1, 2)
        y = part.group.y[paths][:, part.columns].reshape(n_paths, n * r)
        target += (y @ flat.reshape(n * r, n_queries * d)).reshape(shape)
    mean = (solve @ target[..., None])[..., 0]
    return mean, triangle[None], solve[None], null[None]


def _fit_each(
    parts: list[Part], roots: list[Array], paths: slice, shape: tuple[int, int, int]
) -> tuple[Array, Array, Array, Array]:
    """As `_fit_shared`, every path with weights of its own."""
    from afafilter._core.adaptive_kernels import weighted_triangles

    tri = np.zeros((*shape, shape[-1] + 1))
    for part, root in zip(parts, roots, strict=True):
        y = np.ascontiguousarray(part.group.y[paths][:, part.columns])
        weighted_triangles(*part.rows, y, np.broadcast_to(root, (len(y), *root.shape[1:])), tri)
    triangle = tri[..., :-1]
    solve, null = scaled_solver(triangle)
    return (solve @ tri[..., -1:])[..., 0], triangle, solve, null


def scaled_solver(triangle: Array) -> tuple[Array, Array]:
    """X with X triangle = identity on the determined subspace, and a basis of the rest.

    Columns are scaled to unit length first; X (..., d, d), null (..., d, d) with zero columns for
    the determined directions.
    """
    length = np.linalg.norm(triangle, axis=-2)
    scale = np.where(length > 0, 1.0 / np.where(length > 0, length, 1.0), 1.0)
    U, s, Vt = np.linalg.svd(triangle * scale[..., None, :])
    known = s > RANK_RTOL * s[..., :1]
    inverse = np.where(known, 1.0 / np.where(known, s, 1.0), 0.0)
    V = np.swapaxes(Vt, -1, -2)
    X = scale[..., :, None] * (V * inverse[..., None, :]) @ np.swapaxes(U, -1, -2)
    free = np.where(np.abs(V) > LEAK_TOL, V, 0.0) * ~known[..., None, :]
    return X, scale[..., :, None] * free


def finish(plan: Plan, tile: Tile, solution: Solution) -> tuple[Array, Array, ObsMask]:
    """Mean and covariance of x, and which components are not determined (NaN, variance inf)."""
    turn = plan.coords.W
    W = turn * np.exp(-tile.kappa)[:, None, :]
    mean = (W @ solution.mean[..., None])[..., 0] + plan.path[tile.queries] @ turn.T
    cov = W @ solution.cov @ np.swapaxes(W, -1, -2)
    cov = 0.5 * (cov + np.swapaxes(cov, -1, -2))
    reach = np.abs(W @ solution.null) > LEAK_TOL * (np.abs(turn) @ np.abs(solution.null))
    unknown: ObsMask = np.asarray(reach.any(axis=-1))
    if unknown.any():
        mean = np.where(unknown, np.nan, mean)
        cov = np.where(unknown[..., :, None] | unknown[..., None, :], 0.0, cov)
        np.einsum("...aa->...a", cov)[unknown] = np.inf
    return mean, cov, unknown


def to_tile(plan: Plan, tile: Tile, x: Array) -> Array:
    """States (P, nq, d) in the coordinates and units of the tile; all NaN where one is."""
    inner = (x - plan.path[tile.queries] @ plan.coords.W.T) @ plan.coords.W_inv.T
    return np.asarray(inner * np.exp(np.minimum(tile.kappa, DECAY_FLOOR)))


def _shares(
    plan: Plan, parts: list[Part], roots: list[Array], triangle: Array, solve: Array
) -> Array:
    """tr[(sum s P)^-1 s_ij P_ij] / rank: the share of each observation in the information."""
    lead, n_queries = solve.shape[:2]
    out = np.zeros((lead, n_queries, len(plan.stamps)))
    rank = np.maximum(np.rint(np.einsum("...ab,...ba->...", solve, triangle)), 1.0)
    for part, root in zip(parts, roots, strict=True):
        spread = part.rows.G @ solve[..., None, :, :]
        share = np.einsum("...ab,...ab->...", spread, spread) * root**2 / rank[..., None]
        out[..., part.group.js[part.columns]] = share
    return out
