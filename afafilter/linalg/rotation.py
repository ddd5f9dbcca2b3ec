"""Rotation of channel pairs with time: into the frame that turns with the process, and out of it.

Angles are formed in double precision, as tangents of their halves: one vectorised call where cosine
and sine are two slow ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afafilter._base.checks import read_only

Floats = NDArray[np.floating[Any]]
F64 = NDArray[np.float64]

SLICE = 256
"""Rows at a time: a cache holds their angles."""


def half_tangents(t: F64, omega: F64) -> F64:
    """tan(omega t / 2), shape (N, n)."""
    angle = t[:, None] * (0.5 * omega)
    return np.tan(angle, out=angle)


def rotate(x: Floats, tangents: F64, out: Floats, backward: bool = False) -> Floats:
    """out (N, d) or (paths, N, d) = x with channel pairs turned by the angles of `tangents` (N, n).

    Channels beyond 2 n stay. The arrays x and out may not overlap.
    """
    from afafilter._core.rotation_kernels import turn

    both = (x, out) if x.ndim == 3 else (x[None], out[None])
    turn(read_only(both[0]), tangents, -1.0 if backward else 1.0, both[1])
    return out


def to_rotating_frame(arrays: Sequence[Floats], t: F64, omega: F64) -> list[Floats]:
    """Copies of x (..., N, d) seen from the frame that turns with e^{i omega t}."""
    if not omega.any():
        return [np.asarray(x) for x in arrays]
    out: list[Floats] = [np.empty(x.shape, x.dtype) for x in arrays]
    for start in range(0, len(t), SLICE):
        rows = slice(start, start + SLICE)
        tangents = half_tangents(t[rows], omega)
        for x, turned in zip(arrays, out):
            rotate(x[..., rows, :], tangents, turned[..., rows, :], backward=True)
    return out


def turn(y: F64, cos: F64, sin: F64) -> F64:
    """Rotate plane k of y (..., d) by the angle whose cosine and sine (..., n) are given."""
    n = cos.shape[-1]
    even, odd = y[..., 0 : 2 * n : 2], y[..., 1 : 2 * n : 2]
    out = np.empty(np.broadcast_shapes(y.shape[:-1], cos.shape[:-1]) + y.shape[-1:])
    out[..., 0 : 2 * n : 2] = cos * even - sin * odd
    out[..., 1 : 2 * n : 2] = sin * even + cos * odd
    out[..., 2 * n :] = y[..., 2 * n :]
    return out
