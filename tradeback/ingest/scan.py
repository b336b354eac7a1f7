"""Eight bytes at a time: digits, quotes, integers. All helpers may read up to 16 bytes too far."""

from typing import Any

from numba import uint64

from tradeback.kernel.jit import helper
from tradeback.kernel.memory import as_signed, count_trailing_zeros, load_8, load_i64, load_u64

_HIGH_NIBBLES = uint64(0xF0F0F0F0F0F0F0F0)
_ZEROS = uint64(0x3030303030303030)
_SIXES = uint64(0x0606060606060606)
_LOW_NIBBLES = uint64(0x0F0F0F0F0F0F0F0F)
_QUOTES = uint64(0x2222222222222222)
_BACKSLASHES = uint64(0x5C5C5C5C5C5C5C5C)
_ONES = uint64(0x0101010101010101)
_TOPS = uint64(0x8080808080808080)
_SPACES = uint64(0x2020202020202020)
_PAIRS = uint64(0x00FF00FF00FF00FF)
_QUADS = uint64(0x0000FFFF0000FFFF)
_TEN_1 = uint64(2561)
_TEN_2 = uint64(6553601)
_TEN_4 = uint64(42949672960001)

INTEGER_DIGITS_MAX = 18
"""Longer integers go to the slow path: they might not fit int64."""


@helper
def non_digits(word: Any) -> Any:
    """Zero when all eight bytes are ASCII digits; else the lowest set bit is in the first other byte."""
    return ((word & _HIGH_NIBBLES) ^ _ZEROS) | (((word + _SIXES) & _HIGH_NIBBLES) ^ _ZEROS)


@helper
def digits_value(word: Any) -> Any:
    """The number that eight ASCII digits spell, first digit in the lowest byte. Zero bytes count as '0'."""
    word = ((word & _LOW_NIBBLES) * _TEN_1) >> uint64(8)
    word = ((word & _PAIRS) * _TEN_2) >> uint64(16)
    return as_signed(((word & _QUADS) * _TEN_4) >> uint64(32))


@helper
def quote_index(word: Any) -> Any:
    """Index of the first '"' among eight bytes, or 8."""
    other = word ^ _QUOTES
    return count_trailing_zeros((other - _ONES) & ~other & _TOPS) >> 3


@helper
def string_end(address: Any, limit: Any) -> Any:
    """Address of the quote that ends a plain string, or 0.

    Plain: UTF-8 without control bytes and without a backslash, so that its JSON meaning is its bytes.
    """
    stop = _ascii_end(address, limit)
    if stop == 0:
        return _utf8_end(address, limit)
    return stop


@helper
def _utf8_end(address: Any, limit: Any) -> Any:
    """As string_end, one byte at a time; well-formed UTF-8 as RFC 3629 section 4 defines it."""
    while address < limit:
        byte = load_8(address)
        if byte == 34:
            return address
        if byte < 32 or byte == 92:
            return 0
        address += 1
        if byte < 128:
            continue
        if byte < 0xC2 or byte > 0xF4:
            return 0
        more = 1 + (byte >= 0xE0) + (byte >= 0xF0)
        low = 0x80
        high = 0xBF
        if byte == 0xE0:  # these four would be overlong, surrogates, or beyond U+10FFFF
            low = 0xA0
        elif byte == 0xED:
            high = 0x9F
        elif byte == 0xF0:
            low = 0x90
        elif byte == 0xF4:
            high = 0x8F
        while more > 0:
            byte = load_8(address)
            if byte < low or byte > high:
                return 0
            low = 0x80
            high = 0xBF
            address += 1
            more -= 1
    return 0


@helper
def _ascii_end(address: Any, limit: Any) -> Any:
    """As string_end, eight bytes at a time; 0 also when there are non-ASCII bytes."""
    while address < limit:
        word = load_u64(address)
        index = quote_index(word)
        slashes = word ^ _BACKSLASHES
        odd = word | ((word - _SPACES) & ~word) | ((slashes - _ONES) & ~slashes)
        odd &= _TOPS
        if count_trailing_zeros(odd) >> 3 < index:
            return 0
        address += index
        if index < 8:
            return address
    return 0


@helper
def power_of_ten(exponent: Any) -> Any:
    """10^exponent as int64, exponent 0 to 18."""
    result = 1
    while exponent > 0:
        result *= 10
        exponent -= 1
    return result


@helper
def parse_integer(address: Any) -> Any:
    """An unsigned JSON integer at `address`. Returns (value, address behind it); value -1 when it is none,
    has a leading zero or more than INTEGER_DIGITS_MAX digits."""
    start = address
    word = load_u64(address)
    mask = non_digits(word)
    if mask != uint64(0):
        count = count_trailing_zeros(mask) >> 3
        if count == 0:
            return -1, address
        value = digits_value(word << uint64(64 - 8 * count))
        address += count
    else:
        value = digits_value(word)
        address += 8
        word = load_u64(address)
        mask = non_digits(word)
        if mask == uint64(0):
            value = value * 100_000_000 + digits_value(word)
            address += 8
            byte = load_8(address)
            while 48 <= byte <= 57:
                if address - start >= INTEGER_DIGITS_MAX:
                    return -1, address
                value = value * 10 + (byte - 48)
                address += 1
                byte = load_8(address)
        else:
            count = count_trailing_zeros(mask) >> 3
            if count > 0:
                value = value * power_of_ten(count) + digits_value(word << uint64(64 - 8 * count))
                address += count
    if load_8(start) == 48 and address - start > 1:
        return -1, address
    return value, address


@helper
def same_bytes(address: Any, word: Any, mask: Any) -> Any:
    """True when the bytes at `address` that `mask` selects equal `word`."""
    return (load_i64(address) & mask) == word
