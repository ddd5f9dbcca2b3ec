"""Full-matrix AFA: any C, any missing pattern, one tile of queries at a time.

Each query solves the least-squares problem  min_x sum_j s_ij |T_ij y_j + g_ij - G_ij x|^2  over its whitened
pairs (see `_pull_forward`) by QR of the stacked rows: the condition number is not squared, and the rank
tells which components the data determine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter._pull_forward import Channel, Coordinates, Rows, channel, coordinates, pair_rows
from afafilter._validate import Array, ObsMask
from afafilter.models import LinearSDE
from afafilter.weights import Weight

Index = NDArray[np.intp]

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


class Solution(NamedTuple):
    """x (P, nq, d), cov (P or 1, nq, d, d) with undetermined components NaN and inf,
    shares (P or 1, nq, n) of the information per observation of the tile, or None.
    """

    mean: Array
    cov: Array
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
    return Plan(
        model, coords, stamps, times, first, last, own, R, anchor_cov, make_lags(stamps, times),
        uniform_noise,
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
        centred = z[:, js][..., pattern] - plan.model.offset[pattern]
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


def make_parts(plan: Plan, groups: list[Group], tile: slice, *, determinants: bool) -> list[Part]:
    """Geometry of every pair of the tile's queries with the observations they may use."""
    first, last = plan.first[tile], plan.last[tile]
    out = []
    for group in groups:
        columns = np.flatnonzero((group.js >= first.min()) & (group.js < last.max()))
        if not len(columns) or not group.channel.rank:
            continue
        js = group.js[columns]
        allowed = (js >= first[:, None]) & (js < last[:, None])
        rows = _tile_rows(plan, group, tile, columns, allowed)
        log_det = _log_det(plan.coords, rows.G) if determinants else None
        out.append(Part(group, rows, allowed, columns, log_det))
    return out


def _tile_rows(
    plan: Plan, group: Group, tile: slice, columns: Index, allowed: ObsMask
) -> Rows:
    js = group.js[columns]
    shared = group.channel.C.ndim == 2
    if plan.lags.query is not None and plan.lags.stamp is not None:
        number = plan.lags.query[tile, None] - plan.lags.stamp[js]
        scale = plan.lags.step
    else:
        lag = plan.times[tile, None] - plan.stamps[js]
        scale = 16 * np.finfo(float).eps * max(np.abs(plan.times).max(), np.abs(plan.stamps).max())
        number, scale = (lag, 1.0) if not shared or scale == 0 else (np.rint(lag / scale), scale)
    if shared:
        distinct, inverse = np.unique(number[allowed], return_inverse=True)
        rows = pair_rows(plan.coords, group.channel.C, distinct * scale, plan.anchor_cov)
        picked = Rows(*(part[inverse] for part in rows))
    else:
        member = np.broadcast_to(columns, allowed.shape)[allowed]
        picked = pair_rows(
            plan.coords, group.channel.C[member], number[allowed] * scale, plan.anchor_cov
        )
    full = []
    for part in picked:
        array = np.zeros((*allowed.shape, *part.shape[1:]))
        array[allowed] = part
        full.append(array)
    return Rows(*full)


def _log_det(coords: Coordinates, G: Array) -> Array:
    """log pseudo-determinant of the pair's information on x, per row: log det(P) / r."""
    triangle = np.linalg.qr(np.swapaxes(G @ coords.W_inv, -1, -2), mode="r")
    with np.errstate(divide="ignore"):
        diagonal = np.log(np.abs(np.diagonal(triangle, axis1=-2, axis2=-1)))
    return np.asarray(2.0 * diagonal.mean(axis=-1))


def distances(part: Part, paths: slice, anchor: Array) -> Array:
    """Squared Mahalanobis distances d2 (P, nq, n) of the pairs from anchors (P, nq, d) in xi."""
    y = part.group.y[paths][:, part.columns]
    residual = np.einsum("qnab,pnb->pqna", part.rows.T, y, optimize=True) + part.rows.g
    residual -= np.einsum("qnad,pqd->pqna", part.rows.G, anchor, optimize=True)
    d2 = np.einsum("pqna,pqna->pqn", residual, residual)
    return np.asarray(d2 + part.group.rest[paths][:, None, part.columns])


