"""The bytes of one exchange connection: an arena that kernels read in place.

picows makes the connection (TLS, proxy, handshake); then this protocol takes the transport over, so that
every socket read is one call of the intake and no Python runs per message. What needs Python (control
frames, fragments, shapes the grammar refuses) is handed to the `Line`, in order.

While the tape refuses records nothing is taken from the arena and the transport is paused. What the
kernel had taken from the read waits in the ring; a frame for Python that it stopped at is kept here, for
what it brings must not overtake those records.
"""

import asyncio
import socket
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tradeback.exchange.intake import Intake
from tradeback.ingest import context as words
from tradeback.model.clock import Clock
from tradeback.model.limits import READ_BUFFER_BYTES, READ_BUFFER_BYTES_MAX, READ_PADDING_BYTES
from tradeback.model.record import Rows
from tradeback.path import layout as at

SHADOW_READS = 16_384
"""One read in this many has its first frame decoded by the slow path too, and compared, when it is served.
That takes 0.1 to 0.3 ms in which other trades wait; of busy lines it is one read a second."""
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)
"""Linux has it."""
_FIRST_BYTE = 0xFF
_FINAL_TEXT = 0x81


class Owner(Protocol):
    """What the reader tells its line."""

    def on_side_frame(self, opcode: int, payload: bytes, status: int, recv_ns: int) -> None:
        """A frame that needs Python; `opcode` with the FIN bit, `status` why the grammar refused it."""

    def on_broken(self, close_code: int, reason: str) -> None:
        """The byte stream cannot be read any further."""

    def on_shadow(self, payload: bytes, row: Rows) -> None:
        """A sample: one frame, and the record that the kernel makes of it."""

    def on_closed(self, error: Exception | None) -> None:
        """The connection has ended."""


