"""Compiled recursions of the Kalman filter and the RTS smoother along a chain of nodes.

x_k = F x_{k-1} + b + w,  w ~ N(0, V)        z = H x + off + v,  v ~ N(0, R)
filter    roots of P, gains W and K (see `_kalman_root_kernels`), then means path by path
smooth    P_s = C + G P_s' G^T,  m_s = m + G (m_s' - F m - b)    C = P - G P' G^T, ' = next node
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter._kalman_root_kernels import (
    bare,
    column_space,
    copy,
    double,
    enter_root,
    gram,
    innovation_cov,
    jit,
    multiply,
    predict_root,
    size,
    triangularise,
    update_root,
    update_space,
)
from afafilter._lanes import alike, put, take

SETTLED = 1e-13
SHORTEST_WINDOW = 16
SHRINKING = 0.9
"""Greatest factor by which changes shrink that is trusted to go on."""


class Chain(NamedTuple):
    """Nodes in processing order and the matrices that they share.

    step (N,) row of F (U, d, d), b (U, d), root (U, d, d) = V^1/2 for the step into the node;
    obs (N,) observation shown by the node or -1; cfg (T,) row of H (C, p, d), off (C, p),
    R (C, p, p) for the observation.
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

    slot (N,) row of the rest for a node; equal consecutive nodes share one. W (., d, p),
    K (., p, p), half (.,) = -(n log 2 pi + log|S|) / 2, root (., d, d) = L updated; for the
    step into the node T (., d, d), V (., d, p), D (., d, d).
    """

    slot: NDArray[np.int64]
    W: NDArray[np.float64]
    K: NDArray[np.float64]
    half: NDArray[np.float64]
    root: NDArray[np.float64]
    T: NDArray[np.float64]
    V: NDArray[np.float64]
    D: NDArray[np.float64]


@bare
def _change(L: Any, M: Any) -> Any:
    """Largest change of a row between two roots, relative to the row."""
    d = L.shape[0]
    largest = 0.0
    for i in range(d):
        size, change = 0.0, 0.0
        for j in range(d):
            size += L[i, j] ** 2
            change += (L[i, j] - M[i, j]) ** 2
        if change > largest * size:
            largest = change / size if size > 0.0 else np.inf
    return np.sqrt(largest)


@bare
def _has_settled(L: Any, run: Any, trace: Any) -> Any:
    """Whether a root has reached its fixed point, asked after each of `run` equal steps.

    Changes over SHORTEST_WINDOW steps that shrink by a factor q leave q / (1 - q) of the last one
    to come. Near rounding q says nothing; there the root is compared over a fifth of the run, so
    that slow convergence is not taken for a fixed point.
    trace: two earlier roots (2, d, d), when the second is due, the last change.
    """
    roots, due, last = trace
    if run == 0:
        due[0], last[0] = SHORTEST_WINDOW, 0.0
        copy(L, roots[0])
        copy(L, roots[1])
        return False
    settled = False
    if run % SHORTEST_WINDOW == 0:
        change = _change(L, roots[0])
        if last[0] > 0.0:
            q = change / last[0]
            settled = q < SHRINKING and change * q <= SETTLED * (1.0 - q)
        last[0] = change
        copy(L, roots[0])
    if run == due[0]:
        settled = settled or _change(L, roots[1]) <= SETTLED
        copy(L, roots[1])
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


@jit
def filter_covariances(
    chain: Any, first: Any, L: Any, seen: Any, scale: Any, smooth: Any, P: Any, S: Any, gains: Any,
    state: Any, shown: Any,
) -> int:  # fmt: skip
    """Covariances P (N, d, d) and S (T, p, p) of nodes first, first + 1, ... and the gains.

    L is the root at node first - 1 (at first = 0: before the first observation). On a constant
    stretch the recursion stops once the root has reached its fixed point to rounding.

    state, shown : d and p (see `size`). Returns -1, or the
    node at which the innovation covariance is singular.
    """
    d, p = size(state), size(shown)
    space = column_space(2 * d, 2 * d if smooth else d)
    bad: int = _filter_covariances(
        chain, first, L, seen, scale, smooth, P, S, gains, space, update_space(p, d),
        np.empty((p, d)), np.zeros(p, np.bool_), _trace(d), state, shown,
    )  # fmt: skip
    return bad


@bare
def _filter_covariances(
    chain: Any, first: Any, L: Any, seen: Any, scale: Any, smooth: Any, P: Any, S: Any, gains: Any,
    space: Any, work: Any, Y: Any, silent: Any, trace: Any, state: Any, shown: Any,
) -> int:  # fmt: skip
    """`filter_covariances` with its work space."""
    n, d = chain.step.shape[0], size(state)
    A = space[0]
    run, settled = 0, False
    for k in range(first, n):
        o = chain.obs[k]
        if k > first + 1 and _same_setting(chain, seen, scale, k):
            run += 1
            if settled:
                gains.slot[k] = gains.slot[k - 1]
                copy(P[k - 1], P[k])
                if o >= 0:
                    copy(S[chain.obs[k - 1]], S[o])
                continue
        else:
            run, settled = 0, False
        gains.slot[k] = k
        if k > 0:
            predict_root(chain.F[chain.step[k]], chain.root[chain.step[k]], L, space, smooth, state)
        else:
            enter_root(L, A, state)
        if o >= 0:
            c = chain.cfg[o]
            innovation_cov(chain.H[c], chain.R[c], scale[o], L, S[o], Y, state, shown)
            gains.half[k] = update_root(
                chain.H[c], chain.R[c], scale[o], seen[o], S[o], L, gains.W[k], gains.K[k], work,
                smooth, A, gains.T[k], gains.V[k], state, shown,
            )  # fmt: skip
            if np.isnan(gains.half[k]):
                return k
        elif smooth:
            update_root(
                chain.H[0], chain.R[0], 1.0, silent, Y, L, gains.W[k], gains.K[k], work,
                smooth, A, gains.T[k], gains.V[k], state, shown,
            )  # fmt: skip
        if smooth:
            copy(L, gains.root[k])
            for i in range(d):
                for j in range(d):
                    gains.D[k, i, j] = A[d + j, d + i]
        gram(L, P[k], state, state)
        settled = _has_settled(L, run, trace)
    return -1


@jit
def filter_means(
    chain: Any, first: Any, m: Any, gains: Any, z: Any, seen: Any, mean: Any, innovation: Any,
    loglik: Any, beside: Any, state: Any, shown: Any,
) -> None:  # fmt: skip
    """Means (n, N, d) of paths that share covariances; m (n, d) is the state at node first - 1.

    beside, state, shown : paths that go through the recursion side by side, d and p (see `size`).
    """
    d, p, width = size(state), size(shown), size(beside)
    _filter_means(
        chain, first, m, gains, z, seen, mean, innovation, loglik, np.zeros((2, d, width)),
        np.zeros((3, p, width)), beside, state, shown,
    )  # fmt: skip


@bare
def _filter_means(
    chain: Any, first: Any, m: Any, gains: Any, z: Any, seen: Any, mean: Any, innovation: Any,
    loglik: Any, states: Any, shows: Any, beside: Any, state: Any, shown: Any,
) -> None:  # fmt: skip
    """`filter_means` with its work space."""
    paths, n = z.shape[0], chain.step.shape[0]
    d, p, width = size(state), size(shown), size(beside)
    x, before = states[0], states[1]
    data, v, e = shows[0], shows[1], shows[2]
    for start in range(0, paths, width):
        lanes = min(width, paths - start)
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
                    put(x, i, alike(chain.b[u, i], beside), beside)
                _add_product(chain.F[u], before, x, beside, state, state)
            if o >= 0:
                c, g = chain.cfg[o], gains.slot[k]
                for a in range(p):
                    put(v, a, alike(chain.off[c, a], beside), beside)
                _add_product(chain.H[c], x, v, beside, shown, state)
                for a in range(p):
                    if seen[o, a]:
                        put(v, a, take(data, a, beside) - take(v, a, beside), beside)
                for l in range(lanes):
                    for a in range(p):
                        innovation[start + l, o, a] = v[a, l] if seen[o, a] else np.nan
                _product(gains.K[g], v, e, beside, shown, shown)
                _add_product(gains.W[g], e, x, beside, state, shown)
                for l in range(lanes):
                    total = 0.0
                    for a in range(p):
                        total += e[a, l] * e[a, l]
                    loglik[start + l, o] = gains.half[g] - 0.5 * total
            for l in range(lanes):
                for i in range(d):
                    mean[start + l, k, i] = x[i, l]


@bare
def _add_product(M: Any, x: Any, out: Any, beside: Any, rows: Any, columns: Any) -> None:
    """out += M @ x."""
    for i in range(size(rows)):
        total = take(out, i, beside)
        for j in range(size(columns)):
            total += M[i, j] * take(x, j, beside)
        put(out, i, total, beside)


@bare
def _product(M: Any, x: Any, out: Any, beside: Any, rows: Any, columns: Any) -> None:
    """out = M @ x."""
    for i in range(size(rows)):
        total = alike(0.0, beside)
        for j in range(size(columns)):
            total += M[i, j] * take(x, j, beside)
        put(out, i, total, beside)


@jit
def smooth_covariances(last: Any, gains: Any, P: Any, state: Any) -> Any:
    """P (N, d, d) of nodes N - 2, ..., last: filtered in, smoothed out. Returns Z at `last`."""
    d = size(state)
    Z = np.eye(d)
    _smooth_covariances(
        last, gains, P, Z, column_space(2 * d, d), np.empty((d, d)), _trace(d), state
    )
    return Z


@bare
def _smooth_covariances(
    last: Any, gains: Any, P: Any, Z: Any, space: Any, LZ: Any, trace: Any, state: Any
) -> None:
    """`smooth_covariances` with its work space."""
    n, d = P.shape[0], size(state)
    A = space[0]
    run, settled = 0, False
    for k in range(n - 2, last - 1, -1):
        s, g = gains.slot[k + 1], gains.slot[k]
        if k < n - 2 and s == gains.slot[k + 2] and g == s:
            run += 1
            if settled:
                copy(P[k + 1], P[k])
                continue
        else:
            run, settled = 0, False
        for c in range(d):
            for i in range(d):
                A[d + c, i] = gains.D[s, i, c]
        multiply(gains.T[s], Z, space, False, state)
        triangularise(space, state, double(state), 2 * d)
        for i in range(d):
            for j in range(d):
                Z[i, j] = A[j, i]
        for i in range(d):
            for j in range(d):
                LZ[i, j] = 0.0
            for l in range(d):
                f = gains.root[g, i, l]
                for j in range(d):
                    LZ[i, j] += f * Z[l, j]
        gram(LZ, P[k], state, state)
        settled = _has_settled(Z, run, trace)


@jit
def smooth_means(
    chain: Any, last: Any, gains: Any, innovation: Any, seen: Any, mean: Any, y: Any, beside: Any,
    state: Any, shown: Any,
) -> None:  # fmt: skip
    """Means (n, N, d) of nodes N - 2, ..., last: filtered in, smoothed out.

    y (n, d) gets the mean of xi at node `last`; beside, state, shown as in `filter_means`.
    """
    d, p, width = size(state), size(shown), size(beside)
    _smooth_means(
        chain, last, gains, innovation, seen, mean, y, np.zeros((3, d, width)),
        np.zeros((2, p, width)), beside, state, shown,
    )  # fmt: skip


@bare
def _smooth_means(
    chain: Any, last: Any, gains: Any, innovation: Any, seen: Any, mean: Any, y: Any, states: Any,
    shows: Any, beside: Any, state: Any, shown: Any,
) -> None:  # fmt: skip
    """`smooth_means` with its work space."""
    paths, n = mean.shape[0], mean.shape[1]
    d, p, width = size(state), size(shown), size(beside)
    x, before, move = states[0], states[1], states[2]
    v, e = shows[0], shows[1]
    for start in range(0, paths, width):
        lanes = min(width, paths - start)
        for i in range(d):
            for l in range(width):
                x[i, l] = 0.0
        for k in range(n - 2, last - 1, -1):
            s, g, o = gains.slot[k + 1], gains.slot[k], chain.obs[k + 1]
            if o >= 0:
                for l in range(lanes):
                    for a in range(p):
                        v[a, l] = innovation[start + l, o, a] if seen[o, a] else 0.0
            before, x = x, before
            _product(gains.T[s], before, x, beside, state, state)
            if o >= 0:
                _product(gains.K[s], v, e, beside, shown, shown)
                _add_product(gains.V[s], e, x, beside, state, shown)
            _product(gains.root[g], x, move, beside, state, state)
            for l in range(lanes):
                for i in range(d):
                    mean[start + l, k, i] += move[i, l]
        for i in range(d):
            for l in range(lanes):
                y[start + l, i] = x[i, l]
