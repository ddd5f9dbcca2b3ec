"""Compiled recursions of the log-likelihood and of its exact gradient.

State columns: the first n are the paths (they share one missing pattern, hence all covariances),
the last q are the responses to the flat directions of the prior (de Jong's augmentation).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from afafilter._core.jit import bare, jit
from afafilter._core.kalman_root_kernels import size
from afafilter._core.small_matrix_kernels import (
    cholesky,
    column_norm,
    copy,
    multiply,
    multiply_t,
    spd_inverse,
    t_multiply,
)
from afafilter._core.transition_adjoint_kernels import transition_adjoint, transitions

FLAT_PIVOT = 1e-12


class Room(NamedTuple):
    """Work space of the recursions for d states, p components and c columns."""

    square: Any
    """(5, d, d)"""
    columns: Any
    """(3, d, c)"""
    shown: Any
    """(2, p, d)"""
    seen: Any
    """(3, p, p)"""
    innovation: Any
    """(p, c)"""
    flat: Any
    """(4, max(d, p), q)"""
    rows: Any
    """(p,) whole numbers"""


class Filtered(NamedTuple):
    """What `filter_pass` leaves behind; observed rows are packed first."""

    M: Any
    """(T, d, c): filtered columns."""
    P: Any
    """(T, d, d): filtered covariance."""
    v: Any
    """(T, p, c): innovation columns."""
    Si: Any
    """(T, p, p): inverse innovation covariance."""
    K: Any
    """(T, d, p): gain."""


class Scores(NamedTuple):
    """Gradients that `score_pass` adds up, by arrays of the chain, and at the first time."""

    F: Any
    b: Any
    V: Any
    H: Any
    shift: Any
    """(T, p): at every time."""
    R: Any
    r: Any
    """(d, c): by the columns at the first time."""
    P0: Any


class Smoothed(NamedTuple):
    """What `score_pass` keeps if asked; without a row if not."""

    u: Any
    """(T, p, n): smoothed disturbances."""
    M: Any
    """(T, p, p): and what their covariance falls short by."""
    x: Any
    """(T, d, n): smoothed states."""
    P: Any
    """(T, d, d): their covariance."""
    lag: Any
    """(T, d, d): Cov(x_t, x_t-1 | z)."""


@jit
def make_room(sizes: Any) -> Any:
    """Work space, see `Room`."""
    d, p, n, q = size(sizes[0]), size(sizes[1]), size(sizes[2]), size(sizes[3])
    c = n + q
    return Room(
        np.empty((5, d, d)), np.empty((3, d, c)), np.empty((2, p, d)), np.zeros((3, p, p)),
        np.empty((p, c)), np.empty((4, max(d, p), q)), np.empty(p, np.int64),
    )  # fmt: skip


@jit
def empty_filtered(T: int, sizes: Any) -> Any:
    """Room for the results of `filter_pass`."""
    d, p, n, q = size(sizes[0]), size(sizes[1]), size(sizes[2]), size(sizes[3])
    c = n + q
    return Filtered(
        np.empty((T, d, c)), np.empty((T, d, d)), np.zeros((T, p, c)), np.zeros((T, p, p)),
        np.zeros((T, d, p)),
    )  # fmt: skip


@jit
def no_scores(F: Any, H: Any, R: Any, T: int, sizes: Any) -> Any:
    """Scores of which nothing is added up yet."""
    d, p, n, q = size(sizes[0]), size(sizes[1]), size(sizes[2]), size(sizes[3])
    return Scores(
        np.zeros(F.shape), np.zeros(F.shape[:2]), np.zeros(F.shape), np.zeros(H.shape),
        np.zeros((T, p)), np.zeros(R.shape), np.zeros((d, n + q)), np.zeros((d, d)),
    )  # fmt: skip


@jit
def empty_smoothed(T: int, sizes: Any) -> Any:
    """Room for smoothed moments at T times."""
    d, p, n = size(sizes[0]), size(sizes[1]), size(sizes[2])
    return Smoothed(
        np.zeros((T, p, n)), np.zeros((T, p, p)), np.zeros((T, d, n)), np.zeros((T, d, d)),
        np.zeros((T, d, d)),
    )  # fmt: skip


@bare
def filter_pass(
    F: Any, b: Any, V: Any, index: Any, H: Any, shift: Any, R: Any, scale: Any,
    m0: Any, P0: Any, D: Any, z: Any, mask: Any, sizes: Any, filtered: Any, room: Any,
) -> Any:  # fmt: skip
    """Kalman filter of the augmented columns.

    F (K, d, d), b (K, d), V (K, d, d): distinct transitions, `index` (T,) the one into t.
    H (1|T, p, d), shift (1|T, p), R (1|T, p, p): constant or per time; R_t is scale[t] R.
    z (T, p, n); mask (T, p) True where observed; D (d, q); filtered: `empty_filtered`.
    Returns the failed step (-1: none) and the log-determinant.
    """
    T = len(z)
    d, p, n, q = size(sizes[0]), size(sizes[1]), size(sizes[2]), size(sizes[3])
    c = n + q
    M, P, v, Si, K = filtered
    Pp, tmp, L = room.square[0], room.square[1], room.square[2]
    mp, HP, rows = room.columns[0], room.shown[0], room.rows
    S, root, inv = room.seen[0], room.seen[1], room.seen[2]
    logdet = 0.0
    for i in range(d):
        for j in range(n):
            mp[i, j] = m0[i]
        for j in range(q):
            mp[i, n + j] = D[i, j]
        for j in range(d):
            Pp[i, j] = P0[i, j]
    for t in range(T):
        if t > 0:
            f = index[t]
            for i in range(d):
                for j in range(c):
                    x = b[f, i] if j < n else 0.0
                    for k in range(d):
                        x += F[f, i, k] * M[t - 1, k, j]
                    mp[i, j] = x
                for j in range(d):
                    x = 0.0
                    for k in range(d):
                        x += F[f, i, k] * P[t - 1, k, j]
                    tmp[i, j] = x
            for i in range(d):
                for j in range(i + 1):
                    x = V[f, i, j]
                    for k in range(d):
                        x += tmp[i, k] * F[f, j, k]
                    Pp[i, j] = x
                    Pp[j, i] = x
        m = 0
        for a in range(p):
            if mask[t, a]:
                rows[m] = a
                m += 1
        if m == 0:
            copy(mp, M[t])
            copy(Pp, P[t])
            continue
        th = t if H.shape[0] > 1 else 0
        ts = t if shift.shape[0] > 1 else 0
        tr = t if R.shape[0] > 1 else 0
        for a in range(m):
            for j in range(d):
                x = 0.0
                for k in range(d):
                    x += H[th, rows[a], k] * Pp[k, j]
                HP[a, j] = x
        for a in range(m):
            for g in range(m):
                x = scale[t] * R[tr, rows[a], rows[g]]
                for k in range(d):
                    x += HP[a, k] * H[th, rows[g], k]
                S[a, g] = x
        if m == 1:
            if not S[0, 0] > 0.0:
                return t, logdet
            inv[0, 0] = 1.0 / S[0, 0]
            logdet += np.log(S[0, 0])
        else:
            part = spd_inverse(S[:m, :m], inv[:m, :m], root[:m, :m])
            if np.isnan(part):
                return t, logdet
            logdet += part
        for a in range(m):
            for g in range(m):
                Si[t, a, g] = inv[a, g]
            for j in range(c):
                x = z[t, rows[a], j] - shift[ts, rows[a]] if j < n else 0.0
                for k in range(d):
                    x -= H[th, rows[a], k] * mp[k, j]
                v[t, a, j] = x
            for i in range(d):
                x = 0.0
                for g in range(m):
                    x += HP[g, i] * inv[g, a]
                K[t, i, a] = x
        for i in range(d):
            for j in range(c):
                x = mp[i, j]
                for a in range(m):
                    x += K[t, i, a] * v[t, a, j]
                M[t, i, j] = x
            for j in range(d):
                x = 1.0 if i == j else 0.0
                for a in range(m):
                    x -= K[t, i, a] * H[th, rows[a], j]
                L[i, j] = x
        multiply(L, Pp, tmp)
        for i in range(d):
            for j in range(i + 1):
                x = 0.0
                for k in range(d):
                    x += tmp[i, k] * L[j, k]
                for a in range(m):
                    for g in range(m):
                        x += K[t, i, a] * scale[t] * R[tr, rows[a], rows[g]] * K[t, j, g]
                P[t, i, j] = x
                P[t, j, i] = x
    return -1, logdet


@bare
def flat_moments(v: Any, Si: Any, sizes: Any, room: Any, info: Any, rhs: Any) -> None:
    """Information about the flat directions (q, q) and its right-hand side (q, n)."""
    T = len(v)
    p, n, q = size(sizes[1]), size(sizes[2]), size(sizes[3])
    w = room.flat[0]
    for k in range(q):
        for j in range(q):
            info[k, j] = 0.0
        for j in range(n):
            rhs[k, j] = 0.0
    for t in range(T):
        for a in range(p):
            for k in range(q):
                x = 0.0
                for g in range(p):
                    x += Si[t, a, g] * v[t, g, n + k]
                w[a, k] = x
        for k in range(q):
            for a in range(p):
                for j in range(q):
                    info[k, j] += w[a, k] * v[t, a, n + j]
                for j in range(n):
                    rhs[k, j] -= w[a, k] * v[t, a, j]


@bare
def shift_columns(x: Any, delta: Any, rows: Any, sizes: Any) -> None:
    """Move the path columns to flat-direction values `delta` (q, n), in place."""
    n, q = size(sizes[2]), size(sizes[3])
    for t in range(len(x)):
        for i in range(size(rows)):
            for k in range(q):
                response = x[t, i, n + k]
                if response != 0.0:
                    for j in range(n):
                        x[t, i, j] += response * delta[k, j]


@bare
def quadratic(v: Any, Si: Any, sizes: Any) -> Any:
    """Sum over times and paths of v^T S^-1 v."""
    p, n = size(sizes[1]), size(sizes[2])
    total = 0.0
    for t in range(len(v)):
        for a in range(p):
            for g in range(p):
                s = Si[t, a, g]
                if s != 0.0:
                    for j in range(n):
                        total += v[t, a, j] * s * v[t, g, j]
    return total


@bare
def score_pass(
    F: Any, V: Any, index: Any, H: Any, R: Any, scale: Any, mask: Any, filtered: Any,
    root: Any, sizes: Any, scores: Any, smoothed: Any, room: Any,
) -> None:  # fmt: skip
    """Backward recursion of the smoothed costates r (d, c), N (d, d) and the gradient they give.

    `root` (q, q) with root root^T the posterior covariance of the flat directions. `scores` grow,
    with respect to every distinct transition, H, shift and R (same leading lengths), m0, P0.
    `smoothed` is filled where it has room.
    """
    M, P, v, Si, K = filtered
    gF, gb, gV, gH, gs, gR, r, G = scores
    U, MM, X, PX, CX = smoothed
    T = len(v)
    d, p, n, q = size(sizes[0]), size(sizes[1]), size(sizes[2]), size(sizes[3])
    c = n + q
    nH, nR = H.shape[0], R.shape[0]
    keep = len(U) > 0
    N, Lam, A1, A2, L = (
        room.square[0], room.square[1], room.square[2], room.square[3], room.square[4]
    )  # fmt: skip
    lam, xs, u = room.columns[0], room.columns[1], room.innovation
    xd, x_next, rd, ud = room.flat[0], room.flat[1], room.flat[2], room.flat[3]
    Mt, KL, B, rows = room.seen[0], room.shown[0], room.shown[1], room.rows
    for i in range(d):
        for j in range(c):
            lam[i, j] = 0.0
        for j in range(d):
            Lam[i, j] = 0.0
    # Smoothed states at the time in hand: filtered + P lam; xd: their flat part times root.
    copy(M[T - 1], xs)
    for i in range(d):
        for k in range(q):
            x = 0.0
            for g in range(q):
                x += xs[i, n + g] * root[g, k]
            xd[i, k] = x
    for t in range(T - 1, -1, -1):
        m = 0
        for a in range(p):
            if mask[t, a]:
                rows[m] = a
                m += 1
        th = t if nH > 1 else 0
        if keep:
            multiply(P[t], Lam, A1)
            multiply(A1, P[t], A2)
            for i in range(d):
                for j in range(n):
                    X[t, i, j] = xs[i, j]
                for j in range(d):
                    x = P[t, i, j] - A2[i, j]
                    for k in range(q):
                        x += xd[i, k] * xd[j, k]
                    PX[t, i, j] = x
        if m > 0:
            for a in range(m):
                for j in range(c):
                    x = 0.0
                    for g in range(m):
                        x += Si[t, a, g] * v[t, g, j]
                    for i in range(d):
                        x -= K[t, i, a] * lam[i, j]
                    u[a, j] = x
                for j in range(d):
                    x = 0.0
                    for i in range(d):
                        x += K[t, i, a] * Lam[i, j]
                    KL[a, j] = x
                for k in range(q):
                    x = 0.0
                    for g in range(q):
                        x += u[a, n + g] * root[g, k]
                    ud[a, k] = x
            for a in range(m):
                for g in range(m):
                    x = Si[t, a, g]
                    for i in range(d):
                        x += KL[a, i] * K[t, i, g]
                    for k in range(q):
                        x -= ud[a, k] * ud[g, k]
                    Mt[a, g] = x
            at_h, at_r = th, (t if nR > 1 else 0)
            for a in range(m):
                for g in range(m):
                    x = -n * Mt[a, g]
                    for j in range(n):
                        x += u[a, j] * u[g, j]
                    gR[at_r, rows[a], rows[g]] += 0.5 * scale[t] * x
                    if keep:
                        MM[t, rows[a], rows[g]] = Mt[a, g]
                for j in range(n):
                    gs[t, rows[a]] += u[a, j]
                    if keep:
                        U[t, rows[a], j] = u[a, j]
                for i in range(d):
                    x = K[t, i, a]
                    for k in range(d):
                        x -= KL[a, k] * P[t, k, i]
                    x *= -n
                    for j in range(n):
                        x += u[a, j] * xs[i, j]
                    for k in range(q):
                        x += n * ud[a, k] * xd[i, k]
                    gH[at_h, rows[a], i] += x
            # costates before the observation
            for i in range(d):
                for j in range(c):
                    x = lam[i, j]
                    for a in range(m):
                        x += H[th, rows[a], i] * u[a, j]
                    r[i, j] = x
                for j in range(d):
                    x = 1.0 if i == j else 0.0
                    for a in range(m):
                        x -= K[t, i, a] * H[th, rows[a], j]
                    L[i, j] = x
            multiply(Lam, L, A2)
            for a in range(m):
                for j in range(d):
                    x = 0.0
                    for g in range(m):
                        x += Si[t, a, g] * H[th, rows[g], j]
                    B[a, j] = x
            for i in range(d):
                for j in range(i + 1):
                    x = 0.0
                    for k in range(d):
                        x += L[k, i] * A2[k, j]
                    for a in range(m):
                        x += H[th, rows[a], i] * B[a, j]
                    N[i, j] = x
                    N[j, i] = x
        else:
            copy(lam, r)
            copy(Lam, N)
        for i in range(d):
            for k in range(q):
                x = 0.0
                for g in range(q):
                    x += r[i, n + g] * root[g, k]
                rd[i, k] = x
        for i in range(d):
            for j in range(d):
                x = -n * N[i, j]
                for k in range(n):
                    x += r[i, k] * r[j, k]
                for k in range(q):
                    x += n * rd[i, k] * rd[j, k]
                G[i, j] = 0.5 * x
        if t == 0:
            break
        f = index[t]
        copy(xd, x_next)
        for i in range(d):
            for j in range(n):
                gb[f, i] += r[i, j]
            for j in range(d):
                gV[f, i, j] += G[i, j]
        for i in range(d):
            for j in range(c):
                x = 0.0
                for k in range(d):
                    x += F[f, k, i] * r[k, j]
                lam[i, j] = x
            for j in range(d):
                x = 0.0
                for k in range(d):
                    x += N[i, k] * F[f, k, j]
                A1[i, j] = x
        for i in range(d):
            for j in range(i + 1):
                x = 0.0
                for k in range(d):
                    x += F[f, k, i] * A1[k, j]
                Lam[i, j] = x
                Lam[j, i] = x
        for i in range(d):
            for j in range(c):
                x = M[t - 1, i, j]
                for k in range(d):
                    x += P[t - 1, i, k] * lam[k, j]
                xs[i, j] = x
        for i in range(d):
            for k in range(q):
                x = 0.0
                for g in range(q):
                    x += xs[i, n + g] * root[g, k]
                xd[i, k] = x
        for i in range(d):
            for j in range(d):
                x = 0.0
                for k in range(d):
                    x += A1[i, k] * P[t - 1, k, j]  # N F P
                A2[i, j] = x
                x *= -n
                for k in range(n):
                    x += r[i, k] * xs[j, k]
                for k in range(q):
                    x += n * rd[i, k] * xd[j, k]
                gF[f, i, j] += x
        if keep:
            # Cov(x_t, x_t-1 | z) = F P_t-1 - P_t|t-1 N F P_t-1 (+ flat part)
            multiply(F[f], P[t - 1], CX[t])
            multiply_t(CX[t], F[f], A1)
            for i in range(d):
                for j in range(d):
                    A1[i, j] += V[f, i, j]
            multiply(A1, A2, L)
            for i in range(d):
                for j in range(d):
                    CX[t, i, j] -= L[i, j]
                    for k in range(q):
                        CX[t, i, j] += x_next[i, k] * xd[j, k]


@jit
def score_group(
    F: Any, b: Any, V: Any, index: Any, H: Any, shift: Any, R: Any, scale: Any,
    m0: Any, P0: Any, D: Any, z: Any, mask: Any, sizes: Any, gradient: bool,
) -> Any:  # fmt: skip
    """Everything for one group of paths in one call: log-likelihood (without 2 pi) and gradient.

    Status: -1 done; t >= 0: singular innovation at t; -2: flat directions that the data do not see,
    to be treated by the caller.
    """
    n, q = size(sizes[2]), size(sizes[3])
    T = len(z)
    room, filtered = make_room(sizes), empty_filtered(T, sizes)
    status, logdet = filter_pass(
        F, b, V, index, H, shift, R, scale, m0, P0, D, z, mask, sizes, filtered, room
    )
    delta, root = np.zeros((q, n)), np.zeros((q, q))
    if status < 0 and q > 0:
        information = fit_flat(
            filtered, sizes, room, np.empty((2, q, q)), np.empty((3, q, n)), root, delta
        )
        if np.isnan(information):
            status = -2
        logdet += information
    value = -np.inf
    if status == -1:
        value = -0.5 * (n * logdet + quadratic(filtered.v, filtered.Si, sizes))
    if status != -1 or not gradient:
        parts = (
            F[:0], b[:0], V[:0], H[:0], shift[:0], R[:0], m0[:0], P0[:0], D[:0],
        )  # fmt: skip
        return status, value, parts
    scores = no_scores(F, H, R, T, sizes)
    score_pass(
        F, V, index, H, R, scale, mask, filtered, root, sizes, scores,
        empty_smoothed(0, sizes), room,
    )  # fmt: skip
    g_shift, gm, gD = np.zeros(shift.shape), np.zeros(len(m0)), np.zeros(D.shape)
    _first_scores(scores.shift, scores.r, delta, root, sizes, g_shift, gm, gD)
    return status, value, (
        scores.F, scores.b, scores.V, scores.H, g_shift, scores.R, gm, scores.P0, gD
    )  # fmt: skip


@bare
def fit_flat(
    filtered: Any, sizes: Any, room: Any, square: Any, wide: Any, root: Any, delta: Any
) -> Any:
    """Move the paths to the flat-direction values `delta` (q, n) that fit best.

    root (q, q): root root^T becomes the inverse of their information. Returns the logarithm of its
    determinant, nan where it is nearly singular. square (2, q, q), wide (3, q, n): work space.
    """
    n, q = size(sizes[2]), size(sizes[3])
    info, rhs, half, step = square[0], wide[0], wide[1], wide[2]
    flat_moments(filtered.v, filtered.Si, sizes, room, info, rhs)
    logdet = _flat_root(info, square[1], root)
    if np.isnan(logdet):
        return logdet
    # The second round refines: the first leaves rounding of the size of the data's level.
    for refining in (False, True):
        if refining:
            flat_moments(filtered.v, filtered.Si, sizes, room, info, rhs)
        t_multiply(root, rhs, half)
        multiply(root, half, step)
        for k in range(q):
            for j in range(n):
                delta[k, j] += step[k, j]
        shift_columns(filtered.M, step, sizes[0], sizes)
        shift_columns(filtered.v, step, sizes[1], sizes)
    return logdet


@bare
def _first_scores(
    gs: Any, r: Any, delta: Any, root: Any, sizes: Any, g_shift: Any, gm: Any, gD: Any
) -> None:
    """Gradients by shift (summed over time if it is constant), prior mean and flat directions."""
    d, p, n, q = size(sizes[0]), size(sizes[1]), size(sizes[2]), size(sizes[3])
    for t in range(len(gs)):
        row = t if len(g_shift) > 1 else 0
        for a in range(p):
            g_shift[row, a] += gs[t, a]
    for i in range(d):
        for j in range(n):
            gm[i] += r[i, j]
            for k in range(q):
                gD[i, k] += r[i, j] * delta[k, j]
        for k in range(q):
            for g in range(q):
                for e in range(q):
                    gD[i, k] += n * r[i, n + g] * root[g, e] * root[k, e]


@bare
def _flat_root(info: Any, L: Any, root: Any) -> Any:
    """root with root root^T = info^-1; log det info, nan where that is nearly singular."""
    q = info.shape[0]
    logdet = cholesky(info, FLAT_PIVOT, L)
    if np.isnan(logdet):
        return logdet
    for j in range(q):  # root = L^-T
        for i in range(q):
            x = 1.0 if i == j else 0.0
            for k in range(j, i):
                x -= L[i, k] * root[j, k]
            root[j, i] = x / L[i, i] if i >= j else 0.0
    return logdet


@bare
def _append(out: Any, start: int, part: Any) -> Any:
    """Write an array into a vector from `start` on; where it ends."""
    for i, x in enumerate(part.flat):
        out[start + i] = x
    return start + part.size


@jit
def score_sde(
    A: Any, Q: Any, u: Any, C: Any, offset: Any, R: Any, mean: Any, cov: Any, flat: Any,
    steps: Any, index: Any, scale: Any, z: Any, mask: Any, sizes: Any, reach: float,
) -> Any:  # fmt: skip
    """`transitions`, `score_group` and `transition_adjoint` in one call: short series gain by it.

    Status as of `score_group`; -2 also where ||A|| dt exceeds `reach`. The gradient is one vector,
    by A, Q, cov, C, R (summed over time), offset, u, mean and flat, end to end; empty where there
    is none.
    """
    p, d = C.shape
    nothing = np.empty(0)
    H, shift = C.reshape((1, p, d)), offset.reshape((1, p))
    if column_norm(A) * steps.max() > reach:
        return -2, 0.0, nothing
    F, b, V = transitions(A, Q, u, steps)
    status, value, parts = score_group(
        F, b, V, index, H, shift, R, scale, mean, cov, flat, z, mask, sizes, True
    )
    gF, gb, gV, gH, gs, gR, gm, gP, gD = parts
    if status != -1:
        return status, value, nothing
    gA, gQ, gu = transition_adjoint(A, Q, u, steps, gF, gb, gV)
    out = np.zeros(3 * d * d + p * d + p * p + p + 2 * d + flat.size)
    end = _append(out, 0, gA)
    end = _append(out, end, gQ)
    end = _append(out, end, gP)
    end = _append(out, end, gH)
    _append(out, end, gR[0])
    for t in range(1, len(gR)):
        for i in range(p):
            for j in range(p):
                out[end + p * i + j] += gR[t, i, j]
    end = _append(out, end + p * p, gs)
    end = _append(out, end, gu)
    end = _append(out, end, gm)
    _append(out, end, gD)
    return status, value, out
