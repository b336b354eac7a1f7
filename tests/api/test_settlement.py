"""Settlements: nothing is settled without a proof, everything is told and kept."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.api.history_world import BEGIN_S, BTC, trades
from tests.api.test_gaps import Source
from tests.feed.harness import World
from tradeback.api import price_at
from tradeback.api import settlement as module
from tradeback.api.errors import ApiError
from tradeback.api.settlement import SettlementDesk
from tradeback.derive.completeness_gap import OPEN
from tradeback.model.errors import StoreError, TapeError
from tradeback.model.record import REPAIRED
from tradeback.stores.settlements_sqlite import SettlementsSqlite

ME = "my session"
PATH = "/api/v1/settlements"


class Hands:
    """A clock that a test moves."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def wall_ns(self) -> int:
        return int(self.now_s * 1e9)

    def steady_ns(self) -> int:
        return int(self.now_s * 1e9)


class Market:
    """A served tape with a ledger, a desk over it, and what its sockets heard."""

    def __init__(self, running: World, folder: Path) -> None:
        self.running, self.clock = running, Hands(BEGIN_S)
        running.context.clock = self.clock
        self.source = Source(folder, running)
        self.path = folder / "settlements.sqlite"
        self.store = SettlementsSqlite(self.path)
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.desk = SettlementDesk(running.context, self.store, self.push)
        running.context.settlements = self.desk

    def push(self, session: str, message: dict[str, Any]) -> int:
        self.told.append((session, message))
        return 1

    def trade(self, second: float, number: int) -> None:
        self.source.publish(trades([BEGIN_S + second], first_id=number))

    def sweep(self, now_s: float) -> None:
        self.source.ledger.sweep(int(now_s * 1e9))

    async def step(self) -> None:
        """What the desk does again and again, without its pauses."""
        self.desk._not_before_s.clear()
        await self.desk._step()

    async def status(self, identifier: str) -> str:
        found = await self.desk.find(identifier)
        assert found is not None
        return found.status


@pytest.fixture
async def market(served: World, tmp_path: Path) -> AsyncIterator[Market]:
    made = Market(served, tmp_path)
    yield made
    await made.desk.stop()
    made.store.close()
    made.source.store.close()


def at_ms(second: float) -> int:
    return int((BEGIN_S + second) * 1_000)


async def test_a_price_is_settled_once_its_time_has_passed_and_is_proved(market: Market) -> None:
    market.trade(1, 10)
    asked, new = await market.desk.take(ME, BTC, at_ms(5))
    assert new
    await market.step()
    assert await market.status(asked.id) == "waiting"
    market.trade(4.5, 11)
    await market.step()
    assert await market.status(asked.id) == "waiting", "the time has not passed in the market"
    market.trade(5.001, 12)
    await market.step()
    found = await market.desk.find(asked.id)
    assert found is not None
    assert (found.status, found.trade_id, found.trade_ms) == ("settled", 11, at_ms(4.5))
    assert found.price == 100.0 + (77 % 50) / 100
    ((session, message),) = market.told
    assert session == ME
    assert message["type"] == "settlement"
    assert message["data"]["proof"] == {
        "trade_id": 11, "trade_time": at_ms(4.5), "next_trade_id": 12, "next_trade_time": at_ms(5.001)
    }  # fmt: skip
    assert message["data"]["complete"] is True
    again, new = await market.desk.take(ME, BTC, at_ms(5))
    assert (again.id, new) == (asked.id, False)


async def test_of_trades_in_the_very_millisecond_the_last_counts(market: Market) -> None:
    market.trade(1, 10)
    market.source.publish(trades([BEGIN_S + 5.0001, BEGIN_S + 5.0009, BEGIN_S + 5.0011], first_id=11))
    asked, _ = await market.desk.take(ME, BTC, at_ms(5))
    await market.step()
    found = await market.desk.find(asked.id)
    assert found is not None
    assert (found.status, found.trade_id) == ("settled", 12)


async def test_what_is_missing_is_waited_for_and_then_counts(market: Market) -> None:
    market.trade(1, 10)
    market.trade(6, 12)
    market.sweep(BEGIN_S + 10)
    assert market.source.ledger.gaps(OPEN)
    asked, _ = await market.desk.take(ME, BTC, at_ms(5))
    for _ in range(3):
        await market.step()
        assert await market.status(asked.id) == "waiting"
    repaired = trades([BEGIN_S + 4], first_id=11)
    repaired["flags"] = REPAIRED
    market.source.publish(repaired)
    market.sweep(BEGIN_S + 11)
    await market.step()
    found = await market.desk.find(asked.id)
    assert found is not None
    assert (found.status, found.trade_id) == ("settled", 11), "not the price from before the repair"


