"""Eigenmodes of small matrices, with eigenvalues refined to small relative error."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import Array


class Modes(NamedTuple):
    """Eigendecomposition A = S diag(lam) S^-1 and Qs = S^-1 Q S^-H."""

    lam: NDArray[np.complex128]
    S: NDArray[np.complex128]
    S_inv: NDArray[np.complex128]
    Qs: NDArray[np.complex128]
    cond: float


def modes(A: Array, Q: Array) -> Modes:
    """Eigenmodes of A with unit eigenvectors; `cond` = inf (S_inv, Qs NaN) when A is defective.

    Eigenvalues are refined with accurately summed residuals, so that slow modes next to fast ones
    come out with small *relative* error (plain QR iteration gives eps ||A|| for all of them).
    """
    lam, S = np.linalg.eig(A.astype(complex))
    cond = float(np.linalg.cond(S))
    if not cond < 1e14:
        void = np.full_like(S, np.nan)
        return Modes(lam, S, void, void, np.inf)
    if cond < 1e6:
        for _ in range(2):
            lam, S = _refine(A, lam, S)
    S_inv = np.linalg.inv(S)
    Qs = S_inv @ Q.astype(complex) @ S_inv.conj().T
    return Modes(lam, S, S_inv, Qs, cond)


def _refine(
    A: Array, lam: NDArray[np.complex128], S: NDArray[np.complex128]
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """One Newton step on A S = S diag(lam), as in Ogita & Aishima (2018) for symmetric A."""
    d = len(lam)
    rows = np.broadcast_to(A[:, None, :], (d, d, d))
    values = np.broadcast_to(np.stack([lam.real, lam.imag], axis=-1), (d, d, 2))

    def residual(part: Array, turned: Array) -> Array:
        """One part (real, imaginary) of A S - S diag(lam): entry (i, j) is one dot product."""
        left = np.concatenate([rows, -part[..., None], turned[..., None]], axis=-1)
        right = np.concatenate([np.broadcast_to(part.T, (d, d, d)), values], axis=-1)
        return _dot2(left, right)

    G = np.linalg.solve(S, residual(S.real, S.imag) + 1j * residual(S.imag, -S.real))
    gap = lam[None, :] - lam[:, None]
    turn = np.divide(G, gap, out=np.zeros_like(G), where=np.abs(G) < 1e-3 * np.abs(gap))
    S = S + S @ turn
    return lam + np.diag(G), S / np.linalg.norm(S, axis=0)


def _dot2(x: Array, y: Array) -> Array:
    """Dot product over the last axis as if in twice the precision (Ogita, Rump & Oishi, 2005)."""
    factor = 134217729.0  # 2^27 + 1
    xs, ys = factor * x, factor * y
    x_hi, y_hi = xs - (xs - x), ys - (ys - y)
    x_lo, y_lo = x - x_hi, y - y_hi
    product = x * y
    low = x_lo * y_lo - (((product - x_hi * y_hi) - x_lo * y_hi) - x_hi * y_lo)
    total, carry = product[..., 0], low[..., 0]
    for k in range(1, x.shape[-1]):
        term = product[..., k]
        new = total + term
        kept = new - total
        carry = carry + ((total - (new - kept)) + (term - kept)) + low[..., k]
        total = new
    return np.asarray(total + carry)
