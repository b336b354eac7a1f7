"""How wire v2's numbers are read, for kernels. `wire.v2_decode.Reader` is the same in plain Python.

Each takes a cursor and the end of what may be read, and returns the cursor behind the number. An error is a
negative cursor: minus one of v2_frame's reasons. All pass it through, so one look after several is enough.
"""

from typing import Any

from tradeback.kernel.jit import helper
from tradeback.kernel.memory import load_8, load_f64, load_i64, store_8, store_64, store_f64
from tradeback.wire import v2_layout as at
from tradeback.wire.v2_frame import CUT, DIGITS, RANGE, VARINT

_BACK_LIMIT = 1 << 54


@helper
def read_byte(cursor: Any, end: Any) -> Any:
    """A byte."""
    if cursor < 0:
        return 0, cursor
    if cursor >= end:
        return 0, -CUT
    return load_8(cursor), cursor + 1


@helper
def read_varint(cursor: Any, end: Any) -> Any:
    """An unsigned number of up to 64 bits, as the int64 with the same bits."""
    value = 0
    shift = 0
    while cursor >= 0:
        if cursor >= end:
            return 0, -CUT
        byte = load_8(cursor)
        if shift == 63 and byte > 1:
            return 0, -VARINT
        value |= (byte & 127) << shift
        cursor += 1
        if byte < 128:
            return value, cursor
        shift += 7
    return 0, cursor


@helper
def read_signed(cursor: Any, end: Any) -> Any:
    """An int64."""
    value, cursor = read_varint(cursor, end)
    return ((value >> 1) & 0x7FFFFFFFFFFFFFFF) ^ -(value & 1), cursor


@helper
def read_time(cursor: Any, end: Any, base_us: Any) -> Any:
    """A time in us, given as distance from another."""
    value, cursor = read_varint(cursor, end)
    back = ((value >> 2) & 0x3FFFFFFFFFFFFFFF) ^ -((value >> 1) & 1)
    if cursor < 0:
        return 0, cursor
    if not -_BACK_LIMIT < back < _BACK_LIMIT:
        return 0, -RANGE
    time_us = base_us - back if value & 1 else (base_us // 1000 - back) * 1000
    if not 0 <= time_us < at.EXACT_LIMIT:
        return 0, -RANGE
    return time_us, cursor


@helper
def read_escape(cursor: Any, end: Any, powers: Any, value_at: Any, units_at: Any, digits_at: Any) -> Any:
    """Read a value beside the grid into its three fields."""
    digits, cursor = read_byte(cursor, end)
    if cursor < 0:
        return cursor
    store_8(digits_at, digits)
    if digits == at.DIGITS_BITS:
        if cursor + 8 > end:
            return -CUT
        store_64(value_at, load_i64(cursor))
        store_64(units_at, load_i64(cursor))
        return cursor + 8
    if digits > at.DIGITS_MAX:
        return -DIGITS
    units, cursor = read_varint(cursor, end)
    if cursor >= 0 and not 0 <= units < at.EXACT_LIMIT:
        return -RANGE
    store_64(units_at, units)
    store_f64(value_at, units / load_f64(powers + 8 * digits))
    return cursor
