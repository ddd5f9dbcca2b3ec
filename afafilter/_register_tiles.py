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
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils

from afafilter._jit import njit
from afafilter._lanes import BYTES, intrinsic, overload, splat

ROWS = 6
"""Rows of A whose sums are held in registers."""
WIDE = 4 if binding.get_host_cpu_features().get("avx512f") else 1
"""Vectors of a wide panel: ROWS times WIDE sums, and a row of B, fit in the registers."""


def lanes(itemsize: Any) -> Any:
    """Numbers in a vector."""
    return BYTES // itemsize


def wide(itemsize: Any) -> Any:
    """Numbers in a row of a wide panel."""
    return WIDE * (BYTES // itemsize)


overload(lanes)(lambda itemsize: lambda itemsize: BYTES // itemsize)
overload(wide)(lambda itemsize: lambda itemsize: WIDE * (BYTES // itemsize))


def _register_tile(rows: int, vectors: int) -> Any:
    """C[i : i + rows, j : j + width] = (C there or 0) + A[i : i + rows] @ B as an intrinsic."""

    @intrinsic
    def tile(typingctx: Any, A: Any, B: Any, C: Any, i: Any, j: Any, add: Any) -> Any:
        real = A.dtype
        count = BYTES * 8 // real.bitwidth

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            a_type, b_type, c_type = signature.args[:3]
            a, b, c, first, column, keep = args
            vector = ir.VectorType(context.get_value_type(real), count)
            size, word = real.bitwidth // 8, context.get_value_type(types.intp)

            def entry(kind: Any, array: Any, *where: Any) -> Any:
                view = context.make_array(kind)(context, builder, array)
                return cgutils.get_item_pointer(context, builder, kind, view, where)

            def after(place: Any, steps: int) -> Any:
                return builder.add(place, ir.Constant(word, steps))

            def load(pointer: Any) -> Any:
                return builder.load(builder.bitcast(pointer, vector.as_pointer()), align=size)

            zero = ir.Constant(word, 0)
            depth = context.make_array(b_type)(context, builder, b).shape
            depth = builder.extract_value(depth, 0)
            left = [entry(a_type, a, after(first, r), zero) for r in range(rows)]
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
                builder.store(builder.load(held), target, align=size)
            return context.get_dummy_value()

        return types.void(A, B, C, types.intp, types.intp, types.boolean), code

    return tile


_many_wide, _one_wide = _register_tile(ROWS, WIDE), _register_tile(1, WIDE)
_many_narrow, _one_narrow = _register_tile(ROWS, 1), _register_tile(1, 1)


@njit(nogil=True, error_model="numpy")
def product(A: Any, B: Any, C: Any, column: Any, add: Any) -> None:
    """C[:, column : column + w] = A @ B, or += with `add`; B (k, w), w = wide(..) or lanes(..).

    The rows of all three are contiguous; those of A (n, K), K >= k, are read up to k.
    """
    n = len(A)
    whole = n - n % ROWS
    if B.shape[1] == wide(B.itemsize):
        for i in range(0, whole, ROWS):
            _many_wide(A, B, C, i, column, add)
        for i in range(whole, n):
            _one_wide(A, B, C, i, column, add)
    else:
        for i in range(0, whole, ROWS):
            _many_narrow(A, B, C, i, column, add)
        for i in range(whole, n):
            _one_narrow(A, B, C, i, column, add)


@njit(nogil=True, error_model="numpy")
def turned_panels(outer: Any, points: Any, scale: Any, out: Any) -> None:
    """out (P, k, w) such that A @ out[q] = A @ M[q w : (q + 1) w].T; zeros beyond the end of M.

    M = [outer (n, e), scale (n,) points (n, d)], e + d = k.
    """
    panels, _, width = out.shape
    (n, extra), d = outer.shape, points.shape[1]
    for q in range(panels):
        count = min(width, n - q * width)
        out[q, :, count:] = 0
        for l in range(count):
            row = q * width + l
            for k in range(extra):
                out[q, k, l] = outer[row, k]
            for k in range(d):
                out[q, extra + k, l] = points[row, k] * scale[row]


@njit(nogil=True, error_model="numpy")
def column_panels(M: Any, scale: Any, first: Any, out: Any) -> None:
    """Columns first, first + 1, ... of scale (k,) M (k, m) into out (P, k or more, w), then 0."""
    panels, _, width = out.shape
    for q in range(panels):
        start = first + q * width
        count = min(width, M.shape[1] - start)
        for k in range(len(M)):
            for l in range(count):
                out[q, k, l] = M[k, start + l] * scale[k]
            out[q, k, count:] = 0


@njit(nogil=True, error_model="numpy")
def room(count: Any, kind: Any) -> Any:
    """An array of so many numbers that starts where a vector may."""
    held = np.empty(count + BYTES, kind)
    skipped = -held.ctypes.data % BYTES // held.itemsize
    return held[skipped : skipped + count]
