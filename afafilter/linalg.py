"""Exact discretisation and small dense linear algebra shared by all modules.

Symbols: Phi(tau) = e^{A tau}; psi(tau) = int_0^tau e^{As} u ds;
V(tau) = int_0^tau e^{As} Q e^{A^T s} ds (the differential Lyapunov equation, V(0) = 0).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm, solve_continuous_lyapunov

from afafilter._validate import Array


def transition(A: Array, Q: Array, u: Array, dt: Array) -> tuple[Array, Array, Array]:
    """Phi (..., d, d), psi (..., d) and V (..., d, d) of dx = (Ax + u) dt + noise over dt >= 0."""
    d = len(A)
    dt = np.asarray(dt, dtype=np.float64)
    Phi = np.empty((*dt.shape, d, d))
    psi = np.empty((*dt.shape, d))
    V = np.empty((*dt.shape, d, d))
    for k in np.ndindex(dt.shape):
        halvings = max(0, int(np.ceil(np.log2(max(np.linalg.norm(A, 1) * dt[k], 1e-300)))))
        h = dt[k] / 2.0**halvings
        block = np.zeros((2 * d + 1, 2 * d + 1))
        block[:d, :d], block[:d, d : 2 * d], block[d : 2 * d, d : 2 * d] = A, Q, -A.T
        E = expm(block[: 2 * d, : 2 * d] * h)
        P, W = E[:d, :d], E[:d, d:] @ E[:d, :d].T
        affine = np.zeros((d + 1, d + 1))
        affine[:d, :d], affine[:d, d] = A, u
        s = expm(affine * h)[:d, d]
        for _ in range(halvings):
            P, s, W = P @ P, P @ s + s, P @ W @ P.T + W
        Phi[k], psi[k], V[k] = P, s, 0.5 * (W + W.T)
    return Phi, psi, V


def is_stable(A: Array) -> bool:
    """Whether every eigenvalue of A has a negative real part."""
    return bool(np.linalg.eigvals(A).real.max() < 0)


def stationary_covariance(A: Array, Q: Array) -> Array:
    """P with A P + P A^T + Q = 0 (A stable)."""
    P = solve_continuous_lyapunov(A, -Q)
    return np.asarray(0.5 * (P + P.T))


class Modes(NamedTuple):
    """Eigendecomposition A = S diag(lam) S^-1 and Qs = S^-1 Q S^-H."""

    lam: NDArray[np.complex128]
    S: NDArray[np.complex128]
    S_inv: NDArray[np.complex128]
    Qs: NDArray[np.complex128]
    cond: float


def modes(A: Array, Q: Array) -> Modes:
    """Eigenmodes of A; `cond` = inf when A is defective."""
    lam, S = np.linalg.eig(A.astype(complex))
    cond = float(np.linalg.cond(S))
    S_inv = np.linalg.inv(S) if cond < 1e14 else np.full_like(S, np.nan)
    return Modes(lam, S, S_inv, S_inv @ Q @ S_inv.conj().T, cond if cond < 1e14 else np.inf)
