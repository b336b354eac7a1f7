"""feed/server and feed/requests: what a client sees, against `websockets` and aiohttp clients."""

import asyncio
import contextlib
from collections.abc import Iterator

import aiohttp
import orjson
import pytest
import websockets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.feed.harness import Trade, World, ask, entries, subscribe, text, world
from tradeback.model.config import FeedConfig
from tradeback.model.limits import CLIENT_ERRORS_MAX, CLIENT_MESSAGE_BYTES_MAX
from tradeback.model.symbols import Symbol
from tradeback.wire import control
from tradeback.wire.v1 import decode_v1, encode_v1, make_entries


async def closed(ws: websockets.ClientConnection) -> int:
    """Read until the connection ends; the close code."""
    async with asyncio.timeout(5):
        with contextlib.suppress(websockets.ConnectionClosed):
            async for _ in ws:
                pass
        await ws.wait_closed()
    return ws.close_code or 1006


async def test_subscribe_then_snapshot_then_live() -> None:
    async with world() as running:
        running.trade((1, 100.0, 1.0), (2, 50.0, 1.0), (1, 101.0, 2.0))
        async with running.connect() as ws:
            answer = await subscribe(ws, "BTCUSDT", "SOLUSDT")
            assert answer["symbols"] == {
                "BTCUSDT": {"id": 1, "price_precision": 2, "quantity_precision": 5},
                "SOLUSDT": {"id": 3, "price_precision": 2, "quantity_precision": 3},
            }
            running.trade((1, 102.0, 0.5), (2, 51.0, 9.0), (3, 7.0, 3.0))
            expected = [(1, 101.0, 0.0), (1, 102.0, 0.5), (3, 7.0, 3.0)]
            assert await entries(ws, 3) == expected, "snapshot only of symbols with a price, before any live"


async def test_the_snapshot_knows_prices_from_before_the_start() -> None:
    known = {1: 99.5}
    async with world(latest_price=known.get) as running, running.connect() as ws:
        await subscribe(ws, "BTCUSDT", "ETHUSDT")
        assert await entries(ws, 1) == [(1, 99.5, 0.0)]


async def test_symbols_that_are_not_known_yet_are_waited_for() -> None:
    """The first start on an empty folder: clients are there before the exchange has said what it has."""
    async with world(attach=False) as running, running.connect() as early, running.connect() as other:
        await early.send('{"type":"subscribe","symbols":["NEWUSDT","NOPE"]}')
        await early.send('{"type":"ping"}')
        assert (await ask(other, {"type": "ping"}))["type"] == "pong", "others need not wait"
        assert (await subscribe(other, "BTCUSDT"))["symbols"].keys() == {"BTCUSDT"}
        running.symbols.put(Symbol(9, "NEWUSDT", tick_size="0.01000000", step_size="0.00100000"))
        running.feed.attach_kernels()
        assert (await text(early))["symbols"] == {
            "NEWUSDT": {"id": 9, "price_precision": 2, "quantity_precision": 3}
        }
        refused = await text(early)
        assert (refused["code"], "NOPE" in refused["message"]) == ("unknown_symbol", True)
        assert (await text(early))["type"] == "pong", "in the order of the requests"
        running.trade((9, 7.0, 3.0))
        assert await entries(early, 1) == [(9, 7.0, 3.0)]
        assert (await ask(early, {"type": "subscribe", "symbols": ["NOPE"]}))["code"] == "unknown_symbol"


async def test_what_waits_for_the_start_is_bounded() -> None:
    padding = "x" * (CLIENT_MESSAGE_BYTES_MAX - 100)
    async with world(attach=False) as running, running.connect() as early, running.connect() as other:
        for _ in range(3):
            await early.send(
                orjson.dumps({"type": "subscribe", "symbols": ["NEWUSDT"], "x": padding}).decode()
            )
        assert await closed(early) == 1008
        assert (await ask(other, {"type": "ping"}))["type"] == "pong"


async def test_frames_are_the_format_to_the_byte() -> None:
    async with world() as running, running.connect() as ws:
        await subscribe(ws, "*")
        trades: list[Trade] = [(1 + place % 3, 100.0 + place, 0.25) for place in range(120)]
        running.trade(*trades)
        for start in (0, 50, 100):
            async with asyncio.timeout(5):
                assert await ws.recv() == encode_v1(make_entries(trades[start : start + 50]))


