"""A second, plain reading of WebSocket frames and v1 bodies, for tests."""

import struct

from tradeback.wire.v1 import decode_v1


def messages(stream: bytes) -> list[tuple[int, bytes]]:
    """(opcode, payload) of every unmasked, final frame in a server's byte stream; all of it must parse."""
    found = []
    place = 0
    while place < len(stream):
        first, second = stream[place], stream[place + 1]
        assert first & 0xF0 == 0x80, "final, no reserved bit"
        place += 2
        size = second
        if size == 126:
            (size,) = struct.unpack_from(">H", stream, place)
            place += 2
            assert size > 125, "shortest form"
        elif size == 127:
            (size,) = struct.unpack_from(">Q", stream, place)
            place += 8
            assert size > 0xFFFF, "shortest form"
        payload = stream[place : place + size]
        assert len(payload) == size
        found.append((first & 15, payload))
        place += size
    return found


def entries_of(stream: bytes) -> list[tuple[int, float, float]]:
    """All v1 entries in a byte stream of binary frames."""
    return [entry for _, payload in messages(stream) for entry in decode_v1(payload).tolist()]
