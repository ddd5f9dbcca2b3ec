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
from afafilter._core import kalman_flat_kernels as flat_kernels
from afafilter.kalman import recursions, segments
from afafilter.kalman.recursions import LANES
from afafilter.kalman.timeline import Index, Timeline
from afafilter.linalg.transitions import lower_roots

UNSEEN_TOL = 1e-9
"""A state component counts as undetermined when it moves by more than this per unit of delta."""
SIDE_BY_SIDE = 3
"""Paths with gaps of their own from which they share vector registers."""
CACHED = 250_000
"""Numbers that a cache holds from the filter until the smoother wants them."""


@dataclass
class FlatStart:
    """The nodes at the start of a group where delta is not integrated out (see flat kernels).

    M (c, d, q), T (c, q, q), s (n, c, q) after each node. For a smoothed run `unseen` (c, d, r) is
    what the directions that the whole series leaves open do to the state.
    """

    M: Array
    T: Array
    s: Array
    unseen: Array | None = None


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
        self.flat = _FlatBlock(self) if law.diffuse.shape[1] else None
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


class _FlatBlock:
    """The start of a group, while flat directions are open; afterwards L, m go on from `done`."""

    def __init__(self, block: _Block) -> None:
        (_, N, d), p = block.mean.shape, block.z.shape[2]
        self.block, self.gains = block, recursions.empty_gains(N, d, p)
        N, q = len(block.line.times), block.line.law.diffuse.shape[1]
        size, spare = min(N, 4 * q + 16), 0.0
        while True:
            singular = self._filter(size, spare)
            if singular >= 0:
                # Flat plus N(0, D D^T) is flat: without measurement noise this keeps S definite.
                if spare:
                    raise_singular(block.line.chain, singular)
                spare = 1.0
            elif self.integrated or size == N:
                break
            else:
                size = min(N, 4 * size)
        kept = self.done - self.integrated
        self.start = FlatStart(self.Ms[:kept], self.Ts[:kept], self.ss[:, :kept])

    def _filter(self, size: int, spare: float) -> int:
        block = self.block
        law, (n, _, d), (T, p) = block.line.law, block.mean.shape, block.seen.shape
        D = law.diffuse
        q = D.shape[1]
        self.L, self.m = initial_root(law.cov + spare * D @ D.T), np.tile(law.mean, (n, 1))
        self.M, self.T, self.s = np.array(D, order="C"), np.zeros((q, q)), np.zeros((n, q))
        self.Ms, self.Ts = np.empty((size, d, q)), np.empty((size, q, q))
        self.Es, self.ss = np.empty((T, p, q)), np.empty((n, size, q))
        self.rotation = np.empty((d + q, d + q))
        self.done, self.integrated, singular = flat_kernels.filter_flat(
            block.line.chain, self.gains, self.L, self.m, self.M, self.T, self.s, block.seen,
            block.scale, block.smooth, block.z, block.cov, block.innovation_cov, block.mean,
            block.innovation, block.loglik, self.Ms, self.Es, self.Ts, self.ss, self.rotation,
        )  # fmt: skip
        return int(singular)

    def report_innovations(self) -> None:
        """Innovations are known given delta = 0; report them with delta as known before each."""
        block, q = self.block, self.T.shape[0]
        obs = block.line.chain.obs[: self.done]
        nodes = np.flatnonzero(obs >= 0)
        T = np.zeros((len(nodes), q, q))
        s = np.zeros((len(block.z), len(nodes), q))
        later = nodes > 0
        T[later] = self.Ts[nodes[later] - 1]
        s[:, later] = self.ss[:, nodes[later] - 1]
        seen = obs[nodes]
        block.innovation[:, seen], block.innovation_cov[seen] = settle(
            block.innovation[:, seen], block.innovation_cov[seen], -self.Es[seen], T, s
        )

    def smooth(self, Z: Array, y: Array) -> None:
        """Smooth back through the flat start.

        Where delta was integrated out: Z (d, d), by columns, and y (n, d), what the later data say
        about xi'.
        """
        block, last = self.block, self.done - 1
        mean, cov = block.mean, block.cov
        d, q = self.M.shape
        J, joint = np.eye(d + q), np.zeros((len(mean), d + q))
        null: Array = np.zeros((q, 0))
        if self.integrated:
            J[:d, :d] = Z.T
            J = self.rotation @ J
            joint += y @ self.rotation[:, :d].T
            joint[:, d:] += np.linalg.solve(self.T, self.s.T).T
        else:
            inverse, nulls = _regression(self.T[None])
            J[d:, d:], null = inverse[0], nulls[0]
            joint[:, d:] = self.s @ J[d:, d:].T
            mean[:, last] += joint[:, d:] @ self.M.T
            moved = self.M @ J[d:, d:]
            cov[last] += moved @ moved.T
        flat_kernels.smooth_flat(
            block.line.chain, last, self.gains, self.Ms, self.Es, block.innovation, block.seen, J,
            joint, mean, cov,
        )  # fmt: skip
        self.start.unseen = self.start.M @ null


