"""tradeback's ingest without the rest of the engine: socket read -> kernel -> tape on disk, no readers."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import picows
import uvloop

from benchmarks.harness import ingest_child
from benchmarks.harness.children import Pipe
from benchmarks.harness.tape_files import sums
from tradeback import kernel_cache
from tradeback.model.symbols import Symbol
from tradeback.ops.clock import SystemClock
from tradeback.version import VERSION


class _Line:
    """What an exchange line is to its socket reader, and the tape behind it."""

    def __init__(self, folder: Path, symbols: Sequence[str]) -> None:
        # numba must not be imported before its cache folder is named.
        from tradeback.exchange.intake import Intake
        from tradeback.tape.writer import Tape

        self._folder = folder
        self._tape = Tape.open(folder)
        self._intake = Intake(self._tape)
        for number, name in enumerate(symbols, 1):
            self._intake.add_symbol(Symbol(id=number, symbol=name))
        self.side_frames = 0
        """Frames that the kernel gave back: the reply to SUBSCRIBE, and no other."""

    def take_over(self, under: Any) -> None:
        """Let tradeback's own reader have the transport, as `exchange.line` does."""
        from tradeback.exchange.socket_reader import SocketReader

        under.set_protocol(SocketReader(self._intake, SystemClock(), 0, under, self))

    def on_side_frame(self, *told: Any, **named: Any) -> None:
        """Only counted."""
        self.side_frames += 1

    def on_broken(self, close_code: int, reason: str) -> None:
        """Cannot happen with this exchange: heard by the parent as the end of the process."""
        raise SystemExit(f"{reason} ({close_code})")

    def on_shadow(self, *told: Any, **named: Any) -> None:
        """The sample is taken, as in the engine; what comes of it is tested elsewhere."""

    def on_closed(self, error: Exception | None) -> None:
        """The parent ends this process."""

    def taken(self) -> int:
        """Records on the tape."""
        return self._tape.next_sequence - 1

    def id_sum(self) -> int:
        """Read back from the disk, with every checksum verified; -1 when one does not hold."""
        got = sums(self._folder)
        return got.id_sum if got.intact and self.side_frames == 1 else -1


def serve(pipe: Pipe, endpoint: str, certificate: str | None, symbols: Sequence[str], folder: str) -> None:
    """Child: subscribes, then takes what comes onto a tape in `folder`."""
    kernel_cache.prepare(VERSION)

    async def connect() -> ingest_child.Taker:
        line = _Line(Path(folder), symbols)
        transport, _ = await picows.ws_connect(
            picows.WSListener,
            endpoint + ingest_child.STREAM_PATH,
            ssl_context=ingest_child.trusting(certificate),
            read_buffer_init_size=2048,
        )
        line.take_over(transport.underlying_transport)
        transport.send(picows.WSMsgType.TEXT, ingest_child.SUBSCRIBE)
        while not line.taken():
            await asyncio.sleep(0.001)
        return line

    uvloop.run(ingest_child.answer(pipe, connect))
