"""A TCP relay in front of an engine that cuts its connections at random moments, also inside frames, and
turns bits of what passes."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_BINARY = 0x82
"""First byte of a whole binary message."""


class Cutter:
    """`target`: the engine's port, which may change when it restarts; None: nobody answers there."""

    def __init__(self, seed: int, target: int, bytes_most: int) -> None:
        self.target: int | None = target
        self.bytes_most = bytes_most
        """A connection lives for 1 to so many bytes from the engine; 0: it is not cut."""
        self.cuts = 0
        self.damage_every = 0
        """One byte is changed in one of so many binary messages of the engine, on average; 0: in none. Once
        in a connection: whoever reads it leaves, and the rest may be read or not."""
        self.damages = 0
        self.port = 0
        self._random = random.Random(seed)
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Cut all connections now."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.target is None:
            writer.transport.abort()
            return
        try:
            from_engine, to_engine = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, to_engine}
        self._writers |= pair
        up = asyncio.create_task(self._pump(reader, to_engine, 0))
        left = self._random.randint(1, self.bytes_most) if self.bytes_most else 0
        with suppress(OSError):
            if self.damage_every:
                await self._pump_damaged(from_engine, writer)
            else:
                await self._pump(from_engine, writer, left)
        up.cancel()
        for one in pair:
            one.transport.abort()
        self._writers -= pair
        await asyncio.gather(up, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int) -> None:
        done = 0
        while data := await reader.read(65_536):
            writer.write(data[: most - done] if most else data)
            await writer.drain()
            done += len(data)
            if most and done >= most:
                self.cuts += 1
                return

    async def _pump_damaged(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Frame by frame, so that only what a checksum covers is changed."""
        is_whole = True
        with suppress(asyncio.IncompleteReadError):
            writer.write(await reader.readuntil(b"\r\n\r\n"))
            while True:
                head = await reader.readexactly(2)
                size = head[1]
                if size > 125:
                    more = await reader.readexactly(2 if size == 126 else 8)
                    head, size = head + more, int.from_bytes(more, "big")
                payload = bytearray(await reader.readexactly(size))
                is_unlucky = self.damage_every and self._random.randrange(self.damage_every) == 0
                if head[0] == _BINARY and is_unlucky and is_whole:
                    is_whole = False
                    payload[self._random.randrange(size)] ^= self._random.randrange(1, 256)
                    self.damages += 1
                writer.write(head + payload)
                await writer.drain()


@asynccontextmanager
async def cutter(seed: int, target: int, bytes_most: int = 0) -> AsyncIterator[Cutter]:
    """A relay at `Cutter.port`."""
    made = Cutter(seed, target, bytes_most)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        made.cut()
        await server.wait_closed()
