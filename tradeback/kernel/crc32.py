"""CRC-32 (IEEE, as zlib) inside kernels: slicing by eight, tables at a raw address."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tradeback.kernel.jit import helper
from tradeback.kernel.memory import load_8, load_32, load_i64

POLYNOMIAL = 0xEDB88320


def make_tables() -> NDArray[np.uint32]:
    """The eight tables of the slicing-by-eight method, shape (8, 256)."""
    tables = np.zeros((8, 256), np.uint64)
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (POLYNOMIAL if value & 1 else 0)
        tables[0, byte] = value
    for row in range(1, 8):
        for byte in range(256):
            before = int(tables[row - 1, byte])
            tables[row, byte] = int(tables[0, before & 255]) ^ (before >> 8)
    return tables.astype(np.uint32)


TABLES = make_tables()
TABLES_ADDRESS = int(TABLES.ctypes.data)
"""Valid for this process's lifetime; pass it to kernels as an argument, never freeze it into one."""

_ROW = 1024  # bytes of one table


@helper
def crc32(tables: Any, address: Any, size: Any) -> Any:
    """CRC-32 of `size` bytes at `address`; `tables` is TABLES_ADDRESS."""
    crc = 0xFFFFFFFF
    while size >= 8:
        word = load_i64(address) ^ crc
        crc = (
            load_32(tables + 7 * _ROW + 4 * (word & 255))
            ^ load_32(tables + 6 * _ROW + 4 * ((word >> 8) & 255))
            ^ load_32(tables + 5 * _ROW + 4 * ((word >> 16) & 255))
            ^ load_32(tables + 4 * _ROW + 4 * ((word >> 24) & 255))
            ^ load_32(tables + 3 * _ROW + 4 * ((word >> 32) & 255))
            ^ load_32(tables + 2 * _ROW + 4 * ((word >> 40) & 255))
            ^ load_32(tables + _ROW + 4 * ((word >> 48) & 255))
            ^ load_32(tables + 4 * ((word >> 56) & 255))
        )
        address += 8
        size -= 8
    while size > 0:
        crc = load_32(tables + 4 * ((crc ^ load_8(address)) & 255)) ^ (crc >> 8)
        address += 1
        size -= 1
    return crc ^ 0xFFFFFFFF
