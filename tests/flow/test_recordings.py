"""The real recordings through the whole engine: tape, feed, bars, Enigma, prices against the oracle.

In real time one whole recording is played, two minutes of two symbols. TRADEBACK_FLOW=quick plays 12 s of it
instead, TRADEBACK_FLOW=full all recordings, eight minutes (`make flow-full`).
"""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from tests.flow import oracle
from tests.flow.oracle import Recorded
from tests.flow.replaying import compare_with_replay, joined, replay, replayed_bars, symbols_of, trades_of
from tests.flow.running import Engine, running_engine, until
from tests.flow.watching import Watcher, exact
from tradeback.model.record import AGG, BUYER_MAKER, LINE_MASK, QUOTE, SEED_BAR, Rows
from tradeback.sim.config import SimConfig
from tradeback.sim.recording import Recording
from tradeback.sim.server import SimServer

FILES = "*2024*"
SHORTEST = "*20240809*"
HOW = os.environ.get("TRADEBACK_FLOW", "")
STREAMS = 6
"""Two symbols on three stream kinds; twice that on two lines."""
SECOND_NS = 1_000_000_000
KLINES_MAX = 1_000
LARGE_BUFFER = "8MiB"
"""As fast as it goes is faster than a Python client reads: let the socket hold what conflation would."""


@pytest.fixture(scope="session")
def files(shared_folder: Path) -> list[Path]:
    return sorted((shared_folder / "data/binance/spot_ws").glob(FILES))


def around_midnight(files: list[Path], before_s: int, after_s: int, folder: Path) -> Path:
    """A slice in which bars of every resolution end: the recording goes on past 00:00 UTC."""
    midnight_ns = min(next(oracle.lines_of(file))[0] for file in files if "20240809" in file.name)
    return oracle.cut(files, midnight_ns - before_s * SECOND_NS, midnight_ns + after_s * SECOND_NS, folder)


def in_real_time(files: list[Path], folder: Path) -> tuple[Path, float]:
    """What is played at the speed it was recorded with, and how many seconds that takes at least."""
    if HOW == "full":
        return files[0].parent, 460
    if HOW == "quick":
        return around_midnight(files, 6, 6, folder), 11
    folder.mkdir()
    for file in files:
        if file.match(SHORTEST):
            (folder / file.name).symlink_to(file)
    return folder, 118


@dataclass
class Show:
    """One recording, played to an engine."""

    folder: Path
    exchange: SimServer
    engine: Engine
    recorded: dict[str, Recorded]

    def rows(self) -> Rows:
        return joined(self.engine.tape())

    def ids(self) -> dict[str, int]:
        return {name: symbol.id for name, symbol in symbols_of(self.engine.data_dir).items()}

    async def duplicates(self, stream: str) -> float:
        """Messages of a stream that were dropped because they had been seen."""
        async with aiohttp.ClientSession(self.engine.url) as http, http.get("/metrics") as answer:
            found = re.search(
                rf'^tradeback_ingest_duplicates_total{{stream="{stream}"}} (\S+)$', await answer.text(), re.M
            )
        assert found is not None
        return float(found[1])

    async def klines(self, symbol: str, interval: str) -> list[list[Any]]:
        """What the exchange itself says."""
        query = {"symbol": symbol, "interval": interval, "limit": str(KLINES_MAX)}
        async with (
            aiohttp.ClientSession(self.exchange.rest_url) as http,
            http.get("/api/v3/klines", params=query) as answer,
        ):
            assert answer.status == 200
            found: list[list[Any]] = await answer.json()
            return found


@asynccontextmanager
async def playing(
    folder: Path, data_dir: Path, speed: float, *, lines: int = 1, begins_by_itself: bool = False
) -> AsyncIterator[Show]:
    """Exchange and engine, both ready. The market stands until `play`, or until all is subscribed."""
    recorded = oracle.read(folder.glob(FILES))
    streams = lines * STREAMS
    config = SimConfig(speed=speed, start_after_streams=streams if begins_by_itself else -1)
    exchange = await SimServer.start(Recording(folder, files=FILES), config)
    try:
        where = {"ws": exchange.ws_url, "rest": exchange.rest_url}
        variables = {"FEED_SEND_BUFFER_BYTES": LARGE_BUFFER, "EXCHANGE_LINES": str(lines)}
        async with running_engine(data_dir, where, **variables) as engine:
            await until(lambda: exchange.hub.subscriptions == streams, "the engine's subscriptions")
            yield Show(folder, exchange, engine, recorded)
    finally:
        await exchange.stop()