async def test_subscribing_again_gives_no_second_snapshot_and_volumes_go_on() -> None:
    async with world() as running, running.connect() as ws:
        running.trade((1, 100.0, 1.0), (2, 50.0, 1.0))
        await subscribe(ws, "BTCUSDT")
        running.trade((1, 101.0, 2.0))
        assert await entries(ws, 2) == [(1, 100.0, 0.0), (1, 101.0, 2.0)]
        answer = await subscribe(ws, "btcusdt", "ETHUSDT")
        assert list(answer["symbols"]) == ["BTCUSDT", "ETHUSDT"], "names are found whatever their case"
        running.trade((1, 102.0, 4.0))
        assert await entries(ws, 2) == [(2, 50.0, 0.0), (1, 102.0, 4.0)]


async def test_unsubscribe() -> None:
    async with world() as running, running.connect() as ws:
        await subscribe(ws, "BTCUSDT", "ETHUSDT")
        answer = await ask(ws, {"type": "unsubscribe", "symbols": ["BTCUSDT", "SOLUSDT"]})
        assert answer == {"type": "unsubscribed", "symbols": ["BTCUSDT", "SOLUSDT"]}
        running.trade((1, 1.0, 1.0), (2, 2.0, 2.0))
        assert await entries(ws, 1) == [(2, 2.0, 2.0)]
        await subscribe(ws, "BTCUSDT")
        running.trade((1, 3.0, 3.0))
        assert await entries(ws, 2) == [(1, 1.0, 0.0), (1, 3.0, 3.0)], "a new snapshot after leaving"


async def test_all_symbols_less_one() -> None:
    async with world() as running, running.connect() as ws:
        assert len((await subscribe(ws, "*"))["symbols"]) == 3
        await ask(ws, {"type": "unsubscribe", "symbols": ["BTCUSDT"]})
        running.trade((1, 1.0, 1.0), (2, 2.0, 2.0), (3, 3.0, 3.0))
        assert await entries(ws, 2) == [(2, 2.0, 2.0), (3, 3.0, 3.0)]
        await ask(ws, {"type": "unsubscribe", "symbols": "*"})
        assert running.feed.v1.fanout.groups == 0


async def test_good_symbols_of_a_bad_request_work() -> None:
    async with world() as running, running.connect() as ws:
        running.trade((1, 9.0, 1.0))
        assert (await subscribe(ws, "NOPE", "BTCUSDT"))["symbols"].keys() == {"BTCUSDT"}
        assert await entries(ws, 1) == [(1, 9.0, 0.0)]
        error = await text(ws)
        assert error["code"] == "unknown_symbol"
        assert "NOPE" in error["message"]
        assert (await subscribe(ws, "NOPE"))["code"] == "unknown_symbol", "nothing good: the error alone"


async def test_ping_answers_with_the_clock_in_ms() -> None:
    async with world() as running, running.connect() as ws:
        answer = await ask(ws, {"type": "ping"})
        assert answer["type"] == "pong"
        assert abs(answer["timestamp"] - running.context.clock.wall_ns() // 1_000_000) < 5_000
        async with asyncio.timeout(5):
            await (await ws.ping())  # and the protocol's own ping


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("{", "bad_json"),
        ("", "bad_json"),
        ('{"type":"subscribe","symbols":["' + "\\ud800" + '"]}', "bad_json"),
        ("[]", "bad_request"),
        ('{"type":"resume","epoch":1,"sequence":2}', "unknown_type"),
        ('{"type":"subscribe","symbols":[' + ",".join(['"A"'] * 1_025) + "]}", "too_many_symbols"),
        (b"\x00\x01", "bad_request"),
    ],
)
async def test_errors_leave_the_connection_alone(sent: str | bytes, code: str) -> None:
    async with world() as running, running.connect() as ws:
        await ws.send(sent)
        answer = await text(ws)
        assert (answer["type"], answer["code"]) == ("error", code)
        assert (await ask(ws, {"type": "ping"}))["type"] == "pong"


