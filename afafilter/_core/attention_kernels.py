"""Compiled robust weights of the power law, and sums of values with them."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

import numpy as np

from afafilter._core.jit import njit
from afafilter._core.lanes import SEVERAL, inverse, load_several, load_some, store, store_some
from afafilter._core.powers import exp2, log2
from afafilter._core.register_tiles import (
    column_panels,
    inverse_product,
    lanes,
    product,
    room,
    turned_panels,
    wide,
)

STRIP = 512
"""Keys of a strip: the second cache holds them, their values and their weights."""
STRIPS = 2
"""Strips whose sums are added up in the numbers' own type."""
CHUNK = 48
"""Queries that go through a strip together."""


_inline = njit(nogil=True, fastmath={"contract"}, error_model="numpy")


@_inline
def _inverse(x: Any, s: Any, exponent: Any, beta: Any) -> Any:
    """1 / x."""
    return inverse(x)


@_inline
def _steep(x: Any, s: Any, exponent: Any, beta: Any) -> Any:
    """s^{exponent - 1} / x^exponent."""
    over = inverse(x)
    return exp2((exponent - type(exponent)(1)) * log2(s * over)) * over


@_inline
def _general(x: Any, s: Any, exponent: Any, beta: Any) -> Any:
    """That to the power beta; no quotient or factor leaves the range that the weight keeps."""
    return exp2(beta * ((exponent - type(exponent)(1)) * log2(s) - exponent * log2(x)))


def _along_row(weight: Any) -> Any:
    """X becomes weight(X, S, exponent, beta) with S = a first + b second."""

    @_inline
    def weigh(X: Any, a: Any, first: Any, b: Any, second: Any, exponent: Any, beta: Any) -> None:
        step = lanes(X.itemsize)
        n = len(X)
        whole = n - n % (SEVERAL * step)
        for j in range(0, whole, SEVERAL * step):
            s = a * load_several(first, j) + b * load_several(second, j)
            store(X, j, weight(load_several(X, j), s, exponent, beta))
        for j in range(whole, n, step):
            s = a * load_some(first, j, n - j) + b * load_some(second, j, n - j)
            part = weight(load_some(X, j, n - j), s, exponent, beta)
            store_some(X, j, part, 0, n - j)

    return weigh


_weigh_inverse, _weigh_steep, _weigh_general = map(_along_row, (_inverse, _steep, _general))


@_inline
def _weigh(X: Any, a: Any, first: Any, b: Any, second: Any, exponent: Any, beta: Any) -> None:
    """One row of weights of any exponent and beta."""
    one = X.dtype.type(1)
    if beta == one and exponent == one:
        _weigh_inverse(X, a, first, b, second, exponent, beta)
    elif beta == one and exponent > one:
        _weigh_steep(X, a, first, b, second, exponent, beta)
    else:
        _weigh_general(X, a, first, b, second, exponent, beta)


@njit(cache=True, nogil=True, error_model="numpy")
def power_weights(X: Any, S: Any, exponent: Any, beta: Any) -> None:
    """X (B, T) = S + |R|^2/nu becomes (S^{exponent - 1} / X^exponent)^beta.

    S (B, T), and the numbers have the floating point type of X. Pairs whose X or S is not a
    positive number get an arbitrary weight.
    """
    one = X.dtype.type(1)
    for i in range(len(X)):
        _weigh(X[i], one, S[i], X.dtype.type(0), S[i], exponent, beta)


