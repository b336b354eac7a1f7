"""Fan-out by the websockets library: its own `broadcast`, on asyncio's loop (its faster way)."""

import asyncio

from websockets.asyncio.server import ServerConnection, broadcast
from websockets.asyncio.server import serve as websockets_serve

from benchmarks.alternatives.trigger import listen_to
from benchmarks.harness.children import Pipe
from benchmarks.harness.websocket import listen, port_of


async def _serve(pipe: Pipe, exchange_port: int, trigger_bytes: int, frame: bytes) -> None:
    clients: set[ServerConnection] = set()

    async def feed(connection: ServerConnection) -> None:
        clients.add(connection)
        await connection.wait_closed()

    server = listen(backlog=8192)
    async with websockets_serve(feed, sock=server, compression=None, ping_interval=None):
        await listen_to(exchange_port, trigger_bytes, lambda: broadcast(clients, frame))
        pipe.send(port_of(server))
        await asyncio.get_running_loop().create_future()


def serve(pipe: Pipe, exchange_port: int, trigger_bytes: int, payload: bytes) -> None:
    """Child: says its port, broadcasts `payload` per `trigger_bytes` received."""
    asyncio.run(_serve(pipe, exchange_port, trigger_bytes, payload))
