"""A scripted engine by another make of WebSocket: what it does with a connection is the test's choice."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from websockets.asyncio.server import ServerConnection, serve

from tradeback.wire.v1 import encode_v1, make_entries

PROTOCOL_V1 = "tradeback.v1"
SYMBOLS = {
    "BTCUSDT": {"id": 1, "price_precision": 2, "quantity_precision": 5},
    "币安人生USDT": {"id": 7, "price_precision": 4, "quantity_precision": 1},
}
Script = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def engine_double(script: Script) -> AsyncIterator[str]:
    """The http address of a server that runs `script` for each connection."""
    async with serve(script, "127.0.0.1", 0, subprotocols=[PROTOCOL_V1]) as server:  # type: ignore[list-item]
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"http://127.0.0.1:{port}"


def frame(*entries: tuple[int, float, float]) -> bytes:
    """One v1 frame."""
    return encode_v1(make_entries(entries))


async def answer_subscribe(connection: ServerConnection) -> dict[str, object]:
    """Read a subscribe and answer it for the symbols that exist; returns the request."""
    request = json.loads(await connection.recv())
    names = list(SYMBOLS) if request["symbols"] == ["*"] else request["symbols"]
    known = {name: SYMBOLS[name] for name in names if name in SYMBOLS}
    await connection.send(json.dumps({"type": "subscribed", "symbols": known}))
    unknown = [name for name in names if name not in SYMBOLS]
    if unknown:
        message = f"unknown symbol {unknown[0]}"
        await connection.send(json.dumps({"type": "error", "code": "unknown_symbol", "message": message}))
    assert isinstance(request, dict)
    return request
