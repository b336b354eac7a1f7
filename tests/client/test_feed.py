"""client.feed against a scripted engine: subscribes, decodes, mends breaks, never piles up."""

import asyncio
import json
import socket
import time
from collections.abc import Callable

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from tests.client.engine_double import PROTOCOL_V1, SYMBOLS, answer_subscribe, engine_double, frame
from tests.nobody import somebody_else
from tradeback.client import BatchV1, Control, Feed, FeedSymbol, connect
from tradeback.client.feed import FeedError, FeedRefused, feed_url
from tradeback.client.line import WAITING_FRAMES_MAX
from tradeback.model.errors import DecodeError


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("http://h:1", "ws://h:1/api/v1/ws"),
        ("https://h", "wss://h/api/v1/ws"),
        ("ws://h:1/", "ws://h:1/api/v1/ws"),
        ("wss://h/behind/a/proxy?x=1", "wss://h/behind/a/proxy?x=1"),
        ("h:8080", "ws://h:8080/api/v1/ws"),
        ("http://[::1]:8080", "ws://[::1]:8080/api/v1/ws"),
    ],
)
def test_addresses(given: str, wanted: str) -> None:
    assert feed_url(given) == wanted


@pytest.mark.parametrize("given", ["ftp://h", "http://", ""])
def test_what_is_no_address(given: str) -> None:
    with pytest.raises(FeedError, match="no address"):
        feed_url(given)


async def test_a_token_travels_in_a_header_and_stands_in_no_error() -> None:
    shown: list[str] = []

    async def script(connection: ServerConnection) -> None:
        assert connection.request is not None
        shown.append(connection.request.headers["Authorization"])
        await answer_subscribe(connection)
        await connection.wait_closed()

    async with engine_double(script) as url, connect(url, token="hunter2") as feed:
        async for _ in feed.events():
            break
        assert "hunter2" not in feed.url
    assert shown == ["Bearer hunter2"]
    with pytest.raises(FeedError) as refused:
        await connect(url, token="hunter2").__aenter__()
    assert "hunter2" not in str(refused.value)


