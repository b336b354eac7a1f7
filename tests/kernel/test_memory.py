"""Loads, stores and bit tricks against struct and numpy."""

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeback.kernel import memory
from tradeback.kernel.jit import entry, kernel

SIGNED = st.integers(-(2**63), 2**63 - 1)


@kernel("void(int64,int64)")
def load_all(source: Any, target: Any) -> None:
    """Every integer load at `source`, widened, to the words at `target`."""
    memory.store_64(target, memory.load_8(source))
    memory.store_64(target + 8, memory.load_16(source))
    memory.store_64(target + 16, memory.load_32(source))
    memory.store_64(target + 24, memory.load_i64(source))
    memory.store_64(target + 32, memory.as_signed(memory.load_u64(source)))
    memory.store_f64(target + 40, memory.load_f64(source))


@kernel("void(int64,int64)")
def store_8(target: Any, value: Any) -> None:
    memory.store_8(target, value)


@kernel("void(int64,int64)")
def store_16(target: Any, value: Any) -> None:
    memory.store_16(target, value)


@kernel("void(int64,int64)")
def store_32(target: Any, value: Any) -> None:
    memory.store_32(target, value)


@kernel("void(int64,int64)")
def store_64(target: Any, value: Any) -> None:
    memory.store_64(target, value)


@kernel("int64(int64)")
def trailing_zeros(value: Any) -> Any:
    return memory.count_trailing_zeros(memory.as_unsigned(value))


@kernel("int64(int64)")
def unsigned_half(value: Any) -> Any:
    """Tells whether as_unsigned and as_signed keep all bits: a signed shift would keep the sign."""
    return memory.as_signed(memory.as_unsigned(value) >> np.uint64(1))


@kernel("int64(float64)")
def bits(value: Any) -> Any:
    return memory.as_signed(memory.bits_of(value))


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=8, max_size=8), st.integers(0, 7))
def test_loads(content: bytes, shift: int) -> None:
    """At any alignment."""
    source = np.frombuffer(bytes(shift) + content + b"\xff" * 8, np.uint8)
    target = np.zeros(6, np.int64)
    load_all(int(source.ctypes.data) + shift, int(target.ctypes.data))
    (word,) = struct.unpack("<q", content)
    (half,) = struct.unpack("<I", content[:4])
    assert target.tolist()[:5] == [content[0], content[0] | content[1] << 8, half, word, word]
    # A signalling NaN may come back quiet; anything else keeps its bits.
    if not np.isnan(np.frombuffer(content, "<f8")[0]):
        assert target[5:].tobytes() == content


@pytest.mark.parametrize(("store", "size"), [(store_8, 1), (store_16, 2), (store_32, 4), (store_64, 8)])
@pytest.mark.parametrize("shift", range(8))
@pytest.mark.parametrize("value", [0, 1, -1, 0x1234_5678_9ABC_DEF0, -0x1234_5678_9ABC_DEF0])
def test_stores_write_their_bytes_and_no_other(store: Any, size: int, shift: int, value: int) -> None:
    target = np.full(24, 0xA5, np.uint8)
    store(int(target.ctypes.data) + shift, value)
    low = (value & (2**64 - 1)).to_bytes(8, "little")[:size]
    assert target.tobytes() == b"\xa5" * shift + low + b"\xa5" * (24 - shift - size)


@given(SIGNED)
def test_bit_tricks(value: int) -> None:
    unsigned = value & (2**64 - 1)
    assert trailing_zeros(value) == (64 if value == 0 else (unsigned & -unsigned).bit_length() - 1)
    assert unsigned_half(value) == unsigned >> 1


@given(st.floats(allow_nan=False))
def test_bits_of_a_float(value: float) -> None:
    assert bits(value) == struct.unpack("<q", struct.pack("<d", value))[0]


def test_the_bare_entry_point_does_what_the_kernel_does() -> None:
    assert entry(trailing_zeros)(40) == trailing_zeros(40) == 3
