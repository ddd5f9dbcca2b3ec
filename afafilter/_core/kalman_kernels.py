"""Compiled recursions for the covariances of the Kalman filter and the RTS smoother.

x_k = F x_{k-1} + b + w,  w ~ N(0, V)        z = H x + off + v,  v ~ N(0, R)
filter    roots of P, gains W and K (see `_kalman_root_kernels`)
smooth    P_s = C + G P_s' G^T    C = P - G P' G^T, ' = next node along the chain

Means follow from what is left here, path by path: `_kalman_mean_kernels`.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter._core.jit import bare, jit
from afafilter._core.kalman_root_kernels import (
    column_space,
    double,
    face,
    gram,
    innovation_cov,
    padded,
    predict_root,
    read_columns,
    shown_space,
    size,
    split_noise,
    triangularise,
    update_root,
    write_columns,
)
from afafilter._core.lanes import LANES, load, load_some, spread, store, store_some

SETTLED = 1e-13
SHORTEST_WINDOW = 16
SHRINKING = 0.9
"""Greatest factor by which changes shrink that is trusted to go on."""


class Chain(NamedTuple):
    """Nodes in processing order and the matrices that they share.

    step (N,) row of F (U, d, d), b (U, d), root (U, d, d) = V^1/2 for the step into the node, F and
    root by columns (F[u, j] is one); obs (N,) observation shown by the node or -1; cfg (T,) row of
    H (C, p, d), off (C, p), R (C, p, p) for the observation.
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


ONE_BLOCK = range(1 << 17, 1 << 22)
"""Numbers that are allocated together."""


def empty_gains(N: int, d: int, p: int) -> Gains:
    """Room for the gains of N nodes.

    From 1 MiB to 32 MiB they lie in one block: given back one by one they would return to the
    system each time, and the next call would pay for fresh pages (glibc's malloc; what is smaller
    stays with the process, what is larger never does).
    """
    shapes = (p, d), (p, p), (), (d, d), (d, d), (p, d), (d, d)
    sizes = [N * math.prod(shape) for shape in shapes]
    if (whole := sum(sizes)) not in ONE_BLOCK:
        parts = [np.empty((N, *shape)) for shape in shapes]
    else:
        block, ends = np.empty(whole), accumulate(sizes)
        parts = [
            block[end - size : end].reshape(N, *shape)
            for end, size, shape in zip(ends, sizes, shapes, strict=True)
        ]
    W, K, half, root, T, V, D = parts
    return Gains(np.empty(N, np.int64), W, K, half, root, T, V, D)


@bare
def _change(A: Any, B: Any, state: Any) -> Any:
    """Largest change of a row between two roots, relative to the row."""
    d = size(state)
    largest = 0.0
    for i in range(d):
        total, change = 0.0, 0.0
        for j in range(d):
            total += A[j, i] ** 2
            change += (A[j, i] - B[j, i]) ** 2
        if change > largest * total:
            largest = change / total if total > 0.0 else np.inf
    return np.sqrt(largest)


