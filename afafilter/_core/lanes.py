"""Numbers side by side: a vector type for compiled kernels.

`load` consecutive entries of an array, as many as 64 bytes hold, calculate with them as with one
number (+, -, *, /, `root`, `where_positive`; shifts of whole numbers), `store` them. Compilers only
find vector instructions in loops whose arrays they can prove not to overlap, which those of the
recursions are not, and may take half the width that the processor has; here they are written down.

`load_some` and `store_some` touch some lanes only: rows shorter than a vector, without padding.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import extending, types
from numba.core import cgutils, config

BYTES = 64
"""Size of a vector."""
LANES = 8
"""Entries of a vector of float64."""
SEVERAL = 4
"""Vectors of `load_several`."""
_INT32 = ir.IntType(32)
FUSED = ("contract",)
HAS_AVX512 = bool(binding.get_host_cpu_features().get("avx512f")) and not (
    getattr(config, "CPU_NAME", None) or getattr(config, "CPU_FEATURES", None)
)
"""Whether numba compiles for a processor with AVX-512."""
intrinsic: Callable[[Any], Any] = extending.intrinsic
overload: Callable[..., Callable[[Any], Any]] = extending.overload


class Lanes(types.Type):
    """BYTES of numbers side by side, or a few times as many: `vectors`."""

    def __init__(self, dtype: Any, vectors: int = 1) -> None:
        self.dtype, self.vectors = dtype, vectors
        self.count = vectors * BYTES * 8 // dtype.bitwidth
        super().__init__(name=f"Lanes({dtype}, {vectors})")


@extending.register_model(Lanes)
class _LanesModel(extending.models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        number = dmm.lookup(fe_type.dtype).get_value_type()
        super().__init__(dmm, fe_type, ir.VectorType(number, fe_type.count))


def _pointer(context: Any, builder: Any, signature: Any, args: Any, kind: Any) -> Any:
    """Address of the entry args[1] of the array args[0], as that of a vector of some kind."""
    array_type, index_type = signature.args[:2]
    array = context.make_array(array_type)(context, builder, args[0])
    where, kinds = [args[1]], [index_type]
    if isinstance(index_type, types.UniTuple | types.Tuple):
        where, kinds = list(cgutils.unpack_tuple(builder, args[1])), list(index_type.types)
    where = [context.cast(builder, place, kind, types.intp) for place, kind in zip(where, kinds)]
    entry = cgutils.get_item_pointer(context, builder, array_type, array, where)
    vector = context.get_value_type(kind)
    return builder.bitcast(entry, vector.as_pointer())


@intrinsic
def load(typingctx: Any, x: Any, index: Any) -> Any:
    """Entries index, index + 1, ... along the last axis of x."""
    return Lanes(x.dtype)(x, index), _loading


@intrinsic
def load_several(typingctx: Any, x: Any, index: Any) -> Any:
    """SEVERAL times as many.

    Steps of a long chain of operations on several vectors alternate, and need not wait for each
    other.
    """
    return Lanes(x.dtype, SEVERAL)(x, index), _loading


def _loading(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    kind = signature.return_type
    pointer = _pointer(context, builder, signature, args, kind)
    return builder.load(pointer, align=kind.dtype.bitwidth // 8)


@intrinsic
def store(typingctx: Any, x: Any, index: Any, value: Any) -> Any:
    """Write entries index, index + 1, ... along the last axis of x."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature, args, value)
        builder.store(args[2], pointer, align=x.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(x, index, value), code


@intrinsic
def load_some(typingctx: Any, x: Any, index: Any, count: Any) -> Any:
    """Entries index, index + 1, ... along the last axis of x, the first `count`; then zeros."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature, args, signature.return_type)
        vector = context.get_value_type(signature.return_type)
        mask = _below(builder, context.cast(builder, args[2], count, types.int64), vector.count)
        kinds = [pointer.type, _INT32, mask.type, vector]
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, kinds), _masked("load", x.dtype, vector)
        )
        align = ir.Constant(_INT32, x.dtype.bitwidth // 8)
        return builder.call(function, [pointer, align, mask, ir.Constant(vector, None)])

    return Lanes(x.dtype)(x, index, count), code


@intrinsic
def store_some(typingctx: Any, x: Any, index: Any, value: Any, begin: Any, end: Any) -> Any:
    """Write lanes begin, ..., end - 1 along the last axis of x; lane 0 belongs to index."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature, args, value)
        vector = args[2].type
        first, last = (
            _below(builder, context.cast(builder, args[i], kind, types.int64), vector.count)
            for i, kind in ((3, begin), (4, end))
        )
        mask = builder.and_(last, builder.not_(first))
        kinds = [vector, pointer.type, _INT32, mask.type]
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), kinds), _masked("store", x.dtype, vector)
        )
        builder.call(function, [
            args[2], pointer, ir.Constant(_INT32, x.dtype.bitwidth // 8), mask
        ])  # fmt: skip
        return context.get_dummy_value()

    return types.void(x, index, value, begin, end), code


def _masked(what: str, dtype: Any, vector: Any) -> str:
    """Name of LLVM's masked load or store."""
    kind = ("f" if isinstance(dtype, types.Float) else "i") + str(dtype.bitwidth)
    return f"llvm.masked.{what}.v{vector.count}{kind}.p0"


def _below(builder: Any, count: Any, lanes: int) -> Any:
    """Which lanes have a number below `count`."""
    order = ir.Constant(ir.VectorType(count.type, lanes), list(range(lanes)))
    return builder.icmp_signed("<", order, splat(builder, count, lanes))


@intrinsic
def spread(typingctx: Any, value: Any) -> Any:
    """The same number in every lane."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return splat(builder, args[0], LANES)

    return Lanes(types.float64)(types.float64), code


def splat(builder: Any, number: Any, count: int) -> Any:
    """Code for a vector of equal numbers."""
    empty = ir.Constant(ir.VectorType(number.type, count), ir.Undefined)
    first = builder.insert_element(empty, number, ir.Constant(ir.IntType(32), 0))
    nowhere = ir.Constant(ir.VectorType(ir.IntType(32), count), None)
    return builder.shuffle_vector(first, empty, nowhere)


def _operation(symbol: Any, instruction: str) -> None:
    """Teach numba `symbol` for two Lanes, or for one and a number."""

    @intrinsic
    def apply(typingctx: Any, a: Any, b: Any) -> Any:
        kind = a if isinstance(a, Lanes) else b
        floating = isinstance(kind.dtype, types.Float)

        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            operands = [
                value if isinstance(given, Lanes) else splat(
                    builder, context.cast(builder, value, given, kind.dtype), kind.count
                )
                for given, value in zip(signature.args, args)
            ]  # fmt: skip
            if floating:
                return getattr(builder, "f" + instruction)(*operands, flags=FUSED)
            return getattr(builder, instruction)(*operands)

        return kind(a, b), code

    @overload(symbol)
    def known(a: Any, b: Any) -> Any:
        def both(a: Any, b: Any) -> Any:
            return apply(a, b)

        pair = (a, b)
        numbers = (Lanes, types.Float, types.Integer)
        if any(isinstance(x, Lanes) for x in pair) and all(isinstance(x, numbers) for x in pair):
            return both
        return None


for _symbol, _instruction in (
    (operator.add, "add"), (operator.sub, "sub"), (operator.mul, "mul"),
    (operator.truediv, "div"), (operator.iadd, "add"), (operator.isub, "sub"),
    (operator.imul, "mul"), (operator.lshift, "shl"), (operator.rshift, "ashr"),
    (operator.and_, "and_"), (operator.or_, "or_"),
):  # fmt: skip
    _operation(_symbol, _instruction)


@intrinsic
def root(typingctx: Any, a: Any) -> Any:
    """Square root of every lane."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = context.get_value_type(a)
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector]),
            f"llvm.sqrt.v{a.count}f{a.dtype.bitwidth}",
        )  # fmt: skip
        return builder.call(function, args)

    return a(a), code


