"""Compiled recursions of the exact generalised least squares over a chain of observations.

Conditional on the state theta at the first stamp, the state is x = a + B theta + e, Cov(e) = P;
the observations also inform theta: R theta = s + N(0, I), kept triangular as tri = [R | s]. Data of
many paths that share their weights are columns. Observations after a query reach it as equations
Y x = y + N(0, I), kept as tri = [Y | y].
"""

# mypy: disable-error-code="misc, no-untyped-call, no-untyped-def"

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _insert(tri, row):
    """Rotate the equation `row` into the upper triangular equations tri (d, d + m)."""
    d, width = tri.shape
    for i in range(d):
        if row[i] == 0.0:
            continue
        h = np.hypot(tri[i, i], row[i])
        c, s = tri[i, i] / h, row[i] / h
        for k in range(i, width):
            upper = tri[i, k]
            tri[i, k] = c * upper + s * row[k]
            row[k] = c * row[k] - s * upper


@njit(cache=True, nogil=True)
def _times(A, B):
    """A B; a loop, since BLAS calls cost more than such small products."""
    n, inner = A.shape
    m = B.shape[1]
    out = np.zeros((n, m))
    for i in range(n):
        for k in range(inner):
            factor = A[i, k]
            for j in range(m):
                out[i, j] += factor * B[k, j]
    return out


@njit(cache=True, nogil=True)
def _spread(F, P, V):
    """F P F^T + V, exactly symmetric."""
    FP = _times(F, P)
    n, inner = F.shape
    out = np.empty((n, n))
    for i in range(n):
        for j in range(i + 1):
            total = 0.0
            for k in range(inner):
                total += FP[i, k] * F[j, k]
            out[i, j] = out[j, i] = total + 0.5 * (V[i, j] + V[j, i])
    return out


@njit(cache=True, nogil=True)
def _lower_root(S):
    """Cholesky factor of S."""
    n = len(S)
    L = np.zeros((n, n))
    for i in range(n):
        for j in range(i + 1):
            total = S[i, j]
            for k in range(j):
                total -= L[i, k] * L[j, k]
            L[i, j] = np.sqrt(total) if i == j else total / L[j, j]
    return L


@njit(cache=True, nogil=True)
def _predict(F, V, a, B, P):
    """x <- F x + N(0, V)."""
    a[:] = _times(F, a)
    B[:] = _times(F, B)
    P[:] = _spread(F, P, V)


@njit(cache=True, nogil=True)
def _absorb(h, y, w, a, B, P, tri, row):
    """Use y = h x + N(0, 1 / w): y (m,) one number per path."""
    d, m = a.shape
    Ph = np.zeros(d)
    along = 0.0
    for i in range(d):
        for l in range(d):
            Ph[i] += P[i, l] * h[l]
        along += h[i] * Ph[i]
    f = 1.0 + w * along
    k = w * Ph / f
    weight = np.sqrt(w / f)
    for i in range(d):
        total = 0.0
        for l in range(d):
            total += h[l] * B[l, i]
        row[i] = total
    for j in range(m):
        total = y[j]
        for l in range(d):
            total -= h[l] * a[l, j]
        row[d + j] = total
    for i in range(d):
        for l in range(d):
            B[i, l] -= k[i] * row[l]
        for j in range(m):
            a[i, j] += k[i] * row[d + j]
    for l in range(d + m):
        row[l] *= weight
    _insert(tri, row)
    if w > 0.0:
        move = -np.outer(k, h)
        for i in range(d):
            move[i, i] += 1.0
        P[:] = _spread(move, P, np.outer(k, k) / w)


@njit(cache=True, nogil=True)
def _retreat(F, V, tri, out, row):
    """Equations in x_{k+1} = F x_k + N(0, V) as triangular equations in x_k."""
    d, width = tri.shape
    Y = tri[:, :d]
    L = _lower_root(_spread(Y, V, np.eye(d)))
    moved = np.empty((d, width))
    moved[:, :d] = _times(Y, F)
    moved[:, d:] = tri[:, d:]
    out[:] = 0.0
    for i in range(d):
        for l in range(i):
            for k in range(width):
                moved[i, k] -= L[i, l] * moved[l, k]
        for k in range(width):
            moved[i, k] /= L[i, i]
            row[k] = moved[i, k]
        _insert(out, row)


