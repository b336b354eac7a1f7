"""Decimal strings to float64, exactly as float() would.

A mantissa of at most 2^53 divided once by 10^k (k <= 22) is correctly rounded (Clinger's fast path);
trailing zeros are stripped first, or padded large quantities would leave 2^53. Whatever does not fit
is reported INEXACT and redone by float() in Python.
"""

from typing import Any

from numba import uint64

from tradeback.ingest.scan import digits_value, non_digits
from tradeback.kernel.jit import helper
from tradeback.kernel.memory import count_trailing_zeros, load_8, load_f64, load_u64

EXACT = 0
INEXACT = 1
MALFORMED = 2

_MANTISSA_MAX = 1 << 53
_DIGITS_MAX = 18
_DOT, _QUOTE = 46, 34


@helper
def parse_decimal(address: Any, powers: Any) -> Any:
    """The unsigned decimal at `address` up to its closing quote: digits, and a fraction or none.

    `powers` is the address of float64 10^0 .. 10^22. Returns (value, address behind the quote, status).
    Reads up to 16 bytes too far.
    """
    word = load_u64(address)
    mask = non_digits(word)
    if mask != uint64(0):
        whole_digits = count_trailing_zeros(mask) >> 3
        if whole_digits > 0 and load_8(address + whole_digits) == _DOT:
            fraction = load_u64(address + whole_digits + 1)
            # Spot prices and quantities always carry eight decimals.
            if non_digits(fraction) == uint64(0) and load_8(address + whole_digits + 9) == _QUOTE:
                whole = digits_value(word << uint64(64 - 8 * whole_digits))
                mantissa = whole * 100_000_000 + digits_value(fraction)
                if mantissa <= _MANTISSA_MAX:
                    return mantissa / 1e8, address + whole_digits + 10, EXACT
    return parse_any_decimal(address, powers)


@helper
def parse_any_decimal(address: Any, powers: Any) -> Any:
    """As parse_decimal, one byte at a time, for any number of digits."""
    mantissa = 0
    kept = 0  # digits in the mantissa
    scale = 0  # how many of them are decimals
    zeros = 0  # decimals '0' that only count if another digit follows
    digits = 0
    seen_dot = False
    too_long = False
    byte = load_8(address)
    while byte != _QUOTE:
        if byte == _DOT:
            if seen_dot or digits == 0:
                return 0.0, address, MALFORMED
            seen_dot = True
        elif 48 <= byte <= 57:
            digits += 1
            if seen_dot and byte == 48:
                zeros += 1
            else:
                steps = zeros + 1
                kept += steps
                if kept > _DIGITS_MAX:
                    too_long = True
                else:
                    while zeros > 0:
                        mantissa *= 10
                        zeros -= 1
                    mantissa = mantissa * 10 + (byte - 48)
                zeros = 0
                if seen_dot:
                    scale += steps
            if digits > 64:
                return 0.0, address, INEXACT
        else:
            return 0.0, address, MALFORMED
        address += 1
        byte = load_8(address)
    if digits == 0 or load_8(address - 1) == _DOT:
        return 0.0, address, MALFORMED
    if too_long or scale > 22 or mantissa > _MANTISSA_MAX:
        return 0.0, address + 1, INEXACT
    return mantissa / load_f64(powers + 8 * scale), address + 1, EXACT