async def test_what_is_missing_for_good_is_said(market: Market) -> None:
    market.trade(1, 10)
    market.trade(6, 12)
    market.sweep(BEGIN_S + 10)
    await market.desk.take(ME, BTC, at_ms(5))
    (gap,) = market.source.ledger.gaps(OPEN)
    market.source.ledger.give_up(gap, int((BEGIN_S + 20) * 1e9))
    await market.step()
    ((_, message),) = market.told
    data = message["data"]
    assert (data["status"], data["complete"], data["proof"]) == ("incomplete", False, None)
    assert (data["trade_id"], data["trade_time"]) == (10, at_ms(1))
    assert "missing" in data["reason"]


async def test_a_market_that_stands_still_is_waited_for_and_given_up_in_the_end(market: Market) -> None:
    market.trade(1, 10)
    market.trade(2, 11)
    asked, _ = await market.desk.take(ME, BTC, at_ms(5))
    market.clock.now_s += module.WAIT_S
    await market.step()
    assert await market.status(asked.id) == "waiting"
    market.clock.now_s += 60
    await market.step()
    found = await market.desk.find(asked.id)
    assert found is not None
    assert (found.status, found.trade_id) == ("incomplete", 11)
    assert found.reason


async def test_times_before_the_tape_have_no_price(market: Market) -> None:
    market.trade(100, 10)
    market.trade(101, 11)
    asked, _ = await market.desk.take(ME, BTC, at_ms(-50))
    assert (asked.status, asked.price) == ("incomplete", None)
    assert "no trade" in (asked.reason or "")


async def test_a_time_in_the_past_is_settled_at_once_and_its_answer_is_enough(market: Market) -> None:
    market.trade(1, 10)
    market.trade(6, 11)
    market.clock.now_s += 60
    asked, _ = await market.desk.take(ME, BTC, at_ms(5))
    assert (asked.status, asked.trade_id) == ("settled", 10)
    assert market.told == []
    await market.step()
    assert market.store.find(asked.id) == asked


async def test_many_of_one_time_are_settled_together_and_each_owner_is_told(market: Market) -> None:
    market.trade(1, 10)
    ids = [(await market.desk.take(f"session {number % 3}", BTC, at_ms(5)))[0].id for number in range(3)]
    ids += [(await market.desk.take("", BTC, at_ms(5)))[0].id for _ in range(2)]
    assert len(set(ids)) == 5, "what is nobody's is never shared"
    market.trade(9, 11)
    await market.step()
    assert {await market.status(one) for one in ids} == {"settled"}
    assert sorted(session for session, _ in market.told) == [f"session {number}" for number in range(3)]
    mine = await market.desk.listed("session 1", 10)
    assert [one.id for one in mine] == [ids[1]]


async def test_a_restart_goes_on_waiting_and_settles_nothing_before_the_repair(market: Market) -> None:
    """The time passes while the engine is away: its trades are missing, until they are fetched."""
    market.trade(1, 10)
    asked, _ = await market.desk.take(ME, BTC, at_ms(5))
    await market.desk.stop()
    market.store.close()
    market.store = SettlementsSqlite(market.path)
    market.desk = SettlementDesk(market.running.context, market.store, market.push)
    await market.desk.restore()
    market.trade(9, 13)
    market.sweep(BEGIN_S + 20)
    await market.step()
    assert await market.status(asked.id) == "waiting"
    repaired = trades([BEGIN_S + 4, BEGIN_S + 7], first_id=11)
    repaired["flags"] = REPAIRED
    market.source.publish(repaired)
    market.sweep(BEGIN_S + 21)
    market.desk.start()
    async with asyncio.timeout(30):
        while await market.status(asked.id) == "waiting":
            await asyncio.sleep(0.01)
    found = await market.desk.find(asked.id)
    assert found is not None
    assert (found.status, found.trade_id) == ("settled", 11)
    assert [owner for owner, _ in market.told] == [ME]


