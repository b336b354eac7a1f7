"""WebSocket frames as a server sends them (RFC 6455 section 5.2): unmasked, final, shortest length form.

The shortest form matters: RFC 6455 demands it, and picows closes with 1002 on anything longer.
"""

import struct
from typing import Final

from tradeback.model.limits import V1_ENTRIES_MAX
from tradeback.wire.v1 import Entries, encode_v1

TEXT: Final = 0x1
BINARY: Final = 0x2
_FINAL: Final = 0x80
LENGTH_7_MAX: Final = 125
"""Longest body whose length fits the header's second byte."""
LENGTH_16_MAX: Final = 0xFFFF


def server_frame(opcode: int, payload: bytes) -> bytes:
    """One whole message of a server."""
    size = len(payload)
    if size <= LENGTH_7_MAX:
        return bytes((_FINAL | opcode, size)) + payload
    if size <= LENGTH_16_MAX:
        return struct.pack(">BBH", _FINAL | opcode, 126, size) + payload
    return struct.pack(">BBQ", _FINAL | opcode, 127, size) + payload


def v1_frames(entries: Entries) -> bytes:
    """Any number of entries as finished WebSocket messages, one behind the other, at most 50 entries each."""
    starts = range(0, len(entries), V1_ENTRIES_MAX)
    return b"".join(
        server_frame(BINARY, encode_v1(entries[start : start + V1_ENTRIES_MAX])) for start in starts
    )
