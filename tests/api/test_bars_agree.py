"""One piece of a recording, four ways to its bars: REST, the datafeed, what a subscriber makes of the feed,
and an aggregation that shares no code with them. They agree to the last digit, also where trades came late.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from tests.api.history_world import flush
from tests.api.udf_client import UdfClient, charting
from tests.feed.harness import World, get
from tests.feed.v2_peer import Peer, peer
from tests.flow import oracle
from tests.flow.oracle import BarValues, Trade
from tradeback.model.record import BUYER_MAKER, LATE, REPAIRED, TRADE, Rows, empty_rows

SECOND_NS = 1_000_000_000
UDF_NAMES = dict(zip(oracle.SECONDS, ("1S", "1", "5", "15", "60", "240", "1D"), strict=True))
NAMES = ("BTCUSDT", "ETHUSDT")
"""By symbol id from 1 on, as the harness has them."""
FAR_S = 4_000_000_000


@pytest.fixture(scope="module")
def recorded(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Trade]]:
    """A minute and a half around a midnight: bars of every resolution end there."""
    files = sorted((shared_folder / "data/binance/spot_ws").glob("*usdt_2024*"))
    midnight_ns = min(next(oracle.lines_of(file))[0] for file in files if "20240809" in file.name)
    span = midnight_ns - 60 * SECOND_NS, midnight_ns + 30 * SECOND_NS
    folder = oracle.cut(files, *span, tmp_path_factory.mktemp("part") / "lines")
    found = {name: one.trades for name, one in oracle.read(folder.iterdir()).items()}
    assert set(found) == set(NAMES)
    return found


def rows_of(recorded: dict[str, list[Trade]]) -> Rows:
    """All trades in the order of their time."""
    listed = [(number, trade) for number, name in enumerate(NAMES, 1) for trade in recorded[name]]
    listed.sort(key=lambda pair: (pair[1].time_ms, pair[0], pair[1].id))
    rows = empty_rows(len(listed))
    rows["kind"] = TRADE
    rows["symbol_id"] = [number for number, _ in listed]
    rows["id"] = [trade.id for _, trade in listed]
    rows["price"] = [float(trade.price) for _, trade in listed]
    rows["quantity"] = [float(trade.quantity) for _, trade in listed]
    rows["exchange_us"] = [trade.time_ms * 1_000 for _, trade in listed]
    rows["recv_ns"] = rows["exchange_us"] * 1_000 + 1_000_000
    rows["flags"] = [BUYER_MAKER if trade.maker else 0 for _, trade in listed]
    return rows


def publish(running: World, rows: Rows, random: np.random.Generator) -> None:
    """As socket reads bring it: some records at a time."""
    start = 0
    while start < len(rows):
        count = int(random.integers(1, 300))
        running.publish(rows[start : start + count])
        start += count


def of_feed(client: Peer, symbol_id: int) -> list[Trade]:
    """The trades of a symbol as a subscriber of version 2 has them."""
    found = []
    for frame in client.frames:
        names = ("symbol_id", "id", "price", "quantity", "exchange_us", "flags")
        for owner, number, price, quantity, time_us, flags in zip(
            *(frame.trades[name].tolist() for name in names), strict=True
        ):
            if owner == symbol_id:
                maker = bool(flags & BUYER_MAKER)
                found.append(Trade(number, repr(price), repr(quantity), time_us // 1_000, maker))
    return found


async def of_rest(running: World, symbol: str, resolution: str) -> dict[int, BarValues]:
    status, answer = await get(running, f"/api/v1/symbols/{symbol}/bars?resolution={resolution}")
    assert status == 200
    return {bar["time"]: BarValues(*(bar[name] for name in BarValues._fields)) for bar in answer["bars"]}


async def of_udf(client: UdfClient, symbol: str, resolution: str) -> dict[int, tuple[float, ...]]:
    bars = await client.page_back(f"BINANCE:{symbol}", UDF_NAMES[resolution], FAR_S, 7)
    return {int(bar["t"]): tuple(bar[name] for name in "ohlcv") for bar in bars}


def without_count(bars: dict[int, BarValues]) -> dict[int, tuple[float, ...]]:
    return {time: tuple(bar[:5]) for time, bar in bars.items()}


def exact(trades: Iterable[Trade]) -> list[Trade]:
    """With numbers written one way."""
    return [
        trade._replace(price=repr(float(trade.price)), quantity=repr(float(trade.quantity)))
        for trade in sorted(trades)
    ]


async def test_rest_datafeed_feed_and_an_independent_aggregation(
    served: World, recorded: dict[str, list[Trade]]
) -> None:
    random = np.random.default_rng(11)
    rows = rows_of(recorded)
    late = np.zeros(len(rows), bool)
    for start in random.integers(200, len(rows) - 200, 12):  # holes of a few trades, and of a second
        late[start : start + int(random.integers(1, 120))] = True
    repaired = rows[late]
    repaired["flags"] |= REPAIRED | LATE
    live = rows[~late]
    half = len(live) // 2
    async with peer(served.ws) as client, charting(served) as charts:
        await client.subscribe("*", channels=("trades",))
        publish(served, live[:half], random)
        for resolution in oracle.SECONDS:  # what is held now must not be held for ever
            for symbol in NAMES:
                held = await of_udf(charts, symbol, resolution)
                assert without_count(await of_rest(served, symbol, resolution)) == held
        await flush(served)
        publish(served, live[half:], random)
        publish(served, repaired, random)
        await client.until(lambda: client.count == len(rows))
        for symbol_id, symbol in enumerate(NAMES, 1):
            assert exact(of_feed(client, symbol_id)) == exact(recorded[symbol])
            for resolution in oracle.SECONDS:
                wanted = oracle.bars(recorded[symbol], resolution)
                assert len(wanted) > 30 if resolution == "1s" else 2 <= len(wanted) <= 3
                assert await of_rest(served, symbol, resolution) == wanted, f"REST, {symbol} {resolution}"
                assert oracle.bars(of_feed(client, symbol_id), resolution) == wanted, f"feed, {resolution}"
                shown = await of_udf(charts, symbol, resolution)
                assert shown == without_count(wanted), f"datafeed, {symbol} {resolution}"