async def test_a_store_that_refuses_loses_nothing(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    market.trade(1, 10)
    asked, _ = await market.desk.take(ME, BTC, at_ms(5))
    market.trade(9, 11)
    put = market.store.put

    def refuse(*values: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(market.store, "put", refuse)
    with pytest.raises(StoreError):
        await market.step()
    assert market.desk.health().state == "degraded"
    assert await market.status(asked.id) == "settled"
    with pytest.raises(ApiError):
        await market.desk.take(ME, BTC, at_ms(6))
    monkeypatch.setattr(market.store, "put", put)
    await market.step()
    kept = market.store.find(asked.id)
    assert kept is not None
    assert kept.status == "settled"
    assert market.desk.health().state == "ok"


async def test_there_are_bounds(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PER_OWNER_MAX", 3)
    monkeypatch.setattr(module, "WAITING_MAX", 5)
    for second in range(3):
        await market.desk.take(ME, BTC, at_ms(100 + second))
    with pytest.raises(ApiError, match="too many") as refused:
        await market.desk.take(ME, BTC, at_ms(200))
    assert refused.value.status == 429
    assert int(refused.value.headers["Retry-After"]) > 0
    await market.desk.take("other", BTC, at_ms(1))
    await market.desk.take("another", BTC, at_ms(1))
    with pytest.raises(ApiError, match="too many"):
        await market.desk.take("third", BTC, at_ms(1))
    with pytest.raises(ApiError, match="year"):
        await market.desk.take("third", BTC, at_ms(400 * 86_400))


async def call(market: Market, method: str, path: str, **more: Any) -> tuple[int, Any, Any]:
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, market.running.http + path, **more) as answer,
    ):
        return answer.status, await answer.json(), answer.headers


async def test_over_http(market: Market) -> None:
    market.running.context.owner_of = lambda request: request.headers.get("X-Test-Session")
    mine = {"X-Test-Session": ME}
    market.trade(1, 10)
    body = {"symbol": "btcusdt", "time": at_ms(5)}
    status, made, headers = await call(market, "POST", PATH, json=body, headers=mine)
    assert status == 201
    assert headers["Location"] == f"{PATH}/{made['id']}"
    assert (made["status"], made["symbol"], made["time"]) == ("waiting", "BTCUSDT", at_ms(5))
    status, same, _ = await call(market, "POST", PATH, json=body, headers=mine)
    assert (status, same) == (200, made)
    market.trade(9, 11)
    await market.step()
    status, read, _ = await call(market, "GET", headers["Location"])
    assert (status, read["status"], read["trade_id"]) == (200, "settled", 10)
    status, listed, _ = await call(market, "GET", PATH, headers=mine)
    assert (status, [one["id"] for one in listed["settlements"]]) == (200, [made["id"]])
    assert (await call(market, "GET", PATH))[1] == {"settlements": []}
    assert (await call(market, "GET", f"{PATH}/nothing"))[0] == 404


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "JSON"),
        (b"[]", 400, "object"),
        (b'{"symbol":"BTCUSDT"}', 400, "time"),
        (b'{"time":5}', 400, "symbol"),
        (b'{"symbol":"BTCUSDT","time":"5"}', 400, "time"),
        (b'{"symbol":"BTCUSDT","time":-5}', 400, "time"),
        (b'{"symbol":"BTCUSDT","time":true}', 400, "time"),
        (b'{"symbol":"BTCUSDT","time":5.5}', 400, "time"),
        (b'{"symbol":"BTCUSDT","time":1e300}', 400, "time"),
        (b'{"symbol":7,"time":5}', 400, "symbol"),
        (b'{"symbol":"BTCUSDT","time":5,"price":7}', 400, "price"),
        (b'{"symbol":"NOPE","time":5}', 404, "NOPE"),
        (b"x" * 70_000, 413, "65536"),
    ],
)
async def test_bad_bodies_are_named(market: Market, body: bytes, status: int, words: str) -> None:
    got, answer, _ = await call(market, "POST", PATH, data=body)
    assert got == status
    assert words in answer["error"]["message"]


async def test_those_that_wait_for_a_repair_keep_nobody_else_waiting(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many look ready and are not; the one that is comes to its turn all the same."""
    monkeypatch.setattr(module, "LOOKED_AT_PER_STEP", 2)
    monkeypatch.setattr(module, "AGAIN_S", 0.0)
    market.trade(1, 10)
    market.trade(60, 12)
    market.sweep(BEGIN_S + 70)
    for second in range(5, 15):
        await market.desk.take(ME, BTC, at_ms(second))
    asked, _ = await market.desk.take(ME, BTC, at_ms(65))
    market.trade(80, 13)
    for _ in range(6):
        await market.desk._step()
    assert await market.status(asked.id) == "settled"
    assert len(market.desk._waiting) == 10


async def test_a_range_that_cannot_be_read_is_nobody_elses_trouble(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    market.trade(1, 10)
    market.trade(6, 11)
    torn = at_ms(2)

    async def torn_price_at(context: Any, symbol: Any, wanted_ms: int) -> Any:
        if wanted_ms == torn:
            raise TapeError("record 5 in /folder/tape is damaged")
        return await price_at.price_at(context, symbol, wanted_ms)

    monkeypatch.setattr(module, "price_at", torn_price_at)
    market.clock.now_s += 60
    damaged, _ = await market.desk.take(ME, BTC, torn)
    assert damaged.status == "waiting"
    good, _ = await market.desk.take(ME, BTC, at_ms(5))
    assert good.status == "settled"
    await market.step()
    assert await market.status(damaged.id) == "waiting"
    market.clock.now_s += module.WAIT_S + 1
    await market.step()
    found = await market.desk.find(damaged.id)
    assert found is not None
    assert (found.status, found.price) == ("incomplete", None)
    assert "cannot be read" in (found.reason or "")
    assert "/folder" not in (found.reason or "")


async def test_before_the_start_there_are_none(served: World) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{served.http}{PATH}/x") as answer:
            assert answer.status == 503
        served.context.no_settlements = "this is a replay"
        async with http.get(f"{served.http}{PATH}/x") as answer:
            assert answer.status == 404
            assert (await answer.json())["error"] == {"code": "disabled", "message": "this is a replay"}
