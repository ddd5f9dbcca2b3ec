"""Compiled recursions of the Kalman filter and the RTS smoother along a chain of nodes.

x_k = F x_{k-1} + b + w,  w ~ N(0, V)        z = H x + off + v,  v ~ N(0, R)
filter    roots of P, gains W and K (see `_kalman_root_kernels`), then means path by path
smooth    P_s = C + G P_s' G^T,  m_s = m + G (m_s' - F m - b)    C = P - G P' G^T, ' = next node
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter._kalman_root_kernels import (
    bare,
    column_space,
    double,
    face,
    gram,
    innovation_cov,
    jit,
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
from afafilter._lanes import LANES, load, load_some, spread, store, store_some

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
def filter_means(
    chain: Any, first: Any, m: Any, gains: Any, z: Any, seen: Any, mean: Any, innovation: Any,
    loglik: Any, state: Any, shown: Any,
) -> None:  # fmt: skip
    """Means (n, N, d) of paths that share covariances; m (n, d) is the state at node first - 1.

    state, shown : d and p (see `size`).
    """
    d, p = size(state), size(shown)
    _filter_means(
        chain, first, m, gains, z, seen, mean, innovation, loglik, np.zeros((2, padded(d))),
        np.zeros((2, padded(p))), np.zeros((d, padded(p))), state, shown,
    )  # fmt: skip


@bare
def _filter_means(
    chain: Any, first: Any, m: Any, gains: Any, z: Any, seen: Any, mean: Any, innovation: Any,
    loglik: Any, states: Any, shows: Any, across: Any, state: Any, shown: Any,
) -> None:  # fmt: skip
    """`filter_means` with its work space."""
    paths, n = z.shape[0], chain.step.shape[0]
    d, p = size(state), size(shown)
    x, before = states[0], states[1]
    v, e = shows[0], shows[1]
    faced = -1
    for path in range(paths):
        for i in range(d):
            x[i] = m[path, i]
        for k in range(first, n):
            o = chain.obs[k]
            if k > 0:
                u = chain.step[k]
                before, x = x, before
                for b in range(0, d, LANES):
                    t = load_some(chain.b, (u, b), d - b)
                    for j in range(d):
                        t += before[j] * load_some(chain.F, (u, j, b), d - b)
                    store(x, b, t)
            if o >= 0:
                c, g = chain.cfg[o], gains.slot[k]
                if c != faced:
                    for i in range(d):
                        for a in range(p):
                            across[i, a] = chain.H[c, a, i]
                    faced = c
                for b in range(0, p, LANES):
                    t = load_some(z, (path, o, b), p - b) - load_some(chain.off, (c, b), p - b)
                    for i in range(d):
                        t -= x[i] * load(across, (i, b))
                    store(v, b, t)
                    store_some(innovation, (path, o, b), t, 0, p - b)
                for a in range(p):
                    if not seen[o, a]:
                        v[a] = 0.0
                        innovation[path, o, a] = np.nan
                for b in range(0, p, LANES):
                    t = spread(0.0)
                    for a in range(p):
                        t += v[a] * load_some(gains.K, (g, a, b), p - b)
                    store(e, b, t)
                total = 0.0
                for a in range(p):
                    total += e[a] * e[a]
                loglik[path, o] = gains.half[g] - 0.5 * total
                for b in range(0, d, LANES):
                    t = load(x, b)
                    for a in range(p):
                        t += e[a] * load_some(gains.W, (g, a, b), d - b)
                    store(x, b, t)
            for b in range(0, d, LANES):
                store_some(mean, (path, k, b), load(x, b), 0, d - b)


@jit
def filter_means_beside(
    chain: Any, first: Any, m: Any, gains: Any, z: Any, seen: Any, mean: Any, innovation: Any,
    loglik: Any, state: Any, shown: Any,
) -> None:  # fmt: skip
    """`filter_means` with LANES paths side by side."""
    d, p = size(state), size(shown)
    _filter_means_beside(
        chain, first, m, gains, z, seen, mean, innovation, loglik, np.zeros((2, d, LANES)),
        np.zeros((3, p, LANES)), state, shown,
    )  # fmt: skip


@bare
def _filter_means_beside(
    chain: Any, first: Any, m: Any, gains: Any, z: Any, seen: Any, mean: Any, innovation: Any,
    loglik: Any, states: Any, shows: Any, state: Any, shown: Any,
) -> None:  # fmt: skip
    """`filter_means_beside` with its work space."""
    paths, n = z.shape[0], chain.step.shape[0]
    d, p = size(state), size(shown)
    x, before = states[0], states[1]
    data, v, e = shows[0], shows[1], shows[2]
    for start in range(0, paths, LANES):
        lanes = min(LANES, paths - start)
        for i in range(d):
            for l in range(lanes):
                x[i, l] = m[start + l, i]
        for k in range(first, n):
            o = chain.obs[k]
            if o >= 0:  # gathered early: vectors cannot be read right after single numbers
                for l in range(lanes):
                    for a in range(p):
                        data[a, l] = z[start + l, o, a]
            if k > 0:
                u = chain.step[k]
                before, x = x, before
                for i in range(d):
                    store(x, (i, 0), spread(chain.b[u, i]))
                _add_product(chain.F[u], before, x, state, state)
            if o >= 0:
                c, g = chain.cfg[o], gains.slot[k]
                for a in range(p):
                    t = spread(chain.off[c, a])
                    for i in range(d):
                        t += chain.H[c, a, i] * load(x, (i, 0))
                    if seen[o, a]:
                        t = load(data, (a, 0)) - t
                    store(v, (a, 0), t)
                for l in range(lanes):
                    for a in range(p):
                        innovation[start + l, o, a] = v[a, l] if seen[o, a] else np.nan
                _product(gains.K[g], v, e, shown, shown)
                _add_product(gains.W[g], e, x, state, shown)
                for l in range(lanes):
                    total = 0.0
                    for a in range(p):
                        total += e[a, l] * e[a, l]
                    loglik[start + l, o] = gains.half[g] - 0.5 * total
            for l in range(lanes):
                for i in range(d):
                    mean[start + l, k, i] = x[i, l]


@bare
def _add_product(M: Any, x: Any, out: Any, rows: Any, columns: Any) -> None:
    """out += M @ x, M by columns, for the LANES columns of x."""
    for i in range(size(rows)):
        total = load(out, (i, 0))
        for j in range(size(columns)):
            total += M[j, i] * load(x, (j, 0))
        store(out, (i, 0), total)


@bare
def _product(M: Any, x: Any, out: Any, rows: Any, columns: Any) -> None:
    """out = M @ x, M by columns, for the LANES columns of x."""
    for i in range(size(rows)):
        total = spread(0.0)
        for j in range(size(columns)):
            total += M[j, i] * load(x, (j, 0))
        store(out, (i, 0), total)


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


@jit
def smooth_means(
    chain: Any, last: Any, gains: Any, innovation: Any, seen: Any, mean: Any, y: Any, state: Any,
    shown: Any,
) -> None:  # fmt: skip
    """Means (n, N, d) of nodes N - 2, ..., last: filtered in, smoothed out.

    y (n, d) gets the mean of xi at node `last`; state, shown as in `filter_means`.
    """
    d, p = size(state), size(shown)
    _smooth_means(
        chain, last, gains, innovation, seen, mean, y, np.zeros((2, padded(d))),
        np.zeros((2, padded(p))), state, shown,
    )  # fmt: skip


@bare
def _smooth_means(
    chain: Any, last: Any, gains: Any, innovation: Any, seen: Any, mean: Any, y: Any, states: Any,
    shows: Any, state: Any, shown: Any,
) -> None:  # fmt: skip
    """`smooth_means` with its work space."""
    paths, n = mean.shape[0], mean.shape[1]
    d, p = size(state), size(shown)
    x, before = states[0], states[1]
    v, e = shows[0], shows[1]
    for path in range(paths):
        for b in range(0, d, LANES):
            store(x, b, spread(0.0))
        for k in range(n - 2, last - 1, -1):
            s, g, o = gains.slot[k + 1], gains.slot[k], chain.obs[k + 1]
            if o >= 0:
                for b in range(0, p, LANES):
                    store(v, b, load_some(innovation, (path, o, b), p - b))
                for a in range(p):
                    if not seen[o, a]:
                        v[a] = 0.0
                for b in range(0, p, LANES):
                    t = spread(0.0)
                    for a in range(p):
                        t += v[a] * load_some(gains.K, (s, a, b), p - b)
                    store(e, b, t)
            before, x = x, before
            for b in range(0, d, LANES):
                t = spread(0.0)
                for j in range(d):
                    t += before[j] * load_some(gains.T, (s, j, b), d - b)
                if o >= 0:
                    for a in range(p):
                        t += e[a] * load_some(gains.V, (s, a, b), d - b)
                store(x, b, t)
            for b in range(0, d, LANES):
                t = load_some(mean, (path, k, b), d - b)
                for j in range(d):
                    t += x[j] * load_some(gains.root, (g, j, b), d - b)
                store_some(mean, (path, k, b), t, 0, d - b)
        for i in range(d):
            y[path, i] = x[i]


@jit
def smooth_means_beside(
    chain: Any, last: Any, gains: Any, innovation: Any, seen: Any, mean: Any, y: Any, state: Any,
    shown: Any,
) -> None:  # fmt: skip
    """`smooth_means` with LANES paths side by side."""
    d, p = size(state), size(shown)
    _smooth_means_beside(
        chain, last, gains, innovation, seen, mean, y, np.zeros((3, d, LANES)),
        np.zeros((2, p, LANES)), state, shown,
    )  # fmt: skip


@bare
def _smooth_means_beside(
    chain: Any, last: Any, gains: Any, innovation: Any, seen: Any, mean: Any, y: Any, states: Any,
    shows: Any, state: Any, shown: Any,
) -> None:  # fmt: skip
    """`smooth_means_beside` with its work space."""
    paths, n = mean.shape[0], mean.shape[1]
    d, p = size(state), size(shown)
    x, before, move = states[0], states[1], states[2]
    v, e = shows[0], shows[1]
    for start in range(0, paths, LANES):
        lanes = min(LANES, paths - start)
        for i in range(d):
            store(x, (i, 0), spread(0.0))
        for k in range(n - 2, last - 1, -1):
            s, g, o = gains.slot[k + 1], gains.slot[k], chain.obs[k + 1]
            if o >= 0:
                for l in range(lanes):
                    for a in range(p):
                        v[a, l] = innovation[start + l, o, a] if seen[o, a] else 0.0
            before, x = x, before
            _product(gains.T[s], before, x, state, state)
            if o >= 0:
                _product(gains.K[s], v, e, shown, shown)
                _add_product(gains.V[s], e, x, state, shown)
            _product(gains.root[g], x, move, state, state)
            for l in range(lanes):
                for i in range(d):
                    mean[start + l, k, i] += move[i, l]
        for i in range(d):
            for l in range(lanes):
                y[start + l, i] = x[i, l]
