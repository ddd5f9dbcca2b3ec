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
    gram,
    innovation_cov,
    jit,
    predict_root,
    update_root,
    update_space,
)

SETTLED = 1e-14
SHORTEST_WINDOW = 16


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
    """What the covariances leave for the means; equal consecutive nodes share one slot.

    slot (N,) row of W (., d, p), K (., p, p), half (., ) = -(n log 2 pi + log|S|) / 2;
    back (N,) row of G (., d, d) for the step into the node.
    """

    slot: NDArray[np.int64]
    W: NDArray[np.float64]
    K: NDArray[np.float64]
    half: NDArray[np.float64]
    back: NDArray[np.int64]
    G: NDArray[np.float64]


@jit
def _unchanged(P: Any, Q: Any) -> bool:
    """Whether two covariances agree to rounding."""
    d = P.shape[0]
    for i in range(d):
        for j in range(i + 1):
            if abs(P[i, j] - Q[i, j]) > SETTLED * np.sqrt(abs(P[i, i] * P[j, j])):
                return False
    return True


@jit
def _same_setting(chain: Any, seen: Any, scale: Any, k: Any) -> bool:
    """Whether node k repeats its predecessor: same step, same observation row, same gaps."""
    if chain.step[k] != chain.step[k - 1]:
        return False
    o, q = chain.obs[k], chain.obs[k - 1]
    if o < 0 or q < 0:
        return o < 0 and q < 0
    if chain.cfg[o] != chain.cfg[q] or scale[o] != scale[q]:
        return False
    for a in range(seen.shape[1]):  # noqa: SIM110 (compiled)
        if seen[o, a] != seen[q, a]:
            return False
    return True


@jit
def filter_covariances(
    chain: Any,
    first: Any,
    L: Any,
    seen: Any,
    scale: Any,
    smooth: Any,
    P: Any,
    S: Any,
    gains: Any,
    C: Any,
) -> int:
    """Covariances P (N, d, d) and S (T, p, p) of nodes first, first + 1, ...; gains for the means.

    L is the root at node first - 1 (at first = 0: before the first observation). On a constant
    stretch the recursion stops once the covariance repeats to rounding: it is compared over a third
    of the stretch so far, so that slow convergence is not taken for a fixed point. Returns
    -1, or the node at which the innovation covariance is singular.
    """
    n = chain.step.shape[0]
    p, d = chain.H.shape[1], chain.H.shape[2]
    A = np.empty((2 * d, 2 * d))
    pivot = np.empty(d, np.int64)
    Y = np.empty((p, d))
    work = update_space(p, d)
    run, due, checkpoint, settled = 0, 0, first, False
    for k in range(first, n):
        o = chain.obs[k]
        if k > first + 1 and _same_setting(chain, seen, scale, k):
            run += 1
            if settled:
                gains.slot[k] = gains.slot[k - 1]
                gains.back[k] = gains.back[k - 1]
                P[k] = P[k - 1]
                if o >= 0:
                    S[o] = S[chain.obs[k - 1]]
                continue
        else:
            run, due, checkpoint, settled = 0, 0, k, False
        gains.slot[k] = k
        gains.back[k] = k
        if k > 0:
            u = chain.step[k]
            predict_root(chain.F[u], chain.root[u], L, A, pivot, smooth, gains.G[k], C[k])
        if o >= 0:
            c = chain.cfg[o]
            innovation_cov(chain.H[c], chain.R[c], L, S[o], Y)
            gains.half[k] = update_root(
                chain.H[c], chain.R[c], scale[o], seen[o], S[o], L, gains.W[k], gains.K[k], work
            )
            if np.isnan(gains.half[k]):
                return k
        gram(L, P[k])
        if run == due:
            settled = run > 0 and _unchanged(P[k], P[checkpoint])
            checkpoint, due = k, run + max(SHORTEST_WINDOW, run // 2)
    return -1


@jit
def filter_means(
    chain: Any,
    first: Any,
    m: Any,
    gains: Any,
    z: Any,
    seen: Any,
    mean: Any,
    innovation: Any,
    loglik: Any,
) -> None:
    """Means (n, N, d) of paths that share covariances; m (n, d) is the state at node first - 1."""
    paths, p = z.shape[0], z.shape[2]
    n, d = chain.step.shape[0], m.shape[1]
    v = np.empty(p)
    x = np.empty(d)
    for path in range(paths):
        for k in range(first, n):
            if k > 0:
                u = chain.step[k]
                for i in range(d):
                    x[i] = chain.b[u, i]
                    for j in range(d):
                        x[i] += chain.F[u, i, j] * m[path, j]
            else:
                for i in range(d):
                    x[i] = m[path, i]
            o = chain.obs[k]
            if o >= 0:
                c, g = chain.cfg[o], gains.slot[k]
                for a in range(p):
                    if seen[o, a]:
                        v[a] = z[path, o, a] - chain.off[c, a]
                        for i in range(d):
                            v[a] -= chain.H[c, a, i] * x[i]
                        innovation[path, o, a] = v[a]
                    else:
                        v[a] = 0.0
                        innovation[path, o, a] = np.nan
                total = 0.0
                for a in range(p):
                    e = 0.0
                    for j in range(a + 1):
                        e += gains.K[g, a, j] * v[j]
                    total += e * e
                    for i in range(d):
                        x[i] += gains.W[g, i, a] * e
                loglik[path, o] = gains.half[g] - 0.5 * total
            for i in range(d):
                m[path, i] = x[i]
                mean[path, k, i] = x[i]


@jit
def smooth_covariances(last: Any, gains: Any, C: Any, P: Any) -> None:
    """P (N, d, d) of nodes ..., last: filtered in, smoothed out. P of the final node stays."""
    n, d = P.shape[0], P.shape[1]
    A = np.empty((d, d))
    run, due, checkpoint, settled = 0, 0, n - 1, False
    for k in range(n - 2, last - 1, -1):
        g = gains.back[k + 1]
        if k < n - 2 and g == gains.back[k + 2]:
            run += 1
            if settled:
                P[k] = P[k + 1]
                continue
        else:
            run, due, checkpoint, settled = 0, 0, k, False
        G = gains.G[g]
        for i in range(d):
            for j in range(d):
                A[i, j] = 0.0
            for l in range(d):
                f = G[i, l]
                for j in range(d):
                    A[i, j] += f * P[k + 1, l, j]
        for i in range(d):
            for j in range(i + 1):
                s = C[g, i, j]
                for l in range(d):
                    s += A[i, l] * G[j, l]
                P[k, i, j] = s
                P[k, j, i] = s
        if run == due:
            settled = run > 0 and _unchanged(P[k], P[checkpoint])
            checkpoint, due = k, run + max(SHORTEST_WINDOW, run // 2)


@jit
def smooth_means(chain: Any, last: Any, gains: Any, mean: Any) -> None:
    """Means (n, N, d) of nodes ..., last: filtered in, smoothed out."""
    paths, n, d = mean.shape
    r = np.empty(d)
    for path in range(paths):
        for k in range(n - 2, last - 1, -1):
            u, g = chain.step[k + 1], gains.back[k + 1]
            for i in range(d):
                r[i] = mean[path, k + 1, i] - chain.b[u, i]
                for j in range(d):
                    r[i] -= chain.F[u, i, j] * mean[path, k, j]
            for i in range(d):
                for j in range(d):
                    mean[path, k, i] += gains.G[g, i, j] * r[j]