async def play_and_compare(folder: Path, data_dir: Path, speed: float, timeout_s: float) -> float:
    """The whole comparison; returns how many seconds the market took."""
    async with playing(folder, data_dir, speed) as show:
        watcher = await Watcher.subscribe(show.engine.feed_url)
        begun = time.monotonic()
        show.exchange.play()
        expected = sum(len(one.trades) for one in show.recorded.values())
        await watcher.saw(expected, timeout_s, strict=False)
        await show.exchange.finished()
        took = time.monotonic() - begun
        await show.engine.history_complete()
        await everything_on_tape(show)
        check_tape(show)
        check_feed(show, watcher)
        assert watcher.count == expected
        for symbol in show.recorded:
            await check_bars(show, symbol)
            await check_prices(show, symbol)
        await watcher.close()
        await show.engine.stop()
        check_replay(show)
        return took


async def everything_on_tape(show: Show) -> None:
    """Until quotes and the last aggregate, which the exchange holds back, are there."""
    expected = sum(len(one.trades) + len(one.quotes) for one in show.recorded.values())
    last_ids = {one.trades[-1].id for one in show.recorded.values()}

    def done() -> bool:
        rows = show.rows()
        certified = set(rows["ask_quantity"][rows["kind"] == AGG].astype(np.int64).tolist())
        return last_ids <= certified and int((rows["kind"] <= QUOTE).sum()) >= expected

    await until(done, "the whole recording on the tape", strict=False)


def check_tape(show: Show) -> None:
    """Every trade and quote once, in order, exact; aggregates certify all of it and count nowhere."""
    rows, ids = show.rows(), show.ids()
    for name, recorded in show.recorded.items():
        mine = rows[rows["symbol_id"] == ids[name]]
        trades = trades_of(rows, ids[name])
        for row, trade in zip(trades, recorded.trades, strict=False):
            assert int(row["id"]) == trade.id, f"{name}: the tape has {row['id']} where {trade.id} belongs"
            assert exact(float(row["price"])) == Decimal(trade.price), f"{name} {trade}: {row}"
            assert exact(float(row["quantity"])) == Decimal(trade.quantity), f"{name} {trade}: {row}"
            assert int(row["exchange_us"]) == trade.time_ms * 1_000, f"{name} {trade}: {row}"
            flags = int(row["flags"]) & ~LINE_MASK
            assert flags == (BUYER_MAKER if trade.maker else 0), f"{name} {trade}: flags {flags:b}"
        missing = [trade.id for trade in recorded.trades[len(trades) :]]
        assert not missing, f"{name}: {len(missing)} trades are not on the tape, from {missing[0]} on"
        assert len(trades) == len(recorded.trades), f"{name}: more trades than recorded, {trades[-1]}"
        check_quotes(name, mine[mine["kind"] == QUOTE], recorded)
        check_aggregates(name, mine[mine["kind"] == AGG], recorded)


def check_quotes(name: str, quotes: Rows, recorded: Recorded) -> None:
    assert len(quotes) == len(recorded.quotes), f"{name}: {len(quotes)} of {len(recorded.quotes)} quotes"
    columns = ("price", "quantity", "ask", "ask_quantity")
    for row, quote in zip(quotes, recorded.quotes, strict=True):
        assert int(row["id"]) == quote.id, f"{name}: u {row['id']} where {quote.id} belongs"
        for column, text in zip(columns, quote[1:], strict=True):
            assert exact(float(row[column])) == Decimal(text), f"{name} {quote}: {row}"


