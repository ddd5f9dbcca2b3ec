"""Compiled recursions of the simulator. Both work in place on standard normal draws.

Rows are overwritten from the last component to the first: a lower triangular root needs only
draws that are still there, so no scratch array is needed.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from afafilter._jit import njit

FAST = {"contract", "nsz", "reassoc"}


@njit(cache=True, nogil=True, fastmath=FAST)
def propagate(
    x: NDArray[Any], Phi: NDArray[Any], psi: NDArray[Any], root: NDArray[Any], which: NDArray[Any]
) -> None:
    """x[:, k] <- Phi x[:, k-1] + psi + root x[:, k], k >= 1, entry which[k] of the tables.

    x (n, T, d): x[:, 0] holds the start, x[:, 1:] standard normals. root: lower triangular.
    """
    n, T, d = x.shape
    for i in range(n):
        path = x[i]
        for k in range(1, T):
            F, u, L = Phi[which[k]], psi[which[k]], root[which[k]]
            for a in range(d - 1, -1, -1):
                value = u[a]
                for b in range(a + 1):
                    value += L[a, b] * path[k, b]
                for b in range(d):
                    value += F[a, b] * path[k - 1, b]
                path[k, a] = value


@njit(cache=True, nogil=True, fastmath=FAST)
def observe(
    z: NDArray[Any],
    x: NDArray[Any],
    seen: NDArray[Any],
    C: NDArray[Any],
    offset: NDArray[Any],
    root: NDArray[Any],
    which: NDArray[Any],
) -> None:
    """z[:, k] <- C x[:, seen[k]] + offset + root z[:, k], entry which[k] of the tables."""
    n, T, p = z.shape
    d = x.shape[2]
    for i in range(n):
        path, shown = z[i], x[i]
        for k in range(T):
            H, b0, L = C[which[k]], offset[which[k]], root[which[k]]
            for a in range(p - 1, -1, -1):
                value = b0[a]
                for b in range(a + 1):
                    value += L[a, b] * path[k, b]
                for b in range(d):
                    value += H[a, b] * shown[seen[k], b]
                path[k, a] = value
