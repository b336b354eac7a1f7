"""One recorded connection, played into the engine's own reader of sockets. Loads kernels.

The bytes go the way of live ones: `SocketReader`, ingest kernel, tape, feed. Only the transport is none.
"""

import asyncio

from tradeback.exchange import fallback
from tradeback.exchange.intake import Intake
from tradeback.exchange.requests import is_answer
from tradeback.exchange.socket_reader import SocketReader
from tradeback.model.clock import Clock
from tradeback.model.errors import DecodeError, TapeError
from tradeback.model.record import LINE_SHIFT, Rows
from tradeback.model.symbols import SymbolTable

_FINAL_TEXT = 0x81


class _NoTransport(asyncio.Transport):
    """What `SocketReader` asks of a transport, without a socket: bytes are pushed."""

    def __init__(self) -> None:
        super().__init__()
        self._protocol: asyncio.BaseProtocol = asyncio.Protocol()

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        """The player waits while the tape refuses."""

    def resume_reading(self) -> None:
        """The player goes on by itself."""


class ReplayLine:
    """The owner of a `SocketReader`; decodes what the kernel refuses, as `Line` does."""

    def __init__(self, intake: Intake, clock: Clock, symbols: SymbolTable, line: int) -> None:
        self._intake, self._symbols, self._line = intake, symbols, line
        self.fallbacks = self.malformed = self.broken = self.differs = 0
        self.reader = SocketReader(intake, clock, line, _NoTransport(), self)
        intake.on_stall.append(self._on_stall)

    def push(self, data: bytes) -> None:
        """The bytes of one socket read."""
        done = 0
        while done < len(data):
            place = self.reader.get_buffer(-1)
            count = min(len(place), len(data) - done)
            place[:count] = data[done : done + count]
            self.reader.buffer_updated(count)
            done += count

    def on_side_frame(self, opcode: int, payload: bytes, status: int, recv_ns: int) -> None:
        """A frame that is not the kernel's."""
        if opcode != _FINAL_TEXT:
            self.malformed += 1
            return
        try:
            message = fallback.parse(payload)
            if is_answer(message):
                return
            event = fallback.event_of(message)
            if event.get("e") == "serverShutdown":
                return
            rows, event_us = fallback.decode_event(event, self._symbols)
        except DecodeError:
            self.malformed += 1
            return
        self.fallbacks += 1
        rows["recv_ns"] = recv_ns
        rows["flags"] |= self._line << LINE_SHIFT
        self._intake.admit(rows)
        if event_us:
            self._intake.note_event(event_us, recv_ns)

    def on_broken(self, close_code: int, reason: str) -> None:
        """We have framed the bytes ourselves, so this is a fault of ours: the replay must not go on."""
        self.broken += 1
        raise TapeError(f"the replay of line {'ab'[self._line]} broke: {reason} ({close_code})")

    def on_shadow(self, payload: bytes, row: Rows) -> None:
        """Compare a sample, as on a live line."""
        try:
            slow, _ = fallback.decode_event(fallback.event_of(fallback.parse(payload)), self._symbols)
        except DecodeError:
            self.differs += 1
            return
        self.differs += not fallback.same(row, slow)

    def on_closed(self, error: Exception | None) -> None:
        """Nothing can close."""

    def _on_stall(self, stalled: bool) -> None:
        if not stalled:
            self.reader.resume()
