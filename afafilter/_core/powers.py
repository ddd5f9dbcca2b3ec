"""Logarithms and powers of numbers side by side, for compiled kernels.

Where a processor looks lanes up in its registers (AVX-512), a table of TABLE entries leaves short
series for the rest, and no division:

    r = 2^e m,  1 <= m < 2,  c about 1 / m by the leading bits of m,  f = m c - 1,
    log2 r = e - log2 c + log2(1 + f),  |f| < 1 / 32,
    2^y = 2^{k / TABLE} 2^{y - k / TABLE},  k the integer next to TABLE y.

Elsewhere

    log2 r = e + (2 / ln 2) artanh f,  f = (m - 1) / (m + 1),  1 / sqrt 2 <= m < sqrt 2,
    2^y = 2^n 2^{y - n},  n the integer next to y.

Power series are economised. Adding 1.5 2^52 / TABLE (1.5 2^23 / TABLE in single
precision) rounds to a multiple of 1 / TABLE: k stands in the lowest bits. Both are exact to a few
roundings: absolute ones of log2 r and its integer part, relative ones of 2^y.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numpy.polynomial import Chebyshev, Polynomial

from afafilter._core.jit import njit
from afafilter._core.lanes import HAS_AVX512, Lanes, intrinsic, overload, per_vector

PLACES = 4
"""Leading bits that choose an entry."""
TABLE = 2**PLACES
LARGEST = (2**0.5 - 1) / (2**0.5 + 1)
"""Largest f without a table."""
_inline = njit(nogil=True, fastmath={"contract"}, error_model="numpy")


_TERMS = np.arange(24.0)
_EXP = np.log(2.0) ** _TERMS / np.cumprod(np.maximum(_TERMS, 1.0))
_LOG = (-1.0) ** _TERMS / (_TERMS + 1.0) / np.log(2.0)
_ARTANH = 2.0 / (2.0 * _TERMS + 1.0) / np.log(2.0)


def _economised(series: Any, terms: int, low: float, high: float) -> tuple[float, ...]:
    """Coefficients of a polynomial close to a power series from low to high.

    What the series has beyond so many terms is replaced by the start of its Chebyshev series.
    """
    beyond = np.append(np.zeros(terms), series[terms:])
    rest = Polynomial(beyond).convert(domain=[low, high], kind=Chebyshev).truncate(terms)
    return tuple((series[:terms] + rest.convert(domain=[-1, 1], kind=Polynomial).coef).tolist())


@dataclass(frozen=True)
class _Kind:
    """What is particular to a floating point type."""

    real: Any
    whole: Any
    mantissa: int
    """Bits of it."""
    terms: tuple[int, int, int, int]
    """Terms of log2 and exp2 with a table, and without."""

    def bits(self, x: float) -> int:
        """The bits of x."""
        return int(self.real(x).view(self.whole))

    @property
    def rounding(self) -> float:
        """1.5 times the first number whose neighbours lie 1 apart."""
        return 1.5 * 2.0**self.mantissa

    @property
    def inverses(self) -> Any:
        """1 / m in the middle of what an entry stands for (TABLE,)."""
        return self.real(1.0) / self.real(1.0 + (np.arange(TABLE) + 0.5) / TABLE)

    @property
    def logarithms(self) -> Any:
        """-log2 of them (TABLE,)."""
        return -np.log2(self.inverses.astype(float))

    @property
    def roots(self) -> Any:
        """2^{k / TABLE} (TABLE,), less the bits that adding those of k puts there."""
        roots = self.real(2.0 ** (np.arange(TABLE) / TABLE))
        added = np.arange(TABLE, dtype=self.whole) << (self.mantissa - PLACES)
        return (roots.view(self.whole) - added).view(self.real)


_KINDS = {
    types.float64: _Kind(np.float64, np.int64, 52, (8, 7, 7, 12)),
    types.float32: _Kind(np.float32, np.int32, 23, (4, 4, 4, 7)),
}
_REAL = {types.int64: types.float64, types.int32: types.float32}
_WHOLE = {real: whole for whole, real in _REAL.items()}


@intrinsic
def _bits(typingctx: Any, x: Any) -> Any:
    """The bits of floating point numbers, as integers."""
    return _reread(x, _WHOLE)


@intrinsic
def _number(typingctx: Any, x: Any) -> Any:
    """The numbers that have these bits."""
    return _reread(x, _REAL)


def _reread(x: Any, kinds: Any) -> Any:
    result = Lanes(kinds[x.dtype], x.vectors)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(result))

    return result(x), code


def _table(entries: Callable[[_Kind], Any]) -> Any:
    """An intrinsic: the entry (TABLE,) that the lowest PLACES bits of every lane choose."""

    @intrinsic
    def look_up(typingctx: Any, index: Any) -> Any:
        result = Lanes(_REAL[index.dtype], index.vectors)

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            n = TABLE // (2 if result.dtype == types.float64 else 1)
            vector = ir.VectorType(context.get_value_type(result.dtype), n)
            held = entries(_KINDS[result.dtype]).tolist()
            table = [ir.Constant(vector, held[i : i + n]) for i in range(0, TABLE, n)]
            name = "permvar.sf" if len(table) == 1 else "vpermi2var.pd"

            def permuted(part: Any) -> Any:
                given = [table[0], part, *table[1:]]
                kind = ir.FunctionType(vector, [x.type for x in given])
                function = builder.module.declare_intrinsic(
                    f"llvm.x86.avx512.{name}.512", fnty=kind
                )
                return builder.call(function, given)

            return per_vector(builder, args[0], permuted)

        return result(index), code

    return look_up


_inverse, _logarithm, _root = map(
    _table, (lambda kind: kind.inverses, lambda kind: kind.logarithms, lambda kind: kind.roots)
)


def log2(r: Any) -> Any:
    """Binary logarithm of Lanes of positive normal numbers."""
    raise NotImplementedError("for compiled kernels")


def exp2(y: Any) -> Any:
    """2^y of Lanes, where that is a normal number."""
    raise NotImplementedError("for compiled kernels")


@_inline
def _horner(terms: Any, x: Any) -> Any:
    """The polynomial with these coefficients."""
    last = len(terms) - 1
    value = x * terms[last] + terms[last - 1]
    for k in range(last - 2, -1, -1):
        value = value * x + terms[k]
    return value


def log2_by_table(r: Any) -> Any:
    """What `log2` compiles to on a processor with AVX-512."""
    kind = _KINDS[r.dtype]
    mantissa, leading, fraction = kind.mantissa, kind.mantissa - PLACES, 2**kind.mantissa - 1
    one, rounding = kind.bits(1.0), kind.bits(kind.rounding)
    start = kind.rounding + (one >> mantissa)
    terms = _economised(_LOG, kind.terms[0], -0.5 / TABLE, 0.5 / TABLE)

    def code(r: Any) -> Any:
        bits = _bits(r)
        entry = bits >> leading
        f = _number((bits & fraction) | one) * _inverse(entry) - 1.0
        e = _number((bits >> mantissa) + rounding) - start
        return _horner(terms, f) * f + (e + _logarithm(entry))

    return code


def exp2_by_table(y: Any) -> Any:
    """What `exp2` compiles to on a processor with AVX-512."""
    kind = _KINDS[y.dtype]
    rounding, leading = kind.rounding / TABLE, kind.mantissa - PLACES
    terms = _economised(_EXP, kind.terms[1], -0.5 / TABLE, 0.5 / TABLE)

    def code(y: Any) -> Any:
        k = y + rounding
        bits = _bits(k)
        return _number(_bits(_root(bits)) + (bits << leading)) * _horner(terms, y - (k - rounding))

    return code


def log2_by_series(r: Any) -> Any:
    """What `log2` compiles to on any processor."""
    kind = _KINDS[r.dtype]
    mantissa, rounding, number = kind.mantissa, kind.rounding, kind.bits(kind.rounding)
    least = kind.bits(0.5**0.5)
    terms = _economised(_ARTANH, kind.terms[2], 0.0, LARGEST**2)

    def code(r: Any) -> Any:
        bits = _bits(r)
        e = (bits - least) >> mantissa
        m = _number(bits - (e << mantissa))
        f = (m - 1.0) / (m + 1.0)
        return _horner(terms, f * f) * f + (_number(e + number) - rounding)

    return code


def exp2_by_series(y: Any) -> Any:
    """What `exp2` compiles to on any processor."""
    kind = _KINDS[y.dtype]
    rounding, mantissa = kind.rounding, kind.mantissa
    terms = _economised(_EXP, kind.terms[3], -0.5, 0.5)

    def code(y: Any) -> Any:
        n = y + rounding
        value = _horner(terms, y - (n - rounding))
        return _number(_bits(value) + (_bits(n) << mantissa))

    return code


overload(log2)(log2_by_table if HAS_AVX512 else log2_by_series)
overload(exp2)(exp2_by_table if HAS_AVX512 else exp2_by_series)
