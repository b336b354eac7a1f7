"""Eight bytes at a time: integers and ends of strings, against Python's own."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeback.ingest.scan import INTEGER_DIGITS_MAX, parse_integer, power_of_ten, string_end
from tradeback.kernel.jit import kernel


@kernel("int64(int64)")
def integer_at(address: int) -> Any:
    value, _ = parse_integer(address)
    return value


@kernel("int64(int64)")
def integer_size(address: int) -> Any:
    _, stop = parse_integer(address)
    return stop - address


@kernel("int64(int64,int64)")
def end_of_string(address: int, limit: int) -> Any:
    return string_end(address, limit)


@kernel("int64(int64)")
def ten_to(exponent: int) -> Any:
    return power_of_ten(exponent)


@settings(max_examples=500, deadline=None)
@given(
    st.one_of(st.integers(0, 10**19).map(str), st.text("0123456789", max_size=22)),
    st.sampled_from([b",", b"}", b".5", b"e5", b"\0", b"/", b":", b"\xff", b'"']),
)
def test_integers(digits: str, behind: bytes) -> None:
    memory = np.frombuffer(digits.encode() + behind + b"99999999" * 4, np.uint8)
    value = integer_at(int(memory.ctypes.data))
    is_json = digits == "0" or (digits[:1] != "0" and 0 < len(digits) <= INTEGER_DIGITS_MAX)
    assert value == (int(digits) if is_json else -1)
    if is_json:
        assert integer_size(int(memory.ctypes.data)) == len(digits)


@pytest.mark.parametrize("exponent", range(INTEGER_DIGITS_MAX + 1))
def test_powers(exponent: int) -> None:
    assert ten_to(exponent) == 10**exponent


def expected_end(text: bytes) -> int | None:
    """Where the string ends whose JSON meaning is its bytes, or None."""
    body, quote, _ = text.partition(b'"')
    try:
        plain = json.loads(b'"' + body + b'"', strict=True) == body.decode()
    except ValueError:
        return None
    return len(body) if quote and plain and b"\\" not in body else None


@settings(max_examples=600, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=30),
        st.text(max_size=20).map(lambda text: text.encode(errors="surrogatepass")),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30).map(str.encode),
    ),
    st.binary(max_size=9),
)
def test_string_ends(body: bytes, behind: bytes) -> None:
    text = body + b'"' + behind
    memory = np.frombuffer(text + bytes(32), np.uint8)
    address = int(memory.ctypes.data)
    found = end_of_string(address, address + len(text))
    expected = expected_end(text)
    assert found == (0 if expected is None else address + expected)


def test_a_string_that_does_not_end() -> None:
    memory = np.frombuffer(b"abcdefgh" * 4 + bytes(16), np.uint8)
    address = int(memory.ctypes.data)
    assert end_of_string(address, address + 32) == 0
    assert end_of_string(address, address) == 0
