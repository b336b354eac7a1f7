"""The bytes of one exchange connection: a fixed arena that kernels read in place.

picows makes the connection (TLS, proxy, handshake); then this protocol takes the transport over, so that
every socket read is one call of the intake and no Python runs per message. What needs Python (control
frames, fragments, shapes the grammar refuses) is handed to the `Line`, in order.
"""

import asyncio
from typing import Any, Protocol

import numpy as np

from tradeback.exchange.intake import Intake
from tradeback.ingest import context as words
from tradeback.ingest.grammar import OK
from tradeback.model.clock import Clock
from tradeback.model.limits import (
    BATCH_ROWS_MAX,
    READ_BUFFER_BYTES,
    READ_BUFFER_BYTES_MAX,
    READ_PADDING_BYTES,
)

SHADOW_READS = 4_096
"""One read in this many has its first frame decoded by the slow path too, and compared."""


class Owner(Protocol):
    """What the reader tells its line."""

    def on_side_frame(self, opcode: int, payload: bytes, status: int, recv_ns: int) -> None:
        """A frame that needs Python; `opcode` with the FIN bit."""

    def on_broken(self, close_code: int, reason: str) -> None:
        """The byte stream cannot be read any further."""

    def on_shadow(self, payload: bytes, agrees: int, row: Any) -> None:
        """A sample: the kernel's status and record of one frame."""

    def on_closed(self, error: Exception | None) -> None:
        """The connection has ended."""


class SocketReader(asyncio.BufferedProtocol):
    """Reads one connection into the intake. Loop thread only.

    `transport` and `old` are picows' transport and protocol: `old` keeps receiving the connection's
    events, so that picows' own state (closing, flow control) stays right.
    """

    def __init__(self, intake: Intake, clock: Clock, line: int, transport: Any, owner: Owner) -> None:
        self._intake = intake
        self._clock_ns = clock.wall_ns
        self._line = line
        self._transport = transport
        self._old = transport.get_protocol()
        self._owner = owner
        self._have = 0
        self._arena = np.zeros(0, np.uint8)
        self._until_shadow = 1
        self.reads = 0
        self.bytes_read = 0
        self._make_arena(READ_BUFFER_BYTES)

    def _make_arena(self, size: int) -> None:
        arena = np.zeros(size + READ_PADDING_BYTES, np.uint8)
        if self._have:
            arena[: self._have] = self._arena[: self._have]
        self._arena = arena
        self._size = size
        self._view = memoryview(arena.data)[:size]
        self._base = int(arena.ctypes.data)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._view[self._have :]

    def buffer_updated(self, nbytes: int) -> None:
        """`nbytes` have come: one stamp, then everything that is whole is taken."""
        recv_ns = self._clock_ns()
        self.reads += 1
        self.bytes_read += nbytes
        self._have += nbytes
        self.drain(recv_ns)

    def drain(self, recv_ns: int) -> None:
        """Take all whole frames in the arena, then move the rest to its start."""
        intake = self._intake
        view = intake.view
        base = position = self._base
        end = base + self._have
        needed = 0
        self._until_shadow -= 1
        if not self._until_shadow:
            self._shadow()
        while intake.stalled is None:
            count = intake.pull(position, end, recv_ns, self._line)
            position = view[words.POSITION]
            if view[words.SIDE_OPCODE]:
                self._side(recv_ns)
                if self._transport.is_closing():
                    return
            elif view[words.PROTOCOL_ERROR]:
                self._have = 0
                self._owner.on_broken(
                    view[words.PROTOCOL_ERROR], "bytes that are no WebSocket frame of a server"
                )
                return
            elif position >= end or (count < BATCH_ROWS_MAX and not self._at_ring_end()):
                needed = view[words.NEEDED_BYTES]
                break
        rest = end - position
        if rest and position != base:
            start = position - base
            self._arena[:rest] = self._arena[start : start + rest].copy()
        self._have = rest
        if needed > self._size:
            self._make_arena(min(2 * needed, READ_BUFFER_BYTES_MAX + READ_BUFFER_BYTES))

    def _at_ring_end(self) -> bool:
        """The last pull may have stopped because the ring's stretch was full."""
        tape = self._intake.tape
        return tape.room() == tape.hot_rows

    def _side(self, recv_ns: int) -> None:
        view = self._intake.view
        start = view[words.SIDE_ADDRESS] - self._base
        payload = bytes(self._view[start : start + view[words.SIDE_LENGTH]])
        self._owner.on_side_frame(view[words.SIDE_OPCODE], payload, view[words.SIDE_STATUS], recv_ns)

    def _shadow(self) -> None:
        """Decode the first frame of this read once more, so that the line can compare."""
        self._until_shadow = SHADOW_READS
        payload = self._first_text()
        if payload is None:
            return
        from tradeback.exchange.intake import scratch_row

        row = scratch_row()
        held = np.frombuffer(payload + bytes(READ_PADDING_BYTES), np.uint8)
        address = int(held.ctypes.data)
        status = self._intake.decode(address, address + len(payload), row)
        if status == OK:
            self._owner.on_shadow(payload, status, row)

    def _first_text(self) -> bytes | None:
        """Payload of the first frame, if it is a whole text frame of usual size."""
        view = self._view
        if self._have < 4 or view[0] != 0x81:
            return None
        length, start = view[1], 2
        if length == 126:
            length, start = view[2] << 8 | view[3], 4
        elif length > 126:
            return None
        if self._have < start + length:
            return None
        return bytes(view[start : start + length])

    def eof_received(self) -> bool | None:
        """The exchange has closed its side."""
        return bool(self._old.eof_received())

    def connection_lost(self, error: Exception | None) -> None:
        """The connection has ended: picows is told, so that whoever waits for it wakes up."""
        self._old.connection_lost(error)
        self._owner.on_closed(error)

    def pause_writing(self) -> None:
        """Passed on: picows counts."""
        self._old.pause_writing()

    def resume_writing(self) -> None:
        """Passed on: picows counts."""
        self._old.resume_writing()
