"""Compiled recursions of the Kalman filter and the RTS smoother in square-root form.

Covariances never appear inside: only roots, P = L L^T, so that no rounding makes them indefinite.

    predict   [F L, V^1/2; L, 0] Theta = [L', 0; X, Y]   (Theta orthogonal, Householder from the right)
              L' L'^T = F P F^T + V,  G = X L'^-1 = P F^T P'^-1,  Y Y^T = P - G P' G^T
    update    scalar by scalar after R = l D l^T:  phi = L^T h, f = phi^T phi + D,
              L <- L - (L phi) phi^T / (f (1 + sqrt(D / f)))                     (Potter)
    smooth    P_s = Y Y^T + G P_s' G^T

    F, b, V   transition of one step      H, off, R   observation row of `cfg`
    W, K      e = K v has unit variance, m <- m + W e      (v innovation)
    flat      x = m + M delta + noise, delta without prior; T delta = s is its regression (T upper
              triangular, rows with zero diagonal still empty)

Sources: Kaminski, Bryson & Schmidt 1971 (array forms); Park & Kailath 1995 (smoother); de Jong 1991
(flat start).
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

EPS = 2.220446049250313e-16
LOG_2PI = 1.8378770664093453
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


jit = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})


@jit
def semidefinite_root(V, out):
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
def triangularise(A, pivot):
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
def backward_law(A, pivot, rank, G, C):
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
def predict_root(F, root, L, A, pivot, smooth, G, C):
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
def gram(L, P):
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
def innovation_cov(H, R, L, S, Y):
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
def update_space(p, d):
    """Work space of update_root: rows h, phi, u and the factor l, D of R."""
    return np.empty((p + 2, d)), np.empty((p + 1, p))


@jit
def update_root(H, R, scale, seen, S, L, W, K, work):
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


@jit
def _unchanged(P, Q):
    """Whether two covariances agree to rounding."""
    d = P.shape[0]
    for i in range(d):
        for j in range(i + 1):
            if abs(P[i, j] - Q[i, j]) > SETTLED * np.sqrt(abs(P[i, i] * P[j, j])):
                return False
    return True


@jit
def _same_setting(chain, seen, scale, k):
    """Whether node k repeats its predecessor: same step, same observation row, same gaps."""
    if chain.step[k] != chain.step[k - 1]:
        return False
    o, q = chain.obs[k], chain.obs[k - 1]
    if o < 0 or q < 0:
        return o < 0 and q < 0
    if chain.cfg[o] != chain.cfg[q] or scale[o] != scale[q]:
        return False
    for a in range(seen.shape[1]):
        if seen[o, a] != seen[q, a]:
            return False
    return True


@jit
def filter_covariances(chain, first, L, seen, scale, smooth, P, S, gains, C):
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
def filter_means(chain, first, m, gains, z, seen, mean, innovation, loglik):
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
def smooth_covariances(last, gains, C, P):
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
def smooth_means(chain, last, gains, mean):
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
