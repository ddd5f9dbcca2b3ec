"""Rotation of planes, pairs of components, by given angles."""

from __future__ import annotations

import numpy as np

from afafilter._base.checks import Array


def turn(y: Array, cos: Array, sin: Array) -> Array:
    """Rotate plane k of y (..., d) by the angle whose cosine and sine (..., n) are given."""
    n = cos.shape[-1]
    even, odd = y[..., 0 : 2 * n : 2], y[..., 1 : 2 * n : 2]
    out = np.empty(np.broadcast_shapes(y.shape[:-1], cos.shape[:-1]) + y.shape[-1:])
    out[..., 0 : 2 * n : 2] = cos * even - sin * odd
    out[..., 1 : 2 * n : 2] = sin * even + cos * odd
    out[..., 2 * n :] = y[..., 2 * n :]
    return out
