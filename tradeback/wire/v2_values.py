"""How wire v2 writes numbers, for kernels: varints, zigzag, integers on a decimal grid, escapes, times.

`wire.v2_encode` is the same in plain Python.
"""

from typing import Any

from tradeback.kernel.jit import helper
from tradeback.kernel.memory import as_signed, bits_of, load_f64, store_8, store_64
from tradeback.wire import v2_layout as at

_UNITS_LIMIT = float(at.UNITS_LIMIT)
_EXACT_LIMIT = float(at.EXACT_LIMIT)


@helper
def put_varint(cursor: Any, value: Any) -> Any:
    """Write 64 bits, seven at a time, low ones first; returns the address behind them."""
    while value & -128 != 0:
        store_8(cursor, (value & 127) | 128)
        cursor += 1
        value = (value >> 7) & 0x01FFFFFFFFFFFFFF
    store_8(cursor, value)
    return cursor + 1


@helper
def put_signed(cursor: Any, value: Any) -> Any:
    """Write an int64 so that small ones of either sign are short (zigzag)."""
    return put_varint(cursor, (value << 1) ^ (value >> 63))


@helper
def units_of(value: Any, scale: Any) -> Any:
    """`value` as a whole number of 1 / `scale`; -1 when it is not exactly one, or there is no grid."""
    scaled = value * scale
    if not (0.0 <= scaled < _UNITS_LIMIT - 1.0) or scale == 0.0:
        return -1
    units = int(scaled + 0.5)
    if units / scale != value:
        return -1
    return units


@helper
def put_escape(cursor: Any, value: Any, powers: Any) -> Any:
    """Write any float64 exactly: digits and an integer, or its bits."""
    for digits in range(at.DIGITS_MAX + 1):
        power = load_f64(powers + 8 * digits)
        scaled = value * power
        if not (0.0 <= scaled < _EXACT_LIMIT - 1.0):
            break
        units = int(scaled + 0.5)
        if units / power == value:
            store_8(cursor, digits)
            return put_varint(cursor + 1, units)
    store_8(cursor, at.DIGITS_BITS)
    store_64(cursor + 1, as_signed(bits_of(value)))
    return cursor + 9


@helper
def put_time(cursor: Any, base_us: Any, time_us: Any) -> Any:
    """Write a time before or after `base_us`: in ms when it is a whole one, else in us."""
    if time_us % 1000 == 0:
        back = base_us // 1000 - time_us // 1000
        return put_varint(cursor, ((back << 1) ^ (back >> 63)) << 1)
    back = base_us - time_us
    return put_varint(cursor, ((back << 1) ^ (back >> 63)) << 1 | 1)


@helper
def sane_time(time_us: Any) -> Any:
    """A time that the wire carries; others are sent as 0, which is: not known."""
    return time_us if 0 <= time_us < at.EXACT_LIMIT else 0


@helper
def whole(value: Any) -> Any:
    """A float64 that counts something; 0 when it cannot."""
    return int(value) if 0.0 <= value < _EXACT_LIMIT else 0
