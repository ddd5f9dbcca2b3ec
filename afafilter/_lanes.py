"""Numbers side by side: a vector type for compiled kernels.

`load` consecutive entries of an array, as many as 64 bytes hold, calculate with them as with one
number (+, -, *, /, `root`, `where_positive`; shifts of whole numbers), `store` them. Compilers only
find vector instructions in loops whose arrays they can prove not to overlap, which those of the
recursions are not, and may take half the width that the processor has; here they are written down.

`alike`, `take` and `put` are for kernels that serve one number as well as LANES of them: `beside`,
a tuple of as many entries, says which.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils

BYTES = 64
"""Size of a vector."""
LANES = 8
"""Entries of a vector of float64."""
FUSED = ("contract",)
intrinsic: Callable[[Any], Any] = extending.intrinsic
overload: Callable[..., Callable[[Any], Any]] = extending.overload


class Lanes(types.Type):
    """BYTES of numbers side by side."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        self.count = BYTES * 8 // dtype.bitwidth
        super().__init__(name=f"Lanes({dtype})")


@extending.register_model(Lanes)
class _LanesModel(extending.models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        number = dmm.lookup(fe_type.dtype).get_value_type()
        super().__init__(dmm, fe_type, ir.VectorType(number, fe_type.count))


def _pointer(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Address of the entry args[1] of the array args[0], as that of a vector."""
    array_type, index_type = signature.args[:2]
    array = context.make_array(array_type)(context, builder, args[0])
    where, kinds = [args[1]], [index_type]
    if isinstance(index_type, types.UniTuple | types.Tuple):
        where, kinds = list(cgutils.unpack_tuple(builder, args[1])), list(index_type.types)
    where = [context.cast(builder, place, kind, types.intp) for place, kind in zip(where, kinds)]
    entry = cgutils.get_item_pointer(context, builder, array_type, array, where)
    vector = context.get_value_type(Lanes(array_type.dtype))
    return builder.bitcast(entry, vector.as_pointer())


@intrinsic
def load(typingctx: Any, x: Any, index: Any) -> Any:
    """Entries index, index + 1, ... along the last axis of x."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature, args)
        return builder.load(pointer, align=x.dtype.bitwidth // 8)

    return Lanes(x.dtype)(x, index), code


@intrinsic
def store(typingctx: Any, x: Any, index: Any, value: Any) -> Any:
    """Write entries index, index + 1, ... along the last axis of x."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature, args)
        builder.store(args[2], pointer, align=x.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(x, index, value), code


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
def where_positive(typingctx: Any, test: Any, a: Any, b: Any) -> Any:
    """a in the lanes where test > 0, b elsewhere."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero = ir.Constant(context.get_value_type(test), None)
        return builder.select(builder.fcmp_ordered(">", args[0], zero), args[1], args[2])

    return a(test, a, a), code


def alike(value: Any, beside: Any) -> Any:
    """A number as it is, or in every lane, see `take`."""
    raise NotImplementedError("for compiled kernels")


def take(x: Any, i: Any, beside: Any) -> Any:
    """Row i of x (n, width): a number where `beside` has one entry, else Lanes."""
    raise NotImplementedError("for compiled kernels")


def put(x: Any, i: Any, value: Any, beside: Any) -> None:
    """Write row i of x (n, width), see `take`."""
    raise NotImplementedError("for compiled kernels")


@overload(alike, inline="always")
def _alike(value: Any, beside: Any) -> Any:
    def one(value: Any, beside: Any) -> Any:
        return value

    def several(value: Any, beside: Any) -> Any:
        return spread(value)

    return one if len(beside) == 1 else several


@overload(take, inline="always")
def _take(x: Any, i: Any, beside: Any) -> Any:
    def one(x: Any, i: Any, beside: Any) -> Any:
        return x[i, 0]

    def several(x: Any, i: Any, beside: Any) -> Any:
        return load(x, (i, 0))

    return one if len(beside) == 1 else several


@overload(put, inline="always")
def _put(x: Any, i: Any, value: Any, beside: Any) -> Any:
    def one(x: Any, i: Any, value: Any, beside: Any) -> None:
        x[i, 0] = value

    def several(x: Any, i: Any, value: Any, beside: Any) -> None:
        store(x, (i, 0), value)

    return one if len(beside) == 1 else several
