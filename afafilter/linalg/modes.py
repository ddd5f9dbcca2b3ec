"""Eigenmodes of small matrices, eigenvalues to small relative error, and transitions from them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import Array
from afafilter.linalg.integrals import exponential_integral

_EPS = float(np.finfo(np.float64).eps)


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


def modal_transition(
    found: Modes, Q: Array, u: Array, taus: Array
) -> tuple[Array, Array, Array, Array]:
    """Phi, psi, V over taus (n,) by the closed form, and a bound on their relative errors.

    Of Phi and psi normwise; of an entry of V beside the two standard deviations, so that no
    component may be lost in the noise of one that is larger in its units.
    """
    lam, S, S_inv, Qs, cond = found
    n, d = len(taus), len(lam)
    if not np.isfinite(cond):
        return np.empty((n, d, d)), np.empty((n, d)), np.empty((n, d, d)), np.full(n, np.inf)
    us = S_inv @ u
    growth = np.exp(np.multiply.outer(taus, lam))
    drive = exponential_integral(lam, taus[:, None])
    spread = exponential_integral(np.add.outer(lam, lam.conj()), taus[:, None, None])
    Phi = ((S * growth[:, None, :]) @ S_inv).real
    psi = ((drive * us) @ S.T).real
    V = _semidefinite((S @ (Qs * spread) @ S.conj().T).real)
    rough, size = np.abs(S_inv), np.abs(S)
    sd = np.sqrt(np.einsum("nii->ni", V))
    phase = 1 + np.abs(lam.imag).max() * taus
    sizes = (
        (np.abs(growth).max(axis=1), np.linalg.norm(Phi, axis=(1, 2))),
        (np.abs(drive) @ (rough @ np.abs(u)), np.linalg.norm(psi, axis=1)),
    )
    ratio = [np.divide(a, b, out=np.ones(n), where=(a > 0) & (b > 0)) for a, b in sizes]
    terms = size @ (np.abs(spread) * (rough @ np.abs(Q) @ rough.T)) @ size.T
    whole = sd[:, :, None] * sd[:, None, :]
    lost = np.divide(terms, whole, out=np.where(terms > 0, np.inf, 1.0), where=whole > 0)
    return Phi, psi, V, _EPS * (phase + cond * np.max([*ratio, lost.max(axis=(1, 2))], axis=0))


def _semidefinite(V: Array) -> Array:
    """V (n, d, d) projected onto the semidefinite cone; its negative eigenvalues are rounding."""
    finite = np.isfinite(V).all(axis=(1, 2))
    if not V.any() or not finite.all():
        return V
    V = 0.5 * (V + V.swapaxes(-1, -2))
    try:
        np.linalg.cholesky(V)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(V)
        V = (vectors * np.maximum(values, 0.0)[:, None, :]) @ vectors.swapaxes(-1, -2)
    return V


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
