"""Repeated squaring of transitions and of their noise roots, and its error growth.

Each squaring multiplies the relative error of Phi by 2 ||Phi||^2 / ||Phi^2|| (`amplification`); a
defective eigenvalue, where that never stops, has its own series (`Cluster`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import Array

TERMS = 28  # of a Taylor series


class Cluster(NamedTuple):
    """A diagonal block of A with one defective eigenvalue mu: A - mu I = N, N^k zero to rounding.

    There e^{A tau} = e^{mu tau} sum_j (N tau)^j / j!, free of the cancellation between powers of
    tau that repeated squaring suffers once e^{mu tau} is tiny. Extended precision, because the
    relative condition number grows like tau^3.
    """

    members: NDArray[np.intp]
    mu: np.longdouble
    powers: NDArray[np.longdouble]  # N^j / j!
    limit: float  # tau up to which the series is safe

    def __call__(self, tau: Array) -> NDArray[np.longdouble]:
        long = tau.astype(np.longdouble)[:, None]
        series = long ** np.arange(len(self.powers)) @ self.powers.reshape(len(self.powers), -1)
        k = len(self.members)
        return np.asarray(np.exp(self.mu * long) * series).reshape(-1, k, k)


def balanced(A: Array) -> tuple[Array, Array]:
    """Scales s (d,), powers of two, and A_ij s_j / s_i, rows and columns of about equal sums."""
    from scipy.linalg.lapack import dgebal

    turned, _, _, scale, _ = dgebal(A, scale=1, permute=0)
    return scale, np.ascontiguousarray(turned)


def same_block(A: Array) -> NDArray[np.bool_]:
    """(d, d), whether two components share a diagonal block of A, up to a permutation."""
    found: NDArray[np.bool_] = (A != 0) | (A.T != 0) | np.eye(len(A), dtype=bool)
    for _ in range(len(A).bit_length()):
        found = found.astype(np.float64) @ found > 0
    return found


def components(A: Array) -> list[NDArray[np.intp]]:
    """Index sets of the irreducible diagonal blocks of A, in order of their first members."""
    first = same_block(A).argmax(axis=1)
    return [np.flatnonzero(first == k) for k in np.unique(first)]


def schur_form(A: Array) -> tuple[Array, Array]:
    """B = U^T A U, quasi-triangular within each block of A, and the orthonormal U (d, d).

    There powers of tau in e^{A tau} stand apart; in any other basis they cancel (Golub & Van Loan,
    Matrix Computations, 2013, sec. 7.4-7.6). B is exact for an A that differs by a rounding.
    """
    from scipy.linalg import schur

    B, U = A.copy(), np.eye(len(A))
    for members in components(A):
        if len(members) > 1:
            block = np.ix_(members, members)
            B[block], U[block] = schur(A[block])
    return B, U


def single_eigenvalue_blocks(A: Array) -> list[Cluster]:
    found = []
    for members in components(A):
        k = len(members)
        if k == 1 or k > 8:
            continue
        part = A[np.ix_(members, members)].astype(np.longdouble)
        mu = np.trace(part) / k
        N = part - mu * np.eye(k)
        powers = [np.eye(k, dtype=np.longdouble)]
        for j in range(1, 16):
            powers.append(powers[-1] @ N / j)
        rest = float(np.abs(powers[k]).max()) ** (1 / k)
        if rest <= 1e-3 * float(np.abs(part).max()):
            limit = 0.1 / rest if rest > 0 else np.inf
            found.append(Cluster(members, mu, np.array(powers), limit))
    return found


def taylor_rows(A: Any, Q: Any, u: Any) -> NDArray[np.longdouble]:
    """Coefficients (TERMS, 2 d^2 + d) of tau^k, k >= 1, in [Phi - I, psi, V]."""
    phi, drive, noise = A, u, Q
    rows = []
    for k in range(1, TERMS + 1):
        rows.append(np.concatenate([phi.ravel(), drive, noise.ravel()]))
        phi, drive = A @ phi / (k + 1), A @ drive / (k + 1)
        half = A @ noise / (k + 1)
        noise = half + half.T
    return np.array(rows)


def square(x: Array, P: Array) -> tuple[Array, Array]:
    """diag(P^2 - I) and P^2, from x = diag(P - I) and P.

    Near the identity the diagonal is carried by x, so that slow components keep their relative
    accuracy through many squarings; far from it by P, so that decayed ones do.
    """
    squared = P @ P
    diagonal = np.einsum("nii->ni", squared)  # a writeable view
    if not (np.abs(x) < 0.5).any():
        return diagonal - 1, squared
    off = P * (1 - np.eye(P.shape[-1]))
    x = 2 * x + x * x + np.einsum("nij,nji->ni", off, off)
    near = np.abs(x) < 0.5
    x = np.where(near, x, diagonal - 1)
    diagonal[...] = np.where(near, 1 + x, diagonal)
    return x, squared


def double_roots(count: NDArray[np.intp], x: Array, P: Array, root: Array) -> None:
    """Columns of the lower roots of V, in place, over 2^count times the step of Phi = P.

    V(2 t) = Phi V Phi^T + V of roots, [Phi R, R] turned to triangular form: what is small beside
    the rest of V keeps its digits, which no matrix V holds. P in extended precision, since its
    powers cancel where V is of such parts. count (n,) descends; x as in `square`.
    """
    for done in range(int(count[0]) if len(count) else 0):
        n = int(np.searchsorted(-count, -done, side="left"))
        root[:n] = turned_root(P[:n], root[:n], root[:n])
        x[:n], P[:n] = square(x[:n], P[:n])


def turned_root(U: Any, root: Array, *more: Array) -> Array:
    """Columns of the lower root of U V U^T and further terms, from columns of roots (n, d, d)."""
    rows = (root @ U.swapaxes(-1, -2)).astype(np.float64)
    upper = np.linalg.qr(np.concatenate([rows, *more], axis=1), mode="r")
    return np.asarray(upper * np.where(np.einsum("nii->ni", upper) < 0, -1.0, 1.0)[..., None])


def amplification(P: Array, squared: Array) -> Array:
    """Estimate of ||P||^2 / ||P^2|| >= 1 in the spectral norm, from rows and columns."""
    P, squared = P * P, squared * squared
    size = np.sqrt(P.sum(axis=1).max(axis=1) * P.sum(axis=2).max(axis=1))
    after = np.sqrt(squared.sum(axis=1).max(axis=1))
    ratio = np.divide(size, after, out=np.ones_like(after), where=after > 0)
    return np.asarray(np.maximum(ratio, 1.0))
