"""Compiled sweeps of exact correlation with weights of their own for every path and query.

Neighbouring queries share dynamics and data and differ in their weights alone: LANES of them run
side by side, the last axis of every array, so that the processor's vector units are filled. The
recursions are those of `_adaptive_kernels`, which finishes each query.
"""

# mypy: disable-error-code="misc, no-untyped-call, no-untyped-def"

from __future__ import annotations

import numpy as np

from afafilter._core.adaptive_kernels import _absorb, _predict, _retreat
from afafilter._core.jit import njit

LANES = 16


@njit(cache=True, nogil=True, error_model="numpy")
def _insert_lanes(tri, row, c, s):
    """Rotate the equation `row` (d + 1, L) into the triangular equations tri (d, d + 1, L)."""
    d, width, lanes = tri.shape
    for i in range(d):
        extreme = False
        for l in range(lanes):
            h = tri[i, i, l] ** 2 + row[i, l] ** 2
            extreme |= (row[i, l] != 0.0) & ((h < 1e-280) | (h > 1e280))
            s[l] = np.sqrt(h)
        if extreme:
            for l in range(lanes):
                s[l] = np.hypot(tri[i, i, l], row[i, l])
        for l in range(lanes):
            turn = row[i, l] != 0.0
            h = s[l] if turn else 1.0
            c[l] = tri[i, i, l] / h if turn else 1.0
            s[l] = row[i, l] / h
        for k in range(i, width):
            for l in range(lanes):
                upper, lower = tri[i, k, l], row[k, l]
                tri[i, k, l] = c[l] * upper + s[l] * lower
                row[k, l] = c[l] * lower - s[l] * upper


@njit(cache=True, nogil=True, error_model="numpy")
def _product(F, x, out):
    """out = F x for x (d, m, L)."""
    d, m, lanes = x.shape
    for i in range(d):
        for j in range(m):
            f = F[i, 0]
            for l in range(lanes):
                out[i, j, l] = f * x[0, j, l]
            for k in range(1, d):
                f = F[i, k]
                for l in range(lanes):
                    out[i, j, l] += f * x[k, j, l]


@njit(cache=True, nogil=True, error_model="numpy")
def _predict_lanes(F, V, x, P, new, work):
    """[a | B] = x (d, d + 1, L) and P one step on; the new x is left in `new`."""
    d, lanes = len(P), P.shape[2]
    _product(F, x, new)
    _product(F, P, work)
    for i in range(d):
        for j in range(i + 1):
            v = 0.5 * (V[i, j] + V[j, i])
            for l in range(lanes):
                P[i, j, l] = v
            for k in range(d):
                f = F[j, k]
                for l in range(lanes):
                    P[i, j, l] += f * work[i, k, l]
            for l in range(lanes):
                P[j, i, l] = P[i, j, l]


@njit(cache=True, nogil=True, error_model="numpy")
def _absorb_lanes(h, y, w, x, P, tri, row, gain, c, s):
    """Use y = h x + N(0, 1 / w), w (L,); x = [B | a] (d, d + 1, L); gain (2, d, L) work."""
    d, lanes = len(P), P.shape[2]
    for l in range(lanes):
        c[l] = 1.0
    for i in range(d):
        for l in range(lanes):
            gain[0, i, l] = 0.0
        for k in range(d):
            for l in range(lanes):
                gain[0, i, l] += h[k] * P[i, k, l]
        for l in range(lanes):
            c[l] += w[l] * h[i] * gain[0, i, l]
    for l in range(lanes):
        c[l] = 1.0 / c[l]
    for j in range(d + 1):
        for l in range(lanes):
            row[j, l] = 0.0
        for i in range(d):
            for l in range(lanes):
                row[j, l] += h[i] * x[i, j, l]
    for l in range(lanes):
        row[d, l] = y - row[d, l]
    for i in range(d):
        for l in range(lanes):
            gain[1, i, l] = w[l] * gain[0, i, l] * c[l]
        for j in range(d):
            for l in range(lanes):
                x[i, j, l] -= gain[1, i, l] * row[j, l]
        for l in range(lanes):
            x[i, d, l] += gain[1, i, l] * row[d, l]
    # (I - k h) P (I - k h)^T + k k^T / w in the order that cannot lose definiteness
    for i in range(d):
        for k in range(d):
            for l in range(lanes):
                P[i, k, l] -= gain[1, i, l] * gain[0, k, l]
    for i in range(d):
        for l in range(lanes):
            gain[0, i, l] *= c[l]
        for k in range(d):
            for l in range(lanes):
                gain[0, i, l] -= h[k] * P[i, k, l]
    for i in range(d):
        for k in range(d):
            for l in range(lanes):
                P[i, k, l] += gain[0, i, l] * gain[1, k, l]
    for i in range(d):
        for k in range(i):
            for l in range(lanes):
                P[i, k, l] = 0.5 * (P[i, k, l] + P[k, i, l])
            for l in range(lanes):
                P[k, i, l] = P[i, k, l]
    for l in range(lanes):
        c[l] = np.sqrt(w[l] * c[l])
    for j in range(d + 1):
        for l in range(lanes):
            row[j, l] *= c[l]
    _insert_lanes(tri, row, c, s)