async def test_repeated_abuse_closes_with_1008() -> None:
    async with world() as running, running.connect() as ws:
        for _ in range(CLIENT_ERRORS_MAX):
            await ws.send("nonsense")
        assert await closed(ws) == 1008
        assert not running.feed.clients


async def test_a_flood_of_good_requests_is_abuse_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tradeback.feed.client.CLIENT_REQUESTS_MAX", 50)
    async with world() as running, running.connect() as ws, running.connect() as other:
        running.feed._timers["sweep"].cancel()  # which gives everybody his requests anew
        for _ in range(50):
            assert (await ask(ws, {"type": "ping"}))["type"] == "pong"
        refused = await ask(ws, {"type": "ping"})
        assert (refused["type"], refused["code"]) == ("error", "too_many_requests")
        running.feed.now_s += 1.0
        assert (await ask(ws, {"type": "ping"}))["type"] == "pong", "in the next second it may go on"
        for _ in range(50 + CLIENT_ERRORS_MAX):
            await ws.send('{"type":"ping"}')
        assert await closed(ws) == 1008
        assert running.feed.requests.refused["too_many_requests"] == CLIENT_ERRORS_MAX
        assert (await ask(other, {"type": "ping"}))["type"] == "pong", "the others notice nothing"


async def test_requests_for_many_symbols_count_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tradeback.feed.client.CLIENT_REQUESTS_MAX", 20)
    monkeypatch.setattr("tradeback.feed.requests.SYMBOLS_PER_COST", 1)
    async with world() as running, running.connect() as ws:
        running.feed._timers["sweep"].cancel()
        for kind in ("subscribe", "unsubscribe", "subscribe", "unsubscribe", "subscribe"):
            assert (await ask(ws, {"type": kind, "symbols": "*"}))["type"] == f"{kind}d"
        assert (await ask(ws, {"type": "ping"}))["code"] == "too_many_requests", "5 times 1 + 3"


