"""Compiled recursions for the part of a series in which flat directions are not yet determined.

    x_k = m_k + M_k delta + noise,   noise ~ N(0, L L^T),   delta (q,) without prior

Given delta this is the ordinary recursion; M is carried like q more means without data. Every
innovation v = E delta + noise is one more row of the regression T delta = s, kept upper triangular
by Givens rotations (T with a zero diagonal: that row is still empty). Once T is safely invertible,
delta is integrated out and the ordinary filter goes on (de Jong 1991). No number is ever made big.

L, F, W, K, V and the gains are kept by columns, as in `_kalman_root_kernels`; M, T and E are not.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from afafilter._core.jit import bare, jit
from afafilter._core.kalman_root_kernels import (
    column_space,
    copy,
    face,
    gram,
    innovation_cov,
    predict_root,
    read_columns,
    shown_space,
    split_noise,
    triangularise,
    update_root,
    write_columns,
)

RANK_TOL = 1e-10
COLLAPSE_COND = 1e3
COLLAPSE_GAIN = 1e6


@bare
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


@bare
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


@bare
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


@bare
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
            given += L[j, i] ** 2
        for j in range(q):
            t = 0.0
            for l in range(j + 1):
                t += M[i, l] * inverse[l, j]
            added += t * t
        if added > COLLAPSE_GAIN * given:
            return False
    return True


@bare
def predict_flat(F: Any, b: Any, m: Any, M: Any, T: Any, x: Any) -> None:
    """m (n, d) <- F m + b and M <- F M, with x (d,) as work space.

    A direction that the data have not touched and that has decayed to rounding is forgotten: no
    later observation counts as one of it.
    """
    d, q = M.shape
    for j in range(q):
        size = 0.0
        for i in range(d):
            x[i] = 0.0
            for l in range(d):
                x[i] += F[l, i] * M[l, j]
            size = max(size, abs(x[i]))
        if size < RANK_TOL and T[j, j] == 0.0:
            for i in range(d):
                x[i] = 0.0
        for i in range(d):
            M[i, j] = x[i]
    for path in range(m.shape[0]):
        for i in range(d):
            x[i] = b[i]
            for l in range(d):
                x[i] += F[l, i] * m[path, l]
        for i in range(d):
            m[path, i] = x[i]


@bare
def update_flat(
    H: Any, off: Any, R: Any, scale: Any, seen: Any, z: Any, A: Any, m: Any, M: Any, T: Any, s: Any,
    largest: Any, S: Any, E: Any, v: Any, loglik: Any, W: Any, K: Any, V: Any, rows: Any, left: Any,
    work: Any, smooth: Any,
) -> Any:  # fmt: skip
    """Condition m, M, L (the first columns of A) and T delta = s on observations z (n, p).

    Fills S (p, p), v (n, p), the innovations given delta = 0 (NaN if not seen), E (p, q), what
    delta adds to the prediction, and loglik (n,) up to the change of log_volume(T). W, K, V, rows
    (p, q), left (n,) and work: space. Returns NaN where the innovation is known exactly.
    """
    p, d = H.shape
    q = M.shape[1]
    face(H, work, d, p)
    innovation_cov(R, scale, A, S, work, d, p)
    correlated = split_noise(R, scale, seen, work, p)
    half = update_root(seen, S, A, W, K, V, work, correlated, smooth, d, p)
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
    for a in range(p):
        if not seen[a]:
            continue
        for j in range(q):
            rows[a, j] = 0.0
            for l in range(a + 1):
                rows[a, j] += K[l, a] * E[l, j]
            for i in range(d):
                M[i, j] -= W[a, i] * rows[a, j]
        for path in range(z.shape[0]):
            left[path] = 0.0
            for l in range(a + 1):
                if seen[l]:
                    left[path] += K[l, a] * v[path, l]
            for i in range(d):
                m[path, i] += W[a, i] * left[path]
        insert_row(T, s, rows[a], left, largest)
        for path in range(z.shape[0]):
            loglik[path] -= 0.5 * left[path] ** 2
    return half


@jit
def filter_flat(
    chain: Any, gains: Any, L: Any, m: Any, M: Any, T: Any, s: Any, seen: Any, scale: Any,
    smooth: Any, z: Any, P: Any, S: Any, mean: Any, innovation: Any, loglik: Any, Ms: Any,
    Es: Any, Ts: Any, ss: Any, rotation: Any,
) -> tuple[int, bool, int]:  # fmt: skip
    """Nodes 0, 1, ... until delta is integrated out, or as many as the buffers Ms hold.

    L (d, d), m (n, d), M (d, q), T (q, q), s (n, q): state, left as they are after the last node
    (L and m with delta integrated out once that happened; rotation: see `integrate_out`). Per
    node: gains, P (N, d, d) and mean (n, N, d) given delta = 0, Ms (., d, q), Ts (., q, q),
    ss (n, ., q); per observation S and the innovation given delta = 0, and Es (T, p, q), what delta
    adds to the prediction.

    Returns (number of nodes done, whether delta is integrated out, node of a singular innovation
    or -1).
    """
    paths, p = z.shape[0], z.shape[2]
    d, q = M.shape
    space = column_space(2 * d, 2 * d)
    read_columns(L, space.A)
    inverse = np.empty((q, q))
    done, integrated, singular = _filter_flat(
        chain, gains, L, m, M, T, s, seen, scale, smooth, z, P, S, mean, innovation, loglik, Ms, Es,
        Ts, ss, space, shown_space(p, d), np.empty((p, q)), np.empty(paths), np.zeros(q), inverse,
        np.empty(d),
    )  # fmt: skip
    if integrated:
        k = done - 1
        write_columns(space.A, 0, d, gains.T[k], d)
        integrate_out(L, m, M, s, inverse, rotation)
        read_columns(L, space.A)
        copy(L, gains.root[k])
        gram(space.A, P[k], d, d)
        copy(m, mean[:, k])
    return done, integrated, singular


@bare
def _filter_flat(
    chain: Any, gains: Any, L: Any, m: Any, M: Any, T: Any, s: Any, seen: Any, scale: Any,
    smooth: Any, z: Any, P: Any, S: Any, mean: Any, innovation: Any, loglik: Any, Ms: Any,
    Es: Any, Ts: Any, ss: Any, space: Any, work: Any, rows: Any, left: Any, largest: Any,
    inverse: Any, x: Any,
) -> tuple[int, bool, int]:  # fmt: skip
    """`filter_flat` with its work space, up to the integration itself."""
    n = min(chain.step.shape[0], Ms.shape[0])
    paths, d, A = z.shape[0], M.shape[0], space.A
    volume = 0.0
    for k in range(n):
        o = chain.obs[k]
        gains.slot[k] = k
        if k > 0:
            u = chain.step[k]
            predict_root(chain.F[u], chain.root[u], space, True, d)
            predict_flat(chain.F[u], chain.b[u], m, M, T, x)
        if smooth:
            write_columns(A, d, d, gains.D[k], d)
        if o >= 0:
            c = chain.cfg[o]
            half = update_flat(
                chain.H[c], chain.off[c], chain.R[c], scale[o], seen[o], z[:, o], A, m, M, T, s,
                largest, S[o], Es[o], innovation[:, o], loglik[:, o], gains.W[k], gains.K[k],
                gains.V[k], rows, left, work, smooth,
            )  # fmt: skip
            write_columns(A, 0, 0, L, d)
            if np.isnan(half):
                return k, False, k
            before = volume
            volume = log_volume(T, inverse)
            for path in range(paths):
                loglik[path, o] -= volume - before
            if can_collapse(T, M, L, inverse):
                return k + 1, True, -1
        write_columns(A, 0, 0, L, d)
        write_columns(A, 0, 0, gains.root[k], d)
        write_columns(A, 0, d, gains.T[k], d)
        gram(A, P[k], d, d)
        copy(m, mean[:, k])
        copy(M, Ms[k])
        copy(T, Ts[k])
        copy(s, ss[:, k])
    return n, False, -1


@jit
def integrate_out(L: Any, m: Any, M: Any, s: Any, inverse: Any, rotation: Any) -> None:
    """L, m <- state with delta = T^-1 (s + omega), omega ~ N(0, I), integrated out.

    x = m + M delta + L xi becomes m' + L' xi'; rotation (d + q, d + q) gives (xi, T^-1 omega) in
    terms of xi' and of what is independent of it.
    """
    d, q = M.shape
    space = column_space(d + q, 2 * d + q)
    A = space.A
    read_columns(L, A)
    for i in range(d):
        for j in range(q):
            for l in range(j + 1):
                A[d + j, i] += M[i, l] * inverse[l, j]
    for path in range(m.shape[0]):
        for i in range(d):
            for j in range(q):
                m[path, i] += A[d + j, i] * s[path, j]
    for i in range(d):
        A[i, d + i] = 1.0
    copy(inverse.T, A[d:, 2 * d :])
    triangularise(space, d, d + q, d + q)
    write_columns(A, 0, 0, L, d)
    for i in range(d + q):
        for c in range(d + q):
            rotation[i, c] = A[c, d + i]


@jit
def smooth_flat(
    chain: Any, last: Any, gains: Any, Ms: Any, Es: Any, innovation: Any, seen: Any, J: Any,
    y: Any, mean: Any, P: Any,
) -> None:  # fmt: skip
    """Nodes last - 1, ..., 0 from the joint law of (xi, delta) after node `last`.

    J (d + q, d + q), by rows, is its root, y (n, d + q) its means. innovation holds those given
    delta = 0; mean (n, N, d) and P (N, d, d), filtered given delta = 0, become the smoothed
    marginals.
    """
    d, q = Ms.shape[1], Ms.shape[2]
    paths, p = innovation.shape[0], innovation.shape[2]
    space = column_space(2 * d + q, d + q)
    A = space.A
    joint = np.zeros((d, d + q))
    X = column_space(d + q, d).A
    new = np.empty(d)
    for k in range(last - 1, -1, -1):
        o = chain.obs[k + 1]
        T, V, K = gains.T[k + 1], gains.V[k + 1], gains.K[k + 1]
        joint[:] = 0.0
        copy(T.T, joint)
        if o >= 0:
            for a in range(p):
                for c in range(a + 1):
                    for i in range(d):
                        for j in range(q):
                            joint[i, d + j] -= V[a, i] * K[c, a] * Es[o, c, j]
        A[:] = 0.0
        copy(J[d:].T, A[:, d:])
        copy(gains.D[k + 1], A[d + q :])
        for i in range(d):
            for l in range(d + q):
                for j in range(d + q):
                    A[j, i] += joint[i, l] * J[l, j]
        triangularise(space, d + q, 2 * d + q, 2 * d + q)
        for i in range(d + q):
            for c in range(d + q):
                J[i, c] = A[c, i]
        X[:] = 0.0
        for i in range(d):
            for j in range(d + q):
                for l in range(d):
                    X[j, i] += gains.root[k, l, i] * J[l, j]
                for l in range(q):
                    X[j, i] += Ms[k, i, l] * J[d + l, j]
        gram(X, P[k], d, d + q)
        for path in range(paths):
            for i in range(d):
                new[i] = 0.0
                for l in range(d + q):
                    new[i] += joint[i, l] * y[path, l]
            if o >= 0:
                for a in range(p):
                    e = 0.0
                    for c in range(a + 1):
                        if seen[o, c]:
                            e += K[c, a] * innovation[path, o, c]
                    for i in range(d):
                        new[i] += V[a, i] * e
            for i in range(d):
                y[path, i] = new[i]
            for i in range(d):
                for l in range(d):
                    mean[path, k, i] += gains.root[k, l, i] * new[l]
                for l in range(q):
                    mean[path, k, i] += Ms[k, i, l] * y[path, d + l]
