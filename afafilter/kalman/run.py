"""Filter and smoother over a timeline, for batches of paths: one covariance run per gap pattern.

Paths with the same missing components share covariances and gains; those are computed once, then
the means of all its paths follow by compiled recursions. Where every path has gaps of its own,
LANES of them go through covariances and means side by side. Groups, and paths inside a group, are
spread over threads.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from afafilter._base.checks import Array, ObsMask
from afafilter._base.threads import spread
from afafilter.kalman import recursions, segments
from afafilter.kalman.flat_start import FlatBlock, FlatStart, initial_root, raise_singular
from afafilter.kalman.recursions import LANES
from afafilter.kalman.timeline import Index, Timeline

SIDE_BY_SIDE = 3
"""Paths with gaps of their own from which they share vector registers."""
CACHED = 250_000
"""Numbers that a cache holds from the filter until the smoother wants them."""


@dataclass
class Run:
    """Laws at the nodes. In flat starts mean and cov are given delta = 0 until reported.

    mean (n, N, d); cov (G, N, d, d); innovation (n, T, p); innovation_cov (G, T, p, p);
    loglik (n, T); group (n,) row of cov that a path uses; flat: per group, None if proper.
    """

    mean: Array
    cov: Array
    innovation: Array
    innovation_cov: Array
    loglik: Array
    group: Index
    flat: list[FlatStart | None] = field(default_factory=list)


def group_paths(seen: ObsMask, n: int) -> tuple[Index, Index]:
    """Group of each of n paths by its pattern of gaps (n, T, p), and a first member of each group.

    seen (1, T, p): all have the same.
    """
    if (seen == seen[0]).all():
        return np.zeros(n, np.int64), np.zeros(1, np.int64)
    packed = np.packbits(seen.reshape(n, -1), axis=1)
    keys = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1])))[:, 0]
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[group.reshape(-1)], first[order]


def run(
    line: Timeline, z: Array, smooth: bool, scale: Array | None = None, complete: bool = False
) -> Run:
    """Filter (and smooth) paths z (n, T, p).

    scale (n, T) multiplies the noise covariance of single observations; inf drops one. complete:
    whether z is known to have no gaps.
    """
    z = np.ascontiguousarray(z)
    seen = np.ones((1, *z.shape[1:]), bool) if complete else ~np.isnan(z)
    if scale is None:
        group, first = group_paths(seen, len(z))
        scale = np.ones((1, z.shape[1]))
        first_scale = np.zeros(len(first), np.int64)
    else:
        dropped = np.isinf(scale)
        seen = seen & ~dropped[:, :, None]
        scale = np.where(dropped, 1.0, scale)
        group = first = first_scale = np.arange(len(z))
    n, T, p = z.shape
    N, d = len(line.times), line.chain.F.shape[-1]
    G = len(first)
    out = Run(
        np.empty((n, N, d)), np.empty((G, N, d, d)), np.empty((n, T, p)),
        np.empty((G, T, p, p)), np.empty((n, T)), group, [None] * G,
    )  # fmt: skip
    lone = n == G
    members = [np.array([g]) for g in range(n)] if lone else [
        np.flatnonzero(group == g) for g in range(G)
    ]  # fmt: skip

    if lone and n >= SIDE_BY_SIDE:
        room = threading.local()

        def several(rows: slice) -> None:
            if not hasattr(room, "kept"):  # fresh pages cost as much as the recursion
                room.kept = recursions.lane_memory(N if smooth else 1, d, p)
            out.flat[rows] = _side_by_side(
                line, z[rows], seen[rows], scale[first_scale[rows]], out.mean[rows], out.cov[rows],
                out.innovation[rows], out.innovation_cov[rows], out.loglik[rows], smooth,
                room.kept,
            )  # fmt: skip

        spread(several, [slice(a, min(a + LANES, n)) for a in range(0, n, LANES)], n * N)
        return out

    def one(g: int) -> None:
        paths = members[g]
        whole = len(paths) == n
        pick: Any = slice(None) if whole else slice(g, g + 1) if lone else paths
        block = _Block(
            line, z[pick], seen[first[g]], scale[first_scale[g]], out.mean[pick], out.cov[g],
            out.innovation[pick], out.innovation_cov[g], out.loglik[pick], smooth,
            G == 1,
        )  # fmt: skip
        out.flat[g] = block.solve()
        if not (whole or lone):
            out.mean[paths], out.innovation[paths] = block.mean, block.innovation
            out.loglik[paths] = block.loglik

    spread(one, range(G), n * N)
    return out


def _side_by_side(
    line: Timeline, z: Array, seen: ObsMask, scale: Array, mean: Array, cov: Array,
    innovation: Array, innovation_cov: Array, loglik: Array, smooth: bool,
    kept: recursions.LaneMemory,
) -> list[FlatStart | None]:  # fmt: skip
    """Up to LANES paths, each with covariances of its own; arguments as in `_Block`."""
    chain = line.chain
    n, _, d = mean.shape
    blocks = [
        _Block(
            line, z[l : l + 1], seen[l], scale[l], mean[l : l + 1], cov[l], innovation[l : l + 1],
            innovation_cov[l], loglik[l : l + 1], smooth,
        )
        for l in range(n)
    ]  # fmt: skip
    for block in blocks:
        block.begin()
    first = np.array([block.first for block in blocks])
    bad = recursions.filter_lanes(
        chain, first, np.stack([block.L for block in blocks]),
        np.concatenate([block.m for block in blocks]), seen, scale, smooth, z, mean, cov,
        innovation, innovation_cov, loglik, kept,
    )  # fmt: skip
    if bad >= 0:
        raise_singular(chain, bad)
    Z, y = np.empty((n, d, d)), np.empty((n, d))
    if smooth:
        recursions.smooth_lanes(kept, np.maximum(first - 1, 0), mean, cov, Z, y)
    return [block.finish(Z[l], y[l : l + 1]) for l, block in enumerate(blocks)]


@dataclass
class _Block:
    """One group of paths: views of the output, filled by `solve`; alone: threads are free."""

    line: Timeline
    z: Array
    seen: ObsMask
    scale: Array
    mean: Array
    cov: Array
    innovation: Array
    innovation_cov: Array
    loglik: Array
    smooth: bool
    alone: bool = False

    def begin(self) -> None:
        """Root L (d, d), by columns, and means m (n, d) at node `first` - 1: after a flat start."""
        law, n = self.line.law, len(self.mean)
        self.flat = FlatBlock(self) if law.diffuse.shape[1] else None
        if self.flat is None:
            self.L, self.m, self.first = initial_root(law.cov), np.tile(law.mean, (n, 1)), 0
        else:
            self.L, self.m, self.first = self.flat.L, self.flat.m, self.flat.done

    def finish(self, Z: Array, y: Array) -> FlatStart | None:
        """Smooth back through the flat start; Z (d, d), y (n, d) at the node where it ends."""
        if self.flat is None:
            return None
        if self.smooth:
            self.flat.smooth(Z, y)
        self.flat.report_innovations()
        return self.flat.start

    def solve(self) -> FlatStart | None:
        self.begin()
        chain, first, m = self.line.chain, self.first, self.m
        n, N, d = self.mean.shape
        p = self.z.shape[2]
        gains = recursions.empty_gains(N, d, p) if self.flat is None else self.flat.gains
        cuts = segments.borders(first, chain, self.seen, self.scale) if self.alone else [first, N]
        bad = segments.filter_covariances(
            cuts, chain, self.L, self.seen, self.scale, self.smooth, self.cov, self.innovation_cov,
            gains,
        )  # fmt: skip
        if bad >= 0:
            raise_singular(chain, bad)
        last = max(first - 1, 0)
        Z, y = np.eye(d), np.zeros((n, d))
        if self.smooth:
            Z = segments.smooth_covariances(cuts, last, gains, self.cov)

        def means(rows: slice) -> None:
            mean, innovation = self.mean[rows], self.innovation[rows]
            recursions.filter_means(
                chain, first, m[rows], gains, self.z[rows], self.seen, mean, innovation,
                self.loglik[rows],
            )  # fmt: skip
            if self.smooth:
                recursions.smooth_means(chain, last, gains, innovation, self.seen, mean, y[rows])

        spread(means, _slices(n, N * (d + p)), n * N)
        return self.finish(Z, y)


def _slices(n: int, size: int) -> list[slice]:
    """Paths 0 .. n - 1 of `size` numbers each, in pieces that a cache holds."""
    step = max(1, CACHED // size // LANES) * LANES
    return [slice(a, min(a + step, n)) for a in range(0, n, step)]