@intrinsic
def inverse(typingctx: Any, a: Any) -> Any:
    """1 / a, where that and a are normal numbers; elsewhere anything may come out."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return reciprocal(builder, args[0])

    return a(a), code


def reciprocal(builder: Any, x: Any) -> Any:
    """Code for `inverse`.

    A division keeps its unit busy for as long as twenty other operations take. Newton's iteration,
    from the 14 bits that the processor has at once, loses less than a unit in the last place.
    """
    one = splat(builder, ir.Constant(x.type.element, 1.0), x.type.count)
    if not HAS_AVX512:
        return builder.fdiv(one, x)
    bits = 64 if isinstance(x.type.element, ir.DoubleType) else 32
    vector, mask = ir.VectorType(x.type.element, BYTES * 8 // bits), ir.IntType(BYTES * 8 // bits)
    rough = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(vector, [vector, vector, mask]),
        f"llvm.x86.avx512.rcp14.{'pd' if bits == 64 else 'ps'}.512",
    )  # fmt: skip
    r = per_vector(
        builder, x, lambda part: builder.call(rough, [part, part, ir.Constant(mask, -1)])
    )
    for _ in range(bits // 32):
        rest = builder.fsub(one, builder.fmul(x, r, flags=FUSED), flags=FUSED)
        r = builder.fadd(r, builder.fmul(r, rest, flags=FUSED), flags=FUSED)
    return r


def per_vector(builder: Any, x: Any, code: Callable[[Any], Any]) -> Any:
    """Code for a function of one vector, for as many as x holds."""

    def pick(a: Any, b: Any, first: int, count: int) -> Any:
        lanes = ir.Constant(ir.VectorType(_INT32, count), list(range(first, first + count)))
        return builder.shuffle_vector(a, b, lanes)

    size = 64 if x.type.element in (ir.DoubleType(), ir.IntType(64)) else 32
    total, count = x.type.count, BYTES * 8 // size
    parts = [x] if total == count else [pick(x, x, i, count) for i in range(0, total, count)]
    parts = [code(part) for part in parts]
    while len(parts) > 1:
        width = 2 * parts[0].type.count
        parts = [pick(a, b, 0, width) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


@intrinsic
def where_positive(typingctx: Any, test: Any, a: Any, b: Any) -> Any:
    """a in the lanes where test > 0, b elsewhere."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero = ir.Constant(context.get_value_type(test), None)
        return builder.select(builder.fcmp_ordered(">", args[0], zero), args[1], args[2])

    return a(test, a, a), code
