"""Compiled recursions of the log-likelihood and of its exact gradient.

State columns: the first n are the paths (they share one missing pattern, hence all covariances),
the last q are the responses to the flat directions of the prior (de Jong's augmentation).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from afafilter._jit import njit
from afafilter._kalman_root_kernels import size

TAYLOR_TERMS = 15
BASE_NORM = 0.25
FLAT_PIVOT = 1e-12


@njit(cache=True, error_model="numpy")
def _mul(a: Any, b: Any, out: Any) -> None:
    n, m, c = a.shape[0], a.shape[1], b.shape[1]
    for i in range(n):
        for j in range(c):
            out[i, j] = 0.0
        for k in range(m):
            x = a[i, k]
            if x != 0.0:
                for j in range(c):
                    out[i, j] += x * b[k, j]


@njit(cache=True, error_model="numpy")
def _mul_t(a: Any, b: Any, out: Any) -> None:
    """out = a b^T."""
    n, m, c = a.shape[0], a.shape[1], b.shape[0]
    for i in range(n):
        for j in range(c):
            x = 0.0
            for k in range(m):
                x += a[i, k] * b[j, k]
            out[i, j] = x


@njit(cache=True, error_model="numpy")
def _t_mul(a: Any, b: Any, out: Any) -> None:
    """out = a^T b."""
    n, m, c = a.shape[1], a.shape[0], b.shape[1]
    for i in range(n):
        for j in range(c):
            out[i, j] = 0.0
    for k in range(m):
        for i in range(n):
            x = a[k, i]
            if x != 0.0:
                for j in range(c):
                    out[i, j] += x * b[k, j]


@njit(cache=True, error_model="numpy")
def _add_t_product(a: Any, b: Any, scale: float, out: Any) -> None:
    """out += scale a b^T."""
    for i in range(a.shape[0]):
        for j in range(b.shape[0]):
            x = 0.0
            for k in range(a.shape[1]):
                x += a[i, k] * b[j, k]
            out[i, j] += scale * x


@njit(cache=True, error_model="numpy")
def _spd_inverse(s: Any, inverse: Any, root: Any) -> float:
    """Inverse of a positive definite matrix and its log-determinant (nan: not definite)."""
    m = s.shape[0]
    logdet = 0.0
    for i in range(m):
        for j in range(i + 1):
            x = s[i, j]
            for k in range(j):
                x -= root[i, k] * root[j, k]
            if i == j:
                if not x > 1e-15 * s[i, i]:
                    return np.nan
                root[i, i] = np.sqrt(x)
                logdet += np.log(x)
            else:
                root[i, j] = x / root[j, j]
    for j in range(m):
        for i in range(m):
            x = 1.0 if i == j else 0.0
            for k in range(i):
                x -= root[i, k] * inverse[k, j]
            inverse[i, j] = x / root[i, i]
        for i in range(m - 1, -1, -1):
            x = inverse[i, j]
            for k in range(i + 1, m):
                x -= root[k, i] * inverse[k, j]
            inverse[i, j] = x / root[i, i]
    return logdet


@njit(cache=True, error_model="numpy")
def filter_pass(
    F: Any, b: Any, V: Any, index: Any, H: Any, shift: Any, R: Any, scale: Any,
    m0: Any, P0: Any, D: Any, z: Any, mask: Any, sizes: Any,
) -> Any:  # fmt: skip
    """Kalman filter of the augmented columns.

    F (K, d, d), b (K, d), V (K, d, d): distinct transitions, `index` (T,) the one into t.
    H (1|T, p, d), shift (1|T, p), R (1|T, p, p): constant or per time; R_t is scale[t] R.
    z (T, p, n); mask (T, p) True where observed; D (d, q).
    Returns failed step (-1: none), log-determinant, filtered columns and covariance, innovation
    columns, inverse innovation covariance and gain (observed rows packed first).
    """
    T = len(z)
    d, p, n, q = size(sizes[0]), size(sizes[1]), size(sizes[2]), size(sizes[3])
    c = n + q
    M = np.empty((T, d, c))
    P = np.empty((T, d, d))
    v = np.zeros((T, p, c))
    Si = np.zeros((T, p, p))
    K = np.zeros((T, d, p))
    mp, Pp = np.empty((d, c)), np.empty((d, d))
    tmp, L = np.empty((d, d)), np.empty((d, d))
    HP, S, root, inv = np.empty((p, d)), np.empty((p, p)), np.zeros((p, p)), np.empty((p, p))
    rows = np.empty(p, np.int64)
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
            M[t] = mp
            P[t] = Pp
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
                return t, logdet, M, P, v, Si, K
            inv[0, 0] = 1.0 / S[0, 0]
            logdet += np.log(S[0, 0])
        else:
            part = _spd_inverse(S[:m, :m], inv[:m, :m], root[:m, :m])
            if np.isnan(part):
                return t, logdet, M, P, v, Si, K
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
        _mul(L, Pp, tmp)
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
    return -1, logdet, M, P, v, Si, K


@njit(cache=True, error_model="numpy")
def flat_moments(v: Any, Si: Any, sizes: Any) -> Any:
    """Information about the flat directions (q, q) and its right-hand side (q, n)."""
    T = len(v)
    p, n, q = size(sizes[1]), size(sizes[2]), size(sizes[3])
    info, rhs = np.zeros((q, q)), np.zeros((q, n))
    w = np.empty((p, q))
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
    return info, rhs


@njit(cache=True, error_model="numpy")
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


@njit(cache=True, error_model="numpy")
def quadratic(v: Any, Si: Any, sizes: Any) -> Any:
    """Sum over time of v^T S^-1 v per path (n,)."""
    p, n = size(sizes[1]), size(sizes[2])
    out = np.zeros(n)
    for t in range(len(v)):
        for a in range(p):
            for g in range(p):
                s = Si[t, a, g]
                if s != 0.0:
                    for j in range(n):
                        out[j] += v[t, a, j] * s * v[t, g, j]
    return out


@njit(cache=True, error_model="numpy")
def score_pass(
    F: Any, V: Any, index: Any, H: Any, R: Any, scale: Any, mask: Any,
    M: Any, P: Any, v: Any, Si: Any, K: Any, root: Any, sizes: Any, keep: bool,
) -> Any:  # fmt: skip
    """Backward recursion of the smoothed costates r (d, c), N (d, d) and the gradient they give.

    `root` (q, q) with root root^T the posterior covariance of the flat directions. Gradients are
    with respect to every distinct transition, H, shift and R (same leading lengths), m0, P0.
    `keep`: also return smoothed disturbances u (T, p, n), M (T, p, p), smoothed states (T, d, n),
    their covariance (T, d, d) and Cov(x_t, x_t-1 | z).
    """
    T = len(v)
    d, p, n, q = size(sizes[0]), size(sizes[1]), size(sizes[2]), size(sizes[3])
    c = n + q
    nH, nR = H.shape[0], R.shape[0]
    gF, gb, gV = np.zeros(F.shape), np.zeros(F.shape[:2]), np.zeros(F.shape)
    gH, gs, gR = np.zeros(H.shape), np.zeros((T, p)), np.zeros(R.shape)
    kept = T if keep else 0
    U, MM = np.zeros((kept, p, n)), np.zeros((kept, p, p))
    X, PX, CX = np.zeros((kept, d, n)), np.zeros((kept, d, d)), np.zeros((kept, d, d))
    lam, r, N = np.zeros((d, c)), np.zeros((d, c)), np.zeros((d, d))
    Lam, A1, A2, L = np.zeros((d, d)), np.empty((d, d)), np.empty((d, d)), np.empty((d, d))
    xs, xd, x_next = np.empty((d, c)), np.empty((d, q)), np.empty((d, q))
    u, rd, G = np.empty((p, c)), np.empty((d, q)), np.empty((d, d))
    ud, Mt, KL, B = np.empty((p, q)), np.empty((p, p)), np.empty((p, d)), np.empty((p, d))
    rows = np.empty(p, np.int64)
    # Smoothed states at the time in hand: filtered + P lam; xd: their flat part times root.
    xs[:, :] = M[T - 1]
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
            _mul(P[t], Lam, A1)
            _mul(A1, P[t], A2)
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
            _mul(Lam, L, A2)
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
            r[:, :] = lam
            N[:, :] = Lam
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
        x_next[:, :] = xd
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
            _mul(F[f], P[t - 1], CX[t])
            _mul_t(CX[t], F[f], A1)
            for i in range(d):
                for j in range(d):
                    A1[i, j] += V[f, i, j]
            _mul(A1, A2, L)
            for i in range(d):
                for j in range(d):
                    CX[t, i, j] -= L[i, j]
                    for k in range(q):
                        CX[t, i, j] += x_next[i, k] * xd[j, k]
    return gF, gb, gV, gH, gs, gR, r, N, G, U, MM, X, PX, CX


@njit(cache=True, error_model="numpy")
def transitions(A: Any, Q: Any, u: Any, steps: Any) -> Any:
    """Phi, psi, V over every interval: the forward half of `transition_adjoint`, compiled.

    Kept beside its derivative, so that the gradient is that of the very numbers used. Error about
    eps ||A|| dt; `afafilter.linalg.transition` covers what is stiffer than that allows.
    """
    d = A.shape[0]
    n = len(steps)
    Phi, psi, V = np.zeros((n, d, d)), np.zeros((n, d)), np.zeros((n, d, d))
    norm = column_norm(A)
    T, W, X, Y = (np.empty((d, d)), np.empty((d, d)), np.empty((d, d)), np.empty((d, d)))
    G, a, e = np.empty((d, d)), np.empty((d, d)), np.empty((d, d))
    s, s_new = np.empty(d), np.empty(d)
    for k in range(n):
        halvings = _halvings(norm * steps[k])
        h = steps[k] / 2.0**halvings
        for i in range(d):
            for j in range(d):
                T[i, j] = h if i == j else 0.0
                G[i, j] = T[i, j]
                W[i, j] = h * Q[i, j]
                Y[i, j] = W[i, j]
        if norm > 0.0:
            for m in range(1, TAYLOR_TERMS):
                c = h / (m + 1)
                _mul(A, T, a)
                _mul(A, W, e)
                for i in range(d):
                    for j in range(d):
                        T[i, j] = c * a[i, j]
                        G[i, j] += T[i, j]
                        W[i, j] = c * (e[i, j] + e[j, i])
                        Y[i, j] += W[i, j]
        _mul(A, G, X)
        for i in range(d):
            s[i] = 0.0
            for j in range(d):
                s[i] += G[i, j] * u[j]
        for _ in range(halvings):
            _mul(X, Y, a)
            _mul_t(a, X, e)
            for i in range(d):
                s_new[i] = 2.0 * s[i]
                for j in range(d):
                    s_new[i] += X[i, j] * s[j]
                    e[i, j] += 2.0 * Y[i, j] + a[i, j]
            for i in range(d):
                for j in range(d):
                    Y[i, j] = e[i, j] + a[j, i]
            _mul(X, X, a)
            for i in range(d):
                for j in range(d):
                    X[i, j] = 2.0 * X[i, j] + a[i, j]
            s[:] = s_new
        for i in range(d):
            psi[k, i] = s[i]
            for j in range(d):
                Phi[k, i, j] = X[i, j]
                V[k, i, j] = 0.5 * (Y[i, j] + Y[j, i])
            Phi[k, i, i] += 1.0
    return Phi, psi, V


@njit(cache=True, error_model="numpy")
def column_norm(A: Any) -> float:
    norm = 0.0
    for j in range(A.shape[0]):
        x = 0.0
        for i in range(A.shape[0]):
            x += abs(A[i, j])
        norm = max(norm, x)
    return norm


@njit(cache=True, error_model="numpy")
def _halvings(reach: float) -> int:
    return int(np.ceil(np.log2(reach / BASE_NORM))) if reach > BASE_NORM else 0


@njit(cache=True, error_model="numpy")
def score_group(
    F: Any, b: Any, V: Any, index: Any, H: Any, shift: Any, R: Any, scale: Any,
    m0: Any, P0: Any, D: Any, z: Any, mask: Any, sizes: Any, gradient: bool,
) -> Any:  # fmt: skip
    """Everything for one group of paths in one call: log-likelihood (without 2 pi) and gradient.

    Status: -1 done; t >= 0: singular innovation at t; -2: flat directions that the data do not see,
    to be treated by the caller.
    """
    n, q = size(sizes[2]), size(sizes[3])
    failed, logdet, M, P, v, Si, K = filter_pass(
        F, b, V, index, H, shift, R, scale, m0, P0, D, z, mask, sizes
    )
    delta, root = np.zeros((q, n)), np.zeros((q, q))
    status = failed
    if failed < 0 and q > 0:
        info, rhs = flat_moments(v, Si, sizes)
        good, information = _flat_root(info, root)
        logdet += information
        if not good:
            status = -2
        else:
            half, step = np.empty((q, n)), np.empty((q, n))
            for refining in (False, True):
                if refining:
                    rhs = flat_moments(v, Si, sizes)[1]
                _t_mul(root, rhs, half)
                _mul(root, half, step)
                delta += step
                shift_columns(M, step, sizes[0], sizes)
                shift_columns(v, step, sizes[1], sizes)
    value = -np.inf
    if status == -1:
        value = -0.5 * (n * logdet + quadratic(v, Si, sizes).sum())
    if status != -1 or not gradient:
        parts = (
            F[:0], b[:0], V[:0], H[:0], shift[:0], R[:0], m0[:0], P0[:0], D[:0],
        )  # fmt: skip
        return status, value, parts
    gF, gb, gV, gH, gs, gR, r, _, G, _, _, _, _, _ = score_pass(
        F, V, index, H, R, scale, mask, M, P, v, Si, K, root, sizes, False
    )
    g_shift = np.zeros(shift.shape)
    for t in range(len(gs)):
        g_shift[t if len(shift) > 1 else 0] += gs[t]
    gm = np.zeros(len(m0))
    gD = np.zeros(D.shape)
    for i in range(len(m0)):
        for j in range(n):
            gm[i] += r[i, j]
            for k in range(q):
                gD[i, k] += r[i, j] * delta[k, j]
        for k in range(q):
            for g in range(q):
                for e in range(q):
                    gD[i, k] += n * r[i, n + g] * root[g, e] * root[k, e]
    return status, value, (gF, gb, gV, gH, g_shift, gR, gm, G, gD)


@njit(cache=True, error_model="numpy")
def _flat_root(info: Any, root: Any) -> Any:
    """root with root root^T = info^-1, and log det info; False where info is nearly singular."""
    q = info.shape[0]
    L = np.zeros((q, q))
    logdet = 0.0
    for i in range(q):
        for j in range(i + 1):
            x = info[i, j]
            for k in range(j):
                x -= L[i, k] * L[j, k]
            if i == j:
                if not x > FLAT_PIVOT * info[i, i]:
                    return False, 0.0
                L[i, i] = np.sqrt(x)
                logdet += np.log(x)
            else:
                L[i, j] = x / L[j, j]
    for j in range(q):  # root = L^-T
        for i in range(q):
            x = 1.0 if i == j else 0.0
            for k in range(j, i):
                x -= L[i, k] * root[j, k]
            root[j, i] = x / L[i, i] if i >= j else 0.0
    return True, logdet


@njit(cache=True, error_model="numpy")
def transition_adjoint(A: Any, Q: Any, u: Any, steps: Any, gF: Any, gb: Any, gV: Any) -> Any:
    """Gradient in (A, Q, u) from gradients in (Phi, psi, V) over every interval.

    Reverse mode through a Taylor step of length dt / 2^k and k doublings of X = Phi - I, psi and
    V: right for every A (defective, singular, unstable), and nothing like e^{-A dt} occurs.
    """
    d = A.shape[0]
    gA, gQ, gu = np.zeros((d, d)), np.zeros((d, d)), np.zeros(d)
    norm = column_norm(A)
    T = np.empty((TAYLOR_TERMS, d, d))
    W = np.empty((TAYLOR_TERMS, d, d))
    G, GX, GW, GG = np.empty((d, d)), np.empty((d, d)), np.empty((d, d)), np.empty((d, d))
    a, e, w = np.empty((d, d)), np.empty((d, d)), np.empty((d, d))
    s_bar, s_new = np.empty(d), np.empty(d)
    deepest = 0
    for k in range(len(steps)):
        deepest = max(deepest, _halvings(norm * steps[k]))
    X, S, Y = (
        np.empty((deepest + 1, d, d)), np.empty((deepest + 1, d)), np.empty((deepest + 1, d, d)),
    )  # fmt: skip
    for k in range(len(steps)):
        if steps[k] == 0.0:
            continue
        halvings = _halvings(norm * steps[k])
        h = steps[k] / 2.0**halvings
        # G = int_0^h e^{As} ds, X = A G, V by Taylor
        for i in range(d):
            for j in range(d):
                T[0, i, j] = h if i == j else 0.0
                W[0, i, j] = h * Q[i, j]
        G[:, :] = T[0]
        Y[0] = W[0]
        for m in range(1, TAYLOR_TERMS):
            c = h / (m + 1)
            _mul(A, T[m - 1], T[m])
            _mul(A, W[m - 1], a)
            for i in range(d):
                for j in range(d):
                    T[m, i, j] *= c
                    W[m, i, j] = c * (a[i, j] + a[j, i])
                    G[i, j] += T[m, i, j]
                    Y[0, i, j] += W[m, i, j]
        _mul(A, G, X[0])
        for i in range(d):
            S[0, i] = 0.0
            for j in range(d):
                S[0, i] += G[i, j] * u[j]
        for m in range(halvings):
            _mul(X[m], X[m], X[m + 1])
            _mul(X[m], Y[m], a)
            _mul_t(a, X[m], e)
            for i in range(d):
                S[m + 1, i] = 2.0 * S[m, i]
                for j in range(d):
                    X[m + 1, i, j] += 2.0 * X[m, i, j]
                    Y[m + 1, i, j] = 2.0 * Y[m, i, j] + a[i, j] + a[j, i] + e[i, j]
                    S[m + 1, i] += X[m, i, j] * S[m, j]
        GX[:, :] = gF[k]
        s_bar[:] = gb[k]
        for i in range(d):
            for j in range(d):
                GW[i, j] = 0.5 * (gV[k, i, j] + gV[k, j, i])
        for m in range(halvings - 1, -1, -1):
            _mul(GW, Y[m], w)  # GW Phi V = GW V + GW X V
            _mul(X[m], Y[m], a)
            _mul(GW, a, e)
            for i in range(d):
                for j in range(d):
                    w[i, j] = 2.0 * (w[i, j] + e[i, j]) + s_bar[i] * S[m, j] + 2.0 * GX[i, j]
            _t_mul(X[m], GX, a)
            _mul_t(GX, X[m], e)
            for i in range(d):
                for j in range(d):
                    GX[i, j] = w[i, j] + a[i, j] + e[i, j]
            _t_mul(X[m], GW, a)
            _mul(GW, X[m], e)
            _mul(a, X[m], w)
            for i in range(d):
                s_new[i] = 2.0 * s_bar[i]
                for j in range(d):
                    GW[i, j] = 2.0 * GW[i, j] + a[i, j] + e[i, j] + w[i, j]
                    s_new[i] += X[m, j, i] * s_bar[j]
            s_bar[:] = s_new
        _add_t_product(GX, G, 1.0, gA)
        _t_mul(A, GX, GG)
        for i in range(d):
            for j in range(d):
                GG[i, j] += s_bar[i] * u[j]
                gu[i] += G[j, i] * s_bar[j]
        e[:, :] = GG
        w[:, :] = GW
        for m in range(TAYLOR_TERMS - 1, 0, -1):
            c = h / (m + 1)
            _add_t_product(e, T[m - 1], c, gA)
            _mul(w, W[m - 1], a)
            for i in range(d):
                for j in range(d):
                    gA[i, j] += 2.0 * c * a[i, j]
            _t_mul(A, e, a)
            for i in range(d):
                for j in range(d):
                    e[i, j] = GG[i, j] + c * a[i, j]
            _t_mul(A, w, a)
            for i in range(d):
                for j in range(d):
                    w[i, j] = GW[i, j] + c * (a[i, j] + a[j, i])
        for i in range(d):
            for j in range(d):
                gQ[i, j] += h * w[i, j]
    return gA, gQ, gu


@njit(cache=True, error_model="numpy")
def _append(out: Any, start: int, part: Any) -> Any:
    """Write an array into a vector from `start` on; where it ends."""
    for i, x in enumerate(part.ravel()):
        out[start + i] = x
    return start + part.size


@njit(cache=True, error_model="numpy")
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
