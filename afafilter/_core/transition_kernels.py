"""Compiled transitions over many distinct intervals, from exact ones at few base points."""

from __future__ import annotations

from typing import Any

import numpy as np

from afafilter._core.jit import bare, jit
from afafilter._core.lanes import (
    LANES,
    load,
    load_some,
    root,
    spread,
    store,
    store_some,
    where_positive,
)

EPS = 2.220446049250313e-16


@bare
def _horner(coefficients: Any, r: Any, out: Any) -> None:
    """out (size, LANES) = sum over k >= 1 of coefficients[k - 1] (size,) r^k, lane by lane."""
    terms, size = coefficients.shape
    x = load(r, 0)
    for e in range(size):
        total = spread(coefficients[terms - 1, e])
        for k in range(terms - 2, -1, -1):
            total = total * x + coefficients[k, e]
        store(out, (e, 0), total * x)


@jit
def from_base(
    coefficients: Any, r: Any, base: Any, Phi0: Any, psi0: Any, V0: Any, Phi: Any, psi: Any, V: Any,
    roots: Any,
) -> None:  # fmt: skip
    """Phi, psi, V over tau = tau0 + r, where row base (n,) of Phi0, psi0, V0 holds those over tau0.

    coefficients (K, 2 d^2 + d) of r^1, r^2, ... in [Phi - I, psi, V]. By the semigroup laws
    Phi = Phi_r Phi0, psi = Phi_r psi0 + psi_r, V = Phi_r V0 Phi_r^T + V_r; LANES intervals go side
    by side. With `roots`, columns of Phi and of the lower root of V are written in their place.
    """
    d = psi.shape[1]
    square = d * d
    _from_base(
        coefficients, r, base, Phi0, psi0, V0, Phi, psi, V, roots, np.zeros(LANES),
        np.zeros((2 * square + d, LANES)), np.zeros((5, square, LANES)),
    )  # fmt: skip


@bare
def _from_base(
    coefficients: Any, r: Any, base: Any, Phi0: Any, psi0: Any, V0: Any, Phi: Any, psi: Any, V: Any,
    roots: Any, rest: Any, X: Any, squares: Any,
) -> None:  # fmt: skip
    """`from_base` with its work space."""
    n, d = psi.shape
    F, W, half, whole, b = squares[0], squares[1], squares[2], squares[3], squares[4]
    square = d * d
    for start in range(0, n, LANES):
        lanes = min(LANES, n - start)
        for l in range(lanes):
            rest[l] = r[start + l]
            u = base[start + l]
            for i in range(d):
                b[i, l] = psi0[u, i]
                for j in range(d):
                    F[i * d + j, l] = Phi0[u, i, j]
                    W[i * d + j, l] = V0[u, i, j]
        _horner(coefficients, rest, X)
        for i in range(d):
            store(X, (i * d + i, 0), load(X, (i * d + i, 0)) + 1.0)
        for i in range(d):
            t = load(X, (square + i, 0))
            for k in range(d):
                t += load(X, (i * d + k, 0)) * load(b, (k, 0))
            store(X, (square + i, 0), t)
            for j in range(d):
                x, y = spread(0.0), spread(0.0)
                for k in range(d):
                    short = load(X, (i * d + k, 0))
                    x += short * load(F, (k * d + j, 0))
                    y += short * load(W, (k * d + j, 0))
                store(whole, (i * d + j, 0), x)
                store(half, (i * d + j, 0), y)
        for i in range(d):
            for j in range(i + 1):
                t = 0.5 * (
                    load(X, (square + d + i * d + j, 0)) + load(X, (square + d + j * d + i, 0))
                )
                for k in range(d):
                    t += load(half, (i * d + k, 0)) * load(X, (j * d + k, 0))
                store(W, (i * d + j, 0), t)
                store(W, (j * d + i, 0), t)
        if roots:
            _roots_beside(W, half, d)
        for l in range(lanes):
            for i in range(d):
                psi[start + l, i] = X[square + i, l]
                for j in range(d):
                    if roots:
                        Phi[start + l, i, j] = whole[j * d + i, l]
                        V[start + l, i, j] = half[j * d + i, l]
                    else:
                        Phi[start + l, i, j] = whole[i * d + j, l]
                        V[start + l, i, j] = W[i * d + j, l]


@bare
def _roots_beside(V: Any, out: Any, d: Any) -> None:
    """As `semidefinite_root`, out (d d, LANES) by rows, matrices lane by lane."""
    for j in range(d):
        pivot = load(V, (j * d + j, 0))
        floor = (4 * d * EPS) * pivot
        for k in range(j):
            pivot -= load(out, (j * d + k, 0)) * load(out, (j * d + k, 0))
        scaled = where_positive(pivot - floor, 1.0 / root(pivot), spread(0.0))
        for i in range(d):
            if i < j:
                store(out, (i * d + j, 0), spread(0.0))
                continue
            t = load(V, (i * d + j, 0))
            for k in range(j):
                t -= load(out, (i * d + k, 0)) * load(out, (j * d + k, 0))
            store(out, (i * d + j, 0), t * scaled)


@jit
def semidefinite_root(V: Any, out: Any) -> None:
    """Columns of the lower Cholesky factors of semidefinite matrices; null pivots, null columns."""
    d = V.shape[1]
    _semidefinite_root(V, out, np.zeros((d, (d + LANES - 1) // LANES * LANES)))


@bare
def _semidefinite_root(V: Any, out: Any, rest: Any) -> None:
    """`semidefinite_root` with its work space."""
    n, d = V.shape[0], V.shape[1]
    for u in range(n):
        for j in range(d):
            for b in range(0, d, LANES):
                store(rest, (j, b), load_some(V, (u, j, b), d - b))
        for j in range(d):
            pivot = rest[j, j]
            if pivot <= 4 * d * EPS * V[u, j, j]:
                for b in range(0, d, LANES):
                    store_some(out, (u, j, b), spread(0.0), 0, d - b)
                continue
            scaled = 1.0 / np.sqrt(pivot)
            for b in range(0, d, LANES):
                column = scaled * load(rest, (j, b))
                store_some(out, (u, j, b), spread(0.0), 0, j - b)
                store_some(out, (u, j, b), column, j - b, d - b)
                for k in range(j + 1, d):
                    store(rest, (k, b), load(rest, (k, b)) - scaled * rest[j, k] * column)


def by_columns(Phi: Any, psi: Any, V: Any) -> tuple[Any, Any, Any]:
    """Columns of Phi (n, d, d), psi, and columns of the lower roots of V (n, d, d)."""
    root = np.empty(V.shape)
    semidefinite_root(np.ascontiguousarray(V), root)
    return np.ascontiguousarray(np.swapaxes(Phi, -1, -2)), psi, root
