"""Loads, stores and calls at raw addresses, for kernels. Little endian, unaligned access allowed.

`load_N` reads N bits unsigned into an int64 (`load_i64` as signed, `load_u64` as uint64, `load_f64`
as float64); `store_N` writes the low N bits. Nothing is checked: the caller guarantees that the
address range is readable, including the padding that 8-byte loads may touch.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_I64 = ir.IntType(64)
_F64 = ir.DoubleType()


def _intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """numba's `intrinsic`, typed as what kernels see: a function without the typing context."""
    made: Callable[..., Any] = intrinsic(function)
    return made


def _make_load(bits: int, result: Any) -> Any:
    kind = _F64 if result is types.float64 else ir.IntType(bits)

    @_intrinsic
    def load(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            value = builder.load(builder.inttoptr(args[0], kind.as_pointer()))
            value.align = 1
            return builder.zext(value, _I64) if bits < 64 else value

        return result(types.int64), generate

    return load


def _make_store(bits: int, argument: Any) -> Any:
    kind = _F64 if argument is types.float64 else ir.IntType(bits)

    @_intrinsic
    def store(typing_context: Any, address: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            raw = builder.trunc(args[1], kind) if bits < 64 else args[1]
            written = builder.store(raw, builder.inttoptr(args[0], kind.as_pointer()))
            written.align = 1
            return context.get_dummy_value()

        return types.void(types.int64, argument), generate

    return store


load_8 = _make_load(8, types.int64)
load_16 = _make_load(16, types.int64)
load_32 = _make_load(32, types.int64)
load_i64 = _make_load(64, types.int64)
load_u64 = _make_load(64, types.uint64)
load_f64 = _make_load(64, types.float64)
store_8 = _make_store(8, types.int64)
store_16 = _make_store(16, types.int64)
store_32 = _make_store(32, types.int64)
store_64 = _make_store(64, types.int64)
store_f64 = _make_store(64, types.float64)


def _make_call(count: int) -> Any:
    """A call of a function by its address: C calling convention, `count` int64 and an int64 result."""
    shape = ir.FunctionType(_I64, [_I64] * count).as_pointer()

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.call(builder.inttoptr(args[0], shape), args[1:])

    return generate


@_intrinsic
def call_3(typing_context: Any, function: Any, a: Any, b: Any, c: Any) -> Any:
    """Call the kernel at address `function` (see `jit.address`)."""
    return types.int64(*[types.int64] * 4), _make_call(3)


@_intrinsic
def call_9(
    typing_context: Any, function: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any, i: Any
) -> Any:
    """Call the kernel at address `function` (see `jit.address`)."""
    return types.int64(*[types.int64] * 10), _make_call(9)


@_intrinsic
def count_trailing_zeros(typing_context: Any, value: Any) -> Any:
    """Index of the lowest set bit of a uint64; 64 for zero."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@_intrinsic
def as_signed(typing_context: Any, value: Any) -> Any:
    """The same 64 bits as int64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return args[0]

    return types.int64(types.uint64), generate


@_intrinsic
def as_unsigned(typing_context: Any, value: Any) -> Any:
    """The same 64 bits as uint64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return args[0]

    return types.uint64(types.int64), generate


@_intrinsic
def bits_of(typing_context: Any, value: Any) -> Any:
    """The bits of a float64 as uint64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], _I64)

    return types.uint64(types.float64), generate