def raise_singular(chain: recursions.Chain, node: int) -> None:
    """Say which observation is predicted exactly."""
    raise ValueError(
        f"R is singular and observation {chain.obs[node]} is predicted without error, so that its "
        "likelihood is not defined; give R (or obs_cov) a positive variance there"
    )


def initial_root(P: Array) -> Array:
    """Columns of the lower root of a semidefinite matrix."""
    root: Array = lower_roots(P[None])[0]
    return root


def _regression(T: Array) -> tuple[Array, Array]:
    """Pseudo-inverses (k, q, q) and open directions (k, q, q; 0: none) of T (k, q, q)."""
    q = T.shape[-1]
    size = np.sqrt((T**2).sum(axis=-2))
    size[size == 0] = 1.0
    U, values, Vt = np.linalg.svd(T / size[:, None, :])
    filled = np.count_nonzero(np.diagonal(T, axis1=-2, axis2=-1), axis=-1)
    used = np.arange(q) < filled[:, None]
    V = np.swapaxes(Vt, -1, -2) / size[:, :, None]
    inverse = (V * np.where(used, 1 / np.where(used, values, 1.0), 0.0)[:, None, :]) @ np.swapaxes(
        U, -1, -2
    )
    null = np.where(used[:, None, :], 0.0, V)
    length = np.sqrt((null**2).sum(axis=-2, keepdims=True))
    return inverse, null / np.where(length == 0, 1.0, length)


def settle(m: Array, P: Array, M: Array, T: Array, s: Array) -> tuple[Array, Array]:
    """Report x = m + M delta + noise with delta as far as T delta = s determines it.

    m (n, k, d), P (k, d, d), M (k, d, q), T (k, q, q), s (n, k, q).
    """
    inverse, null = _regression(T)
    root = M @ inverse
    mean = m + np.einsum("kij,nkj->nki", root, s)
    return mark_unseen(mean, P + root @ np.swapaxes(root, -1, -2), M @ null, M)


def mark_unseen(mean: Array, cov: Array, unseen: Array, M: Array) -> tuple[Array, Array]:
    """NaN means, infinite variances and zero covariances where `unseen` (k, d, r) moves the state.

    M (k, d, q) sets the scale below which movement is rounding.
    """
    scale = np.maximum(1.0, np.abs(M).max(axis=(-1, -2), initial=0.0))
    with np.errstate(invalid="ignore"):
        known = np.abs(unseen).sum(axis=-1) <= UNSEEN_TOL * scale[:, None]
    known &= np.isfinite(np.diagonal(cov, axis1=-2, axis2=-1))
    mean = np.where(known, mean, np.nan)
    cov = np.where(known[..., :, None] & known[..., None, :], cov, 0.0)
    rows, components = np.nonzero(~known)
    cov[rows, components, components] = np.inf
    return mean, cov


def _slices(n: int, size: int) -> list[slice]:
    """Paths 0 .. n - 1 of `size` numbers each, in pieces that a cache holds."""
    step = max(1, CACHED // size // LANES) * LANES
    return [slice(a, min(a + step, n)) for a in range(0, n, step)]