async def test_a_refusal_has_the_engines_words_and_the_status() -> None:
    def refuse(connection: ServerConnection, request: Request) -> Response:
        body = b'{"error":{"code":"unauthorized","message":"a session is needed: POST /api/v1/auth/login"}}'
        return Response(401, "Unauthorized", Headers({"Content-Length": str(len(body))}), body)

    async def script(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with serve(script, "127.0.0.1", 0, process_request=refuse) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        with pytest.raises(FeedRefused, match="a session is needed") as refused:
            await connect(f"http://127.0.0.1:{port}").__aenter__()
    assert refused.value.status == 401


@pytest.mark.parametrize("resume", [(0, 0), (5, 0), (-1, 7), (1 << 32, 7), (5, 1 << 53)])
def test_a_position_that_is_none(resume: tuple[int, int]) -> None:
    """The engine would answer an error, and nothing would ever come."""
    with pytest.raises(FeedError, match="no position"):
        connect("http://h", resume=resume)


async def test_subscribes_and_decodes() -> None:
    requests = []

    async def script(connection: ServerConnection) -> None:
        assert connection.subprotocol == PROTOCOL_V1
        requests.append(await answer_subscribe(connection))
        await connection.send(frame((1, 42_000.5, 0.0)))
        await connection.send(frame((1, 42_001.25, 0.5), (7, 0.1234, 3.0)))
        await connection.wait_closed()

    before_ns = time.time_ns()
    async with engine_double(script) as url, connect(url, ["BTCUSDT", "币安人生USDT"]) as feed:
        events = feed.batches()
        first, second = await anext(events), await anext(events)
        await events.aclose()
    assert requests == [{"type": "subscribe", "symbols": ["BTCUSDT", "币安人生USDT"], "channels": ["trades"]}]
    assert first.entries.tolist() == [(1, 42_000.5, 0.0)]
    assert second.entries.tolist() == [(1, 42_001.25, 0.5), (7, 0.1234, 3.0)]
    assert before_ns <= first.recv_ns <= second.recv_ns <= time.time_ns()
    assert feed.symbol(7) == FeedSymbol(symbol="币安人生USDT", **SYMBOLS["币安人生USDT"])
    assert feed.symbol(99).symbol == "#99"


async def test_text_comes_as_control() -> None:
    async def script(connection: ServerConnection) -> None:
        await answer_subscribe(connection)
        assert json.loads(await connection.recv()) == {"type": "ping"}
        await connection.send('{"type":"pong","timestamp":5}')
        await connection.wait_closed()

    async with engine_double(script) as url, connect(url, ["BTCUSDT", "NOPE"]) as feed:
        feed.send({"type": "ping"})
        seen = []
        async for event in feed.events():
            assert isinstance(event, Control)
            seen.append(event.type)
            if event.type == "pong":
                break
    assert seen == ["subscribed", "error", "pong"]


async def test_a_broken_line_is_mended_and_subscribed_again() -> None:
    connections = 0

    async def script(connection: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        await answer_subscribe(connection)
        await connection.send(frame((1, float(connections), 1.0)))
        if connections < 3:
            await connection.close(1013, "too slow")
        await connection.wait_closed()

    prices, reasons = [], []
    async with engine_double(script) as url, connect(url) as feed:
        async for event in feed.events():
            if isinstance(event, BatchV1):
                prices.append(float(event.entries["price"][0]))
            elif isinstance(event, Control) and event.type == "disconnected":
                reasons.append(event.message["reason"])
            if len(prices) == 3:
                break
        assert feed.reconnects == 2
    assert prices == [1.0, 2.0, 3.0]
    assert reasons == ["closed by the engine: 1013 too slow"] * 2


async def test_without_reconnect_a_broken_line_ends_the_iteration() -> None:
    async def script(connection: ServerConnection) -> None:
        await answer_subscribe(connection)
        await connection.send(frame((1, 5.0, 1.0)))
        connection.transport.abort()

    async with engine_double(script) as url, connect(url, reconnect=False) as feed:
        events = [event async for event in feed.events()]
    assert isinstance(events[1], BatchV1)
    assert isinstance(events[-1], Control)
    assert events[-1].message == {"type": "disconnected", "reason": "the connection broke"}


async def test_a_program_that_does_not_keep_up_leaves_the_socket_alone() -> None:
    frames = 40 * WAITING_FRAMES_MAX
    body = [(1, 1.0, 1.0)] * 50
    sent = 0

    async def script(connection: ServerConnection) -> None:
        nonlocal sent
        await answer_subscribe(connection)
        for number in range(frames):
            await connection.send(frame((1, float(number), 1.0), *body[1:]))
            sent += 1
        await connection.wait_closed()

    async with engine_double(script) as url, connect(url) as feed:
        await _until_still(lambda: sent)
        assert feed.waiting <= 2 * WAITING_FRAMES_MAX, "one read may bring some more than the bound"
        assert sent < frames, "the engine was held up"
        numbers = []
        async for batch in feed.batches():
            numbers.append(int(batch.entries["price"][0]))
            if len(numbers) == frames:
                break
    assert numbers == list(range(frames))


async def _until_still(counter: Callable[[], int]) -> None:
    """Wait until a counter stops moving."""
    quiet, last = 0, -1
    while quiet < 20:
        await asyncio.sleep(0.005)
        now = counter()
        quiet = quiet + 1 if now == last and now > 0 else 0
        last = now


async def test_a_message_in_fragments_is_put_together() -> None:
    whole = frame((1, 5.0, 1.0), (7, 6.0, 2.0))

    async def script(connection: ServerConnection) -> None:
        await answer_subscribe(connection)
        await connection.send([whole[:7], whole[7:8], whole[8:]])
        await connection.send(frame((1, 9.0, 1.0)))
        await connection.wait_closed()

    async with engine_double(script) as url, connect(url) as feed:
        events = feed.batches()
        assert (await anext(events)).entries["price"].tolist() == [5.0, 6.0]
        assert (await anext(events)).entries["price"].tolist() == [9.0]
        await events.aclose()


BAD_SUBSCRIBED = (
    '{"type":"subscribed"}',
    '{"type":"subscribed","symbols":{"BTCUSDT":{"id":1}}}',
    '{"type":"subscribed","symbols":{},"sequence":5}',
    '{"type":"auto_subscribe"}',
)


@pytest.mark.parametrize(
    "bad", [b"\x00\x01", frame((1, 1.0, 1.0))[:-1] + b"\xff", "{", "[]", *BAD_SUBSCRIBED]
)
async def test_a_message_that_cannot_be_read_costs_its_connection(
    bad: bytes | str, caplog: pytest.LogCaptureFixture
) -> None:
    connections = 0

    async def script(connection: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        await answer_subscribe(connection)
        if connections == 1:
            await connection.send(frame((1, 1.0, 1.0)))
            await connection.send(bad)
            await connection.send(frame((1, 2.0, 1.0)))
        else:
            await connection.send(frame((1, 3.0, 1.0)))
        await connection.wait_closed()

    prices, reasons = [], []
    async with engine_double(script) as url, connect(url) as feed:
        async for event in feed.events():
            if isinstance(event, BatchV1):
                prices.append(float(event.entries["price"][0]))
            elif isinstance(event, Control) and event.type == "disconnected":
                reasons.append(event.message["reason"])
            if len(prices) == 2:
                break
        assert (feed.damaged, feed.reconnects) == (1, 1)
    assert prices == [1.0, 3.0], "nothing of what came behind it"
    assert len(reasons) == 1
    assert reasons[0].startswith("what came cannot be read: ")
    assert [record.levelname for record in caplog.records if record.name == "tradeback.client"] == ["WARNING"]
    assert reasons[0] in caplog.text


async def test_without_reconnect_damage_is_an_error() -> None:
    async def script(connection: ServerConnection) -> None:
        await connection.send("{")
        await connection.wait_closed()

    async with engine_double(script) as url, connect(url, reconnect=False) as feed:
        with pytest.raises(DecodeError):
            await anext(aiter(feed.events()))


async def test_what_an_engine_of_later_says_besides_is_left() -> None:
    async def script(connection: ServerConnection) -> None:
        await connection.recv()
        described = {**SYMBOLS["BTCUSDT"], "tick_size": "0.01"}
        await connection.send(json.dumps({"type": "subscribed", "symbols": {"BTCUSDT": described}, "x": 1}))
        await connection.wait_closed()

    async with engine_double(script) as url, connect(url, ["BTCUSDT"]) as feed:
        await anext(aiter(feed.events()))
        assert feed.symbol(1) == FeedSymbol(symbol="BTCUSDT", **SYMBOLS["BTCUSDT"])
        assert feed.damaged == 0


async def test_close_ends_a_waiting_iteration() -> None:
    async def script(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async def read(feed: Feed) -> list[object]:
        return [event async for event in feed.events()]

    async with engine_double(script) as url, connect(url) as feed:
        reading = asyncio.ensure_future(read(feed))
        await asyncio.sleep(0)
        await feed.close()
        assert await asyncio.wait_for(reading, 5) == []
        with pytest.raises(FeedError, match="not connected"):
            feed.send({"type": "ping"})


async def test_nobody_there() -> None:
    with socket.socket() as taken:  # bound, so nobody else gets it, and not listening
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(FeedError, match="no engine answers"):
            async with connect(f"http://127.0.0.1:{taken.getsockname()[1]}"):
                pass


async def test_somebody_else_there() -> None:
    async with somebody_else() as here:
        with pytest.raises(FeedError, match="404"):
            async with connect(f"http://{here}"):
                pass
