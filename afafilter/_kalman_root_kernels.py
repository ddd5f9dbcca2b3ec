"""Compiled building blocks of the Kalman recursions, in square-root form.

Covariances never appear inside: only roots, P = L L^T, so that no rounding makes them indefinite.

    predict   [F L, V^1/2; L, 0] Theta = [L', 0; X, Y]   (Theta orthogonal, Householder)
              L' L'^T = F P F^T + V,  G = X L'^-1 = P F^T P'^-1,  Y Y^T = P - G P' G^T
    update    scalar by scalar after R = l D l^T:  phi = L^T h, f = phi^T phi + D,
              L <- L - (L phi) phi^T / (f (1 + sqrt(D / f)))                     (Potter)
              e = K v has unit variance, m <- m + W e                 (v = z - H m - off)

Sources: Kaminski, Bryson & Schmidt (1971) for the array forms; Park & Kailath (1995) for the
backward law.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

EPS = 2.220446049250313e-16
LOG_2PI = 1.8378770664093453

jit = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})


@jit
def semidefinite_root(V: Any, out: Any) -> None:
    """Lower Cholesky factors of a stack of semidefinite matrices; null pivots give null columns."""
    n, d = V.shape[0], V.shape[1]
    for u in range(n):
        for j in range(d):
            for i in range(d):
                out[u, i, j] = 0.0
            pivot = V[u, j, j]
            for k in range(j):
                pivot -= out[u, j, k] ** 2
            if pivot <= 4 * d * EPS * V[u, j, j]:
                continue
            root = np.sqrt(pivot)
            out[u, j, j] = root
            for i in range(j + 1, d):
                s = V[u, i, j]
                for k in range(j):
                    s -= out[u, i, k] * out[u, j, k]
                out[u, i, j] = s / root


@jit
def triangularise(A: Any, pivot: Any) -> int:
    """Rotate the columns of A so that its first len(pivot) rows become lower triangular.

    pivot[j] = column of row j's pivot, -1 where the row depends on those above. Returns the rank.
    """
    rows, width = A.shape
    d = pivot.shape[0]
    rank = 0
    for j in range(d):
        done = 0.0
        for c in range(rank):
            done += A[j, c] * A[j, c]
        rest = 0.0
        for c in range(rank, width):
            rest += A[j, c] * A[j, c]
        if rest <= (8 * width * EPS) ** 2 * (done + rest):
            for c in range(rank, width):
                A[j, c] = 0.0
            pivot[j] = -1
            continue
        norm = np.sqrt(rest)
        head = A[j, rank]
        beta = 1.0 / (norm * (norm + abs(head)))
        alpha = -norm if head > 0 else norm
        A[j, rank] = head - alpha
        for i in range(j + 1, rows):
            dot = 0.0
            for c in range(rank, width):
                dot += A[i, c] * A[j, c]
            dot *= beta
            for c in range(rank, width):
                A[i, c] -= dot * A[j, c]
        A[j, rank] = alpha
        for c in range(rank + 1, width):
            A[j, c] = 0.0
        pivot[j] = rank
        rank += 1
    return rank


@jit
def backward_law(A: Any, pivot: Any, rank: Any, G: Any, C: Any) -> None:
    """From a triangularised [L'; X Y]: the gain G = X L'^-1 and C = Y Y^T."""
    rows, width = A.shape
    d = pivot.shape[0]
    n = rows - d
    for j in range(d - 1, -1, -1):
        c = pivot[j]
        if c < 0:
            for r in range(n):
                G[r, j] = 0.0
            continue
        inv = 1.0 / A[j, c]
        for r in range(n):
            s = A[d + r, c]
            for i in range(j + 1, d):
                s -= G[r, i] * A[i, c]
            G[r, j] = s * inv
    for r in range(n):
        for s in range(r + 1):
            total = 0.0
            for c in range(rank, width):
                total += A[d + r, c] * A[d + s, c]
            C[r, s] = total
            C[s, r] = total


@jit
def predict_root(
    F: Any, root: Any, L: Any, A: Any, pivot: Any, smooth: Any, G: Any, C: Any
) -> None:
    """L <- root of F P F^T + V; with `smooth` also the backward law of the step."""
    d = L.shape[0]
    for i in range(d):
        for j in range(d):
            A[i, j] = 0.0
            A[i, d + j] = root[i, j]
        for k in range(d):
            f = F[i, k]
            for j in range(d):
                A[i, j] += f * L[k, j]
    if smooth:
        for i in range(d):
            for j in range(d):
                A[d + i, j] = L[i, j]
                A[d + i, d + j] = 0.0
        rank = triangularise(A, pivot)
        backward_law(A, pivot, rank, G, C)
    else:
        triangularise(A[:d], pivot)
    for i in range(d):
        for j in range(d):
            L[i, j] = A[i, j]


@jit
def gram(L: Any, P: Any) -> None:
    """P = L L^T."""
    rows, width = L.shape
    for i in range(rows):
        for j in range(i + 1):
            s = 0.0
            for k in range(width):
                s += L[i, k] * L[j, k]
            P[i, j] = s
            P[j, i] = s


@jit
def innovation_cov(H: Any, R: Any, L: Any, S: Any, Y: Any) -> None:
    """S = H P H^T + R, with Y (p, d) as work space."""
    p, d = H.shape
    for a in range(p):
        for j in range(d):
            Y[a, j] = 0.0
        for k in range(d):
            h = H[a, k]
            for j in range(d):
                Y[a, j] += h * L[k, j]
    gram(Y, S)
    for a in range(p):
        for c in range(p):
            S[a, c] += R[a, c]


@jit
def update_space(p: Any, d: Any) -> Any:
    """Work space of update_root: rows h, phi, u and the factor l, D of R."""
    return np.empty((p + 2, d)), np.empty((p + 1, p))


@jit
def update_root(
    H: Any, R: Any, scale: Any, seen: Any, S: Any, L: Any, W: Any, K: Any, work: Any
) -> float:
    """Condition L on the seen components, with noise scale * R; fill W and K (zeros if unseen).

    Returns -(n log 2 pi + log|S|) / 2, or NaN where the innovation is known exactly.
    work : from `update_space`.
    """
    p, d = H.shape
    h, low = work
    phi, u, D = h[p], h[p + 1], low[p]
    half = 0.0
    for a in range(p):
        for j in range(p):
            K[a, j] = 0.0
        for i in range(d):
            W[i, a] = 0.0
        if not seen[a]:
            continue
        for i in range(d):
            h[a, i] = H[a, i]
        K[a, a] = 1.0
        pivot = scale * R[a, a]
        for c in range(a):
            if not seen[c]:
                continue
            s = scale * R[a, c]
            for e in range(c):
                if seen[e]:
                    s -= low[a, e] * low[c, e] * D[e]
            low[a, c] = s / D[c] if D[c] > 0.0 else 0.0
            pivot -= low[a, c] ** 2 * D[c]
            if low[a, c] != 0.0:
                for i in range(d):
                    h[a, i] -= low[a, c] * h[c, i]
        D[a] = pivot if pivot > 4 * p * EPS * scale * R[a, a] else 0.0
        f = D[a]
        for j in range(d):
            phi[j] = 0.0
        for i in range(d):
            for j in range(d):
                phi[j] += h[a, i] * L[i, j]
        for j in range(d):
            f += phi[j] * phi[j]
        if f <= 1e-28 * S[a, a]:
            return np.nan
        rootf = np.sqrt(f)
        for c in range(a):
            if not seen[c]:
                continue
            link = 0.0  # covariance of v_a with e_c = K[c] v
            for i in range(d):
                link += H[a, i] * W[i, c]
            for j in range(c + 1):
                link += K[c, j] * scale * R[a, j]
            for j in range(c + 1):
                K[a, j] -= link * K[c, j]
        for j in range(a + 1):
            K[a, j] /= rootf
        shrink = 1.0 / (f * (1.0 + np.sqrt(D[a] / f)))
        for i in range(d):
            s = 0.0
            for j in range(d):
                s += L[i, j] * phi[j]
            W[i, a] = s / rootf
            u[i] = s * shrink
        for i in range(d):
            for j in range(d):
                L[i, j] -= u[i] * phi[j]
        half -= 0.5 * (LOG_2PI + np.log(f))
    return half