@njit(nogil=True, fastmath={"contract", "reassoc"}, error_model="numpy")
def _dot(a: Any, b: Any) -> Any:
    """Sum of products."""
    total = a.dtype.type(0)
    for j in range(len(a)):
        total += a[j] * b[j]
    return total


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def add_tile(
    queries: Any, outer: Any, points: Any, scale: Any, lag_queries: Any, lag_keys: Any,
    values: Any, fade: Any, mass: Any, limits: Any, exponent: Any, beta: Any, part: Any, sums: Any,
) -> None:  # fmt: skip
    """sums (B, m) += W values and, where sums has another column, that += W mass.

    W (B, T) as above with X = queries (B, e + d) @ [outer (T, e), scale (T,) points (T, d)].T and
    S = lag_queries (B, 2) @ lag_keys (T, 2).T; values (T, m) times fade (T,); mass (T,).
    limits (2, B): the first key and one past the last that a row sees; empty: all of them.
    part (B, `summed_columns(m)`): work space. sums are float64, the rest of one type.
    """
    T, m = values.shape
    B, c = queries.shape
    vector, panel = lanes(values.itemsize), wide(values.itemsize)
    groups = m // panel
    narrow = (m - groups * panel + vector - 1) // vector
    strip = max(STRIP // panel, 1) * panel
    few = min(B, CHUNK)
    kind = values.dtype
    turned = room(strip * c, kind).reshape(strip // panel, c, panel)
    W = room(few * strip, kind).reshape(few, strip)
    first, second = np.empty(strip, kind), np.empty(strip, kind)
    left = room(groups * strip * panel, kind).reshape(groups, strip, panel)
    right = room(narrow * strip * vector, kind).reshape(narrow, strip, vector)
    massive = sums.shape[1] > m
    varying = exponent != kind.type(1) or beta != kind.type(1)  # else the weight is 1 / X
    part[:B] = 0
    for start in range(0, T, strip):
        if start > 0 and start % (STRIPS * strip) == 0:
            _add_up(part[:B], sums, m)
        length = min(strip, T - start)
        end = start + length
        panels = (length + panel - 1) // panel
        turned_panels(outer[start:end], points[start:end], scale[start:end], turned[:panels])
        column_panels(values[start:end], fade[start:end], 0, left)
        column_panels(values[start:end], fade[start:end], groups * panel, right)
        first[:length], second[:length] = lag_keys[start:end, 0], lag_keys[start:end, 1]
        for above in range(0, B, few):
            count = min(few, B - above)
            rows = slice(above, above + count)
            begin, stop = 0, length
            if limits.shape[1]:
                begin, stop = _seen(limits[:, rows], start, length)
                begin -= begin % panel
                if begin >= stop:
                    continue
            for q in range(begin // panel, (stop + panel - 1) // panel):
                if varying:
                    product(queries[rows], 0, turned[q], W[:count], q * panel, False)
                else:
                    inverse_product(queries[rows], 0, turned[q], W[:count], q * panel)
            for i in range(count):
                low, high = begin, stop
                if limits.shape[1]:
                    low = min(max(limits[0, above + i] - start, begin), stop)
                    high = max(min(limits[1, above + i] - start, stop), low)
                    W[i, begin:low] = 0
                    W[i, high:stop] = 0
                if varying:
                    a, b = lag_queries[above + i]
                    seen, X = slice(low, high), W[i, low:high]
                    _weigh(X, a, first[seen], b, second[seen], exponent, beta)
                if massive:
                    sums[above + i, m] += _dot(W[i, low:high], mass[start + low : start + high])
            for g in range(groups):
                product(W[:count], begin, left[g, begin:stop], part[rows], g * panel, True)
            for g in range(narrow):
                column = groups * panel + g * vector
                product(W[:count], begin, right[g, begin:stop], part[rows], column, True)
    _add_up(part[:B], sums, m)


@njit(nogil=True, error_model="numpy")
def _seen(limits: Any, start: Any, length: Any) -> Any:
    """The first of keys start, ..., start + length - 1 that some row sees, and one past the last.

    Counted from `start`; both 0 if there are none.
    """
    first, stop = length, 0
    for i in range(limits.shape[1]):
        low, high = max(limits[0, i] - start, 0), min(limits[1, i] - start, length)
        if low < high:
            first, stop = min(first, low), max(stop, high)
    return min(first, stop), stop


@njit(nogil=True, error_model="numpy")
def _add_up(part: Any, sums: Any, m: Any) -> None:
    """sums[:, :m] += part[:, :m], which begins anew."""
    for i in range(len(part)):
        for j in range(m):
            sums[i, j] += part[i, j]
        part[i] = 0


def summed_columns(m: int, itemsize: int) -> int:
    """Columns that `add_tile` needs for the sums of m."""
    vector = int(lanes(itemsize))
    return -(-m // vector) * vector
