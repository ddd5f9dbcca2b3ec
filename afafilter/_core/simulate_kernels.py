"""Compiled recursions of the simulator. Both work in place on standard normal draws.

Rows are overwritten from the last component to the first: a lower triangular root needs only
draws that are still there, so no scratch array is needed.

Each recursion is compiled for the smallest dimensions too: loops over two components cost several
times their arithmetic unless the compiler knows the two.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from afafilter._core.jit import njit

# Reordering lets long sums be vectorised; short ones keep the order written below. These are
# not cached: they become part of the kernels that call them.
general = njit(nogil=True, fastmath={"contract", "nsz", "reassoc"})
unrolled = njit(nogil=True, fastmath={"contract", "nsz"}, forceinline=True)


def _propagate(
    x: NDArray[Any],
    Phi: NDArray[Any],
    psi: NDArray[Any],
    root: NDArray[Any],
    which: NDArray[Any],
    d: int,
) -> None:
    n, T = x.shape[:2]
    for i in range(n):
        for k in range(1, T):
            at = np.uintp(which[k])  # unsigned: no test for indices that count from the end
            for a in range(d - 1, -1, -1):
                value = psi[at, a]
                for b in range(a + 1):
                    value += root[at, a, b] * x[i, k, b]
                for b in range(d):
                    value += Phi[at, a, b] * x[i, k - 1, b]
                x[i, k, a] = value


def _observe(
    z: NDArray[Any],
    x: NDArray[Any],
    seen: NDArray[Any],
    C: NDArray[Any],
    offset: NDArray[Any],
    root: NDArray[Any],
    which: NDArray[Any],
    p: int,
    d: int,
) -> None:
    n, T = z.shape[:2]
    for i in range(n):
        for k in range(T):
            at, shown = np.uintp(which[k]), np.uintp(seen[k])
            for a in range(p - 1, -1, -1):
                value = offset[at, a]
                for b in range(a + 1):
                    value += root[at, a, b] * z[i, k, b]
                for b in range(d):
                    value += C[at, a, b] * x[i, shown, b]
                z[i, k, a] = value


_propagate_general, _propagate_unrolled = general(_propagate), unrolled(_propagate)
_observe_general, _observe_unrolled = general(_observe), unrolled(_observe)


@njit(cache=True, nogil=True)
def propagate(
    x: NDArray[Any], Phi: NDArray[Any], psi: NDArray[Any], root: NDArray[Any], which: NDArray[Any]
) -> None:
    """x[:, k] <- Phi x[:, k-1] + psi + root x[:, k], k >= 1, entry which[k] of the tables.

    x (n, T, d): x[:, 0] holds the start, x[:, 1:] standard normals. root: lower triangular.
    """
    d = x.shape[2]
    if d == 1:
        _propagate_unrolled(x, Phi, psi, root, which, 1)
    elif d == 2:
        _propagate_unrolled(x, Phi, psi, root, which, 2)
    else:
        _propagate_general(x, Phi, psi, root, which, d)


@njit(cache=True, nogil=True)
def observe(
    z: NDArray[Any],
    x: NDArray[Any],
    seen: NDArray[Any],
    C: NDArray[Any],
    offset: NDArray[Any],
    root: NDArray[Any],
    which: NDArray[Any],
) -> None:
    """z[:, k] <- C x[:, seen[k]] + offset + root z[:, k], entry which[k] of the tables.

    z (n, T, p): standard normals. x (n, times, d). root: lower triangular.
    """
    p, d = z.shape[2], x.shape[2]
    if p == 1 and d == 1:
        _observe_unrolled(z, x, seen, C, offset, root, which, 1, 1)
    elif p == 1 and d == 2:
        _observe_unrolled(z, x, seen, C, offset, root, which, 1, 2)
    elif p == 2 and d == 2:
        _observe_unrolled(z, x, seen, C, offset, root, which, 2, 2)
    else:
        _observe_general(z, x, seen, C, offset, root, which, p, d)
