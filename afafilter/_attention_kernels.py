"""Compiled robust weights of the power law, and the powers that they are made of.

Powers of positive numbers are 2^{c log2 r}, written with the bits of floating point numbers and
two short series so that a compiler turns loops over them into vector instructions:

    r = 2^e m,  log2 m = (2 / ln 2) (f + f^3/3 + f^5/5 + ...),  f = (m - 1) / (m + 1),
    2^y = 2^n e^{ln 2 (y - n)},  n the integer next to y,

with m between 1/sqrt 2 and sqrt 2, so that |f| < 0.172. Adding 1.5 2^52 (1.5 2^23 in single
precision) rounds to an integer that then stands in the lowest bits. Exact to the rounding of
c log2 r.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from math import factorial, log
from typing import Any

import numpy as np
from numba import types

from afafilter._jit import njit
from afafilter._lanes import (
    SEVERAL,
    Lanes,
    intrinsic,
    inverse,
    load,
    load_several,
    overload,
    store,
)
from afafilter._register_tiles import (
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
_LOG = tuple(2 / log(2) / (2 * k + 1) for k in range(10))
_EXP = tuple(log(2) ** k / factorial(k) for k in range(13))
_LOG_SINGLE = tuple(np.float32(x) for x in _LOG[:5])
_EXP_SINGLE = tuple(np.float32(x) for x in _EXP[:8])
_ROUND = 6755399441055744.0
_ROUND_SINGLE = np.float32(12582912.0)
_ROUND_BITS = np.int64(0x4338000000000000)
_ROUND_BITS_SINGLE = np.int32(0x4B400000)
_ROOT_HALF_BITS = np.int64(0x3FE6A09E667F3BCD)
_ROOT_HALF_BITS_SINGLE = np.int32(0x3F3504F3)


@intrinsic
def _bits(typingctx: Any, x: Any) -> Any:
    """The bits of floating point numbers as integers, and back."""
    pairs: dict[Any, Any] = {types.float64: types.int64, types.float32: types.int32}
    number = x.dtype if isinstance(x, Lanes) else x
    other = pairs.get(number) or next(real for real, whole in pairs.items() if whole == number)
    result = Lanes(other, x.vectors) if isinstance(x, Lanes) else other

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(result))

    return result(x), code


def _short(x: Any) -> Any:
    """An int32 again, where numba has made more of it."""
    raise NotImplementedError("for compiled kernels")


def log2(r: Any) -> Any:
    """Binary logarithm of positive normal numbers."""
    raise NotImplementedError("for compiled kernels")


def exp2(y: Any) -> Any:
    """2^y where that is a normal number."""
    raise NotImplementedError("for compiled kernels")


@overload(_short)
def _as_short(x: Any) -> Any:
    def whole(x: Any) -> Any:
        return np.int32(x)

    def several(x: Any) -> Any:
        return x

    return several if isinstance(x, Lanes) else whole


@overload(log2)
def _log2(r: Any) -> Any:
    def double(r: Any) -> Any:
        bits = _bits(r)
        e = (bits - _ROOT_HALF_BITS) >> 52
        m = _bits(bits - (e << 52))
        f = (m - 1.0) / (m + 1.0)
        series = f * f * _LOG[9] + _LOG[8]
        for k in range(7, -1, -1):
            series = series * (f * f) + _LOG[k]
        return series * f + (_bits(e + _ROUND_BITS) - _ROUND)

    def single(r: Any) -> Any:
        one, places = np.float32(1.0), np.int32(23)
        bits = _bits(r)
        e = _short(_short(bits - _ROOT_HALF_BITS_SINGLE) >> places)
        m = _bits(_short(bits - _short(e << places)))
        f = (m - one) / (m + one)
        series = f * f * _LOG_SINGLE[4] + _LOG_SINGLE[3]
        for k in range(2, -1, -1):
            series = series * (f * f) + _LOG_SINGLE[k]
        return series * f + (_bits(_short(e + _ROUND_BITS_SINGLE)) - _ROUND_SINGLE)

    return double if getattr(r, "dtype", r) == types.float64 else single


@overload(exp2)
def _exp2(y: Any) -> Any:
    def double(y: Any) -> Any:
        n = y + _ROUND
        part = y - (n - _ROUND)
        value = part * _EXP[12] + _EXP[11]
        for k in range(10, -1, -1):
            value = value * part + _EXP[k]
        return _bits(_bits(value) + (_bits(n) << 52))

    def single(y: Any) -> Any:
        n = y + _ROUND_SINGLE
        part = y - (n - _ROUND_SINGLE)
        value = part * _EXP_SINGLE[7] + _EXP_SINGLE[6]
        for k in range(5, -1, -1):
            value = value * part + _EXP_SINGLE[k]
        return _bits(_short(_bits(value) + _short(_bits(n) << np.int32(23))))

    return double if getattr(y, "dtype", y) == types.float64 else single


def _over(x: Any) -> Any:
    """1 / x."""
    raise NotImplementedError("for compiled kernels")


@overload(_over)
def _over_x(x: Any) -> Any:
    def one(x: Any) -> Any:
        return type(x)(1) / x

    def several(x: Any) -> Any:
        return inverse(x)

    return several if isinstance(x, Lanes) else one


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _steep(x: Any, s: Any, exponent: Any) -> Any:
    """s^{exponent - 1} / x^exponent."""
    over = _over(x)
    return exp2((exponent - type(exponent)(1)) * log2(s * over)) * over


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _general(x: Any, s: Any, exponent: Any, beta: Any) -> Any:
    """That to the power beta; no quotient or factor leaves the range that the weight keeps."""
    return exp2(beta * ((exponent - type(exponent)(1)) * log2(s) - exponent * log2(x)))


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _weigh(X: Any, a: Any, first: Any, b: Any, second: Any, exponent: Any, beta: Any) -> None:
    """One row, S = a first + b second."""
    one = X.dtype.type(1)
    step = lanes(X.itemsize)
    n = len(X)
    many, whole = n - n % (SEVERAL * step), n - n % step
    if exponent == one and beta == one:
        for j in range(0, whole, step):
            store(X, j, inverse(load(X, j)))
        for j in range(whole, n):
            X[j] = one / X[j]
    elif beta == one and exponent > one:
        for j in range(0, many, SEVERAL * step):
            s = a * load_several(first, j) + b * load_several(second, j)
            store(X, j, _steep(load_several(X, j), s, exponent))
        for j in range(many, whole, step):
            s = a * load(first, j) + b * load(second, j)
            store(X, j, _steep(load(X, j), s, exponent))
        for j in range(whole, n):
            X[j] = _steep(X[j], a * first[j] + b * second[j], exponent)
    else:
        for j in range(0, many, SEVERAL * step):
            s = a * load_several(first, j) + b * load_several(second, j)
            store(X, j, _general(load_several(X, j), s, exponent, beta))
        for j in range(many, whole, step):
            s = a * load(first, j) + b * load(second, j)
            store(X, j, _general(load(X, j), s, exponent, beta))
        for j in range(whole, n):
            X[j] = _general(X[j], a * first[j] + b * second[j], exponent, beta)


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