@njit(cache=True, nogil=True, error_model="numpy")
def _retreat_lanes(F, V, tri, out, work, root, row, c, s):
    """Equations in F x + N(0, V) as triangular equations in x."""
    d, width, lanes = tri.shape
    for i in range(d):
        for j in range(d):
            for l in range(lanes):
                work[i, j, l] = 0.0
            for k in range(i, d):
                v = 0.5 * (V[k, j] + V[j, k])
                for l in range(lanes):
                    work[i, j, l] += v * tri[i, k, l]
    for i in range(d):  # Cholesky factor of I + Y V Y^T
        for j in range(i + 1):
            for l in range(lanes):
                root[i, j, l] = 1.0 if i == j else 0.0
            for k in range(j, d):
                for l in range(lanes):
                    root[i, j, l] += work[i, k, l] * tri[j, k, l]
            for k in range(j):
                for l in range(lanes):
                    root[i, j, l] -= root[i, k, l] * root[j, k, l]
            for l in range(lanes):
                root[i, j, l] = np.sqrt(root[i, j, l]) if i == j else root[i, j, l] / root[j, j, l]
    for i in range(d):
        for j in range(d):
            for l in range(lanes):
                work[i, j, l] = 0.0
            for k in range(i, d):
                f = F[k, j]
                for l in range(lanes):
                    work[i, j, l] += f * tri[i, k, l]
        for l in range(lanes):
            work[i, d, l] = tri[i, d, l]
        for j in range(width):
            for k in range(i):
                for l in range(lanes):
                    work[i, j, l] -= root[i, k, l] * work[k, j, l]
            for l in range(lanes):
                work[i, j, l] /= root[i, i, l]
    out[:] = 0.0
    for i in range(d):
        row[:] = work[i]
        _insert_lanes(out, row, c, s)


@njit(cache=True, nogil=True, error_model="numpy")
def sweep_each(
    first, split, last, F, V, H, ranks, y, w, Fq, Vq, Fn, Vn, a_out, B_out, P_out, tri_out
):
    """Weights w (P, n, T) of every path and query; y (P, T, r, 1), outputs with a leading P.

    Query q splits its observations first[q] <= j < last[q]: those before split[q] are its past,
    the others its future. F, V lead to each stamp from the one before, Fq, Vq from the last past
    stamp to the query, Fn, Vn from the query to the first future stamp.
    """
    d, n, lanes = H.shape[2], len(split), LANES
    x, new, P = np.empty((d, d + 1, LANES)), np.empty((d, d + 1, LANES)), np.empty((d, d, LANES))
    tri, moved = np.empty((d, d + 1, LANES)), np.empty((d, d + 1, LANES))
    work, root = np.empty((d, d + 1, LANES)), np.zeros((d, d, LANES))
    row, gain = np.empty((d + 1, LANES)), np.empty((2, d, LANES))
    c, s, here = np.empty(LANES), np.empty(LANES), np.zeros(LANES)
    future = np.zeros((LANES, d, d + 1))
    one_tri, one_work, one_root = np.empty((d, d + 1)), np.empty((d, d + 1)), np.zeros((d, d))
    one_row, one_gain = np.empty(d + 1), np.empty((2, d))
    for p in range(len(y)):
        start = 0
        while start < n:
            begin, middle, end, own = first[start], split[start], last[start], 0
            low = middle
            stop = start
            while stop < n and stop < start + LANES:
                own = max(own, last[stop] - first[stop])
                left, right = min(begin, first[stop]), max(end, last[stop])
                if stop > start and right - left > 2 * own:
                    break
                begin, end = left, right
                low, middle = min(low, split[stop]), max(middle, split[stop])
                stop += 1
            here[:] = 0.0
            tri[:] = 0.0
            for k in range(end - 1, low - 1, -1):
                for l in range(stop - start):
                    q = start + l
                    here[l] = np.sqrt(w[p, q, k]) if k < last[q] else 0.0
                for r in range(ranks[k]):
                    for j in range(d):
                        for l in range(lanes):
                            row[j, l] = here[l] * H[k, r, j]
                    for l in range(lanes):
                        row[d, l] = here[l] * y[p, k, r, 0]
                    _insert_lanes(tri, row, c, s)
                for l in range(stop - start):
                    q = start + l
                    if split[q] == k and k < last[q]:
                        one_tri[:] = tri[:, :, l]
                        _retreat(Fn, Vn, q, one_tri, future[l], one_work, one_root, one_row)
                if k > low:
                    _retreat_lanes(F[k], V[k], tri, moved, work, root, row, c, s)
                    tri, moved = moved, tri

            for k in range(begin, middle + 1):
                for l in range(stop - start):
                    q = start + l
                    if split[q] != k:
                        continue
                    a, B, C, R = a_out[p, q], B_out[p, q], P_out[p, q], tri_out[p, q]
                    if k == first[q]:
                        a[:] = 0.0
                        B[:] = np.eye(d)
                        C[:] = 0.0
                        R[:] = 0.0
                    else:
                        a[:, 0], B[:], C[:], R[:] = (
                            x[:, d, l],
                            x[:, :d, l],
                            P[:, :, l],
                            tri[:, :, l],
                        )
                        _predict(Fq, Vq, q, a, B, C, one_work)
                    if k < last[q]:
                        for i in range(d):
                            _absorb(future[l, i], 1.0, a, B, C, R, one_row, one_gain)
                if k == middle:
                    break
                if k > begin:
                    _predict_lanes(F[k], V[k], x, P, new, work[:, :d])
                    x, new = new, x
                for l in range(lanes):
                    q = min(start + l, stop - 1)
                    here[l] = w[p, q, k] if k >= first[q] else 0.0
                    if k == begin or k == first[q]:
                        x[:, :, l] = 0.0
                        for i in range(d):
                            x[i, i, l] = 1.0
                        P[:, :, l] = 0.0
                        tri[:, :, l] = 0.0
                for r in range(ranks[k]):
                    _absorb_lanes(H[k, r], y[p, k, r, 0], here, x, P, tri, row, gain, c, s)
            start = stop