@njit(cache=True, nogil=True)
def _sweep(
    start, first, split, last, F, V, H, ranks, y, w, Fq, Vq, Fn, Vn, a_out, B_out, P_out, tri_out
):
    """All queries (sorted) that use the same observations first..last with the same weights w (T,).

    Query q splits them: those before split[q] are its past, the others its future. H (T, r, d),
    y (T, r, m); F, V lead to each stamp from the one before, Fq, Vq from the last past stamp to
    the query, Fn, Vn from the query to the first future stamp. `start` numbers the outputs.
    """
    n_queries = len(split)
    d, m = H.shape[2], y.shape[2]
    row = np.empty(d + m)
    tri, moved = np.zeros((d, d + m)), np.zeros((d, d + m))
    future = np.zeros((n_queries, d, d + m))
    q = n_queries - 1
    while q >= 0 and split[q] >= last:
        q -= 1
    k = last - 1
    while q >= 0:
        for r in range(ranks[k]):
            if w[k] > 0.0:
                root = np.sqrt(w[k])
                for l in range(d):
                    row[l] = root * H[k, r, l]
                for j in range(m):
                    row[d + j] = root * y[k, r, j]
                _insert(tri, row)
        while q >= 0 and split[q] == k:
            _retreat(Fn[q], Vn[q], tri, future[q], row)
            q -= 1
        if q >= 0:
            _retreat(F[k], V[k], tri, moved, row)
            tri[:] = moved
            k -= 1

    a, B, P = np.zeros((d, m)), np.eye(d), np.zeros((d, d))
    tri[:] = 0.0
    q = 0
    k = first
    while q < n_queries:
        while q < n_queries and split[q] <= k:
            at = start + q
            a_out[at], B_out[at], P_out[at], tri_out[at] = a, B, P, tri
            if k > first:
                _predict(Fq[q], Vq[q], a_out[at], B_out[at], P_out[at])
            if split[q] < last:
                for i in range(d):
                    _absorb(
                        future[q, i, :d], future[q, i, d:], 1.0,
                        a_out[at], B_out[at], P_out[at], tri_out[at], row,
                    )  # fmt: skip
            q += 1
        if q < n_queries:
            if k > first:
                _predict(F[k], V[k], a, B, P)
            for r in range(ranks[k]):
                _absorb(H[k, r], y[k, r], w[k], a, B, P, tri, row)
            k += 1


@njit(cache=True, nogil=True)
def sweep_shared(
    first, split, last, F, V, H, ranks, y, Fq, Vq, Fn, Vn, a_out, B_out, P_out, tri_out
):
    """Unit weights: one sweep for all queries when they use the same observations, else one each.

    y (T, r, m); outputs (n, d, m), (n, d, d), (n, d, d), (n, d, d + m).
    """
    n = len(split)
    w = np.ones(len(H))
    begin = 0
    while begin < n:
        stop = begin + 1
        while stop < n and first[stop] == first[begin] and last[stop] == last[begin]:
            stop += 1
        _sweep(
            begin, first[begin], split[begin:stop], last[begin], F, V, H, ranks, y, w,
            Fq[begin:stop], Vq[begin:stop], Fn[begin:stop], Vn[begin:stop],
            a_out, B_out, P_out, tri_out,
        )  # fmt: skip
        begin = stop


@njit(cache=True, nogil=True)
def sweep_each(
    first, split, last, F, V, H, ranks, y, w, Fq, Vq, Fn, Vn, a_out, B_out, P_out, tri_out
):
    """Weights w (P, n, T) of every path and query; y (P, T, r, 1), outputs with a leading P."""
    for p in range(len(y)):
        for q in range(len(split)):
            one = slice(q, q + 1)
            _sweep(
                q, first[q], split[one], last[q], F, V, H, ranks, y[p], w[p, q],
                Fq[one], Vq[one], Fn[one], Vn[one], a_out[p], B_out[p], P_out[p], tri_out[p],
            )  # fmt: skip
