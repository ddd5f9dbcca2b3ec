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

from collections.abc import Callable
from math import factorial, log
from typing import Any

import numpy as np
from numba import extending, types

from afafilter._jit import njit

intrinsic: Callable[[Any], Any] = extending.intrinsic
overload: Callable[..., Callable[[Any], Any]] = extending.overload

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
    """The bits of a floating point number as an integer, and back."""
    pairs: dict[Any, Any] = {types.float64: types.int64, types.float32: types.int32}
    other = pairs.get(x) or next(real for real, whole in pairs.items() if whole == x)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(other))

    return other(x), code


def log2(r: Any) -> Any:
    """Binary logarithm of a positive normal number."""
    raise NotImplementedError("for compiled kernels")


def exp2(y: Any) -> Any:
    """2^y where that is a normal number."""
    raise NotImplementedError("for compiled kernels")


@overload(log2)
def _log2(r: Any) -> Any:
    def double(r: Any) -> Any:
        bits = _bits(r)
        e = (bits - _ROOT_HALF_BITS) >> 52
        m = _bits(bits - (e << 52))
        f = (m - 1.0) / (m + 1.0)
        series = _LOG[9]
        for k in range(8, -1, -1):
            series = series * (f * f) + _LOG[k]
        return series * f + (_bits(e + _ROUND_BITS) - _ROUND)

    def single(r: Any) -> Any:
        one, places = np.float32(1.0), np.int32(23)
        bits = _bits(r)
        e = np.int32(np.int32(bits - _ROOT_HALF_BITS_SINGLE) >> places)
        m = _bits(np.int32(bits - np.int32(e << places)))
        f = (m - one) / (m + one)
        series = _LOG_SINGLE[4]
        for k in range(3, -1, -1):
            series = series * (f * f) + _LOG_SINGLE[k]
        return series * f + (_bits(np.int32(e + _ROUND_BITS_SINGLE)) - _ROUND_SINGLE)

    return double if r == types.float64 else single


@overload(exp2)
def _exp2(y: Any) -> Any:
    def double(y: Any) -> Any:
        n = y + _ROUND
        part = y - (n - _ROUND)
        value = _EXP[12]
        for k in range(11, -1, -1):
            value = value * part + _EXP[k]
        return _bits(_bits(value) + (_bits(n) << 52))

    def single(y: Any) -> Any:
        n = y + _ROUND_SINGLE
        part = y - (n - _ROUND_SINGLE)
        value = _EXP_SINGLE[7]
        for k in range(6, -1, -1):
            value = value * part + _EXP_SINGLE[k]
        return _bits(np.int32(_bits(value) + np.int32(_bits(n) << np.int32(23))))

    return double if y == types.float64 else single


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _weigh(X: Any, S: Any, exponent: Any, beta: Any) -> None:
    """One row."""
    one = X.dtype.type(1)
    if exponent == one and beta == one:
        for j in range(X.shape[0]):
            X[j] = one / X[j]
    elif beta == one and exponent > one:
        for j in range(X.shape[0]):
            inverse = one / X[j]
            X[j] = exp2((exponent - one) * log2(S[j] * inverse)) * inverse
    else:  # no quotient or factor leaves the range that the weight itself keeps
        for j in range(X.shape[0]):
            X[j] = exp2(beta * ((exponent - one) * log2(S[j]) - exponent * log2(X[j])))


@njit(nogil=True, fastmath={"contract"}, error_model="numpy")
def _variances(S: Any, query: Any, first: Any, second: Any) -> None:
    """S of one row."""
    a, b = query
    for j in range(len(S)):
        S[j] = a * first[j] + b * second[j]


@njit(cache=True, nogil=True, error_model="numpy")
def power_weights(X: Any, S: Any, exponent: Any, beta: Any) -> None:
    """X (B, T) = S + |R|^2/nu becomes (S^{exponent - 1} / X^exponent)^beta.

    S (B, T), and the numbers have the floating point type of X. Pairs whose X or S is not a
    positive number get an arbitrary weight.
    """
    for i in range(len(X)):
        _weigh(X[i], S[i], exponent, beta)


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def add_tile(
    queries: Any,
    keys: Any,
    lag_queries: Any,
    lag_keys: Any,
    values: Any,
    limits: Any,
    exponent: Any,
    beta: Any,
    scratch: Any,
    sums: Any,
) -> None:
    """sums (B, m) += W values, W (B, T) as above with X = queries @ keys.T.

    queries (B, c), keys (T, c); S = lag_queries (B, 2) @ lag_keys (T, 2).T; values (T, m).
    limits (2, B): the first key and one past the last that a row sees; empty: all of them.
    scratch: room for the weights of some rows. sums are float64, the rest of one type.
    """
    T, m = values.shape
    first, second = np.ascontiguousarray(lag_keys[:, 0]), np.ascontiguousarray(lag_keys[:, 1])
    S = np.empty_like(first)
    step = max(len(scratch) // T, 1)
    product = np.empty((min(step, len(queries)), m), values.dtype)
    for start in range(0, len(queries), step):
        count = min(step, len(queries) - start)
        W = scratch[: count * T].reshape(count, T)
        np.dot(queries[start : start + count], keys.T, W)
        for i in range(count):
            low, high = 0, T
            if limits.shape[1]:
                low, high = limits[0, start + i], limits[1, start + i]
                W[i, :low] = 0
                W[i, high:] = 0
            _variances(S[low:high], lag_queries[start + i], first[low:high], second[low:high])
            _weigh(W[i, low:high], S[low:high], exponent, beta)
        part = product[:count]
        np.dot(W, values, part)
        for i in range(count):
            for c in range(m):
                sums[start + i, c] += part[i, c]
