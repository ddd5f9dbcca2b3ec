"""Compiled rotation of channel pairs."""

from __future__ import annotations

from typing import Any

from afafilter._core.jit import jit


@jit
def turn(x: Any, tangents: Any, sign: float, out: Any) -> None:
    """out (paths, N, d) = pairs of x turned by the angles with these half tangents (N, n).

    sign : 1, or -1 to turn backward. Channels beyond 2 n stay. x may not be out.
    """
    paths, rows, d = x.shape
    n = tangents.shape[1]
    for p in range(paths):
        for i in range(rows):
            for k in range(n):
                tangent = tangents[i, k]
                versine = 2.0 / (1.0 + tangent * tangent)
                c, s = versine - 1.0, sign * tangent * versine
                a, b = x[p, i, 2 * k], x[p, i, 2 * k + 1]
                out[p, i, 2 * k] = a * c - b * s
                out[p, i, 2 * k + 1] = b * c + a * s
            for k in range(2 * n, d):
                out[p, i, k] = x[p, i, k]