def check_aggregates(name: str, aggregates: Rows, recorded: Recorded) -> None:
    following = recorded.trades[0].id
    for row in aggregates:
        assert int(row["ask"]) == following, f"{name}: aggregate {row['id']} begins at {row['ask']}"
        following = int(row["ask_quantity"]) + 1
    assert following == recorded.trades[-1].id + 1, f"{name}: certified up to {following - 1}"


def check_feed(show: Show, watcher: Watcher) -> None:
    """The subscriber has seen every trade once, in order, exact, and the volumes add up."""
    seen = watcher.by_symbol()
    for name, recorded in show.recorded.items():
        for (price, volume), trade in zip(seen[name], recorded.trades, strict=False):
            assert exact(price) == Decimal(trade.price), f"{name}: {price} where {trade} belongs"
            assert exact(volume) == Decimal(trade.quantity), f"{name}: {volume} where {trade} belongs"
        assert len(seen[name]) == len(recorded.trades), f"{name}: {recorded.trades[len(seen[name]) :][:1]}"
        total = sum((exact(volume) for _, volume in seen[name]), Decimal())
        assert total == sum((Decimal(trade.quantity) for trade in recorded.trades), Decimal())


async def check_bars(show: Show, symbol: str) -> None:
    """Every bar of the API equals the exchange's kline; those inside the recording its trades as well."""
    rows, number = show.rows(), show.ids()[symbol]
    recorded = show.recorded[symbol]
    (boundary,) = rows[(rows["kind"] == SEED_BAR) & (rows["id"] < 0) & (rows["symbol_id"] == number)]
    boundary_s = int(boundary["exchange_us"]) // 1_000_000
    first_s = recorded.trades[0].time_ms // 1_000
    for resolution, size_s in oracle.SECONDS.items():
        answer = await show.engine.get(f"/api/v1/symbols/{symbol}/bars", resolution=resolution)
        times = [bar["time"] for bar in answer["bars"]]
        assert times == sorted(set(times))
        shown = {
            bar["time"]: oracle.BarValues(*(bar[name] for name in oracle.BarValues._fields))
            for bar in answer["bars"]
        }
        await check_udf(show, symbol, resolution, answer["bars"])
        klines = await show.klines(symbol, resolution)
        kept = [kline for kline in klines if kline[8]]
        assert kept, symbol
        wanted = {kline[0] // 1_000: oracle.bar_of_kline(kline) for kline in kept}
        oldest = min(max(min(shown), klines[0][0] // 1_000), first_s - first_s % size_s)
        differ(f"{symbol} {resolution} klines", wanted, shown, oldest)
        made = oracle.bars(recorded.trades, resolution)
        inside = {slot: bar for slot, bar in made.items() if slot > first_s}
        differ(f"{symbol} {resolution} trades", inside, shown, first_s + 1)
        incomplete = [bar["time"] for bar in answer["bars"][:-1] if not bar["complete"]]
        incomplete = [slot for slot in incomplete if slot > max(first_s, boundary_s)]
        assert not incomplete, f"{symbol} {resolution}: not proved complete {incomplete[:5]}"


async def check_udf(show: Show, symbol: str, resolution: str, bars: list[dict[str, Any]]) -> None:
    """The datafeed's bars are those of REST, to the last digit."""
    name = {"1s": "1S", "1d": "1D", "1h": "60", "4h": "240"}.get(resolution, resolution.rstrip("m"))
    far_s = 4_000_000_000
    query = {"symbol": symbol, "resolution": name, "from": far_s, "to": far_s, "countback": len(bars)}
    answer = await show.engine.get("/udf/history", **query)
    assert answer["s"] == "ok"
    for column, field in zip("tohlcv", ("time", "open", "high", "low", "close", "volume"), strict=True):
        assert answer[column] == [bar[field] for bar in bars], f"{symbol} {resolution} {field}"


def differ(
    what: str, wanted: dict[int, oracle.BarValues], shown: dict[int, oracle.BarValues], from_s: int
) -> None:
    """Fails on the first slot from `from_s` on where the two are not the same."""
    for slot in sorted(slot for slot in wanted.keys() | shown.keys() if slot >= from_s):
        assert shown.get(slot) == wanted.get(slot), f"{what}, slot {slot}"


def check_replay(show: Show) -> None:
    """What the stopped engine kept equals a replay bit for bit; the replay's bars are the recording's.

    The API may show the exchange's kline in place of a bar of ours, a replay knows none.
    """
    compare_with_replay(show.engine.data_dir)
    derived, drained = replay(show.engine.data_dir)
    for name, symbol in symbols_of(show.engine.data_dir).items():
        recorded = show.recorded[name]
        first_s = recorded.trades[0].time_ms // 1_000
        for index, resolution in enumerate(oracle.SECONDS):
            made = oracle.bars(recorded.trades, resolution)
            inside = {slot: bar for slot, bar in made.items() if slot > first_s}
            differ(
                f"{name} {resolution} replay",
                inside,
                replayed_bars(derived, drained, symbol, index),
                first_s + 1,
            )


async def check_prices(show: Show, symbol: str) -> None:
    """Latest price and Enigma are those of the last trade, and the levels are exact."""
    recorded = show.recorded[symbol]
    trade, quote = recorded.trades[-1], recorded.quotes[-1]
    price = await show.engine.get(f"/api/v1/symbols/{symbol}/price")
    assert price == {
        "symbol": symbol,
        "price": float(trade.price),
        "bid": float(quote.bid),
        "ask": float(quote.ask),
        "volume": float(trade.quantity),
        "timestamp": trade.time_ms,
    }
    months = [kline for kline in await show.klines(symbol, "1M") if kline[8]]
    highest = max((kline[2] for kline in months), key=Decimal)
    lowest = min((kline[3] for kline in months), key=Decimal)
    level, fibonacci = oracle.enigma(trade.price, highest, lowest)
    shown = await show.engine.get(f"/api/v1/symbols/{symbol}/enigma")
    assert (shown["symbol"], shown["trade_id"], shown["timestamp"]) == (symbol, trade.id, trade.time_ms)
    assert (shown["ath"], shown["atl"]) == (float(highest), float(lowest))
    assert shown["current_price"] == float(trade.price)
    assert shown["level"] == pytest.approx(float(level), rel=1e-14)
    assert list(shown["fib_levels"]) == list(oracle.FIBONACCI)
    for name, value in fibonacci.items():
        assert shown["fib_levels"][name] == pytest.approx(float(value), rel=1e-14), name


@pytest.mark.real_time
async def test_at_once_in_real_time_and_at_ten_times_the_speed(files: list[Path], tmp_path: Path) -> None:
    real, least_s = in_real_time(files, tmp_path / "real")
    quick = around_midnight(files, 60, 40, tmp_path / "quick") if HOW == "quick" else files[0].parent
    took = await asyncio.gather(
        play_and_compare(real, tmp_path / "at 1", 1.0, 2 * least_s + 20),
        play_and_compare(quick, tmp_path / "at 10", 10.0, 120),
    )
    assert took[0] > least_s
    assert took[1] > (9 if HOW == "quick" else 46)


async def test_as_fast_as_it_goes(files: list[Path], tmp_path: Path) -> None:
    await play_and_compare(files[0].parent, tmp_path / "data", 0.0, 60)


async def test_history_joins_a_market_in_full_swing(files: list[Path], tmp_path: Path) -> None:
    """The market runs before the klines are asked for: the boundary lies amid the recording. On two lines,
    so that everything comes twice."""
    folder = around_midnight(files, 100, 100, tmp_path / "part")
    async with playing(folder, tmp_path / "data", 40.0, lines=2, begins_by_itself=True) as show:
        await show.exchange.finished()
        await show.engine.history_complete()
        await everything_on_tape(show)
        check_tape(show)
        for symbol in show.recorded:
            await check_bars(show, symbol)
            await check_prices(show, symbol)
        expected = sum(len(one.trades) for one in show.recorded.values())

        async def all_came_twice() -> bool:
            return await show.duplicates("trade") == expected

        await until(all_came_twice, "every trade from the second line too")
        await show.engine.stop()
        check_replay(show)
