"""Compiled inner loops of AFA with weights of its own for every path and query.

Equations R x = s + N(0, I) are kept triangular as tri = [R | s] (d, d + m), m columns of data.
Exact least squares over a chain: conditional on the state theta at the first stamp the state is
x = a + B theta + e, Cov(e) = P, and tri holds what the observations say about theta. Work arrays
are passed in: nothing is allocated in the inner loops.
"""

# mypy: disable-error-code="misc, no-untyped-call, no-untyped-def"

from __future__ import annotations

import numpy as np

from afafilter._core.jit import njit


@njit(cache=True, nogil=True, error_model="numpy")
def _insert(tri, row):
    """Rotate the equation `row` into the upper triangular equations tri (d, d + m)."""
    d, width = tri.shape
    for i in range(d):
        if row[i] == 0.0:
            continue
        h = tri[i, i] ** 2 + row[i] ** 2
        h = np.sqrt(h) if 1e-280 < h < 1e280 else np.hypot(tri[i, i], row[i])
        c, s = tri[i, i] / h, row[i] / h
        for k in range(i, width):
            upper = tri[i, k]
            tri[i, k] = c * upper + s * row[k]
            row[k] = c * row[k] - s * upper


@njit(cache=True, nogil=True, error_model="numpy")
def pair_distances(G, T, y, rest, anchor, allowed, out):
    """d2 (P, nq, n) = |T y - G a|^2 + rest; G (nq, n, r, d), T (nq, n, r, r), y (P, n, r)."""
    n_queries, n, r, d = G.shape
    for p in range(len(y)):
        for q in range(n_queries):
            for j in range(n):
                out[p, q, j] = 0.0
                if not allowed[q, j]:
                    continue
                total = rest[p, j]
                for i in range(r):
                    e = 0.0
                    for l in range(r):
                        e += T[q, j, i, l] * y[p, j, l]
                    for l in range(d):
                        e -= G[q, j, i, l] * anchor[p, q, l]
                    total += e * e
                out[p, q, j] = total


@njit(cache=True, nogil=True, error_model="numpy")
def weighted_triangles(G, T, y, root, tri):
    """Add the equations root (T y = G x) of all pairs to tri (P, nq, d, d + 1); root (P, nq, n)."""
    n_queries, n, r, d = G.shape
    row = np.empty(d + 1)
    for p in range(len(y)):
        for q in range(n_queries):
            here = tri[p, q]
            for j in range(n):
                w = root[p, q, j]
                if w == 0.0:
                    continue
                for i in range(r):
                    e = 0.0
                    for l in range(r):
                        e += T[q, j, i, l] * y[p, j, l]
                    for l in range(d):
                        row[l] = w * G[q, j, i, l]
                    row[d] = w * e
                    _insert(here, row)


@njit(cache=True, nogil=True, error_model="numpy")
def _left_times(F, k, x, work):
    """x <- F[k] x."""
    d, m = x.shape
    for i in range(d):
        for j in range(m):
            total = 0.0
            for l in range(d):
                total += F[k, i, l] * x[l, j]
            work[i, j] = total
    for i in range(d):
        for j in range(m):
            x[i, j] = work[i, j]


@njit(cache=True, nogil=True, error_model="numpy")
def _predict(F, V, k, a, B, P, work):
    """x <- F[k] x + N(0, V[k])."""
    d = len(P)
    _left_times(F, k, a, work)
    _left_times(F, k, B, work)
    for i in range(d):
        for j in range(d):
            total = 0.0
            for l in range(d):
                total += F[k, i, l] * P[l, j]
            work[i, j] = total
    for i in range(d):
        for j in range(i + 1):
            total = 0.5 * (V[k, i, j] + V[k, j, i])
            for l in range(d):
                total += work[i, l] * F[k, j, l]
            P[i, j] = P[j, i] = total


@njit(cache=True, nogil=True, error_model="numpy")
def _absorb(eq, w, a, B, P, tri, row, gain):
    """Use y = h x + N(0, 1 / w), eq = [h | y] (d + m,), one y per column; gain (2, d) work."""
    d, m = a.shape
    f = 1.0
    for i in range(d):
        total = 0.0
        for l in range(d):
            total += P[i, l] * eq[l]
        gain[0, i] = total
        f += w * eq[i] * total
    for i in range(d):
        gain[1, i] = w * gain[0, i] / f
    for i in range(d):
        total = 0.0
        for l in range(d):
            total += eq[l] * B[l, i]
        row[i] = total
    for j in range(m):
        total = eq[d + j]
        for l in range(d):
            total -= eq[l] * a[l, j]
        row[d + j] = total
    for i in range(d):
        k = gain[1, i]
        for l in range(d):
            B[i, l] -= k * row[l]
        for j in range(m):
            a[i, j] += k * row[d + j]
    weight = np.sqrt(w / f)
    for l in range(d + m):
        row[l] *= weight
    _insert(tri, row)
    # (I - k h) P (I - k h)^T + k k^T / w in the order that cannot lose definiteness
    for i in range(d):
        for l in range(d):
            P[i, l] -= gain[1, i] * gain[0, l]
    for i in range(d):
        total = 0.0
        for l in range(d):
            total += P[i, l] * eq[l]
        gain[0, i] = total
    for i in range(d):
        for l in range(d):
            P[i, l] += (gain[1, i] / w - gain[0, i]) * gain[1, l]
    for i in range(d):
        for l in range(i):
            P[i, l] = P[l, i] = 0.5 * (P[i, l] + P[l, i])


