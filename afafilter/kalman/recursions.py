"""The compiled recursions of the Kalman filter and the RTS smoother, and what they work on.

Formulas and sources stand in the core: `kalman.h` (steps), `covariances.h`, `means.h`, `lanes.h`.
Matrices are kept by columns: F[u, j] is column j of F, and likewise V^1/2, L, W, K, T, V and D (not
H). Dimensions: N nodes, T observations, n paths, state d, observation p.
"""

from __future__ import annotations

import math
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter._core import core


class Chain(NamedTuple):
    """Nodes in processing order and the matrices that they share.

    step (N,) row of F (U, d, d), b (U, d), root (U, d, d) = V^1/2 for the step into the node, F and
    root by columns; obs (N,) observation shown by the node or -1; cfg (T,) row of H (C, p, d),
    off (C, p), R (C, p, p) for the observation.
    """

    step: NDArray[np.int64]
    F: NDArray[np.float64]
    b: NDArray[np.float64]
    root: NDArray[np.float64]
    obs: NDArray[np.int64]
    cfg: NDArray[np.int64]
    H: NDArray[np.float64]
    off: NDArray[np.float64]
    R: NDArray[np.float64]


class Gains(NamedTuple):
    """What the covariances leave for the means and for the smoother.

    slot (N,) row of the rest for a node; equal consecutive nodes share one. By columns W (., p, d),
    K (., p, p), root (., d, d) = L updated; half (.,) = -(n log 2 pi + log|S|) / 2; for the step
    into the node, by columns, T (., d, d), V (., p, d), D (., d, d).
    """

    slot: NDArray[np.int64]
    W: NDArray[np.float64]
    K: NDArray[np.float64]
    half: NDArray[np.float64]
    root: NDArray[np.float64]
    T: NDArray[np.float64]
    V: NDArray[np.float64]
    D: NDArray[np.float64]


class LaneMemory(NamedTuple):
    """What the filter of several paths leaves for the smoother, per node; lanes last.

    mean (N, d, .), updated; e (N, p, .), the innovations with unit variance; by columns
    L (N, d, d, .), the updated root, and for the step into the node T, D (N, d, d, .) and
    V (N, p, d, .).
    """

    mean: NDArray[np.float64]
    e: NDArray[np.float64]
    L: NDArray[np.float64]
    T: NDArray[np.float64]
    D: NDArray[np.float64]
    V: NDArray[np.float64]


class Tracks(NamedTuple):
    """What goes along side by side, at most LANES of them, all (n,).

    Path `row` of the arrays, from node `begin` of the chain, its node 0, on. It sets out at its
    node `start`; of its nodes those from `first` to `stop` - 1 are wanted.
    """

    row: NDArray[np.int64]
    begin: NDArray[np.int64]
    start: NDArray[np.int64]
    first: NDArray[np.int64]
    stop: NDArray[np.int64]


class Paths(NamedTuple):
    """Paths with covariances of their own, one node at a time (core/flat_steps.h).

    Of each: root L (n, d, d) and flat directions M (n, q, d) by columns, mean m (n, d),
    T (n, q, q), s (n, q), error (n, q, d, d), peak and late (n, q, d) of open directions after so
    many steps (n,), doubt (n, q, 3), what rounding may do to each, start (n, q, q), what they have
    come from, and rank (n,) of the directions seen, -1 once none is left.
    """

    L: NDArray[np.float64]
    m: NDArray[np.float64]
    M: NDArray[np.float64]
    T: NDArray[np.float64]
    s: NDArray[np.float64]
    error: NDArray[np.float64]
    peak: NDArray[np.float64]
    late: NDArray[np.float64]
    steps: NDArray[np.float64]
    doubt: NDArray[np.float64]
    start: NDArray[np.float64]
    rank: NDArray[np.int64]


LANES: int = core.lanes()
"""Paths with covariances of their own that `filter_lanes` takes at a time."""
ONE_BLOCK = range(1 << 17, 1 << 22)
"""Numbers that are allocated together."""
LINE = 8
"""Numbers of a line of the cache."""


