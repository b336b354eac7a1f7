"""The feed's frame, version 1 (in the field, fixed): both directions, one frame at a time.

    u32 crc32     IEEE (as zlib), over every byte after it
    u16 count     number of entries, 1..50
    count x { u16 symbol_id, f64 price, f64 volume }      18 bytes each, little endian throughout

`volume` is the quantity traded since the same client's previous entry of that symbol; the first entry
after a subscribe is the last known price with volume 0. `wire.v1_kernel` writes the same bytes fast.
"""

import struct
import zlib
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tradeback.model.errors import DecodeError
from tradeback.model.limits import V1_ENTRIES_MAX

ENTRY: Final = np.dtype([("symbol_id", "<u2"), ("price", "<f8"), ("volume", "<f8")])
ENTRY_BYTES: Final = ENTRY.itemsize
HEAD_BYTES: Final = 6
"""CRC and count."""

Entries = NDArray[np.void]
"""A structured array of dtype ENTRY."""

_COUNT = struct.Struct("<H")
_CRC = struct.Struct("<I")
_HEAD = struct.Struct("<IH")

assert ENTRY_BYTES == 18, "the record is packed"


def make_entries(rows: Iterable[tuple[int, float, float]]) -> Entries:
    """Entries from (symbol_id, price, volume) tuples."""
    return np.array(list(rows), ENTRY)


def encode_v1(entries: Entries) -> bytes:
    """One frame of 1 to 50 entries (dtype ENTRY). ValueError for any other number."""
    count = len(entries)
    if not 1 <= count <= V1_ENTRIES_MAX:
        raise ValueError(f"a v1 frame holds 1 to {V1_ENTRIES_MAX} entries, not {count}")
    covered = _COUNT.pack(count) + np.ascontiguousarray(entries, ENTRY).tobytes()
    return _CRC.pack(zlib.crc32(covered)) + covered


def decode_v1(frame: bytes) -> Entries:
    """The entries of one frame: a read-only view into it, dtype ENTRY.

    DecodeError when it is too short, when its count is not 1..50 or does not fit its length, or when
    the CRC differs.
    """
    size = len(frame)
    if size < HEAD_BYTES:
        raise DecodeError(f"a v1 frame has at least {HEAD_BYTES} bytes, not {size}")
    crc, count = _HEAD.unpack_from(frame)
    if not 1 <= count <= V1_ENTRIES_MAX:
        raise DecodeError(f"a v1 frame holds 1 to {V1_ENTRIES_MAX} entries, not {count}")
    if size != HEAD_BYTES + ENTRY_BYTES * count:
        raise DecodeError(f"{count} entries take {HEAD_BYTES + ENTRY_BYTES * count} bytes, not {size}")
    if zlib.crc32(memoryview(frame)[4:]) != crc:
        raise DecodeError("the CRC of a v1 frame differs: damaged on the way")
    return np.frombuffer(frame, ENTRY, count, HEAD_BYTES)
