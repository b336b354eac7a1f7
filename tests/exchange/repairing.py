"""A market that a test makes, a REST that knows it and may lie, and all that repairs, on a real tape."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from aiohttp import web

from tests.derive.world import Trade
from tests.exchange.harness import CLOCK, QUICK, Desk, desk, until
from tests.exchange.test_rest import answering
from tradeback.derive.completeness_gap import OPEN, Gap
from tradeback.derive.state import Derived
from tradeback.exchange.repair import Repair
from tradeback.exchange.repair_gaps import GapKeeper
from tradeback.exchange.rest import Rest
from tradeback.model.record import AGG, BUYER_MAKER, REPAIRED, ROW_BYTES, STAND_IN, TRADE, Rows, empty_rows
from tradeback.model.symbols import Symbol
from tradeback.stores.gaps_sqlite import GapQuery, GapsSqlite

BTC = Symbol(1, "BTCUSDT", "BTC", "USDT", tick_size="0.01000000", step_size="0.00010000")
ETH = Symbol(2, "ETHUSDT", "ETH", "USDT", tick_size="0.01000000", step_size="0.00010000")
SYMBOLS = (BTC, ETH)
CONFIG = msgspec.structs.replace(QUICK, gap_after_s=0.000_001)


def market(count: int, *, first_id: int = 1000, seed: int = 1, symbol_id: int = 1, pause_us: int = 700_000,
           end_us: int | None = None) -> list[Trade]:  # fmt: skip
    """Trades by rising id and time, the last one just now."""
    rng = random.Random(seed)
    time_us = (end_us or CLOCK.wall_ns() // 1_000) - count * pause_us
    trades = []
    for number in range(first_id, first_id + count):
        time_us += rng.randrange(1, 2 * pause_us)
        price, quantity = (
            f"{rng.randrange(10**6, 2 * 10**6) / 100:.2f}",
            f"{rng.randrange(1, 10**6) / 10**4:.4f}",
        )
        trades.append(Trade(number, time_us, price, quantity, rng.random() < 0.5, symbol_id))
    return trades


def trade_rows(trades: list[Trade]) -> Rows:
    """As a line brings them."""
    rows = empty_rows(len(trades))
    for row, trade in zip(rows, trades, strict=True):
        row["kind"], row["symbol_id"], row["id"] = TRADE, trade.symbol_id, trade.id
        row["exchange_us"], row["price"], row["quantity"] = (
            trade.time_us,
            float(trade.price),
            float(trade.quantity),
        )
        row["flags"] = BUYER_MAKER if trade.buyer_maker else 0
    rows["recv_ns"] = CLOCK.wall_ns()
    return rows


def aggregates(trades: list[Trade], *, first_id: int = 50, size: int = 3) -> Rows:
    """Aggregates that tile the trades, `size` of them in each."""
    groups = [trades[at : at + size] for at in range(0, len(trades), size)]
    rows = empty_rows(len(groups))
    for number, (row, group) in enumerate(zip(rows, groups, strict=True)):
        row["kind"], row["symbol_id"], row["id"] = AGG, group[0].symbol_id, first_id + number
        row["exchange_us"], row["price"] = group[-1].time_us, float(group[0].price)
        row["quantity"] = float(sum(Decimal(trade.quantity) for trade in group))
        row["ask"], row["ask_quantity"] = group[0].id, group[-1].id
    rows["recv_ns"] = CLOCK.wall_ns()
    return rows


Answer = Callable[[web.Request], web.Response | None]


class Books:
    """What REST knows of the market; `hidden` ids it has never heard of, and `behind` newest ones not yet."""

    def __init__(self, trades: list[Trade], aggs: Rows | None = None) -> None:
        self.trades = {name: [t for t in trades if t.symbol_id == symbol.id]
                       for symbol in SYMBOLS for name in (symbol.symbol,)}  # fmt: skip
        self.aggs = aggs if aggs is not None else empty_rows(0)
        self.hidden: set[int] = set()
        self.behind = 0
        self.answers: list[Answer] = []
        """Asked before the books; the first that answers is taken away."""
        self.asked: list[tuple[str, dict[str, str]]] = []

    def __call__(self, request: web.Request) -> web.Response:
        path, query = request.path.removeprefix("/api/v3/"), dict(request.query)
        self.asked.append((path, query))
        assert request.headers["X-MBX-TIME-UNIT"] == "MICROSECOND"
        if self.answers:
            answer = self.answers.pop(0)(request)
            if answer is not None:
                return answer
        assert int(query["limit"]) <= 1_000
        known = self.trades[query["symbol"]]
        known = known[: len(known) - self.behind]
        if path == "historicalTrades":
            page = [
                trade for trade in known if trade.id >= int(query["fromId"]) and trade.id not in self.hidden
            ]
            return web.json_response([self.trade(trade) for trade in page[: int(query["limit"])]])
        assert path == "aggTrades"
        rows = [row for row in self.aggs if int(row["id"]) not in self.hidden]
        if "fromId" in query:
            rows = [row for row in rows if row["id"] >= int(query["fromId"])]
        else:
            rows = [row for row in rows if row["exchange_us"] >= 1_000 * int(query["startTime"])]
        return web.json_response([self.agg(row) for row in rows[: int(query["limit"])]])

    @staticmethod
    def trade(trade: Trade) -> dict[str, Any]:
        return {"id": trade.id, "price": trade.price, "qty": trade.quantity, "quoteQty": "1.0",
                "time": trade.time_us, "isBuyerMaker": trade.buyer_maker, "isBestMatch": True}  # fmt: skip

    @staticmethod
    def agg(row: np.void) -> dict[str, Any]:
        return {
            "a": int(row["id"]),
            "p": str(row["price"]),
            "q": str(row["quantity"]),
            "f": int(row["ask"]),
            "l": int(row["ask_quantity"]),
            "T": int(row["exchange_us"]),
            "m": False,
            "M": True,
        }


class Shop:
    """Tape, derived series, ledger and repair of one run of an engine."""

    def __init__(self, made: Desk, store: GapsSqlite, rest: Rest, **options: Any) -> None:
        self.desk, self.store = made, store
        config = msgspec.structs.replace(CONFIG, **options)
        self.derived = Derived(4)
        for symbol in SYMBOLS:
            self.derived.add_symbol(symbol)
        tape = made.tape
        made.intake.readers.append(
            lambda first, count: self.derived.on_rows(
                tape.rows_address + (first & (tape.hot_rows - 1)) * ROW_BYTES, count
            )
        )
        self.keeper = GapKeeper(made.intake, store, CLOCK, config.gap_after_s, made.log)
        made.intake.restore(tape.read(tape.oldest_sequence, 1 << 20))
        self.restored = self.keeper.restore()
        self.repair = Repair(self.keeper, made.intake, rest, made.symbols, CLOCK, config, made.log)
        self.failed: list[BaseException] = []

    def watch(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed.append(error)

    def start(self) -> "Shop":
        self.keeper.start(self.watch)
        self.repair.start(self.watch)
        return self

    async def stop(self) -> None:
        await self.repair.stop()
        await self.keeper.stop()
        assert self.failed == []

    async def settled(self, gaps: int = 1, within_s: float = 10.0) -> None:
        """Until that many gaps have been opened, and none is open any more."""
        ledger = self.keeper.ledger
        await until(lambda: self.failed or (ledger.opened >= gaps and not ledger.gaps(OPEN)), within_s)
        assert self.failed == []

    async def gaps(self, **query: Any) -> list[Gap]:
        return await self.keeper.find(GapQuery(**query))

    @property
    def held(self) -> Rows:
        """Everything on the tape, also from earlier runs."""
        return self.desk.tape.read(self.desk.tape.oldest_sequence, 1 << 20)

    def ids(self, kind: int = TRADE, symbol_id: int = 1) -> list[int]:
        """Ids on the tape in tape order, stand-ins left out."""
        rows = self.held
        mine = (rows["kind"] == kind) & (rows["symbol_id"] == symbol_id) & (rows["flags"] & STAND_IN == 0)
        return [int(number) for number in rows["id"][mine]]

    def repaired(self) -> list[int]:
        rows = self.held
        return [
            int(number) for number in rows["id"][(rows["flags"] & REPAIRED != 0) & (rows["kind"] == TRADE)]
        ]


@asynccontextmanager
async def shop(folder: Path, books: Books, *, hot_rows: int = 1 << 14, **options: Any) -> AsyncIterator[Shop]:
    """One run of an engine's repairing half; the store and the tape stay in `folder`."""
    store = GapsSqlite(folder / "gaps.sqlite")
    async with answering(books) as (rest, _):
        with desk(folder, hot_rows=hot_rows, symbols=SYMBOLS) as made:
            made.intake.readers.clear()
            running = Shop(made, store, rest, **options)
            try:
                yield running
            finally:
                await running.stop()
    store.close()
