"""exchange.catalogue: descriptions of symbols that come later; names that do not exist are asked for once."""

from typing import Any

import pytest
from aiohttp import web

from tests.exchange.harness import CLOCK
from tests.exchange.test_rest import answering
from tradeback.exchange.catalogue import ASKS_AT_ONCE, UNKNOWN_MAX, UNKNOWN_S, Catalogue
from tradeback.exchange.rest import NoExchange, Rest
from tradeback.model.errors import ExchangeError
from tradeback.sim.config import SimConfig
from tradeback.sim.market import Synthetic
from tradeback.sim.server import SimServer
from tradeback.stores.ports import SymbolRecord


def record(name: str) -> SymbolRecord:
    return SymbolRecord(name, "", "", True, "0.01", "0.01", "5", "0.01", "9000")


class Exchange:
    """REST of an exchange with these symbols."""

    def __init__(self, *names: str) -> None:
        self.names, self.asked = set(names), list[str]()
        self.error: ExchangeError | None = None

    async def symbol(self, name: str) -> SymbolRecord | None:
        self.asked.append(name)
        if self.error is not None:
            raise self.error
        return record(name) if name in self.names else None


class Hours:
    """A steady clock that a test sets."""

    now_ns = 1

    def steady_ns(self) -> int:
        return self.now_ns

    def wall_ns(self) -> int:
        return self.now_ns


def catalogue(exchange: Any, *names: str) -> tuple[Catalogue, Hours]:
    clock = Hours()
    return Catalogue(exchange, map(record, names), clock), clock


async def test_what_the_start_has_learnt_is_not_asked_for() -> None:
    exchange = Exchange()
    made, _ = catalogue(exchange, "BTCUSDT", "ETHUSDT")
    found = await made.find(["ETHUSDT", "BTCUSDT"])
    assert [one.symbol for one in found.records] == ["ETHUSDT", "BTCUSDT"]
    assert (found.unknown, found.left, found.error, exchange.asked) == ([], [], None, [])
    assert made.lists("BTCUSDT")
    assert not made.lists("NEWUSDT")


async def test_others_are_asked_for_once() -> None:
    exchange = Exchange("NEWUSDT")
    made, clock = catalogue(exchange)
    for _ in range(3):
        found = await made.find(["NEWUSDT", "NOPEUSDT"])
        assert [one.symbol for one in found.records] == ["NEWUSDT"]
        assert found.unknown == ["NOPEUSDT"]
    assert exchange.asked == ["NEWUSDT", "NOPEUSDT"]
    exchange.names.add("NOPEUSDT")
    clock.now_ns += int(UNKNOWN_S * 1e9)
    assert [one.symbol for one in (await made.find(["NOPEUSDT"])).records] == ["NOPEUSDT"]
    assert made.lists("NOPEUSDT")


async def test_names_that_no_kernel_can_read_are_not_asked_for() -> None:
    exchange = Exchange("X" * 30)
    made, _ = catalogue(exchange)
    names = ["X" * 30, "", 'A"B', "A\nB"]
    assert (await made.find(names)).unknown == names
    assert exchange.asked == []


async def test_a_few_at_a_time() -> None:
    names = [f"S{number}" for number in range(2 * ASKS_AT_ONCE + 1)]
    exchange = Exchange(*names)
    made, _ = catalogue(exchange, "BTCUSDT")
    found = await made.find([*names, "BTCUSDT"])
    assert len(found.records) == ASKS_AT_ONCE + 1
    assert len(found.left) == ASKS_AT_ONCE + 1
    assert not (await made.find(found.left[:ASKS_AT_ONCE])).left
    assert len(exchange.asked) == 2 * ASKS_AT_ONCE


async def test_an_exchange_that_is_away_keeps_nobody_else_waiting() -> None:
    exchange = Exchange("NEWUSDT")
    exchange.error = ExchangeError("away")
    made, _ = catalogue(exchange, "BTCUSDT")
    found = await made.find(["NEWUSDT", "OTHERUSDT", "BTCUSDT"])
    assert [one.symbol for one in found.records] == ["BTCUSDT"]
    assert found.left == ["NEWUSDT", "OTHERUSDT"]
    assert found.error is exchange.error
    assert exchange.asked == ["NEWUSDT"], "it is asked no more in this round"
    exchange.error = None
    assert len((await made.find(["NEWUSDT"])).records) == 1


async def test_what_is_remembered_is_bounded() -> None:
    made, _ = catalogue(Exchange())
    for number in range(UNKNOWN_MAX + 10):
        made._remember(f"N{number}")
    assert len(made._unknown) == UNKNOWN_MAX
    assert not made._is_unknown("N9")
    assert made._is_unknown("N10")


async def test_one_symbol_of_the_simulated_exchange() -> None:
    server = await SimServer.start(Synthetic(4, 10.0, unicode_names=True), SimConfig())
    rest = Rest(server.rest_url, CLOCK)
    try:
        every = {one.symbol: one for one in await rest.symbols()}
        for name in server.source.books:
            assert await rest.symbol(name) == every[name]
        assert await rest.symbol("NOPEUSDT") is None
        assert await rest.symbol("BTC USDT") is None
        assert await rest.symbol("NOPE币USDT") is None
    finally:
        await rest.close()
        await server.stop()


@pytest.mark.parametrize("body", [[], {}, {"symbols": [{"name": "X"}]}, {"symbols": 3}])
async def test_one_symbol_of_something_else(body: Any) -> None:
    async with answering(lambda request: web.json_response(body)) as (rest, _):
        with pytest.raises(NoExchange):
            await rest.symbol("BTCUSDT")
