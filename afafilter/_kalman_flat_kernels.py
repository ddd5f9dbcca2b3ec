"""Compiled recursions for the part of a series in which flat directions are not yet determined.

    x_k = m_k + M_k delta + noise,   noise ~ N(0, L L^T),   delta (q,) without prior

Given delta this is the ordinary recursion; M is carried like q more means without data. Every
innovation v = E delta + noise is one more row of the regression T delta = s, kept upper triangular
by Givens rotations (T with a zero diagonal: that row is still empty). Once T is safely invertible,
delta is integrated out and the ordinary filter goes on (de Jong 1991). No number is ever made big.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from afafilter._kalman_root_kernels import (
    backward_law,
    gram,
    innovation_cov,
    jit,
    predict_root,
    triangularise,
    update_root,
    update_space,
)

RANK_TOL = 1e-10
COLLAPSE_COND = 1e3
COLLAPSE_GAIN = 1e6


@jit
def insert_row(T: Any, s: Any, row: Any, value: Any, largest: Any) -> None:
    """Rotate `row` delta = value[path] into T delta = s[path]; value becomes what is left over.

    largest (q,) keeps the largest entry seen per column: below RANK_TOL of it an entry is rounding.
    """
    q, paths = T.shape[0], value.shape[0]
    for j in range(q):
        largest[j] = max(largest[j], abs(row[j]))
    for i in range(q):
        if abs(row[i]) <= RANK_TOL * largest[i]:
            continue
        r = np.hypot(T[i, i], row[i])
        cos, sin = T[i, i] / r, row[i] / r
        for j in range(i, q):
            t = T[i, j]
            T[i, j] = cos * t + sin * row[j]
            row[j] = cos * row[j] - sin * t
        for path in range(paths):
            t = s[path, i]
            s[path, i] = cos * t + sin * value[path]
            value[path] = cos * value[path] - sin * t


@jit
def log_volume(T: Any, work: Any) -> float:
    """log pdet(T^T T) / 2: the volume that the filled rows of T span."""
    q = T.shape[0]
    total = 0.0
    for i in range(q):
        if T[i, i] == 0.0:
            continue
        for j in range(q):
            work[i, j] = T[i, j]
        for l in range(i):
            if T[l, l] == 0.0:
                continue
            dot = 0.0
            for j in range(q):
                dot += work[l, j] * work[i, j]
            for j in range(q):
                work[i, j] -= dot * work[l, j]
        norm = 0.0
        for j in range(q):
            norm += work[i, j] ** 2
        norm = np.sqrt(norm)
        for j in range(q):
            work[i, j] /= norm
        total += np.log(norm)
    return total


@jit
def invert_upper(T: Any, out: Any) -> None:
    """out = T^-1 for upper triangular T."""
    q = T.shape[0]
    for j in range(q):
        for i in range(q):
            out[i, j] = 0.0
        out[j, j] = 1.0 / T[j, j]
        for i in range(j - 1, -1, -1):
            t = 0.0
            for l in range(i + 1, j + 1):
                t += T[i, l] * out[l, j]
            out[i, j] = -t / T[i, i]


@jit
def can_collapse(T: Any, M: Any, L: Any, inverse: Any) -> bool:
    """Whether delta can be integrated out without losing digits; fills inverse = T^-1."""
    q, d = T.shape[0], L.shape[0]
    for i in range(q):
        if T[i, i] == 0.0:
            return False
    invert_upper(T, inverse)
    cond = 0.0
    for j in range(q):
        column, row = 0.0, 0.0
        for i in range(q):
            column += T[i, j] ** 2
            row += inverse[j, i] ** 2
        cond = max(cond, np.sqrt(column * row))
    if cond <= COLLAPSE_COND:
        return True
    for i in range(d):
        given, added = 0.0, 0.0
        for j in range(d):
            given += L[i, j] ** 2
        for j in range(q):
            t = 0.0
            for l in range(j + 1):
                t += M[i, l] * inverse[l, j]
            added += t * t
        if added > COLLAPSE_GAIN * given:
            return False
    return True


@jit
def predict_flat(F: Any, b: Any, m: Any, M: Any, x: Any) -> None:
    """m (n, d) <- F m + b and M <- F M, with x (d,) as work space."""
    d, q = M.shape
    for j in range(q):
        for i in range(d):
            x[i] = 0.0
            for l in range(d):
                x[i] += F[i, l] * M[l, j]
        M[:, j] = x
    for path in range(m.shape[0]):
        for i in range(d):
            x[i] = b[i]
            for l in range(d):
                x[i] += F[i, l] * m[path, l]
        m[path] = x


@jit
def update_flat(
    H: Any,
    off: Any,
    R: Any,
    scale: Any,
    seen: Any,
    z: Any,
    L: Any,
    m: Any,
    M: Any,
    T: Any,
    s: Any,
    largest: Any,
    S: Any,
    E: Any,
    v: Any,
    loglik: Any,
    W: Any,
    K: Any,
    rows: Any,
    work: Any,
) -> float:
    """Condition L, m, M and the regression T delta = s on observations z (n, p).

    Fills v (n, p), the innovations given delta = 0 (NaN if not seen), E (p, q), what delta adds to
    the prediction, and loglik (n,) up to the change of log_volume(T). W, K, rows (p, q) and work:
    space. Returns NaN where the innovation is known exactly.
    """
    p, d = H.shape
    q = M.shape[1]
    half = update_root(H, R, scale, seen, S, L, W, K, work)
    if np.isnan(half):
        return half
    for a in range(p):
        for j in range(q):
            E[a, j] = 0.0
            for i in range(d):
                E[a, j] += H[a, i] * M[i, j]
    for path in range(z.shape[0]):
        for a in range(p):
            v[path, a] = np.nan
            if seen[a]:
                v[path, a] = z[path, a] - off[a]
                for i in range(d):
                    v[path, a] -= H[a, i] * m[path, i]
        loglik[path] = half
    left = np.empty(z.shape[0])
    for a in range(p):
        if not seen[a]:
            continue
        for j in range(q):
            rows[a, j] = 0.0
            for l in range(a + 1):
                rows[a, j] += K[a, l] * E[l, j]
            for i in range(d):
                M[i, j] -= W[i, a] * rows[a, j]
        for path in range(z.shape[0]):
            left[path] = 0.0
            for l in range(a + 1):
                if seen[l]:
                    left[path] += K[a, l] * v[path, l]
            for i in range(d):
                m[path, i] += W[i, a] * left[path]
        insert_row(T, s, rows[a], left, largest)
        for path in range(z.shape[0]):
            loglik[path] -= 0.5 * left[path] ** 2
    return half


@jit
def filter_flat(
    chain: Any,
    L: Any,
    m: Any,
    M: Any,
    T: Any,
    s: Any,
    seen: Any,
    scale: Any,
    smooth: Any,
    z: Any,
    P: Any,
    S: Any,
    mean: Any,
    innovation: Any,
    loglik: Any,
    G: Any,
    C: Any,
    Ms: Any,
    Es: Any,
    Ts: Any,
    ss: Any,
    Gd: Any,
    Cd: Any,
) -> tuple[int, bool, int]:
    """Nodes 0, 1, ... until delta is integrated out, or as many as the buffers Ms hold.

    L (d, d), m (n, d), M (d, q), T (q, q), s (n, q): state, left as they are after the last node
    (L and m with delta integrated out once that happened). Per node: P (N, d, d) and mean
    (n, N, d) given delta = 0, Ms (., d, q), Ts (., q, q), ss (n, ., q); per observation S and the
    innovation given delta = 0 and Es (T, p, q), what delta adds to the prediction. G, C: backward
    law of each step; Gd, Cd: that of delta given the state where it was integrated out.

    Returns (number of nodes done, whether delta is integrated out, node of a singular innovation
    or -1).
    """
    n = min(chain.step.shape[0], Ms.shape[0])
    paths, p = z.shape[0], z.shape[2]
    d, q = M.shape
    A = np.empty((2 * d, 2 * d))
    pivot = np.empty(d, np.int64)
    Y = np.empty((p, d))
    work = update_space(p, d)
    W = np.empty((d, p))
    K = np.empty((p, p))
    rows = np.empty((p, q))
    largest = np.zeros(q)
    inverse = np.empty((q, q))
    volume = 0.0
    x = np.empty(d)
    for k in range(n):
        o = chain.obs[k]
        if k > 0:
            u = chain.step[k]
            predict_root(chain.F[u], chain.root[u], L, A, pivot, smooth, G[k], C[k])
            predict_flat(chain.F[u], chain.b[u], m, M, x)
        if o >= 0:
            c = chain.cfg[o]
            H, R = chain.H[c], chain.R[c]
            innovation_cov(H, R, L, S[o], Y)
            half = update_flat(
                H, chain.off[c], R, scale[o], seen[o], z[:, o], L, m, M, T, s, largest, S[o], Es[o],
                innovation[:, o], loglik[:, o], W, K, rows, work,
            )  # fmt: skip
            if np.isnan(half):
                return k, False, k
            before = volume
            volume = log_volume(T, inverse)
            for path in range(paths):
                loglik[path, o] -= volume - before
            if can_collapse(T, M, L, inverse):
                integrate_out(L, m, M, s, inverse, Gd, Cd)
                gram(L, P[k])
                mean[:, k] = m
                return k + 1, True, -1
        gram(L, P[k])
        mean[:, k] = m
        Ms[k] = M
        Ts[k] = T
        ss[:, k] = s
    return n, False, -1


@jit
def integrate_out(L: Any, m: Any, M: Any, s: Any, inverse: Any, Gd: Any, Cd: Any) -> None:
    """L, m <- state with delta ~ N(T^-1 s, (T^T T)^-1) integrated out; backward law of delta."""
    d, q = M.shape
    A = np.zeros((d + q, d + q))
    pivot = np.empty(d, np.int64)
    A[:d, :d] = L
    for i in range(d):
        for j in range(q):
            for l in range(j + 1):
                A[i, d + j] += M[i, l] * inverse[l, j]
    for path in range(m.shape[0]):
        for i in range(d):
            for j in range(q):
                m[path, i] += A[i, d + j] * s[path, j]
    A[d:, d:] = inverse
    rank = triangularise(A, pivot)
    backward_law(A, pivot, rank, Gd, Cd)
    L[:] = A[:d, :d]


@jit
def smooth_flat(
    chain: Any, last: Any, G: Any, C: Any, Ms: Any, J: Any, Jx: Any, mean: Any, P: Any
) -> None:
    """Nodes last - 1, ..., 0 from the joint law of (state, delta) at node `last`.

    J (d + q, d + q) and Jx (n, d + q) are its covariance and means. mean (n, N, d) and P (N, d, d)
    hold the filtered laws given delta = 0 and become the smoothed marginals.
    """
    d, q = Ms.shape[1], Ms.shape[2]
    paths = mean.shape[0]
    B = np.empty((d, d + q))
    BJ = np.empty((d, d + q))
    r = np.empty(d)
    for k in range(last - 1, -1, -1):
        u = chain.step[k + 1]
        F, gain = chain.F[u], G[k + 1]
        B[:, :d] = gain
        FM = F @ Ms[k]
        B[:, d:] = Ms[k] - gain @ FM
        BJ[:] = B @ J
        for i in range(d):
            for j in range(i + 1):
                t = C[k + 1, i, j]
                for l in range(d + q):
                    t += BJ[i, l] * B[j, l]
                J[i, j] = t
                J[j, i] = t
            for j in range(d, d + q):
                J[i, j] = BJ[i, j]
                J[j, i] = BJ[i, j]
        P[k] = J[:d, :d]
        for path in range(paths):
            for i in range(d):
                r[i] = Jx[path, i] - chain.b[u, i]
                for l in range(d):
                    r[i] -= F[i, l] * mean[path, k, l]
            for i in range(d):
                t = mean[path, k, i]
                for l in range(d):
                    t += gain[i, l] * r[l]
                for l in range(q):
                    t += B[i, d + l] * Jx[path, d + l]
                mean[path, k, i] = t
            for i in range(d):
                Jx[path, i] = mean[path, k, i]
