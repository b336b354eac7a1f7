"""client/feed when the engine stops or restarts: back soon, each at a moment of its own, and patiently."""

from http import HTTPStatus
from types import SimpleNamespace

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from tests.client.engine_double import PROTOCOL_V1, answer_subscribe, frame
from tradeback.client import connect
from tradeback.client import feed as module
from tradeback.client.batch import BatchV1, Control


@pytest.mark.parametrize("code", [1001, 1012])
async def test_it_comes_back_soon_and_with_jitter(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    connections, draws = 0, list[tuple[float, float]]()
    refusals = 2

    def busy(connection: ServerConnection, request: Request) -> Response | None:
        nonlocal refusals
        if not connections or not refusals:
            return None
        refusals -= 1
        return Response(HTTPStatus.SERVICE_UNAVAILABLE, "stopping", Headers({"Retry-After": "5"}), b"")

    async def script(connection: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        await answer_subscribe(connection)
        await connection.send(frame((1, float(connections), 1.0)))
        if connections == 1:
            await connection.close(code, "the server is going")
        await connection.wait_closed()

    def drawn(low: float, high: float) -> float:
        draws.append((low, high))
        return low

    monkeypatch.setattr(module, "random", SimpleNamespace(uniform=drawn))
    async with serve(script, "127.0.0.1", 0, subprotocols=[PROTOCOL_V1], process_request=busy) as server:  # type: ignore[list-item]
        port = next(iter(server.sockets)).getsockname()[1]
        async with connect(f"http://127.0.0.1:{port}") as feed:
            reason, prices = "", list[float]()
            async for event in feed.events():
                if isinstance(event, BatchV1):
                    prices += event.entries["price"].tolist()
                elif isinstance(event, Control) and event.type == "disconnected":
                    reason = event.message["reason"]
                if len(prices) == 2:
                    break
    assert prices == [1.0, 2.0]
    assert str(code) in reason
    assert draws == [(0.5, 1.0)] * 3, "each client waits for a time of its own, also after a refusal"
    assert module.BACKOFF_FIRST_S <= 0.25, "soon"
