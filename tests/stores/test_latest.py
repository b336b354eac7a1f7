"""The role `latest`: one contract, which memory and a real Redis keep."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest

from tests.servers.kinds import RedisServer
from tests.servers.process import ask
from tests.sinks.drain_world import SystemTime
from tradeback.model.config import Config, RedisConfig
from tradeback.model.errors import StartupError, StoreError
from tradeback.stores.latest import latest_redis, open_latest
from tradeback.stores.latest_memory import LatestMemory
from tradeback.stores.latest_redis import LatestRedis
from tradeback.stores.latest_values import price_bytes
from tradeback.stores.ports import LatestStore, Levels, Price, SharedSession, StreamBatch, StreamSymbol

QUICK = {"price_ttl_s": 0.2, "bars_ttl_s": 0.2}
_names = count(1)


def redis_config(server: RedisServer, **more: Any) -> RedisConfig:
    return RedisConfig(addr=server.address, **more)


def made(kind: str, request: pytest.FixtureRequest, clock: SystemTime, **more: Any) -> LatestStore:
    """An empty store of this kind."""
    config = Config(redis=RedisConfig(**more))
    if kind == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        ask(server.port, b"FLUSHALL\r\n")
        config = Config(redis=redis_config(server, **more))
    return open_latest(config, clock)


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[LatestStore]:
    found = made(request.param, request, SystemTime(), stream_entries=100)
    yield found
    await found.close()


@pytest.fixture(params=["memory", "redis"])
async def brief(request: pytest.FixtureRequest) -> AsyncIterator[LatestStore]:
    """A store whose values live for a fifth of a second."""
    found = made(request.param, request, SystemTime(), **QUICK)
    yield found
    await found.close()


def price(symbol: str, trade_id: int, quote_us: int, value: float = 1.5, **more: Any) -> Price:
    held = Price(symbol, value, value - 0.5, value + 0.5, 0.25, 1_700_000_000_000, trade_id, quote_us)
    return held._replace(**more)


async def gone(found: Any, seconds: float = 30.0) -> None:
    """Until what `found` fetches is nothing."""
    async with asyncio.timeout(seconds):
        while await found():
            await asyncio.sleep(0.01)


async def test_prices_come_back_as_they_were_put(store: LatestStore) -> None:
    put = [
        price("BTCUSDT", 10, 100, 64_123.45678901),
        Price("NEW", None, 1.0, 2.0, None, 1_700_000_000_123, -1, 50),
        Price("TRADED", 3.0, None, None, 1e-8, 1_700_000_000_124, 7, 0),
        price('Ö"\\N', 1, 1),
    ]
    assert await store.put_prices(put) == 4
    assert await store.put_prices([*put, price("MORE", 1, 1)]) == 1, "the others are kept already"
    assert await store.prices([each.symbol for each in put] + ["NONE"]) == {each.symbol: each for each in put}
    assert await store.prices([]) == {}


async def test_what_is_newer_wins_each_part_for_itself(store: LatestStore) -> None:
    async def after(*puts: Price) -> Price:
        symbol = f"S{next(_names)}"
        for each in puts:
            await store.put_prices([each._replace(symbol=symbol)])
        return (await store.prices([symbol]))[symbol]._replace(symbol="")

    new, old = price("", 11, 200, 2.0), price("", 10, 100, 1.0)
    assert await after(old, new) == new
    assert await after(new, old) == new
    newer_quote = price("", 10, 300, 3.0)
    joined = new._replace(bid=newer_quote.bid, ask=newer_quote.ask, quote_us=300)
    assert await after(new, newer_quote) == joined
    assert await after(newer_quote, new) == joined
    corrected = price("", 11, 200, 2.5)
    assert await after(new, corrected) == corrected
    unquoted = Price("", 5.0, None, None, 1.0, 1, 12, 0)
    assert await after(new, unquoted) == unquoted._replace(bid=new.bid, ask=new.ask, quote_us=200)
    assert await after(unquoted, new) == unquoted._replace(bid=new.bid, ask=new.ask, quote_us=200)
    quoted_only = Price("", None, 7.0, 8.0, None, 1, -1, 900)
    assert await after(quoted_only, old) == old._replace(bid=7.0, ask=8.0, quote_us=900)


async def test_what_is_newer_wins_whoever_writes_and_however_late(redis_server: RedisServer) -> None:
    """Two engines, and a flush that a hung server finds in its buffer after later ones."""
    ask(redis_server.port, b"FLUSHALL\r\n")
    one, two = (LatestRedis(redis_config(redis_server), SystemTime()) for _ in range(2))
    try:
        for number in range(1, 6):
            await one.put_prices([price("A", number, number)])
        await two.put_prices([price("A", 9, 9)])
        await one.put_prices([price("A", 7, 7)])
        assert (await one.prices(["A"]))["A"].trade_id == 9
        await one.put_prices([price("A", 10, 10)])
        await two.put_prices([price("A", 9, 9)])
        assert (await one.prices(["A"]))["A"].trade_id == 10
        await one.put_prices([price("A", 11, 11)])
        await one.put_prices([price("A", 12, 12)])
        late = one._token, one._number - 1, 1
        await one._put(["price:A"], [price_bytes(price("A", 11, 11))], b"", late)
        assert (await one.prices(["A"]))["A"].trade_id == 12
        ask(redis_server.port, b"DEL prices:writer\r\n")
        await one._put(["price:A"], [price_bytes(price("A", 11, 11))], b"", late)
        assert (await one.prices(["A"]))["A"].trade_id == 12
    finally:
        await one.close()
        await two.close()


async def test_ids_of_any_size_are_compared_as_numbers(store: LatestStore) -> None:
    highs = 10, 100_000_000, 6 * 10**10 + 1, 2**53 - 1
    for low, high in ((high - 1, high) for high in highs):
        symbol = f"I{high}"
        await store.put_prices([price(symbol, high, high)])
        await store.put_prices([price(symbol, low, low)])
        assert (await store.prices([symbol]))[symbol].trade_id == high


async def test_more_symbols_than_one_call_takes(store: LatestStore) -> None:
    many = [price(f"M{number}", number, 1, float(number)) for number in range(2_345)]
    levels = [Levels(each.symbol, 1.0, 2.0, 3.0, {"0": 2.0}, 1) for each in many]
    await store.put_prices(many, levels)
    found = await store.prices([each.symbol for each in many])
    assert list(found.values()) == many
    assert await store.levels("M2344") == levels[-1]._replace(symbol="M2344")


async def test_levels(store: LatestStore) -> None:
    first = Levels("BTCUSDT", 42.5, 100.0, 1.0, {"0": 100.0, "23.6": None}, 7)
    await store.put_prices([], [first])
    assert await store.levels("BTCUSDT") == first
    await store.put_prices([], [first._replace(level=1.0, trade_id=6)])
    assert await store.levels("BTCUSDT") == first
    again = first._replace(ath=200.0)
    await store.put_prices([], [again])
    assert await store.levels("BTCUSDT") == again
    assert await store.levels("ETHUSDT") is None


async def test_prices_expire_unless_they_are_put_again(brief: LatestStore) -> None:
    await brief.put_prices([price("A", 1, 1)], [Levels("A", 1.0, 1.0, 1.0, {}, 1)])
    assert await brief.prices(["A"])
    await gone(lambda: brief.prices(["A"]))
    await gone(lambda: brief.levels("A"))
    await brief.put_prices([price("A", 0, 0)])
    assert (await brief.prices(["A"]))["A"].trade_id == 0, "what has expired keeps nobody away"


async def test_what_is_in_part_older_prolongs_nothing(brief: LatestStore) -> None:
    """Else an engine that lost a trade, or one on another exchange, kept it alive for ever."""
    await brief.put_prices([price("A", 10, 1)])
    deadline = time.monotonic() + 30
    quote = 2
    kept = {10}
    while kept != {9}:
        await brief.put_prices([price("A", 9, quote)])
        quote += 1
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
        kept = {each.trade_id for each in (await brief.prices(["A"])).values()}


async def heard(listening: AsyncIterator[Any], tell: Any) -> Any:
    """The first that is heard, while it is told again and again."""

    async def first() -> Any:
        return await anext(listening)

    task = asyncio.create_task(first())
    async with asyncio.timeout(30):
        while not task.done():
            await tell()
            await asyncio.wait({task}, timeout=0.02)
    return task.result()


async def test_prices_are_published(store: LatestStore) -> None:
    listening = store.listen_prices()
    told = [price("BTCUSDT", 1, 2), Price('Ö"', None, 1.0, 2.0, None, 3, -1, 4)]
    await store.put_prices([price("SILENT", 1, 1)], publish=False)
    assert await heard(listening, lambda: store.put_prices(told)) == told


async def test_sessions(store: LatestStore) -> None:
    later = int(time.time() * 1e3) + 60_000
    for session in (SharedSession(7, later), SharedSession(None, later)):
        await store.put_session("abc", session)
        assert await store.session("abc") == session
    listening = store.listen_ended()
    assert await heard(listening, lambda: store.drop_session("abc")) == "abc"
    assert await store.session("abc") is None
    await store.put_session("old", SharedSession(7, later))
    await store.put_session("old", SharedSession(7, int(time.time() * 1e3) - 1))
    assert await store.session("old") is None
    await store.put_session("brief", SharedSession(7, int(time.time() * 1e3) + 100))
    await gone(lambda: store.session("brief"))


async def test_market_watches(store: LatestStore) -> None:
    assert await store.watched_by_all() == frozenset()
    await store.put_watches({"user:1": ["B", "A", "B"], "f00": ["C"], "user:2": []})
    assert await store.watch("user:1") == ["A", "B"]
    assert await store.watched_by_all() == {"A", "B", "C"}
    await store.put_watches({"user:1": ["D"], "f00": []})
    assert await store.watch("user:1") == ["D"]
    assert await store.watch("f00") == []
    assert await store.watched_by_all() == {"D"}
    await store.put_watches({f"user:{number}": [f"S{number}"] for number in range(1_234)})
    assert len(await store.watched_by_all()) == 1_234


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_watches_nobody_vouches_for_expire(kind: str, request: pytest.FixtureRequest) -> None:
    clock = SystemTime()
    found: LatestStore = LatestMemory(clock, watch_ttl_s=0.1)
    if kind == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        ask(server.port, b"FLUSHALL\r\n")
        found = LatestRedis(redis_config(server), clock, watch_ttl_s=0.1)
    try:
        await found.put_watches({"user:1": ["A"]})
        await gone(found.watched_by_all)
        await gone(lambda: found.watch("user:1"))
    finally:
        await found.close()


async def test_bars(store: LatestStore) -> None:
    await store.put_bars("BTCUSDT", "1m", b'{"bars":[]}')
    assert await store.bars("BTCUSDT", "1m") == b'{"bars":[]}'
    assert await store.bars("BTCUSDT", "5m") is None


async def test_bars_expire(brief: LatestStore) -> None:
    await brief.put_bars("BTCUSDT", "1h", b"x")
    await gone(lambda: brief.bars("BTCUSDT", "1h"))


async def test_a_batch_that_is_repeated_stands_in_the_stream_once(store: LatestStore) -> None:
    assert await store.stream_positions() == {}
    one, two = StreamBatch(7, 1, 10, b"\x00one\xff"), StreamBatch(7, 11, 12, b"two")
    assert await store.append(one)
    assert not await store.append(one)
    assert await store.append(two)
    assert not await store.append(one)
    assert not await store.append(two)
    other = StreamBatch(8, 13, 20, b"")
    assert await store.append(other)
    assert await store.stream_positions() == {7: 12, 8: 20}
    found = await store.read_stream()
    assert [batch for _, batch in found] == [one, two, other]
    assert [batch for _, batch in await store.read_stream(found[0][0], 1)] == [two]
    assert await store.read_stream(found[-1][0]) == []
    with pytest.raises(StoreError):
        await store.append(StreamBatch(7, 12, 13, b"overlaps"))


async def test_a_stream_that_is_gone_is_not_begun_by_chance(store: LatestStore) -> None:
    with pytest.raises(StoreError):
        await store.append(StreamBatch(7, 1, 1, b""), begins=False)
    assert await store.append(StreamBatch(7, 1, 1, b""))
    assert await store.append(StreamBatch(7, 2, 2, b""), begins=False)


async def test_symbols_of_the_stream(store: LatestStore) -> None:
    one, two = StreamSymbol(300, "BTCUSDT", 2, 5), StreamSymbol(4, 'Ö"', 8, 0)
    await store.put_symbols([])
    await store.put_symbols([one])
    await store.put_symbols([two])
    assert await store.stream_symbols() == [two, one]
    changed = one._replace(price_precision=3)
    await store.put_symbols([changed])
    assert await store.stream_symbols() == [two, changed]


async def test_the_stream_is_capped(store: LatestStore) -> None:
    for number in range(1, 401):
        await store.append(StreamBatch(7, number, number, b"x" * 100))
    found = await store.read_stream(count=1_000)
    assert 100 <= len(found) <= 200, "about as many as configured: Redis trims whole nodes"
    assert found[-1][1].last == 400


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from tradeback.stores import latest_memory

    monkeypatch.setattr(latest_memory, "SESSIONS_MAX", 10)
    monkeypatch.setattr(latest_memory, "STREAM_BYTES_MAX", 1_000)
    held = LatestMemory(SystemTime())
    later = int(time.time() * 1e3) + 60_000
    for number in range(50):
        await held.put_session(str(number), SharedSession(None, later))
        await held.append(StreamBatch(1, number + 1, number + 1, b"x" * 300))
    assert len(held._sessions) == 10
    assert await held.session("49") is not None
    assert len(await held.read_stream()) == 3
    listening = held.listen_prices()
    for number in range(latest_memory.LISTENER_MESSAGES_MAX + 5):
        await held.put_prices([price("A", number, 1)])
    assert (await anext(listening))[0].trade_id == 5, "who does not listen loses the oldest"
    await held.close()


def test_without_an_address_it_is_memory() -> None:
    assert isinstance(open_latest(Config(), SystemTime()), LatestMemory)


def test_a_missing_library_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("redis")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("tradeback.stores.latest_redis", "tradeback.stores.redis_client"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(StartupError, match=r"REDIS_ADDR .* pip install 'tradeback\[redis\]'"):
        latest_redis(Config(redis=RedisConfig(addr="localhost")), SystemTime())
