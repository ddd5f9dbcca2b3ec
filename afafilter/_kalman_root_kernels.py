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

from afafilter._jit import njit
from afafilter._lanes import LANES, load, spread, store

EPS = 2.220446049250313e-16
LOG_2PI = 1.8378770664093453

ITSELF = np.eye(LANES)
OTHERS = 1.0 - ITSELF

jit = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
bare = njit(counted=False, cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
"""For what runs at every node: neither allocates nor returns arrays."""


def size(n: Any) -> Any:
    """A dimension that is given as a whole number, or by a tuple of that many entries.

    A kernel is compiled anew for every length of a tuple, with loops of known length.
    """
    return len(n) if isinstance(n, tuple) else n


def double(n: Any) -> Any:
    """Twice a dimension, given in either way."""
    return n + n


@numba.extending.overload(size)
def _size(n: Any) -> Any:
    def known(n: Any) -> Any:
        return len(n)

    def given(n: Any) -> Any:
        return n

    return known if isinstance(n, numba.types.BaseTuple) else given


@numba.extending.overload(double)
def _double(n: Any) -> Any:
    def twice(n: Any) -> Any:
        return n + n

    return twice


@bare
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
def column_space(width: Any, rows: Any) -> Any:
    """Zeros for `width` columns of `rows` entries, filled up to whole LANES, and work space.

    Column c is A[c]: what the recursions do to a column is then done LANES entries at a time. A
    vector cannot be read until single numbers written just before have left for the cache, so
    those are written in one go (`multiply`, `fill_root`), not between operations.
    """
    padded = (rows + LANES - 1) // LANES * LANES
    return np.zeros((width, padded)), np.zeros(width), np.zeros((width, padded))


@bare
def triangularise(space: Any, rows: Any, columns: Any, reach: Any) -> None:
    """Rotate the columns A = space[0] so that the first rows become lower triangular, pivots >= 0.

    rows, columns : see `size`; how many become triangular, and how many there are. Later rows take
    part in the rotation. A row that depends on those above it gets no pivot.
    reach : row j is zero from column reach + j + 1 on; the number of columns where nothing is.
    """
    A, v, _ = space
    width, padded = size(columns), A.shape[1]
    rank = 0
    for j in range(size(rows)):
        end = min(width, reach + j + 1)
        done = 0.0
        for c in range(rank):
            done += A[c, j] * A[c, j]
        rest = 0.0
        for c in range(rank, end):
            v[c] = A[c, j]
            rest += v[c] * v[c]
        if rest <= (8 * width * EPS) ** 2 * (done + rest):
            for c in range(rank, end):
                A[c, j] = 0.0
            continue
        norm = np.sqrt(rest)
        beta = 1.0 / (norm * (norm + abs(v[rank])))
        flip = 1.0 if v[rank] > 0 else -1.0
        for b in range(0, padded, LANES):
            dots = spread(0.0)
            for c in range(rank, end):
                dots += v[c] * load(A, (c, b))
            dots = beta * (dots + flip * norm * load(A, (rank, b)))
            pivot = (v[rank] + flip * norm) * dots
            first = flip * (pivot - load(A, (rank, b)))
            if b <= j < b + LANES:  # row j becomes exactly (norm, 0, 0, ...)
                others = load(OTHERS, (j - b, 0))
                store(A, (rank, b), first * others + norm * load(ITSELF, (j - b, 0)))
                for c in range(rank + 1, end):
                    store(A, (c, b), (load(A, (c, b)) - v[c] * dots) * others)
            else:
                store(A, (rank, b), first)
                for c in range(rank + 1, end):
                    store(A, (c, b), load(A, (c, b)) - v[c] * dots)
        rank += 1


@bare
def fill_root(space: Any, root: Any, state: Any) -> None:
    """Columns d, d + 1, ... of A = space[0] <- root (d, d), lower triangular, zeros below."""
    A = space[0]
    d = size(state)
    for c in range(d):
        for b in range(0, A.shape[1], LANES):
            store(A, (d + c, b), spread(0.0))
        for i in range(c, d):
            A[d + c, i] = root[i, c]


@bare
def multiply(M: Any, L: Any, space: Any, below: Any, state: Any) -> None:
    """The first d columns of A = space[0] <- [M L; below I], both (d, d)."""
    A, _, turned = space
    d, padded = size(state), A.shape[1]
    for k in range(d):
        for i in range(d):
            turned[k, i] = M[i, k]
    for b in range(0, padded, LANES):
        for c in range(d):
            x = spread(0.0)
            if b < d:
                for k in range(d):
                    x += L[k, c] * load(turned, (k, b))
            if below and b <= d + c < b + LANES:
                x += load(ITSELF, (d + c - b, 0))
            store(A, (c, b), x)


@bare
def predict_root(F: Any, root: Any, L: Any, space: Any, smooth: Any, state: Any) -> None:
    """L <- root of F P F^T + V; root = V^1/2 is lower triangular.

    `space` is column_space(2 d, 2 d) with `smooth`, column_space(2 d, d) without; state is d (see
    `size`). The first d columns of A = space[0] begin with those of L. With `smooth` the later rows
    become [B, D]: the present state's noise in terms of the next one's and of what is independent
    of it.
    """
    d = size(state)
    A = space[0]
    fill_root(space, root, state)
    multiply(F, L, space, smooth, state)
    triangularise(space, state, double(state), d)
    for i in range(d):
        for c in range(d):
            L[i, c] = A[c, i]


@bare
def copy(given: Any, out: Any) -> None:
    """out <- given, both matrices; without the checks of a slice for overlap."""
    for i in range(given.shape[0]):
        for j in range(given.shape[1]):
            out[i, j] = given[i, j]


@bare
def gram(L: Any, P: Any, rows: Any, columns: Any) -> None:
    """P = L L^T."""
    width = size(columns)
    for i in range(size(rows)):
        for j in range(i + 1):
            s = 0.0
            for k in range(width):
                s += L[i, k] * L[j, k]
            P[i, j] = s
            P[j, i] = s


@bare
def innovation_cov(
    H: Any, R: Any, scale: Any, L: Any, S: Any, Y: Any, state: Any, shown: Any
) -> None:
    """S = H P H^T + scale * R, with Y (p, d) as work space."""
    d, p = size(state), size(shown)
    for a in range(p):
        for j in range(d):
            Y[a, j] = 0.0
        for k in range(d):
            h = H[a, k]
            for j in range(d):
                Y[a, j] += h * L[k, j]
    gram(Y, S, shown, state)
    for a in range(p):
        for c in range(p):
            S[a, c] += scale * R[a, c]


@jit
def update_space(p: Any, d: Any) -> Any:
    """Work space of update_root: rows h; the factor l, D of R; phi; and a column."""
    padded = (2 * d + LANES - 1) // LANES * LANES
    return np.empty((p, d)), np.empty((p + 1, p)), np.empty(d), np.empty(padded)


@bare
def enter_root(L: Any, A: Any, state: Any) -> None:
    """The first d columns of A begin with those of L, as after `predict_root`."""
    for j in range(size(state)):
        for i in range(size(state)):
            A[j, i] = L[i, j]


@bare
def update_root(
    H: Any, R: Any, scale: Any, seen: Any, S: Any, L: Any, W: Any, K: Any, work: Any,
    smooth: Any, A: Any, T: Any, V: Any, state: Any, shown: Any,
) -> float:  # fmt: skip
    """Condition L on the seen components, with noise scale * R; fill W and K (zeros if unseen).

    A : columns of `column_space` (d or more); the first d begin with those of L, see `enter_root`.
    With `smooth`, also T = B Pi and V = B U, where B are their rows d, d + 1, ... . work: from
    `update_space`; state, shown: d and p (see `size`).
    Returns -(n log 2 pi + log|S|) / 2, or NaN where the innovation is known exactly.
    """
    d, p = size(state), size(shown)
    h, low, phi, x = work
    D = low[p]
    padded = A.shape[1]
    half = 0.0
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
            t = 0.0
            for i in range(d):
                t += h[a, i] * A[j, i]
            phi[j] = t
            f += t * t
        if f <= 1e-28 * S[a, a]:
            return np.nan
        rootf = np.sqrt(f)
        scaled = 1.0 / rootf
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
            K[a, j] *= scaled
        shrink = 1.0 / (f + rootf * np.sqrt(D[a]))
        for b in range(0, padded, LANES):
            moved = spread(0.0)
            for j in range(d):
                moved += phi[j] * load(A, (j, b))
            store(x, b, moved)
            moved *= shrink
            for j in range(d):
                store(A, (j, b), load(A, (j, b)) - phi[j] * moved)
        for i in range(d):
            W[i, a] = x[i] * scaled
        if smooth:
            for i in range(d):
                V[i, a] = x[d + i] * scaled
        half -= 0.5 * (LOG_2PI + np.log(f))
    for i in range(d):
        for j in range(d):
            L[i, j] = A[j, i]
    if smooth:
        for i in range(d):
            for j in range(d):
                T[i, j] = A[j, d + i]
    return half