def _rooms(*shapes: tuple[int, ...]) -> list[NDArray[np.float64]]:
    """Arrays of these shapes.

    From 1 MiB to 32 MiB they lie in one block: given back one by one they would return to the
    system each time, and the next call would pay for fresh pages (glibc's malloc; what is smaller
    stays with the process, what is larger never does). The block begins with a line of the cache.
    """
    sizes = [*map(math.prod, shapes)]
    if (whole := sum(sizes)) not in ONE_BLOCK:
        return [*map(np.empty, shapes)]
    block = np.empty(whole + LINE)
    ends = accumulate(sizes, initial=-block.ctypes.data // block.itemsize % LINE)
    return [block[a:b].reshape(x) for (a, b), x in zip(pairwise(ends), shapes, strict=True)]


def empty_gains(N: int, d: int, p: int, smooth: bool = True) -> Gains:
    """Room for the gains of N nodes; without `smooth` nothing is written for the smoother."""
    slot, rows, square = np.empty(N, np.int64), (N, p, d), (N, d, d)
    forward = rows, (N, p, p), (N,), square
    if smooth:
        return Gains(slot, *_rooms(*forward, square, rows, square))
    W, K, half, root = _rooms(*forward)
    return Gains(slot, W, K, half, root, root, W, root)


def lane_memory(N: int, d: int, p: int) -> LaneMemory:
    """Room for N nodes."""
    L = (N, d, d, LANES)
    return LaneMemory(*_rooms((N, d, LANES), (N, p, LANES), L, L, L, (N, p, d, LANES)))


filter_covariances = core.filter_covariances
"""(chain, first, stop, L, seen, scale, smooth, cov, S, gains) -> -1 or a singular node.

Covariances cov (N, d, d) and S (T, p, p) of nodes first, ..., stop - 1 and the gains, for gaps
seen (T, p) and noise covariances times scale (T,). L (d, d), by columns, is the root at node
first - 1 (at first = 0: before the first observation) and becomes that at node stop - 1.
"""
smooth_covariances = core.smooth_covariances
"""(last, gains, cov, Z): cov (N, d, d) of nodes N - 2, ..., last, filtered in, smoothed out.

Z (d, d), by columns, is the root of xi's covariance at node N - 1 (the identity where nothing is
known after it) and becomes that at node `last`.
"""
filter_means = core.filter_means
"""(chain, first, m, gains, z, seen, mean, innovation, loglik): means of paths that share gains.

m (n, d) is the state at node first - 1. Fills mean (n, N, d), innovation (n, T, p), NaN where
nothing is seen, and loglik (n, T).
"""
smooth_means = core.smooth_means
"""(chain, last, gains, innovation, seen, mean, y): mean (n, N, d), filtered in, smoothed out.

y (n, d) is the mean of xi at node N - 1 (0 where nothing is known after it) and becomes that at
node `last`.
"""
filter_series = core.filter_series
"""(chain, first, L, m, given, filled, gains, Z, y); given, filled: as `Group` has them.

The four above, one after the other: Z (d, d) and y (n, d) become root and mean of xi at node
first - 1 (at first = 0: node 0). -> -1 or a singular node.
"""
filter_whole = core.filter_whole
"""(chain, root, start, smooth, z, filled, doubts) -> -1 or a node.

`filter_series` of series without gaps from a proper start, which makes its own room for gains, and
`magnification`.
"""
magnification = core.magnification
"""(S, cfg, R, scale, z, doubts): lost and far of `_base.doubts`, doubts (2,).

S (G, T, p, p), scale (G or 1, T), z (n, T, p).
"""
filter_lanes = core.filter_lanes
"""(chain, tracks, nodes, L0, m0, given, filled, kept, roots, means) -> node.

So many nodes of each track, of paths z (n, T, p) with gaps seen (n, T, p) and scale (n, T) of their
own. L0 (tracks, d, d), by columns, and m0 (tracks, d): root and mean one node before a track's
start (at its node 0: there, before its observation). Where tracks show something at the same time
it is the same row of H, off and R. Fills what is wanted of mean (n, N, d) and cov (n, N, d, d)
(with `smooth` of the last node only), innovation (n, T, p), S (n, T, p, p), loglik (n, T) and, with
`smooth`, kept; roots (tracks, 2, d, d) and means (tracks, 2, d) get the laws at a track's nodes
first - 1 and stop - 1. Returns -1, or a node of tracks at which an innovation covariance is
singular.
"""
smooth_lanes = core.smooth_lanes
"""(kept, tracks, nodes, mean, cov, roots, means): what is wanted but the last node, smoothed.

roots (tracks, 2, d, d), by columns, and means (tracks, 2, d) get root and mean of xi at node
`first`, and those of the state at node `stop`, where a track has one.
"""
filter_flat = core.filter_flat
"""(chain, gains, times, sizes, law, given, filled, kept, open, rotation, outcome, facts).

Nodes from 0 on while flat directions are open. See core/flat_start.h; `flat_start` alone calls it.
"""
smooth_flat = core.smooth_flat
"""(chain, last, gains, M, E, innovation, seen, J, y, mean, P): back through the flat start."""
carry_open = core.carry_open
"""(chain, times, sizes, first, start, open, steps, directions, rounding): open directions (r, d) at
every node from `first` on, where they are `start`; open: error, peak, late of core/rank.h."""
add_delta = core.add_delta
"""(M, T, s, count, mean, cov): add to x = m + M delta + noise what T delta = s says of delta."""
report_states = core.report_states
"""(M, tolerance, T, s, count, smoothed, mean, P, given, cov) -> nodes at which something is open.

Laws of the first c nodes as they are reported, and as they are given gamma = 0 (core/flat_start.h).
"""
report_innovations = core.report_innovations
"""(obs, stop, E, T, s, count, innovation, S): innovations of a flat start as they are reported."""
predict_all = core.predict_all
"""(chain, k, tau, stamp, sizes, paths): carry every path over the step into node k."""
innovations_all = core.innovations_all
"""(chain, o, z, paths, v, S, known): innovations of observation o before it is used."""
update_all = core.update_all
"""(chain, o, z, seen, scale, paths, loglik, doubts): condition every path on observation o, noise
times scale; loglik (n,) is that of the observation, doubts (3,) are those of `_base.doubts`."""
filter_mixture = core.filter_mixture
"""(chain, times, sizes, rate, scale, L, m, D, z, seen, out, kept, outcome): one series (T, p).

See core/mixture.h; `mixture` alone calls it.
"""
step_filter = core.step_filter
"""(moved, F, b, root, H, off, R, z, L, m, cov, v, S, doubts) -> log-likelihood or NaN
(core/stream.h); doubts (2,): lost and far of `_base.doubts` so far."""
