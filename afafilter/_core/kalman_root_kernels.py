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

Matrices are kept by columns here: F[j] is column j of F, and likewise V^1/2, L, W, K, T, V and D
(not H). What happens to a column then happens to LANES of its entries at a time.

Sources: Kaminski, Bryson & Schmidt (1971) for the array forms; Bierman (1977) for factorised
filters and smoothers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from afafilter._core.jit import bare, jit
from afafilter._core.lanes import LANES, load, load_some, spread, store, store_some

EPS = 2.220446049250313e-16
LOG_2PI = 1.8378770664093453

ITSELF = np.eye(LANES)
OTHERS = 1.0 - ITSELF


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


@jit
def padded(rows: Any) -> Any:
    """Whole LANES that hold so many rows."""
    return (rows + LANES - 1) // LANES * LANES


class Space(NamedTuple):
    """Columns at work: A (width, padded), zero beyond their rows, and scratch of the same size.

    Columns are padded to whole LANES. A vector cannot be read until single numbers written just
    before have left for the cache, so that columns are written as vectors.
    """

    A: NDArray[np.float64]
    v: NDArray[np.float64]
    spare: NDArray[np.float64]


class Shown(NamedTuple):
    """An observation at work, p padded to whole LANES.

    across (d, p): columns of H. Y (d, p): Y[j] = H L[j], for rows of H whose noise is independent.
    low (p, p), D (p,): R = low D low^T; mix (p, p): the inverse of low. link (p, p): covariance of
    e_a with later components. phi (d,).
    """

    across: NDArray[np.float64]
    Y: NDArray[np.float64]
    low: NDArray[np.float64]
    D: NDArray[np.float64]
    mix: NDArray[np.float64]
    link: NDArray[np.float64]
    phi: NDArray[np.float64]


@jit
def column_space(width: Any, rows: Any) -> Any:
    """Room for `width` columns of `rows` entries."""
    return Space(np.zeros((width, padded(rows))), np.zeros(width), np.zeros((width, padded(rows))))


@jit
def shown_space(p: Any, d: Any) -> Any:
    """Room for observations of p components."""
    wide = padded(p)
    return Shown(
        np.zeros((d, wide)), np.zeros((d, wide)), np.zeros((p, p)), np.zeros(p), np.zeros((p, p)),
        np.zeros((p, wide)), np.zeros(d),
    )  # fmt: skip


@bare
def triangularise(space: Any, rows: Any, columns: Any, reach: Any) -> None:
    """Rotate the columns space.A so that the first rows become lower triangular, pivots >= 0.

    rows, columns : see `size`; how many become triangular, and how many there are. Later rows take
    part in the rotation. The pivot of a row that depends on those above it is 0.
    reach : see `size`; row j is zero from column reach + j + 1 on; the number of columns where
        nothing is.
    """
    A, v = space.A, space.v
    width, height = size(columns), A.shape[1]
    for j in range(size(rows)):
        end = min(width, size(reach) + j + 1)
        done = 0.0
        for c in range(j):
            done += A[c, j] * A[c, j]
        rest = 0.0
        for c in range(j, end):
            v[c] = A[c, j]
            rest += v[c] * v[c]
        if rest <= (8 * width * EPS) ** 2 * (done + rest):
            for c in range(j, end):
                A[c, j] = 0.0
            continue
        norm = np.sqrt(rest)
        first = v[j] + norm if v[j] > 0 else v[j] - norm
        flip = 1.0 if v[j] > 0 else -1.0
        beta = 1.0 / (rest + norm * abs(v[j]))
        for b in range(0, height, LANES):
            head = load(A, (j, b))
            dots = first * head
            for c in range(j + 1, end):
                dots += v[c] * load(A, (c, b))
            dots *= beta
            if b <= j < b + LANES:  # exactly 1 in row j, which becomes exactly (norm, 0, 0, ...)
                dots = dots * load(OTHERS, (j - b, 0)) + load(ITSELF, (j - b, 0))
            store(A, (j, b), flip * (first * dots - head))
            for c in range(j + 1, end):
                store(A, (c, b), load(A, (c, b)) - v[c] * dots)


@bare
def predict_root(F: Any, root: Any, space: Any, smooth: Any, state: Any) -> None:
    """L <- root of F P F^T + V; F and root = V^1/2, lower triangular, by columns.

    L is the first rows of the first d columns of space.A. `space` is column_space(2 d, 2 d) with
    `smooth`, column_space(2 d, d) without; state is d (see `size`). With `smooth` the later rows
    become [B, D]: the present state's noise in terms of the next one's and of what is independent
    of it.
    """
    d = size(state)
    A, height = space.A, space.A.shape[1]
    moved = A if d <= LANES else space.spare
    for c in range(d):
        for b in range(0, height, LANES):
            x = spread(0.0)
            if b < d:
                for k in range(d):
                    x += A[c, k] * load_some(F, (k, b), d - b)
            if smooth and b <= d + c < b + LANES:
                x += load(ITSELF, (d + c - b, 0))
            store(moved, (c, b), x)
    for c in range(d):
        for b in range(0, height, LANES):
            if d > LANES:
                store(A, (c, b), load(moved, (c, b)))
            store(A, (d + c, b), load_some(root, (c, b), d - b))
    triangularise(space, state, double(state), state)


@bare
def copy(given: Any, out: Any) -> None:
    """out <- given, matrices.

    Written out: an assignment to a slice brings numba's messages about shapes along, which take
    longer to compile than what uses them.
    """
    for i in range(given.shape[0]):
        for j in range(given.shape[1]):
            out[i, j] = given[i, j]


