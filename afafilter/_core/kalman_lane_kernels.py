"""Filter and smoother of LANES paths side by side, each with covariances and gaps of its own.

The recursions of `_kalman_root_kernels`, for as many paths at once as a vector register holds:
every array has a last axis of LANES, and what one path skips (a missing component, a row without a
pivot) is multiplied by 0 instead. The chain of nodes is the same for all.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter._core.jit import jit
from afafilter._core.kalman_root_kernels import EPS, LOG_2PI, double, size
from afafilter._core.lanes import LANES, load, root, spread, store, where_positive


class Memory(NamedTuple):
    """What the filter leaves for the smoother, per node; lanes last.

    mean (N, d, .), updated; e (N, p, .), the innovations with unit variance; L (N, d, d, .), the
    updated root; for the step into the node T, D (N, d, d, .) and V (N, d, p, .).
    """

    mean: NDArray[np.float64]
    e: NDArray[np.float64]
    L: NDArray[np.float64]
    T: NDArray[np.float64]
    D: NDArray[np.float64]
    V: NDArray[np.float64]


def memory(N: int, d: int, p: int) -> Memory:
    """Room for N nodes."""
    square = (N, d, d, LANES)
    return Memory(
        np.empty((N, d, LANES)), np.empty((N, p, LANES)), np.empty(square), np.empty(square),
        np.empty(square), np.empty((N, d, p, LANES)),
    )  # fmt: skip


@jit
def _triangularise(A: Any, height: Any, rows: Any, columns: Any, reach: Any) -> None:
    """As `_kalman_root_kernels.triangularise`, with A (columns, height, LANES).

    The pivot of row j stays in column j, that of a dependent row is 0.
    """
    one = spread(1.0)
    for j in range(size(rows)):
        end = min(size(columns), size(reach) + j + 1)
        done = spread(0.0)
        for c in range(j):
            done += load(A, (c, j, 0)) * load(A, (c, j, 0))
        rest = spread(0.0)
        for c in range(j, end):
            rest += load(A, (c, j, 0)) * load(A, (c, j, 0))
        pivots = rest - (8 * size(columns) * EPS) ** 2 * (done + rest)
        norm = where_positive(pivots, root(rest), spread(0.0))
        first = load(A, (j, j, 0))
        flip = where_positive(first, one, -1.0 * one)
        head = first + flip * norm
        beta = where_positive(pivots, one / (norm * (flip * head)), spread(0.0))
        for i in range(j + 1, size(height)):
            dot = head * load(A, (j, i, 0))
            for c in range(j + 1, end):
                dot += load(A, (c, j, 0)) * load(A, (c, i, 0))
            dot *= beta
            store(A, (j, i, 0), flip * (head * dot - load(A, (j, i, 0))))
            for c in range(j + 1, end):
                store(A, (c, i, 0), load(A, (c, i, 0)) - load(A, (c, j, 0)) * dot)
        store(A, (j, j, 0), norm)
        for c in range(j + 1, end):
            store(A, (c, j, 0), spread(0.0))


@jit
def _predict(F: Any, V: Any, L: Any, A: Any, smooth: Any, state: Any) -> None:
    """A <- [F L, V^1/2; I, 0] Theta, L <- its upper left; see `predict_root`."""
    d = size(state)
    for c in range(d):
        for i in range(d):
            t = spread(0.0)
            for k in range(d):
                t += F[k, i] * load(L, (k, c, 0))
            store(A, (c, i, 0), t)
            store(A, (d + c, i, 0), spread(V[c, i]))
        if smooth:
            for i in range(d):
                store(A, (c, d + i, 0), spread(1.0 if i == c else 0.0))
                store(A, (d + c, d + i, 0), spread(0.0))
    if smooth:
        _triangularise(A, double(state), state, double(state), state)
    else:
        _triangularise(A, state, state, double(state), state)
    for i in range(d):
        for c in range(d):
            store(L, (i, c, 0), load(A, (c, i, 0)))


@jit
def _gram(X: Any, out: Any, rows: Any, columns: Any) -> None:
    """out = X X^T."""
    for i in range(size(rows)):
        for j in range(i + 1):
            t = spread(0.0)
            for k in range(size(columns)):
                t += load(X, (i, k, 0)) * load(X, (j, k, 0))
            store(out, (i, j, 0), t)
            store(out, (j, i, 0), t)


@jit
def filter_lanes(
    chain: Any, first: Any, L0: Any, m0: Any, seen: Any, scale: Any, smooth: Any, z: Any, mean: Any,
    P: Any, innovation: Any, S: Any, loglik: Any, kept: Any,
    state: Any, shown: Any,
) -> Any:  # fmt: skip
    """Filter paths z (n, T, p), n <= LANES; path l from node first[l] on.

    L0 (n, d, d), by columns, m0 (n, d): root and mean at node first - 1 (at first = 0: before the
    first observation). seen (n, T, p); scale (n, T) of the noise covariance. Fills the means
    (n, N, d), P (n, N, d, d) unless `smooth`, innovations (n, T, p), S (n, T, p, p), loglik (n, T),
    and kept.

    state, shown : d and p (see `size`). Returns -1, or a node at which an innovation covariance is
    singular.
    """
    n, N = z.shape[0], chain.step.shape[0]
    d, p = size(state), size(shown)
    L, A = np.zeros((d, d, LANES)), np.zeros((2 * d, 2 * d if smooth else d, LANES))
    x, before = np.zeros((d, LANES)), np.zeros((d, LANES))
    h, low, D = np.zeros((p, d, LANES)), np.zeros((p, p, LANES)), np.zeros((p, LANES))
    phi, X, Y = np.zeros((d, LANES)), np.zeros((2 * d, LANES)), np.zeros((p, d, LANES))
    data, mask, noise = np.zeros((p, LANES)), np.zeros((p, LANES)), np.ones((1, LANES))
    v, f = np.zeros((p, LANES)), np.ones((p, LANES))
    cov, square = np.zeros((p, p, LANES)), np.zeros((d, d, LANES))
    rows = 2 * d if smooth else d
    for k in range(first.min(), N):
        slot = k if smooth else 0
        for l in range(n):
            if first[l] == k:
                for i in range(d):
                    x[i, l] = m0[l, i]
                    for j in range(d):
                        L[i, j, l] = L0[l, j, i]
                        if smooth and k > 0:
                            kept.L[k - 1, i, j, l] = L0[l, j, i]
                    if smooth and k > 0:
                        kept.mean[k - 1, i, l] = m0[l, i]
        if k > 0:
            u = chain.step[k]
            _predict(chain.F[u], chain.root[u], L, A, smooth, state)
            for i in range(d):
                store(before, (i, 0), load(x, (i, 0)))
            for i in range(d):
                t = spread(chain.b[u, i])
                for j in range(d):
                    t += chain.F[u, j, i] * load(before, (j, 0))
                store(x, (i, 0), t)
        if smooth:
            for c in range(d):
                for i in range(d):
                    store(kept.D[k], (i, c, 0), load(A, (d + c, d + i, 0)))
        # From here on columns of A hold L, and below it what the step left of the last state.
        for c in range(d):
            for i in range(d):
                store(A, (c, i, 0), load(L, (i, c, 0)))
        o = chain.obs[k]
        for a in range(p):
            store(kept.e[slot], (a, 0), spread(0.0))
            if smooth:
                for i in range(d):
                    store(kept.V[k], (i, a, 0), spread(0.0))
        if o >= 0:
            row = chain.cfg[o]
            H, R, off = chain.H[row], chain.R[row], chain.off[row]
            for l in range(n):
                noise[0, l] = scale[l, o]
                for a in range(p):
                    mask[a, l] = 1.0 if seen[l, o, a] else 0.0
                    data[a, l] = z[l, o, a] if seen[l, o, a] else 0.0
            strength = load(noise, (0, 0))
            for a in range(p):
                t = load(data, (a, 0)) - off[a]
                for i in range(d):
                    t -= H[a, i] * load(x, (i, 0))
                store(v, (a, 0), t)
                for j in range(d):
                    t = spread(0.0)
                    for i in range(d):
                        t += H[a, i] * load(L, (i, j, 0))
                    store(Y, (a, j, 0), t)
            _gram(Y, cov, shown, state)
            for a in range(p):
                for b in range(p):
                    store(cov, (a, b, 0), load(cov, (a, b, 0)) + R[a, b] * strength)
            for a in range(p):
                there = load(mask, (a, 0))
                # R = low D low^T among the components that are seen.
                pivot = R[a, a] * strength
                for i in range(d):
                    store(h, (a, i, 0), spread(H[a, i]))
                rest = load(data, (a, 0)) - off[a]
                for b in range(a):
                    t = R[a, b] * strength
                    for g in range(b):
                        t -= load(low, (a, g, 0)) * load(low, (b, g, 0)) * load(D, (g, 0))
                    share = load(D, (b, 0))
                    t = where_positive(share * load(mask, (b, 0)), t / share, spread(0.0))
                    store(low, (a, b, 0), t)
                    pivot -= t * t * share
                    rest -= t * load(data, (b, 0))
                    for i in range(d):
                        store(h, (a, i, 0), load(h, (a, i, 0)) - t * load(h, (b, i, 0)))
                floor = (4 * p * EPS * R[a, a]) * strength
                pivot = where_positive(pivot - floor, pivot, spread(0.0))
                store(D, (a, 0), pivot)
                # Components later in the row meet this one with its noise made independent.
                store(data, (a, 0), rest)
                variance = pivot
                for j in range(d):
                    t = spread(0.0)
                    for i in range(d):
                        t += load(h, (a, i, 0)) * load(A, (j, i, 0))
                    store(phi, (j, 0), t)
                    variance += t * t
                for i in range(d):
                    rest -= load(h, (a, i, 0)) * load(x, (i, 0))
                width = root(variance)
                scaled = where_positive(there, 1.0 / width, spread(0.0))
                shrink = where_positive(there, 1.0 / (variance + width * root(pivot)), spread(0.0))
                store(f, (a, 0), where_positive(there, variance, spread(1.0)))
                e = where_positive(there, rest * scaled, spread(0.0))
                store(kept.e[slot], (a, 0), e)
                for i in range(rows):
                    t = spread(0.0)
                    for j in range(d):
                        t += load(phi, (j, 0)) * load(A, (j, i, 0))
                    store(X, (i, 0), t)
                for i in range(rows):
                    t = shrink * load(X, (i, 0))
                    for j in range(d):
                        store(A, (j, i, 0), load(A, (j, i, 0)) - load(phi, (j, 0)) * t)
                for i in range(d):
                    store(x, (i, 0), load(x, (i, 0)) + load(X, (i, 0)) * scaled * e)
                if smooth:
                    for i in range(d):
                        store(kept.V[k], (i, a, 0), load(X, (d + i, 0)) * scaled)
            for c in range(d):
                for i in range(d):
                    store(L, (i, c, 0), load(A, (c, i, 0)))
            for l in range(n):
                if k < first[l]:
                    continue
                total = 0.0
                for a in range(p):
                    for b in range(p):
                        S[l, o, a, b] = cov[a, b, l]
                    innovation[l, o, a] = np.nan
                    if mask[a, l] > 0.0:
                        innovation[l, o, a] = v[a, l]
                        if not f[a, l] > 1e-28 * cov[a, a, l]:
                            return k
                        total += LOG_2PI + np.log(f[a, l]) + kept.e[slot, a, l] ** 2
                loglik[l, o] = -0.5 * total
        if smooth:
            for i in range(d):
                store(kept.mean[k], (i, 0), load(x, (i, 0)))
                for c in range(d):
                    store(kept.L[k], (i, c, 0), load(L, (i, c, 0)))
                    store(kept.T[k], (i, c, 0), load(A, (c, d + i, 0)))
        if k == N - 1 or not smooth:
            _gram(L, square, state, state)
            _report(k, first, x, square, mean, P)
    return -1


@jit
def _report(k: Any, first: Any, x: Any, square: Any, mean: Any, P: Any) -> None:
    """Write mean x (d, LANES) and covariance of node k for the paths that have reached it."""
    d = x.shape[0]
    for l in range(mean.shape[0]):
        if k >= first[l]:
            for i in range(d):
                mean[l, k, i] = x[i, l]
                for j in range(d):
                    P[l, k, i, j] = square[i, j, l]


@jit
def smooth_lanes(
    kept: Any, last: Any, mean: Any, P: Any, Z0: Any, y0: Any, state: Any, shown: Any
) -> None:
    """Means (n, N, d) and P (n, N, d, d) of nodes N - 2, ..., last[l] of path l.

    Z0 (n, d, d), by columns, and y0 (n, d) get root and mean of xi at node last[l]; state, shown as
    in `filter_lanes`.
    """
    N, d, p = mean.shape[1], size(state), size(shown)
    A = np.zeros((2 * d, d, LANES))
    Z, X, square = np.zeros((d, d, LANES)), np.zeros((d, d, LANES)), np.zeros((d, d, LANES))
    y, before, x = np.zeros((d, LANES)), np.zeros((d, LANES)), np.zeros((d, LANES))
    for i in range(d):
        store(Z, (i, i, 0), spread(1.0))
    _keep_start(N - 1, last, Z, y, Z0, y0)
    for k in range(N - 2, last.min() - 1, -1):
        T, D, V, e, L = kept.T[k + 1], kept.D[k + 1], kept.V[k + 1], kept.e[k + 1], kept.L[k]
        for i in range(d):
            store(before, (i, 0), load(y, (i, 0)))
        for i in range(d):
            t = spread(0.0)
            for j in range(d):
                t += load(T, (i, j, 0)) * load(before, (j, 0))
            for a in range(p):
                t += load(V, (i, a, 0)) * load(e, (a, 0))
            store(y, (i, 0), t)
            for c in range(d):
                t = spread(0.0)
                for j in range(c, d):  # Z is lower triangular
                    t += load(T, (i, j, 0)) * load(Z, (j, c, 0))
                store(A, (c, i, 0), t)
                store(A, (d + c, i, 0), load(D, (i, c, 0)))
        _triangularise(A, state, state, double(state), double(state))
        for i in range(d):
            for c in range(d):
                store(Z, (i, c, 0), load(A, (c, i, 0)))
        for i in range(d):
            t = load(kept.mean[k], (i, 0))
            for j in range(d):
                t += load(L, (i, j, 0)) * load(y, (j, 0))
            store(x, (i, 0), t)
            for c in range(d):
                t = spread(0.0)
                for j in range(c, d):
                    t += load(L, (i, j, 0)) * load(Z, (j, c, 0))
                store(X, (i, c, 0), t)
        _gram(X, square, state, state)
        _report(k, last, x, square, mean, P)
        _keep_start(k, last, Z, y, Z0, y0)


@jit
def _keep_start(k: Any, last: Any, Z: Any, y: Any, Z0: Any, y0: Any) -> None:
    """Hand over Z and y of the paths whose recursion ends at node k."""
    d = y.shape[0]
    for l in range(last.shape[0]):
        if k == last[l]:
            for i in range(d):
                y0[l, i] = y[i, l]
                for j in range(d):
                    Z0[l, j, i] = Z[i, j, l]
