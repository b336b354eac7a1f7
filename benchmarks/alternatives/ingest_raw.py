"""Ingest's ceiling: read the socket into one buffer and drop it. Shows what the blasting side can do."""

import asyncio
from collections.abc import Sequence

import picows
import uvloop

from benchmarks.harness import ingest_child
from benchmarks.harness.children import Pipe


class _Drop(asyncio.BufferedProtocol):
    """Counts bytes."""

    def __init__(self) -> None:
        self._buffer = bytearray(ingest_child.READ_BUFFER_BYTES)
        self._bytes = 0

    def get_buffer(self, sizehint: int) -> bytearray:
        """Always the same buffer."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        self._bytes += nbytes

    def taken(self) -> int:
        """Bytes, not frames."""
        return self._bytes

    def id_sum(self) -> int:
        """It knows no ids."""
        return 0


def serve(pipe: Pipe, endpoint: str, certificate: str | None, symbols: Sequence[str]) -> None:
    """Child: picows shakes hands (TLS too), then the transport's protocol is swapped."""

    async def connect() -> ingest_child.Taker:
        transport, _ = await picows.ws_connect(
            picows.WSListener, endpoint + ingest_child.STREAM_PATH,
            ssl_context=ingest_child.trusting(certificate),
        )  # fmt: skip
        drop = _Drop()
        transport.underlying_transport.set_protocol(drop)
        transport.send(picows.WSMsgType.TEXT, ingest_child.SUBSCRIBE)
        while not drop.taken():
            await asyncio.sleep(0.001)
        return drop

    uvloop.run(ingest_child.answer(pipe, connect))
