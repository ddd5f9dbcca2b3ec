"""Matrix products for tiles that a cache holds: sums stay in vector registers.

BLAS copies its operands into panels before every product. Where one factor is narrow (a head has
64 channels) and the product is used at once, that costs as much as the product itself. Here the
caller lays out B once as a panel of contiguous rows, as wide as some registers, and `product` runs
down all rows of A.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from afafilter._core.jit import njit
from afafilter._core.lanes import (
    BYTES,
    HAS_AVX512,
    intrinsic,
    load_some,
    overload,
    reciprocal,
    splat,
    store,
)

ROWS = 6
"""Rows of A whose sums are held in registers."""
FEW = 4
"""Rows for what is left of a multiple of ROWS."""
WIDE = 4 if HAS_AVX512 else 1
"""Vectors of a wide panel: ROWS times WIDE sums, and a row of B, fit in the registers."""


def lanes(itemsize: Any) -> Any:
    """Numbers in a vector."""
    return BYTES // itemsize


def wide(itemsize: Any) -> Any:
    """Numbers in a row of a wide panel."""
    return WIDE * (BYTES // itemsize)


overload(lanes)(lambda itemsize: lambda itemsize: BYTES // itemsize)
overload(wide)(lambda itemsize: lambda itemsize: WIDE * (BYTES // itemsize))


def _places(context: Any, builder: Any) -> tuple[Any, Any]:
    """Code for the address of an entry of an array, and for an index so many steps further."""

    def entry(kind: Any, array: Any, *where: Any) -> Any:
        view = context.make_array(kind)(context, builder, array)
        return cgutils.get_item_pointer(context, builder, kind, view, where)

    def after(place: Any, steps: int) -> Any:
        return builder.add(place, ir.Constant(place.type, steps))

    return entry, after


def _register_tile(rows: int, vectors: int, inverse: bool = False) -> Any:
    """An intrinsic: C[i : i + rows, j : j + width] = (C there or 0) + A[i : i + rows, a :] @ B.

    inverse : 1 / that.
    """

    @intrinsic
    def tile(typingctx: Any, A: Any, a: Any, B: Any, C: Any, i: Any, j: Any, add: Any) -> Any:
        real = A.dtype
        count = BYTES * 8 // real.bitwidth

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            a_type, _, b_type, c_type = signature.args[:4]
            left_factor, begin, b, c, first, column, keep = args
            vector = ir.VectorType(context.get_value_type(real), count)
            size, word = real.bitwidth // 8, context.get_value_type(types.intp)

            entry, after = _places(context, builder)

            def load(pointer: Any) -> Any:
                return builder.load(builder.bitcast(pointer, vector.as_pointer()), align=size)

            depth = context.make_array(b_type)(context, builder, b).shape
            depth = builder.extract_value(depth, 0)
            left = [entry(a_type, left_factor, after(first, r), begin) for r in range(rows)]
            sums = []
            for r in range(rows):
                for v in range(vectors):
                    pointer = entry(c_type, c, after(first, r), after(column, v * count))
                    held = cgutils.alloca_once(builder, vector)
                    start = builder.select(keep, load(pointer), ir.Constant(vector, None))
                    builder.store(start, held)
                    sums.append((pointer, held))
            with cgutils.for_range(builder, depth) as loop:
                k = loop.index
                right = [
                    load(entry(b_type, b, k, ir.Constant(word, v * count))) for v in range(vectors)
                ]
                for r in range(rows):
                    factor = splat(builder, builder.load(builder.gep(left[r], [k])), count)
                    for v in range(vectors):
                        held = sums[r * vectors + v][1]
                        product = builder.fmul(factor, right[v], flags=("contract",))
                        total = builder.fadd(builder.load(held), product, flags=("contract",))
                        builder.store(total, held)
            for pointer, held in sums:
                target = builder.bitcast(pointer, vector.as_pointer())
                value = builder.load(held)
                if inverse:
                    value = reciprocal(builder, value)
                builder.store(value, target, align=size)
            return context.get_dummy_value()

        place = types.intp
        return types.void(A, place, B, C, place, place, types.boolean), code

    return tile


_many_wide, _few_wide, _one_wide = (_register_tile(rows, WIDE) for rows in (ROWS, FEW, 1))
_many_narrow, _one_narrow = _register_tile(ROWS, 1), _register_tile(1, 1)
_many_over, _few_over, _one_over = (_register_tile(rows, WIDE, True) for rows in (ROWS, FEW, 1))


@njit(nogil=True, error_model="numpy")
def product(A: Any, begin: Any, B: Any, C: Any, column: Any, add: Any) -> None:
    """C[:, column : column + w] = A[:, begin : begin + k] @ B, or += with `add`.

    B (k, w) has w = wide(..) or lanes(..). The rows of all three are contiguous.
    """
    n = len(A)
    whole = n - n % ROWS
    if B.shape[1] == wide(B.itemsize):
        for i in range(0, whole, ROWS):
            _many_wide(A, begin, B, C, i, column, add)
        if n - whole >= FEW:
            _few_wide(A, begin, B, C, whole, column, add)
            whole += FEW
        for i in range(whole, n):
            _one_wide(A, begin, B, C, i, column, add)
    else:
        for i in range(0, whole, ROWS):
            _many_narrow(A, begin, B, C, i, column, add)
        for i in range(whole, n):
            _one_narrow(A, begin, B, C, i, column, add)


@njit(nogil=True, error_model="numpy")
def inverse_product(A: Any, begin: Any, B: Any, C: Any, column: Any) -> None:
    """As `product`, a wide one: C[:, column : column + w] = 1 / (A[:, begin : begin + k] @ B)."""
    n = len(A)
    whole = n - n % ROWS
    for i in range(0, whole, ROWS):
        _many_over(A, begin, B, C, i, column, False)
    if n - whole >= FEW:
        _few_over(A, begin, B, C, whole, column, False)
        whole += FEW
    for i in range(whole, n):
        _one_over(A, begin, B, C, i, column, False)


@intrinsic
def _turn(
    typingctx: Any, M: Any, scale: Any, i: Any, j: Any, out: Any, q: Any, k: Any, l: Any
) -> Any:
    """out[q, k : k + n, l : l + n] = (scale M)[i : i + n, j : j + n].T, n numbers in a vector.

    Every step interleaves rows n/2 apart: log2 n of them turn the square.
    """
    real = M.dtype
    n = BYTES * 8 // real.bitwidth

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        m_type, s_type, _, _, o_type = signature.args[:5]
        m, s, row, column, o, panel, depth, lane = args
        vector = ir.VectorType(context.get_value_type(real), n)
        size = real.bitwidth // 8

        entry, after = _places(context, builder)

        def as_vector(pointer: Any) -> Any:
            return builder.bitcast(pointer, vector.as_pointer())

        rows = []
        for r in range(n):
            factor = splat(builder, builder.load(entry(s_type, s, after(row, r))), n)
            pointer = as_vector(entry(m_type, m, after(row, r), column))
            rows.append(builder.fmul(builder.load(pointer, align=size), factor))
        index = ir.VectorType(ir.IntType(32), n)
        low, high = (
            ir.Constant(index, [x for c in range(start, start + n // 2) for x in (c, n + c)])
            for start in (0, n // 2)
        )
        for _ in range(n.bit_length() - 1):
            pairs = zip(rows[: n // 2], rows[n // 2 :], strict=True)
            rows = [builder.shuffle_vector(a, b, pick) for a, b in pairs for pick in (low, high)]
        for r in range(n):
            pointer = as_vector(entry(o_type, o, panel, after(depth, r), lane))
            builder.store(rows[r], pointer, align=size)
        return context.get_dummy_value()

    place = types.intp
    return types.void(M, scale, place, place, out, place, place, place), code


@njit(nogil=True, error_model="numpy")
def turned_panels(outer: Any, points: Any, scale: Any, out: Any) -> None:
    """out (P, k, w) such that A @ out[q] = A @ M[q w : (q + 1) w].T; zeros beyond the end of M.

    M = [outer (n, e), scale (n,) points (n, d)], e + d = k.
    """
    panels, _, width = out.shape
    (n, extra), d = outer.shape, points.shape[1]
    step = lanes(out.itemsize)
    for q in range(panels):
        count = max(min(width, n - q * width), 0)
        whole, across = count - count % step, d - d % step
        for k in range(extra):
            for l in range(count):
                out[q, k, l] = outer[q * width + l, k]
        for l in range(0, whole, step):
            for k in range(0, across, step):
                _turn(points, scale, q * width + l, k, out, q, extra + k, l)
        for l in range(count):
            for k in range(across if l < whole else 0, d):
                out[q, extra + k, l] = points[q * width + l, k] * scale[q * width + l]
        for k in range(extra + d):
            for l in range(count, width):
                out[q, k, l] = 0


@njit(nogil=True, error_model="numpy")
def column_panels(M: Any, scale: Any, first: Any, out: Any) -> None:
    """Columns first, first + 1, ... of scale (k,) M (k, m) into out (P, k or more, w), then 0."""
    panels, _, width = out.shape
    step = lanes(out.itemsize)
    for q in range(panels):
        start = first + q * width
        for k in range(len(M)):
            for l in range(0, width, step):
                row = load_some(M, (k, start + l), M.shape[1] - start - l)
                store(out, (q, k, l), row * scale[k])


@njit(nogil=True, error_model="numpy")
def room(count: Any, kind: Any) -> Any:
    """An array of so many numbers that starts where a vector may."""
    held = np.empty(count + BYTES, kind)
    skipped = -held.ctypes.data % BYTES // held.itemsize
    return held[skipped : skipped + count]
