"""Rotation of pairs of components by given angles, and the invariant planes of a normal matrix."""

from __future__ import annotations

import numpy as np

from afafilter._base.checks import Array


def rotate(y: Array, cos: Array, sin: Array) -> Array:
    """Rotate plane k of y (..., d) by the angle whose cosine and sine (..., n) are given."""
    n = cos.shape[-1]
    even, odd = y[..., 0 : 2 * n : 2], y[..., 1 : 2 * n : 2]
    turned = cos * even - sin * odd
    out = np.empty((*turned.shape[:-1], y.shape[-1]), turned.dtype)
    out[..., 0 : 2 * n : 2] = turned
    out[..., 1 : 2 * n : 2] = sin * even + cos * odd
    if 2 * n < y.shape[-1]:
        out[..., 2 * n :] = y[..., 2 * n :]
    return out


PLANE_TOLERANCE = 1e-12
"""Subdiagonal entries of the real Schur form below this times d |T| count as zero."""


def invariant_planes(M: Array) -> tuple[Array, int]:
    """Orthogonal U (d, d) and n: U^T M U of a normal M has n 2 x 2 blocks, then single entries.

    (Its real Schur form, with the blocks first.)
    """
    from scipy.linalg import schur

    T, U = schur(M, output="real")
    turning = np.abs(np.diag(T, -1)) > PLANE_TOLERANCE * len(T) * np.abs(T).max()
    first = np.flatnonzero(turning)
    planes = np.stack([first, first + 1], axis=1).ravel()
    axes = np.setdiff1d(np.arange(len(T)), planes)
    return np.ascontiguousarray(U[:, np.append(planes, axes)]), len(first)


def plane_rates(M: Array, n: int) -> Array:
    """Rotation rates (n,) of the first planes of M, (M_{2k+1,2k} - M_{2k,2k+1}) / 2."""
    return np.asarray(0.5 * (np.diag(M, -1) - np.diag(M, 1))[: 2 * n : 2])