class SocketReader(asyncio.BufferedProtocol):
    """Reads one connection into the intake. Loop thread only.

    `transport` and `old` are picows' transport and protocol: `old` keeps receiving the connection's
    events, so that picows' own state (closing, flow control) stays right.
    """

    def __init__(self, intake: Intake, clock: Clock, line: int, transport: Any, owner: Owner) -> None:
        self._intake = intake
        self._seen = intake.view
        """What the last call of the ingest kernel came to (`ingest.context`)."""
        self._clock_ns = clock.wall_ns
        self._transport = transport
        self._old = transport.get_protocol()
        self._owner: Owner | None = owner
        self._held: tuple[int, bytes, int] | None = None
        """A frame for Python (opcode, payload, status) that came together with the tape's refusal."""
        self._arena = np.zeros(0, np.uint8)
        memory: NDArray[np.int64] = np.zeros(at.READER_WORDS, np.int64)
        self._memory = memory
        self._words: Any = memory.data
        self._words[at.READER_LINE] = line
        self._words[at.READER_SAMPLE_IN] = 1
        self._find_socket()
        self._address = int(memory.ctypes.data)
        self._take = intake.reader(memory)
        self._readers = intake.readers
        self.closed = asyncio.Event()
        self._make_arena(READ_BUFFER_BYTES)

    @property
    def reads(self) -> int:
        """Socket reads so far."""
        return int(self._words[at.READER_READS])

    @property
    def bytes_read(self) -> int:
        """Bytes so far."""
        return int(self._words[at.READER_BYTES])

    def _make_arena(self, size: int) -> None:
        have = self._words[at.READER_HAVE]
        arena = np.zeros(size + READ_PADDING_BYTES, np.uint8)
        if have:
            arena[:have] = self._arena[:have]
        self._arena = arena
        self._size = size
        self._view = self._room = memoryview(arena.data)[:size]
        self._base = self._words[at.READER_BASE] = int(arena.ctypes.data)

    def _find_socket(self) -> None:
        """Let the kernel acknowledge what was read after it is served, not before the next read returns."""
        self._words[at.READER_SOCKET] = -1
        self._words[at.READER_ACK_NOW] = 2
        under = self._transport.get_extra_info("socket")
        if _QUICKACK is not None and under is not None and under.family != socket.AF_UNIX:
            self._words[at.READER_SOCKET] = under.fileno()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go; never empty, because transports take an empty one for the end."""
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        """`nbytes` have come: one stamp, then everything that is whole is taken."""
        if self._take(self._address, nbytes, self._clock_ns()) or self._readers:
            self._look()

    def _find_room(self) -> None:
        """Where the next bytes go, after Python had something to do with the arena."""
        have = self._words[at.READER_HAVE]
        if have == self._size:
            # Only a transport that does not obey pause_reading comes here.
            self._make_arena(self._size + READ_BUFFER_BYTES)
        self._room = self._view[have:]

    def resume(self) -> None:
        """The tape takes records again: first what had come before the refusal, then new bytes."""
        self.drain()
        if self._intake.stalled is None:
            self._transport.resume_reading()

    def drain(self, pulled: bool = False) -> None:
        """Take all whole frames in the arena, then move the rest to its start. Stops while stalled.

        `pulled`: the first call of the intake has been made.
        """
        self._drain(pulled)
        self._find_room()

    def _drain(self, pulled: bool) -> None:
        intake = self._intake
        seen = self._seen
        base = position = self._base
        end = base + self._words[at.READER_HAVE]
        needed = 0
        recv_ns, line = self._words[at.READER_RECV_NS], self._words[at.READER_LINE]
        if self._held is not None:
            self._give_held()
        while pulled or (intake.stalled is None and self._owner is not None):
            if not pulled:
                intake.pull(position, end, recv_ns, line)
            pulled = False
            position = seen[words.POSITION]
            if seen[words.SIDE_OPCODE]:
                self._side()
            elif seen[words.PROTOCOL_ERROR]:
                self._break(seen[words.PROTOCOL_ERROR])
            elif position >= end or not intake.full:
                needed = seen[words.NEEDED_BYTES]
                break
            if self._transport.is_closing():
                self._words[at.READER_HAVE] = 0
                return
        rest = end - position
        if rest and position != base:
            start = position - base
            self._arena[:rest] = self._arena[start : start + rest].copy()
        self._words[at.READER_HAVE] = rest
        if needed > self._size:
            self._make_arena(min(2 * needed, READ_BUFFER_BYTES_MAX + READ_BUFFER_BYTES))
        if intake.stalled is not None:
            # The line pauses it too, but not a connection that came up while the tape refused.
            self._transport.pause_reading()

    def _look(self) -> None:
        """After a read that the kernel could not finish, or that others want to see."""
        pulled = bool(self._words[at.READER_TAKEN])
        if pulled:
            self._intake.finish()
        if not self._words[at.READER_SAMPLE_IN]:
            self._sample()
        if self._words[at.READER_HAVE] or not pulled:
            self._drain(pulled)
        self._find_room()

    def _break(self, close_code: int) -> None:
        if self._owner is not None:
            self._owner.on_broken(close_code, "bytes that are no WebSocket frame of a server")

    def detach(self) -> None:
        """Nothing that still comes is taken, and nobody is told."""
        self._owner = None
        self._block()

    def _block(self) -> None:
        """Tell the kernel whether Python has to look first."""
        self._words[at.READER_BLOCKED] = self._owner is None or self._held is not None

    def _side(self) -> None:
        """Hand on the frame at which the kernel stopped, unless records before it wait for the disk."""
        seen = self._seen
        start = seen[words.SIDE_ADDRESS] - self._base
        payload = bytes(self._view[start : start + seen[words.SIDE_LENGTH]])
        self._held = (seen[words.SIDE_OPCODE] & _FIRST_BYTE, payload, seen[words.SIDE_STATUS])
        self._block()
        self._give_held()

    def _give_held(self) -> None:
        if self._held is not None and self._owner is not None and self._intake.stalled is None:
            (opcode, payload, status), self._held = self._held, None
            self._block()
            self._owner.on_side_frame(opcode, payload, status, self._words[at.READER_RECV_NS])

    def _sample(self) -> None:
        """Decode the first frame of this read once more, so that the line can compare."""
        self._words[at.READER_SAMPLE_IN] = SHADOW_READS
        start, stop = self._first_text()
        if not stop or self._owner is None:
            return
        row = self._intake.shadow(self._base, self._base + stop)
        if row is not None:
            self._owner.on_shadow(bytes(self._view[start:stop]), row)

    def _first_text(self) -> tuple[int, int]:
        """Where the payload of the first frame begins and ends, if it is a whole text frame of usual size."""
        view = self._view
        have = self._words[at.READER_HAVE]
        if have < 4 or view[0] != _FINAL_TEXT:
            return 0, 0
        length, start = view[1], 2
        if length == 126:
            length, start = view[2] << 8 | view[3], 4
        elif length > 126:
            return 0, 0
        return (start, start + length) if have >= start + length else (0, 0)

    def eof_received(self) -> bool | None:
        """The exchange has closed its side."""
        return bool(self._old.eof_received())

    def connection_lost(self, error: Exception | None) -> None:
        """The connection has ended: picows is told, so that whoever waits for it wakes up."""
        self._old.connection_lost(error)
        self.closed.set()
        if self._owner is not None:
            self._owner.on_closed(error)

    def pause_writing(self) -> None:
        """Passed on: picows counts."""
        self._old.pause_writing()

    def resume_writing(self) -> None:
        """Passed on: picows counts."""
        self._old.resume_writing()
