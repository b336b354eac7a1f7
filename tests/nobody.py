"""A server that is neither an engine nor an exchange."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\nConnection: close\r\n\r\n<html"


@asynccontextmanager
async def somebody_else() -> AsyncIterator[str]:
    """host:port of a server that answers every request with a 404."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(NOT_FOUND)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