@bare
def _has_settled(A: Any, run: Any, trace: Any, state: Any) -> Any:
    """Whether a root has reached its fixed point, asked after each of `run` equal steps.

    Changes over SHORTEST_WINDOW steps that shrink by a factor q leave q / (1 - q) of the last one
    to come. Near rounding q says nothing; there the root is compared over a fifth of the run, so
    that slow convergence is not taken for a fixed point.
    A : its columns. trace: two earlier roots (2, d, d), when the second is due, the last change.
    """
    roots, due, last = trace
    if run == 0:
        due[0], last[0] = SHORTEST_WINDOW, 0.0
        write_columns(A, 0, 0, roots[0], state)
        write_columns(A, 0, 0, roots[1], state)
        return False
    settled = False
    if run % SHORTEST_WINDOW == 0:
        change = _change(A, roots[0], state)
        if last[0] > 0.0:
            q = change / last[0]
            settled = q < SHRINKING and change * q <= SETTLED * (1.0 - q)
        last[0] = change
        write_columns(A, 0, 0, roots[0], state)
    if run == due[0]:
        settled = settled or _change(A, roots[1], state) <= SETTLED
        write_columns(A, 0, 0, roots[1], state)
        due[0] = run + max(SHORTEST_WINDOW, run // 4)
    return settled


@jit
def _trace(d: Any) -> Any:
    """What `_has_settled` remembers."""
    return np.zeros((2, d, d)), np.zeros(1, np.int64), np.zeros(1)


@bare
def _same_setting(chain: Any, seen: Any, scale: Any, k: Any) -> bool:
    """Whether node k repeats its predecessor: same step, same observation row, same gaps."""
    if chain.step[k] != chain.step[k - 1]:
        return False
    o, q = chain.obs[k], chain.obs[k - 1]
    if o < 0 or q < 0:
        return bool(o < 0 and q < 0)
    if chain.cfg[o] != chain.cfg[q] or scale[o] != scale[q]:
        return False
    for a in range(seen.shape[1]):  # noqa: SIM110 (compiled)
        if seen[o, a] != seen[q, a]:
            return False
    return True


@bare
def _repeat(x: Any, before: Any, now: Any) -> None:
    """Matrix `now` of a stack <- matrix `before`."""
    n = x.shape[1] * x.shape[2]
    for b in range(0, n, LANES):
        store_some(x, (now, 0, b), load_some(x, (before, 0, b), n - b), 0, n - b)


@jit
def filter_covariances(
    chain: Any, first: Any, stop: Any, L: Any, seen: Any, scale: Any, smooth: Any, P: Any, S: Any,
    gains: Any, state: Any, shown: Any,
) -> int:  # fmt: skip
    """Covariances P (N, d, d) and S (T, p, p) of nodes first, ..., stop - 1 and the gains.

    L, by columns, is the root at node first - 1 (at first = 0: before the first observation) and
    becomes that at node stop - 1. On a constant stretch the recursion stops once the root has
    reached its fixed point to rounding.

    state, shown : d and p (see `size`). Returns -1, or the node at which the innovation covariance
    is singular.
    """
    d, p = size(state), size(shown)
    space = column_space(2 * d, 2 * d if smooth else d)
    read_columns(L, space.A)
    bad: int = _filter_covariances(
        chain, first, stop, seen, scale, smooth, P, S, gains, space, shown_space(p, d), _trace(d),
        state, shown,
    )  # fmt: skip
    write_columns(space.A, 0, 0, L, state)
    return bad


@bare
def _filter_covariances(
    chain: Any, first: Any, stop: Any, seen: Any, scale: Any, smooth: Any, P: Any, S: Any,
    gains: Any, space: Any, work: Any, trace: Any, state: Any, shown: Any,
) -> int:  # fmt: skip
    """`filter_covariances` with its work space, which holds L."""
    A, d = space.A, size(state)
    run, settled, correlated, faced = 0, False, False, -1
    for k in range(first, stop):
        o = chain.obs[k]
        if k > first + 1 and _same_setting(chain, seen, scale, k):
            run += 1
            if settled:
                gains.slot[k] = gains.slot[k - 1]
                _repeat(P, k - 1, k)
                if o >= 0:
                    _repeat(S, chain.obs[k - 1], o)
                continue
        else:
            run, settled = 0, False
        gains.slot[k] = k
        if k > 0:
            predict_root(chain.F[chain.step[k]], chain.root[chain.step[k]], space, smooth, state)
        if smooth:
            write_columns(A, d, d, gains.D[k], state)
        if o >= 0:
            c = chain.cfg[o]
            if c != faced:
                face(chain.H[c], work, state, shown)
                faced = c
            innovation_cov(chain.R[c], scale[o], A, S[o], work, state, shown)
            if run == 0:
                correlated = split_noise(chain.R[c], scale[o], seen[o], work, shown)
            gains.half[k] = update_root(
                seen[o], S[o], A, gains.W[k], gains.K[k], gains.V[k], work, correlated, smooth,
                state, shown,
            )  # fmt: skip
            if np.isnan(gains.half[k]):
                return k
        if smooth:
            write_columns(A, 0, 0, gains.root[k], state)
            write_columns(A, 0, d, gains.T[k], state)
        gram(A, P[k], state, state)
        settled = _has_settled(A, run, trace, state)
    return -1


@jit
def smooth_covariances(last: Any, gains: Any, P: Any, Z: Any, state: Any) -> None:
    """P (N, d, d) of nodes N - 2, ..., last: filtered in, smoothed out.

    Z (d, d), by columns, is the root of xi's covariance at node N - 1 (the identity where nothing
    is known after it) and becomes that at node `last`.
    """
    d = size(state)
    work, LZ = np.zeros((d, padded(d))), np.zeros((d, padded(d)))
    read_columns(Z, work)
    _smooth_covariances(last, gains, P, work, LZ, column_space(2 * d, d), _trace(d), state)
    write_columns(work, 0, 0, Z, state)


@bare
def _smooth_covariances(
    last: Any, gains: Any, P: Any, Z: Any, LZ: Any, space: Any, trace: Any, state: Any
) -> None:
    """`smooth_covariances` with its work space."""
    n, d = P.shape[0], size(state)
    A = space.A
    run, settled = 0, False
    for k in range(n - 2, last - 1, -1):
        s, g = gains.slot[k + 1], gains.slot[k]
        if k < n - 2 and s == gains.slot[k + 2] and g == s:
            run += 1
            if settled:
                _repeat(P, k + 1, k)
                continue
        else:
            run, settled = 0, False
        for c in range(d):
            for b in range(0, d, LANES):
                x = spread(0.0)
                for j in range(c, d):
                    x += Z[c, j] * load_some(gains.T, (s, j, b), d - b)
                store(A, (c, b), x)
                store(A, (d + c, b), load_some(gains.D, (s, c, b), d - b))
        triangularise(space, state, double(state), double(state))
        for c in range(d):
            for b in range(0, d, LANES):
                store(Z, (c, b), load(A, (c, b)))
        for c in range(d):
            for b in range(0, d, LANES):
                x = spread(0.0)
                for j in range(c, d):
                    x += Z[c, j] * load_some(gains.root, (g, j, b), d - b)
                store(LZ, (c, b), x)
        gram(LZ, P[k], state, state)
        settled = _has_settled(Z, run, trace, state)
