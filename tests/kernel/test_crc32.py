"""CRC-32 in a kernel against zlib."""

import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeback.kernel.crc32 import TABLES_ADDRESS, crc32
from tradeback.kernel.jit import kernel


@kernel("int64(int64,int64,int64)")
def run(tables: Any, address: Any, size: Any) -> Any:
    return crc32(tables, address, size)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=100), st.integers(0, 7))
def test_any_bytes_at_any_alignment(content: bytes, shift: int) -> None:
    memory = np.frombuffer(bytes(shift) + content + b"\xff" * 8, np.uint8)
    assert run(TABLES_ADDRESS, int(memory.ctypes.data) + shift, len(content)) == zlib.crc32(content)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 906, 65_536])
@pytest.mark.parametrize("byte", [0x00, 0x80, 0xFF])
def test_long_runs(size: int, byte: int) -> None:
    content = bytes([byte]) * size
    memory = np.frombuffer(content + bytes(8), np.uint8)
    assert run(TABLES_ADDRESS, int(memory.ctypes.data), size) == zlib.crc32(content)
