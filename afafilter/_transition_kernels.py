"""Compiled transitions over many distinct intervals, from exact ones at few base points."""

from __future__ import annotations

from typing import Any

import numpy as np

from afafilter._jit import njit
from afafilter._lanes import LANES, load, spread, store

options: dict[str, Any] = {
    "cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract"}
}  # fmt: skip
jit = njit(**options)
bare = njit(counted=False, **options)


@bare
def _horner(coefficients: Any, r: Any, out: Any) -> None:
    """out (size, LANES) = sum over k >= 1 of coefficients[k - 1] (size,) r^k, lane by lane."""
    terms, size = coefficients.shape
    x = load(r, 0)
    for e in range(size):
        total = spread(0.0)
        for k in range(terms - 1, -1, -1):
            total = (total + coefficients[k, e]) * x
        store(out, (e, 0), total)


@bare
def _add_product(x: Any, y: Any, out: Any, d: Any, width: Any) -> None:
    """out (d width, LANES) += x (d d, LANES) @ y (d width, LANES), matrices lane by lane."""
    for i in range(d):
        for j in range(width):
            total = load(out, (i * width + j, 0))
            for k in range(d):
                total += load(x, (i * d + k, 0)) * load(y, (k * width + j, 0))
            store(out, (i * width + j, 0), total)


@jit
def from_base(
    coefficients: Any, r: Any, base: Any, Phi0: Any, psi0: Any, V0: Any, Phi: Any, psi: Any, V: Any
) -> None:
    """Phi, psi, V over tau = tau0 + r, where row base (n,) of Phi0, psi0, V0 holds those over tau0.

    coefficients (K, 2 d^2 + d) of r^1, r^2, ... in [Phi - I, psi, V]. By the semigroup laws
    Phi = Phi_r Phi0, psi = Phi_r psi0 + psi_r, V = Phi_r V0 Phi_r^T + V_r; LANES intervals go side
    by side.
    """
    n, d = psi.shape
    square = d * d
    X = np.zeros((2 * square + d, LANES))
    short, drive, noise = X[:square], X[square : square + d], X[square + d :]
    F, b, W = np.zeros((square, LANES)), np.zeros((d, LANES)), np.zeros((square, LANES))
    whole, half, turned = (
        np.empty((square, LANES)),
        np.empty((square, LANES)),
        np.empty((square, LANES)),
    )
    rest = np.zeros(LANES)
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
            for l in range(LANES):
                short[i * d + i, l] += 1.0
            for j in range(d):
                for l in range(LANES):
                    turned[j * d + i, l] = short[i * d + j, l]
        whole[:] = 0.0
        half[:] = 0.0
        _add_product(short, F, whole, d, d)
        _add_product(short, W, half, d, d)
        _add_product(short, b, drive, d, 1)
        _add_product(half, turned, noise, d, d)
        for l in range(lanes):
            for i in range(d):
                psi[start + l, i] = drive[i, l]
                for j in range(d):
                    Phi[start + l, i, j] = whole[i * d + j, l]
                    V[start + l, i, j] = 0.5 * (noise[i * d + j, l] + noise[j * d + i, l])