@njit(cache=True, nogil=True, error_model="numpy")
def _retreat(F, V, k, tri, out, work, root, row):
    """Equations in x_{k+1} = F[k] x_k + N(0, V[k]) as triangular equations in x_k."""
    d, width = tri.shape
    for i in range(d):
        for j in range(d):
            total = 0.0
            for l in range(i, d):
                total += tri[i, l] * 0.5 * (V[k, l, j] + V[k, j, l])
            work[i, j] = total
    for i in range(d):  # Cholesky factor of I + Y V Y^T
        for j in range(i + 1):
            total = 1.0 if i == j else 0.0
            for l in range(j, d):
                total += work[i, l] * tri[j, l]
            for l in range(j):
                total -= root[i, l] * root[j, l]
            root[i, j] = np.sqrt(total) if i == j else total / root[j, j]
    for i in range(d):
        for j in range(d):
            total = 0.0
            for l in range(i, d):
                total += tri[i, l] * F[k, l, j]
            work[i, j] = total
        for j in range(d, width):
            work[i, j] = tri[i, j]
        for l in range(i):
            for j in range(width):
                work[i, j] -= root[i, l] * work[l, j]
        for j in range(width):
            work[i, j] /= root[i, i]
    out[:] = 0.0
    for i in range(d):
        for j in range(width):
            row[j] = work[i, j]
        _insert(out, row)


@njit(cache=True, nogil=True, error_model="numpy")
def _sweep(
    start, stop, first, split, last, F, V, H, ranks, y, w, Fq, Vq, Fn, Vn,
    a_out, B_out, P_out, tri_out, work, root, row, eq, gain, a, B, P, tri, moved, future,
):  # fmt: skip
    """Queries start..stop (sorted) that use the same observations, with the same weights w (T,).

    Query q splits them: those before split[q] are its past, the others its future. H (T, r, d),
    y (T, r, m); F, V lead to each stamp from the one before, Fq, Vq from the last past stamp to
    the query, Fn, Vn from the query to the first future stamp.
    """
    d, m = H.shape[2], y.shape[2]
    begin, end = first[start], last[start]
    q = stop - 1
    while q >= start and split[q] >= end:
        q -= 1
    if q >= start:
        tri[:] = 0.0
        k = end - 1
        while q >= start:
            if w[k] > 0.0:
                size = np.sqrt(w[k])
                for r in range(ranks[k]):
                    for l in range(d):
                        row[l] = size * H[k, r, l]
                    for j in range(m):
                        row[d + j] = size * y[k, r, j]
                    _insert(tri, row)
            while q >= start and split[q] == k:
                _retreat(Fn, Vn, q, tri, future[q - start], work, root, row)
                q -= 1
            if q >= start:
                _retreat(F, V, k, tri, moved, work, root, row)
                tri[:] = moved
                k -= 1

    a[:] = 0.0
    B[:] = 0.0
    P[:] = 0.0
    tri[:] = 0.0
    for i in range(d):
        B[i, i] = 1.0
    q = start
    k = begin
    while q < stop:
        while q < stop and split[q] <= k:
            a_out[q], B_out[q], P_out[q], tri_out[q] = a, B, P, tri
            if k > begin:
                _predict(Fq, Vq, q, a_out[q], B_out[q], P_out[q], work)
            if split[q] < end:
                for i in range(d):
                    for l in range(d + m):
                        eq[l] = future[q - start, i, l]
                    _absorb(eq, 1.0, a_out[q], B_out[q], P_out[q], tri_out[q], row, gain)
            q += 1
        if q < stop:
            if k > begin:
                _predict(F, V, k, a, B, P, work)
            if w[k] > 0.0:
                for r in range(ranks[k]):
                    for l in range(d):
                        eq[l] = H[k, r, l]
                    for j in range(m):
                        eq[d + j] = y[k, r, j]
                    _absorb(eq, w[k], a, B, P, tri, row, gain)
            k += 1


@njit(cache=True, nogil=True, error_model="numpy")
def sweep_shared(
    first, split, last, F, V, H, ranks, y, Fq, Vq, Fn, Vn, a_out, B_out, P_out, tri_out
):
    """Unit weights: one sweep for all queries when they use the same observations, else one each.

    Queries without a future share a sweep although their `last` differ. y (T, r, m); outputs
    (n, d, m), (n, d, d), (n, d, d), (n, d, d + m).
    """
    n = len(split)
    d, m = H.shape[2], y.shape[2]
    w = np.ones(len(H))
    causal = True
    for q in range(n):
        if split[q] < last[q]:
            causal = False
    end = last.copy()
    begin = 0
    while begin < n:
        stop = begin + 1
        while stop < n and first[stop] == first[begin] and (causal or last[stop] == last[begin]):
            stop += 1
        if causal:
            end[begin] = 0
        _sweep(
            begin, stop, first, split, end, F, V, H, ranks, y, w, Fq, Vq, Fn, Vn,
            a_out, B_out, P_out, tri_out, np.empty((d, d + m)), np.zeros((d, d)), np.empty(d + m),
            np.empty(d + m), np.empty((2, d)), np.empty((d, m)), np.empty((d, d)), np.empty((d, d)),
            np.empty((d, d + m)), np.empty((d, d + m)),
            np.zeros((0 if causal else stop - begin, d, d + m)),
        )  # fmt: skip
        begin = stop
