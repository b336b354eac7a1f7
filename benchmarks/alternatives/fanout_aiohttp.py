"""Fan-out by aiohttp: `await send_bytes` to one client after the other, on uvloop (its faster way)."""

import asyncio

import uvloop
from aiohttp import web

from benchmarks.alternatives.trigger import listen_to
from benchmarks.harness.children import Pipe
from benchmarks.harness.subscribers import FEED_PATH
from benchmarks.harness.websocket import listen, port_of


async def _serve(pipe: Pipe, exchange_port: int, trigger_bytes: int, frame: bytes) -> None:
    clients: list[web.WebSocketResponse] = []
    due = asyncio.Semaphore(0)

    async def feed(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        clients.append(socket)
        async for _ in socket:
            pass
        return socket

    app = web.Application()
    app.router.add_get(FEED_PATH, feed)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    server = listen(backlog=8192)
    await web.SockSite(runner, server).start()
    await listen_to(exchange_port, trigger_bytes, due.release)
    pipe.send(port_of(server))
    while True:
        await due.acquire()
        for socket in clients:
            await socket.send_bytes(frame)


def serve(pipe: Pipe, exchange_port: int, trigger_bytes: int, payload: bytes) -> None:
    """Child: says its port, broadcasts `payload` per `trigger_bytes` received."""
    uvloop.run(_serve(pipe, exchange_port, trigger_bytes, payload))
