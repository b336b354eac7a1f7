"""exchange.backfill: what is lacking is fetched once, in pages from the newest on, within the weight."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.exchange.harness import CLOCK, Logbook
from tradeback.derive.lacking import Span
from tradeback.derive.layout import RESOLUTION_S, resolution_index
from tradeback.exchange import backfill
from tradeback.exchange.backfill import Backfill
from tradeback.exchange.backoff import Backoff
from tradeback.exchange.rest import Rest
from tradeback.model.symbols import Symbol
from tradeback.stores.series_sqlite import SeriesSqlite

BTC = Symbol(1, "BTCUSDT", step_size="0.00001")
MINUTE = resolution_index("1m")
NEWEST_S = 1_700_000_040
WAIT_S = 30.0


class Books:
    """An exchange's klines: every minute of [first_s, NEWEST_S) but those in `holes`."""

    def __init__(self, first_s: int, holes: Iterable[int] = ()) -> None:
        self.first_s, self.holes = first_s, set(holes)
        self.asked: list[dict[str, str]] = []
        self.answers: list[Callable[[], web.Response]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def answer(self, request: web.Request) -> web.Response:
        query = dict(request.query)
        self.asked.append(query)
        await self.gate.wait()
        if self.answers:
            return self.answers.pop(0)()
        step = RESOLUTION_S[resolution_index(query["interval"])]
        end_s, limit = int(query["endTime"]) // 1_000, int(query["limit"])
        newest = end_s - end_s % step
        slots = [at for at in range(self.first_s, newest + step, step) if at not in self.holes][-limit:]
        return web.json_response([self.kline(slot, step) for slot in slots])

    @staticmethod
    def kline(slot_s: int, step: int) -> list[Any]:
        price = f"{slot_s % 1000 + 1}.0"
        start = slot_s * 1000
        return [
            start,
            price,
            price,
            price,
            price,
            "1.5",
            start + step * 1000 - 1,
            "1.0",
            3,
            "0.5",
            "1.0",
            "0",
        ]


@asynccontextmanager
async def filling(
    books: Books, folder: Path, newest_s: int = NEWEST_S
) -> AsyncIterator[tuple[Backfill, SeriesSqlite]]:
    store = SeriesSqlite(folder / "series.sqlite")
    application = web.Application()
    application.router.add_get("/api/v3/klines", books.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    rest = Rest(f"http://127.0.0.1:{runner.addresses[0][1]}/", CLOCK)
    made = Backfill(rest, store, CLOCK, lambda: newest_s * 1_000_000, Logbook())
    try:
        yield made, store
    finally:
        await made.close()
        await rest.close()
        await runner.cleanup()
        store.close()


def slots_of(store: SeriesSqlite) -> list[int]:
    rows = store.range(1, MINUTE, 0, 1 << 40, 100_000)
    return [int(slot) // 1_000_000 for slot in rows["slot_us"]]


async def test_a_span_is_fetched_once_in_pages_from_the_newest_on(tmp_path: Path) -> None:
    first_s = NEWEST_S - 6_000 * 60
    books = Books(first_s)
    async with filling(books, tmp_path) as (made, store):
        span = Span(NEWEST_S - 2_500 * 60, NEWEST_S - 100 * 60)
        assert await made.fill(BTC, MINUTE, [span], 5_000, WAIT_S)
        assert slots_of(store) == list(range(span.from_s, span.to_s, 60))
        ends = [int(query["endTime"]) for query in books.asked]
        assert ends == sorted(ends, reverse=True)
        assert [query["limit"] for query in books.asked] == ["1000", "1000", "400"]
        assert made.generation(1, MINUTE) == 3
        assert await made.fill(BTC, MINUTE, [span, Span(span.to_s - 600, span.to_s)], 5_000, WAIT_S)
        assert len(books.asked) == 3
    async with filling(books, tmp_path) as (made, store):
        assert await made.fill(BTC, MINUTE, [span], 5_000, WAIT_S)
        assert len(books.asked) == 3, "a restart remembers what was asked for"


async def test_so_many_bars_are_enough_and_the_left_end_is_learned(tmp_path: Path) -> None:
    first_s = NEWEST_S - 2_300 * 60
    books = Books(first_s)
    async with filling(books, tmp_path) as (made, store):
        everything = Span(0, NEWEST_S - 120)
        assert await made.fill(BTC, MINUTE, [everything], 700, WAIT_S)
        assert len(books.asked) == 1
        assert len(slots_of(store)) == 1_000
        assert await made.fill(BTC, MINUTE, [everything], 20_000, WAIT_S)
        assert slots_of(store)[0] == first_s
        assert len(books.asked) == 3
        assert await made.unknown(BTC, MINUTE, [everything]) == []
        assert await made.fill(BTC, MINUTE, [everything], 20_000, WAIT_S)
        assert len(books.asked) == 3


async def test_holes_of_the_exchange_are_asked_for_once(tmp_path: Path) -> None:
    holes = set(range(NEWEST_S - 500 * 60, NEWEST_S - 300 * 60, 60))
    books = Books(NEWEST_S - 6_000 * 60, holes)
    async with filling(books, tmp_path) as (made, store):
        span = Span(NEWEST_S - 450 * 60, NEWEST_S - 400 * 60)
        assert await made.fill(BTC, MINUTE, [span], 100, WAIT_S)
        assert await made.fill(BTC, MINUTE, [span], 100, WAIT_S)
        assert len(books.asked) == 1
        assert all(slot not in holes for slot in slots_of(store))


async def test_many_who_ask_at_once_are_answered_by_one_request(tmp_path: Path) -> None:
    books = Books(NEWEST_S - 6_000 * 60)
    books.gate.clear()
    async with filling(books, tmp_path) as (made, _):
        span = Span(NEWEST_S - 500 * 60, NEWEST_S - 100 * 60)
        asking = [asyncio.create_task(made.fill(BTC, MINUTE, [span], 400, WAIT_S)) for _ in range(20)]
        later = asyncio.create_task(made.fill(BTC, MINUTE, [Span(span.from_s + 60, span.to_s)], 400, WAIT_S))
        while not books.asked:
            await asyncio.sleep(0.001)
        health = made.health()
        assert health.details is not None
        assert health.details["jobs"][0]["symbol"] == "BTCUSDT"
        assert health.details["jobs"][0]["pages_left"] == 1
        assert "backfills" in (health.last_error or "")
        books.gate.set()
        assert all(await asyncio.gather(*asking, later))
        assert len(books.asked) == 1
        assert made.health().state == "ok"


async def test_who_does_not_want_to_wait_is_told_and_the_work_goes_on(tmp_path: Path) -> None:
    books = Books(NEWEST_S - 6_000 * 60)
    books.gate.clear()
    async with filling(books, tmp_path) as (made, store):
        span = Span(NEWEST_S - 500 * 60, NEWEST_S - 100 * 60)
        assert not await made.fill(BTC, MINUTE, [span], 400, 0.01)
        books.gate.set()
        assert await made.fill(BTC, MINUTE, [span], 400, WAIT_S)
        assert len(slots_of(store)) == 400


async def test_an_exchange_that_refuses_is_left_alone_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "RETRY", Backoff(0.001, 0.002))
    books = Books(NEWEST_S - 6_000 * 60)
    books.answers = [lambda: web.Response(status=500)] * backfill.ATTEMPTS_MAX
    async with filling(books, tmp_path) as (made, _):
        span = Span(NEWEST_S - 500 * 60, NEWEST_S - 100 * 60)
        assert not await made.fill(BTC, MINUTE, [span], 400, WAIT_S)
        assert made.health().state == "degraded"
        asked = len(books.asked)
        assert not await made.fill(BTC, MINUTE, [span], 400, WAIT_S)
        assert len(books.asked) == asked
        monkeypatch.setattr(made, "_not_before_ns", {})
        assert await made.fill(BTC, MINUTE, [span], 400, WAIT_S)
        assert made.health().state == "ok"


async def test_a_limit_of_the_exchange_is_waited_for(tmp_path: Path) -> None:
    books = Books(NEWEST_S - 6_000 * 60)
    limit = {"Retry-After": "1"}
    books.answers = [lambda: web.json_response({"code": -1003, "msg": "slow"}, status=429, headers=limit)]
    async with filling(books, tmp_path) as (made, store):
        span = Span(NEWEST_S - 500 * 60, NEWEST_S - 100 * 60)
        assert await made.fill(BTC, MINUTE, [span], 400, WAIT_S)
        assert len(slots_of(store)) == 400


async def test_the_running_bar_is_not_stored_and_a_trailing_database_is_asked_again(tmp_path: Path) -> None:
    books = Books(NEWEST_S - 6_000 * 60, holes={NEWEST_S - 60, NEWEST_S})
    async with filling(books, tmp_path, NEWEST_S + 30) as (made, store):
        span = Span(NEWEST_S - 300, NEWEST_S + 60)
        await made.fill(BTC, MINUTE, [span], 400, WAIT_S)
        assert slots_of(store)[-2:] == [NEWEST_S - 180, NEWEST_S - 120]
        missing = await made.unknown(BTC, MINUTE, [Span(NEWEST_S - 300, NEWEST_S)])
        assert missing == [Span(NEWEST_S - 60, NEWEST_S)]
        books.holes = set()
        await made.fill(BTC, MINUTE, missing, 400, WAIT_S)
        assert NEWEST_S - 60 in slots_of(store)
        assert NEWEST_S not in slots_of(store), "it has not closed"


async def test_klines_that_history_stored_are_not_fetched_again(tmp_path: Path) -> None:
    books = Books(NEWEST_S - 6_000 * 60)
    async with filling(books, tmp_path) as (made, store):
        assert await made.unknown(BTC, MINUTE, [Span(0, NEWEST_S)])
        store.cover(1, MINUTE, 0, NEWEST_S)
        made.note(1, MINUTE, 0, NEWEST_S)
        assert await made.fill(BTC, MINUTE, [Span(0, NEWEST_S)], 400, WAIT_S)
        assert books.asked == []
        assert made.generation(1, MINUTE) == 1