def log_scales(
    parts: list[Part], paths: slice, anchor: Array | None, weight: Weight | None, beta: float
) -> list[Array]:
    """Log of the scalar factor of each pair's precision, (P or 1, nq, n), -inf where not allowed.

    A query whose anchor is not determined (NaN) keeps the plain weights.
    """
    out = []
    for part in parts:
        scale = np.where(part.allowed, 0.0, -np.inf)[None]
        if part.log_det is not None:
            scale = scale + (beta - 1.0) * np.where(part.allowed, part.log_det, 0.0)
        if weight is not None and anchor is not None:
            d2 = distances(part, paths, anchor)
            log_w = weight.log(np.where(np.isnan(d2), 0.0, d2), part.group.dim)
            log_w = np.where(np.isnan(anchor).any(axis=-1)[..., None], 0.0, log_w)
            scale = scale + beta * log_w
        out.append(scale)
    return out


def solve_independent(
    plan: Plan, parts: list[Part], paths: slice, n_paths: int, n_queries: int,
    scales: list[Array], *, shares: bool,
) -> Solution:  # fmt: skip
    """zbar and (sum s P)^-1 of every query, the pairs counted as independent."""
    d = plan.model.dim
    lead = scales[0].shape[0] if scales else 1
    top = np.full((lead, n_queries), -np.inf)
    for scale in scales:
        np.maximum(top, scale.max(axis=-1), out=top)
    top = np.where(np.isfinite(top), top, 0.0)
    blocks, targets = [np.zeros((lead, n_queries, d, d))], []
    roots = [np.exp(0.5 * (scale - top[..., None])) for scale in scales]
    for part, root in zip(parts, roots, strict=True):
        rows = root[..., None, None] * part.rows.G
        blocks.append(rows.reshape(lead, n_queries, -1, d))
    Q, triangle = np.linalg.qr(np.concatenate(blocks, axis=-2))
    solve, null = _solver(triangle)
    mean = np.zeros((n_paths, n_queries, d))
    start = d
    for part, root in zip(parts, roots, strict=True):
        n, r = part.rows.g.shape[1:]
        picked = Q[..., start : start + n * r, :].reshape(lead, n_queries, n, r, d)
        start += n * r
        gain = np.swapaxes(picked, -1, -2) * root[..., None, None]
        y = part.group.y[paths][:, part.columns]
        if lead == 1:
            maps = gain[0] @ part.rows.T
            flat = np.moveaxis(maps, 1, 0).reshape(n, n_queries * d, r).swapaxes(1, 2)
            mean += (y.reshape(n_paths, n * r) @ flat.reshape(n * r, n_queries * d)).reshape(
                n_paths, n_queries, d
            )
            mean += np.einsum("qnda,qna->qd", gain[0], part.rows.g)
        else:
            target = np.einsum("qnab,pnb->pqna", part.rows.T, y, optimize=True) + part.rows.g
            mean += np.einsum("pqnda,pqna->pqd", gain, target, optimize=True)
    mean = (solve @ mean[..., None])[..., 0]
    cov = solve @ np.swapaxes(solve, -1, -2) * np.exp(-top)[..., None, None]
    share = _shares(plan, parts, roots, triangle, solve) if shares else None
    return Solution(*finish(plan.coords, mean, cov, null), share)


def _solver(triangle: Array) -> tuple[Array, Array]:
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


def finish(coords: Coordinates, mean: Array, cov: Array, null: Array) -> tuple[Array, Array]:
    """From xi to x; components that null directions reach become NaN with variance inf."""
    W = coords.W
    mean, cov = mean @ W.T, W @ cov @ W.T
    cov = 0.5 * (cov + np.swapaxes(cov, -1, -2))
    if not null.any():
        return mean, cov
    reach = np.abs(W @ null) > LEAK_TOL * (np.abs(W) @ np.abs(null))
    unknown = reach.any(axis=-1)
    mean = np.where(unknown, np.nan, mean)
    cov = np.where(unknown[..., :, None] | unknown[..., None, :], 0.0, cov)
    np.einsum("...aa->...a", cov)[unknown] = np.inf
    return mean, cov


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
