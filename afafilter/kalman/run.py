"""Filter and smoother over a timeline, for batches of paths: one covariance run per gap pattern.

Paths with the same missing components share covariances and gains; those are computed once, then
the means of all its paths follow by compiled recursions. Where every path has gaps of its own,
LANES of them go through covariances and means side by side. Groups, and paths inside a group, are
spread over threads.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from afafilter._base.checks import Array, frozen
from afafilter._base.doubts import Doubts, largest
from afafilter._base.patterns import group_alike, members
from afafilter._base.threads import spread
from afafilter.kalman import recursions, segments
from afafilter.kalman.flat_start import FlatBlock, FlatStart, raise_singular
from afafilter.kalman.group import Group, Run
from afafilter.kalman.recursions import LANES
from afafilter.kalman.timeline import Timeline

SIDE_BY_SIDE = 3
"""Paths with gaps of their own from which they share vector registers."""
CACHED = 250_000
"""Numbers that a cache holds from the filter until the smoother wants them."""
_FIRST = frozen(np.zeros(1, np.int64))


def run(
    line: Timeline, z: Array, smooth: bool, scale: Array | None = None, complete: bool = False
) -> Run:
    """Filter (and smooth) paths z (n, T, p).

    scale (n, T) multiplies the noise covariance of single observations; inf drops one. complete:
    whether z is known to have no gaps.
    """
    z = np.ascontiguousarray(z)
    n, T, p = z.shape
    N, d = len(line.times), len(line.root)
    cut = n == 1 and N >= segments.SHORTEST and segments.never_settles(line.chain, None, None)
    proper, short = not line.law.diffuse.shape[1], not cut and _is_short(n, N, d + p)
    if complete and scale is None and proper and short:
        return _whole(line, z, smooth)
    seen = ~np.isnan(z[:1] if complete else z)
    if scale is None:
        group, first = (np.zeros(n, np.int64), _FIRST) if complete else group_alike(seen)
        noise, scales = np.ones((1, T)), np.zeros(len(first), np.int64)
    else:
        dropped = np.isinf(scale)
        seen, noise = seen & ~dropped[:, :, None], np.where(dropped, 1.0, scale)
        group = first = scales = np.arange(n)
    G = len(first)
    out = Run.empty(line, z, group, G)
    doubts: list[Doubts] = []  # of flat starts
    if n == G >= SIDE_BY_SIDE:
        room = threading.local()

        def several(rows: slice) -> None:
            if not hasattr(room, "kept"):  # fresh pages cost as much as the recursion
                room.kept = recursions.lane_memory(N if smooth else 1, d, p)
            data = seen[rows], noise[scales[rows]], smooth, z[rows]
            lanes = Group.of(out, line, data, rows, rows)
            out.flat[rows] = _side_by_side(lanes, room.kept, doubts)

        spread(several, [slice(a, min(a + LANES, n)) for a in range(0, n, LANES)], n * N)
        return _doubted(out, line, z, noise, doubts)

    def one(g: int) -> None:
        paths: Any = slice(None) if G == 1 else slice(g, g + 1) if n == G else group == g
        data = seen[first[g]], noise[scales[g]], smooth, z[paths]
        part = Group.of(out, line, data, paths, g)
        out.flat[g] = _solve(part, doubts, alone=G == 1)
        if not isinstance(paths, slice):  # what was picked is a copy
            out.mean[paths], out.innovation[paths] = part.mean, part.innovation
            out.loglik[paths] = part.loglik

    spread(one, range(G), n * N)
    return _doubted(out, line, z, noise, doubts)


def doubts_of_flat_start(line: Timeline, z: Array) -> Doubts:
    """By how much rounding may be off what determines the flat start of paths z (n, T, p)."""
    seen, doubts = np.ascontiguousarray(~np.isnan(z)), Doubts()
    for paths in members(seen):
        own = np.ascontiguousarray(z[paths])
        out = Run.empty(line, own, paths, 1)
        data = seen[paths[0]], np.ones(z.shape[1]), False, own
        doubts = largest([doubts, FlatBlock(Group.of(out, line, data, slice(None), 0)).doubts])
    return doubts


def _is_short(n: int, N: int, size: int) -> bool:
    """Whether the gains of n paths of N nodes stay in a cache, and nothing is cut into segments."""
    return N < 2 * segments.SEGMENT and n * N * size <= CACHED


def _whole(line: Timeline, z: Array, smooth: bool) -> Run:
    """Short paths without gaps, from a proper start."""
    out, last = Run.empty(line, z, np.zeros(len(z), np.int64), 1), np.empty(2)
    into = out.mean, out.cov[0], out.innovation, out.innovation_cov[0], out.loglik
    bad = recursions.filter_whole(line.chain, line.root, line.law.mean, smooth, z, into, last)
    if bad >= 0:
        raise_singular(line.chain, bad)
    out.doubts = Doubts(0.0, 0.0, *last.tolist())
    return out


def _doubted(out: Run, line: Timeline, z: Array, scale: Array, flat: list[Doubts]) -> Run:
    """The run of paths z with its doubts; scale (1 or G, T) of the noise, flat: of flat starts."""
    last, chain = np.empty(2), line.chain
    recursions.magnification(out.innovation_cov, chain.cfg, chain.R, scale, z, last)
    out.doubts = largest([Doubts(0.0, 0.0, *last.tolist()), *flat])
    return out


def _finish(group: Group, flat: FlatBlock | None, Z: Array, y: Array) -> FlatStart | None:
    """Smooth back through the flat start; Z (d, d), y (n, d) at the node where it ends."""
    if flat is None:
        return None
    if group.smooth:
        flat.smooth(Z, y)
    flat.report_innovations()
    return flat.start


def _side_by_side(
    lanes: Group, kept: recursions.LaneMemory, doubts: list[Doubts]
) -> list[FlatStart | None]:
    """Up to LANES paths, each with gaps and covariances of its own."""
    chain = lanes.line.chain
    n, N, d = lanes.mean.shape
    law = lanes.line.law
    flats: list[FlatBlock] = []
    first, L, m = np.zeros(n, np.int64), np.empty((n, d, d)), np.empty((n, d))
    if law.diffuse.shape[1]:
        flats = [FlatBlock(lanes.path(l)) for l in range(n)]
        doubts += [flat.doubts for flat in flats]
        for l, flat in enumerate(flats):
            L[l], m[l], first[l] = flat.L, flat.m[0], flat.done
    else:
        L[:], m[:] = lanes.line.root, law.mean
    last = np.maximum(first - 1, 0)
    tracks = recursions.Tracks(np.arange(n), np.zeros(n, np.int64), first, last, np.full(n, N))
    Z, y = np.empty((n, 2, d, d)), np.empty((n, 2, d))
    bad = recursions.filter_lanes(chain, tracks, N, L, m, lanes.given, lanes.filled, kept, Z, y)
    if bad >= 0:
        raise_singular(chain, bad)
    if lanes.smooth:
        recursions.smooth_lanes(kept, tracks, N, lanes.mean, lanes.cov, Z, y)
    starts = [_finish(flat.group, flat, Z[l, 0], y[l, :1]) for l, flat in enumerate(flats)]
    return starts or [None] * n


def _solve(group: Group, doubts: list[Doubts], alone: bool) -> FlatStart | None:
    """Covariances of a group once, then the means of its paths; alone: threads are free."""
    chain, law, flat = group.line.chain, group.line.law, None
    (n, N, d), p = group.mean.shape, group.z.shape[2]
    seen, scale, smooth, z = group.given
    if law.diffuse.shape[1]:
        flat = FlatBlock(group)
        doubts.append(flat.doubts)
        L, m, first, gains = flat.L, flat.m, flat.done, flat.gains
    else:
        L, m, first = group.line.root.copy(), law.mean + np.zeros((n, d)), 0
        gains = recursions.empty_gains(N, d, p, smooth)
    if n == 1 and (end := segments.side_by_side(group, first, L, m, alone)) is not None:
        return _finish(group, flat, *end)
    y = np.zeros((n, d))
    if _is_short(n, N, d + p):
        Z = np.eye(d) if smooth else L
        bad = recursions.filter_series(chain, first, L, m, group.given, group.filled, gains, Z, y)
        if bad >= 0:
            raise_singular(chain, bad)
        return _finish(group, flat, Z, y)
    cuts = segments.segment_bounds(first, chain, seen, scale) if alone else [first, N]
    bad = segments.filter_covariances(cuts, group, L, gains)
    if bad >= 0:
        raise_singular(chain, bad)
    last, Z = max(first - 1, 0), y
    if smooth:
        Z = segments.smooth_covariances(cuts, last, gains, group.cov)

    def means(rows: slice) -> None:
        mean, innovation, loglik = group.mean[rows], group.innovation[rows], group.loglik[rows]
        into = mean, innovation, loglik
        recursions.filter_means(chain, first, m[rows], gains, z[rows], seen, *into)
        if smooth:
            recursions.smooth_means(chain, last, gains, innovation, seen, mean, y[rows])

    spread(means, _slices(n, N * (d + p)), n * N)
    return _finish(group, flat, Z, y)


def _slices(n: int, size: int) -> list[slice]:
    """Paths 0 .. n - 1 of `size` numbers each, in pieces that a cache holds."""
    step = max(1, CACHED // size // LANES) * LANES
    return [slice(a, min(a + step, n)) for a in range(0, n, step)]