async def test_a_message_too_big_closes_with_1009() -> None:
    async with world() as running:
        async with running.connect() as ws:
            await ws.send(" " * CLIENT_MESSAGE_BYTES_MAX)
            assert (await text(ws))["code"] == "bad_json"
            await ws.send(" " * (CLIENT_MESSAGE_BYTES_MAX + 1))
            assert await closed(ws) == 1009
        async with running.connect() as ws:  # the same in parts
            await ws.send([" " * (CLIENT_MESSAGE_BYTES_MAX // 2)] * 3)
            assert await closed(ws) == 1009


async def test_a_message_in_parts() -> None:
    async with world() as running, running.connect() as ws:
        await ws.send(['{"type":', '"pi', 'ng"}'])
        assert (await text(ws))["type"] == "pong"


async def test_encoded_once_per_interest() -> None:
    async with world() as running, aiohttp.ClientSession() as session:
        sockets = [await session.ws_connect(running.ws) for _ in range(24)]
        for place, ws in enumerate(sockets):
            names = ["BTCUSDT"] if place % 2 else ["ETHUSDT", "BTCUSDT"]
            await ws.send_json({"type": "subscribe", "symbols": names})
            assert (await ws.receive_json(timeout=5))["type"] == "subscribed"
        assert running.feed.v1.fanout.groups == 2
        before = running.feed.v1.fanout.encoded
        running.trade((1, 5.0, 1.0))
        assert running.feed.v1.fanout.encoded - before == 2, "two interests, two frames, 24 clients"
        assert running.feed.v1.fanout.frames == 24
        for ws in sockets:
            assert decode_v1(await ws.receive_bytes(timeout=5)).tolist() == [(1, 5.0, 1.0)]
        running.trade((2, 6.0, 1.0))
        assert running.feed.v1.fanout.encoded - before == 3, "only the group that wants it"
        running.trade((3, 7.0, 1.0))
        assert running.feed.v1.fanout.encoded - before == 3, "nobody wants it"
        for ws in sockets:
            await ws.close()


async def test_groups_end_with_their_last_client() -> None:
    async with world() as running:
        async with running.connect() as first, running.connect() as second:
            await subscribe(first, "BTCUSDT")
            await subscribe(second, "BTCUSDT", "ETHUSDT")
            assert running.feed.v1.fanout.groups == 2
        while running.feed.clients:
            await asyncio.sleep(0)
        assert running.feed.v1.fanout.groups == 0
        assert len(running.feed.v1.fanout.interests) == 0


async def test_stopping_closes_with_1001() -> None:
    async with world() as running:
        ws = await running.connect()
        await subscribe(ws, "BTCUSDT")
    assert await closed(ws) == 1001


async def test_silent_clients_are_pinged_and_cut_when_they_do_not_answer() -> None:
    async with world(FeedConfig(lag_max_s=0.04)) as running:  # a sweep every 10 ms
        running.feed.ping_idle_s = running.feed.pong_wait_s = 0.09
        ws = await running.connect()
        reader, writer = await asyncio.open_connection("127.0.0.1", running.front.port)
        writer.write(
            b"GET /api/v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        async with asyncio.timeout(5):
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(2) == b"\x89\x00", "a ping"
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
        writer.close()
        assert (await ask(ws, {"type": "ping"}))["type"] == "pong", "one that answers stays"
        await ws.close()


async def test_a_client_that_takes_its_data_needs_no_pong() -> None:
    async with world(FeedConfig(lag_max_s=0.04)) as running:
        running.feed.ping_idle_s = running.feed.pong_wait_s = 0.09
        async with running.connect() as ws, running.connect() as idle:
            await subscribe(ws, "BTCUSDT")
            (client,) = [client for client in running.feed.clients if client.group is not None]
            await ask(idle, {"type": "ping"})
            for turn in range(60):
                running.trade((1, 100.0 + turn, 1.0))
                assert await entries(ws, 1) == [(1, 100.0 + turn, 1.0)]
                await asyncio.sleep(0.005)
                assert not client.pinged
            assert client in running.feed.clients


async def test_counters_and_latency() -> None:
    async with world() as running, running.connect() as ws:
        await subscribe(ws, "BTCUSDT")
        running.trade((1, 1.0, 1.0), (1, 2.0, 1.0), (2, 1.0, 1.0))
        await entries(ws, 2)
        found = {family.name: family.samples[0][1] for family in running.feed.collect()}
        assert found["tradeback_feed_clients"] == 1
        assert found["tradeback_feed_trades"] == 3
        assert found["tradeback_feed_sent_frames"] == 1
        assert found["tradeback_feed_sent_bytes"] == 2 + 6 + 2 * 18
        assert running.feed.publish_latency.total == 3


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
messages = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=60),
    json_values.map(lambda value: _dumps(value)),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["subscribe", "unsubscribe", "ping", "resume", "x"])},
        optional={
            "symbols": json_values | st.lists(st.sampled_from(["BTCUSDT", "NOPE", "*", ""]), max_size=4),
            "channels": json_values | st.lists(st.sampled_from(["trades", "enigma", "quotes"]), max_size=3),
        },
    ).map(lambda value: _dumps(value)),
)


def _dumps(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # integers beyond 64 bits, lone surrogates: orjson's clients cannot send them
        return "null"


class Loopback:
    """One world for all examples: a port per example would take minutes."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.context = world()
        self.world: World = self.loop.run_until_complete(self.context.__aenter__())

    def close(self) -> None:
        self.loop.run_until_complete(self.context.__aexit__(None, None, None))
        self.loop.close()


@pytest.fixture(scope="module")
def loopback() -> Iterator[Loopback]:
    running = Loopback()
    yield running
    running.close()


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=st.lists(messages, min_size=1, max_size=CLIENT_ERRORS_MAX - 1))
def test_fuzzed_messages_give_documented_answers_only(loopback: Loopback, sent: list[str | bytes]) -> None:
    async def talk() -> None:
        async with loopback.world.connect() as ws:
            for message in sent:
                await ws.send(message)
            await ws.send('{"type":"subscribe","symbols":["the end"]}')
            answers = [await text(ws)]
            while "the end" not in answers[-1].get("message", ""):
                answers.append(await text(ws))
            for answer in answers:
                assert answer["type"] in {"subscribed", "unsubscribed", "pong", "error"}
                if answer["type"] == "error":
                    assert answer["code"] in control.ERROR_CODES

    loopback.loop.run_until_complete(talk())
