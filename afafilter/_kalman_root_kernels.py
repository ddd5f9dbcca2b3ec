"""Compiled building blocks of the Kalman recursions, in square-root form.

Covariances never appear inside: only roots, P = L L^T, so that no rounding makes them indefinite.

    predict   [F L, V^1/2; I, 0] Theta = [L', 0; B, D]   (Theta orthogonal, Householder)
              L' L'^T = F P F^T + V,  xi = B xi' + D eta
    update    scalar by scalar after R = l D l^T:  phi = L^T h, f = phi^T phi + D,
              L <- L Pi,  Pi = I - phi phi^T / (f (1 + sqrt(D / f)))              (Potter)
              e = K v has unit variance, m <- m + W e,  W = L U       (v = z - H m - off)

A state is x = m + L xi, xi of unit covariance: what is learnt later is learnt about xi. From the
next state's xi' = U e + Pi xi+ (xi+ after its update) follows xi = T xi+ + V e + D eta, T = B Pi
and V = B U: products of contractions, and no covariance is ever inverted.

Sources: Kaminski, Bryson & Schmidt (1971) for the array forms; Bierman (1977) for factorised
filters and smoothers.
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
def triangularise(A: Any, d: Any) -> None:
    """Rotate the columns of A so that its first d rows become lower triangular, pivots >= 0.

    Later rows take part in the rotation. A row that depends on those above it gets no pivot.
    """
    rows, width = A.shape
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
            continue
        norm = np.sqrt(rest)
        head = A[j, rank]
        beta = 1.0 / (norm * (norm + abs(head)))
        flip = 1.0 if head > 0 else -1.0
        A[j, rank] = head + flip * norm
        for i in range(j + 1, rows):
            dot = 0.0
            for c in range(rank, width):
                dot += A[i, c] * A[j, c]
            dot *= beta
            for c in range(rank, width):
                A[i, c] -= dot * A[j, c]
            A[i, rank] *= -flip
        A[j, rank] = norm
        for c in range(rank + 1, width):
            A[j, c] = 0.0
        rank += 1


@jit
def predict_root(F: Any, root: Any, L: Any, A: Any, smooth: Any) -> None:
    """L <- root of F P F^T + V; A (2 d, 2 d) is work space.

    With `smooth`, A[d:] = [B, D]: the present state's noise in terms of the next one's and of what
    is independent of it.
    """
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
        for i in range(d, 2 * d):
            for j in range(2 * d):
                A[i, j] = 0.0
            A[i, i - d] = 1.0
        triangularise(A, d)
    else:
        triangularise(A[:d], d)
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
def innovation_cov(H: Any, R: Any, scale: Any, L: Any, S: Any, Y: Any) -> None:
    """S = H P H^T + scale * R, with Y (p, d) as work space."""
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
            S[a, c] += scale * R[a, c]


@jit
def update_space(p: Any, d: Any) -> Any:
    """Work space of update_root: rows h, phi, u and the factor l, D of R."""
    return np.empty((p + 2, d)), np.empty((p + 1, p))


@jit
def update_root(
    H: Any, R: Any, scale: Any, seen: Any, S: Any, L: Any, W: Any, K: Any, work: Any,
    smooth: Any, A: Any, T: Any, V: Any,
) -> float:  # fmt: skip
    """Condition L on the seen components, with noise scale * R; fill W and K (zeros if unseen).

    With `smooth`, also T = B Pi and V = B U, where B = A[d:, :d]. work: from `update_space`.
    Returns -(n log 2 pi + log|S|) / 2, or NaN where the innovation is known exactly.
    """
    p, d = H.shape
    h, low = work
    phi, u, D = h[p], h[p + 1], low[p]
    half = 0.0
    if smooth:
        for i in range(d):
            for j in range(d):
                T[i, j] = A[d + i, j]
    for a in range(p):
        for j in range(p):
            K[a, j] = 0.0
        for i in range(d):
            W[i, a] = 0.0
        if smooth:
            for i in range(d):
                V[i, a] = 0.0
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
        if smooth:
            for i in range(d):
                t = 0.0
                for j in range(d):
                    t += T[i, j] * phi[j]
                V[i, a] = t / rootf
                t *= shrink
                for j in range(d):
                    T[i, j] -= t * phi[j]
        half -= 0.5 * (LOG_2PI + np.log(f))
    return half