@bare
def write_columns(A: Any, first: Any, row: Any, out: Any, rows: Any) -> None:
    """out (columns, rows) <- entries row, row + 1, ... of columns first, first + 1, ... of A."""
    n = size(rows)
    for c in range(out.shape[0]):
        for b in range(0, row + n, LANES):
            store_some(out, (c, b - row), load(A, (first + c, b)), row - b, row + n - b)


@bare
def read_columns(given: Any, A: Any) -> None:
    """The first columns of A <- those given, zeros below."""
    rows = given.shape[1]
    for c in range(given.shape[0]):
        for b in range(0, A.shape[1], LANES):
            store(A, (c, b), load_some(given, (c, b), rows - b))


@bare
def gram(A: Any, P: Any, rows: Any, columns: Any) -> None:
    """P = L L^T, the columns of L being the first of A."""
    n = size(rows)
    for i in range(n):
        for b in range(0, n, LANES):
            x = spread(0.0)
            for c in range(size(columns)):
                x += A[c, i] * load(A, (c, b))
            store_some(P, (i, b), x, 0, n - b)


@bare
def face(H: Any, work: Any, state: Any, shown: Any) -> None:
    """Take up an observation that shows H x."""
    for i in range(size(state)):
        for a in range(size(shown)):
            work.across[i, a] = H[a, i]


@bare
def innovation_cov(R: Any, scale: Any, A: Any, S: Any, work: Any, state: Any, shown: Any) -> None:
    """S = H P H^T + scale * R and work.Y = H L, after `face`."""
    d, p = size(state), size(shown)
    Y = work.Y
    for b in range(0, p, LANES):
        for j in range(d):
            y = spread(0.0)
            for i in range(d):
                y += A[j, i] * load(work.across, (i, b))
            store(Y, (j, b), y)
    for a in range(p):
        for b in range(0, p, LANES):
            s = scale * load_some(R, (a, b), p - b)
            for j in range(d):
                s += Y[j, a] * load(Y, (j, b))
            store_some(S, (a, b), s, 0, p - b)


@bare
def split_noise(R: Any, scale: Any, seen: Any, work: Any, shown: Any) -> bool:
    """scale * R = low D low^T among the seen components; whether any of them are correlated."""
    p = size(shown)
    low, D, mix = work.low, work.D, work.mix
    correlated = False
    for a in range(p):
        for c in range(p):
            mix[a, c] = 1.0 if c == a else 0.0
        if not seen[a]:
            continue
        pivot = scale * R[a, a]
        for c in range(a):
            if not seen[c]:
                continue
            s = scale * R[a, c]
            for e in range(c):
                if seen[e]:
                    s -= low[a, e] * low[c, e] * D[e]
            low[a, c] = s / D[c] if s != 0.0 and D[c] > 0.0 else 0.0
            if low[a, c] != 0.0:
                correlated = True
                pivot -= low[a, c] ** 2 * D[c]
                for e in range(c + 1):
                    mix[a, e] -= low[a, c] * mix[c, e]
        D[a] = pivot if pivot > 4 * p * EPS * scale * R[a, a] else 0.0
    return correlated


@bare
def update_root(
    seen: Any, S: Any, A: Any, W: Any, K: Any, V: Any, work: Any, correlated: Any, smooth: Any,
    state: Any, shown: Any,
) -> float:  # fmt: skip
    """Condition L on the seen components, after `innovation_cov` and `split_noise`.

    The first d columns of A hold L and, with `smooth`, B below it, which becomes T = B Pi. Fills W,
    K and, with `smooth`, V = B U by columns (zeros if unseen); state, shown: d and p (see `size`).
    Returns -(n log 2 pi + log|S|) / 2, or NaN where the innovation is known exactly.
    """
    d, p = size(state), size(shown)
    Y, low, D, mix, link, phi = work.Y, work.low, work.D, work.mix, work.link, work.phi
    height = A.shape[1]
    half = 0.0
    if correlated:
        for j in range(d):
            for a in range(p):
                for c in range(a):
                    if seen[a] and seen[c]:
                        Y[j, a] -= low[a, c] * Y[j, c]
    for a in range(p):
        for c in range(p):
            K[c, a] = 0.0
        if not seen[a]:
            for i in range(d):
                W[a, i] = 0.0
                if smooth:
                    V[a, i] = 0.0
            continue
        f = D[a]
        for j in range(d):
            phi[j] = Y[j, a]
            f += phi[j] * phi[j]
        if f <= 1e-28 * S[a, a]:
            return np.nan
        rootf = np.sqrt(f)
        scaled = 1.0 / rootf
        shrink = 1.0 / (f + rootf * np.sqrt(D[a]))
        for c in range(a + 1):
            K[c, a] = mix[a, c]
        for c in range(a):
            if seen[c]:
                for j in range(c + 1):
                    K[j, a] -= link[c, a] * K[j, c]
        for c in range(a + 1):
            K[c, a] *= scaled
        for b in range(0, height, LANES):
            moved = spread(0.0)
            for j in range(d):
                moved += phi[j] * load(A, (j, b))
            store_some(W, (a, b), scaled * moved, 0, d - b)
            if smooth:
                store_some(V, (a, b - d), scaled * moved, d - b, 2 * d - b)
            moved *= shrink
            for j in range(d):
                store(A, (j, b), load(A, (j, b)) - phi[j] * moved)
        for b in range(a // LANES * LANES, p, LANES):
            moved = spread(0.0)
            for j in range(d):
                moved += phi[j] * load(Y, (j, b))
            store(link, (a, b), scaled * moved)
            moved *= shrink
            for j in range(d):
                store(Y, (j, b), load(Y, (j, b)) - phi[j] * moved)
        half -= 0.5 * (LOG_2PI + np.log(f))
    return half
