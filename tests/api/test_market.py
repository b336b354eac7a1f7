"""api/market over a real port, a real tape, derived series and store."""

import asyncio
from collections.abc import Sequence
from typing import Any

import aiohttp
import numpy as np
import pytest

from tests.feed.harness import World, entries, get, rows_of, subscribe, world
from tests.sinks.gate import Gate
from tradeback.derive.layout import RESOLUTIONS
from tradeback.model.config import FeatureConfig
from tradeback.model.record import BUYER_MAKER, QUOTE, REPAIRED, Rows

MINUTE_US = 60_000_000
BEGIN_S = 1_700_000_040
"""The start of a minute."""


def trades_at(
    times_s: Sequence[float], *, first_id: int = 1, symbol_id: int = 1, price: float = 100.0
) -> Rows:
    """Trades with rising ids and prices at these exchange times, each of quantity 0.5."""
    trades = [(symbol_id, price + place, 0.5) for place in range(len(times_s))]
    rows = rows_of(trades, first_id=first_id)
    rows["exchange_us"] = (np.array(times_s) * 1_000_000).astype(np.int64)
    return rows


async def flush(running: World) -> None:
    """Put into the store what has closed, as the engine does every few seconds."""
    sink: Any = running.context.series
    while (flight := sink.flush()) is not None:
        await flight


async def bars_of(running: World, query: str) -> list[dict[str, Any]]:
    status, answer = await get(running, f"/api/v1/symbols/BTCUSDT/bars?{query}")
    assert status == 200, answer
    found: list[dict[str, Any]] = answer["bars"]
    return found


async def test_symbols(served: World) -> None:
    status, answer = await get(served, "/api/v1/symbols")
    assert status == 200
    assert [symbol["id"] for symbol in answer] == [1, 2, 3]
    assert answer[0] == {
        "id": 1,
        "symbol": "BTCUSDT",
        "name": "BTC/USDT",
        "base_currency": "BTC",
        "quote_currency": "USDT",
        "is_active": True,
        "price_precision": 2,
        "quantity_precision": 5,
        "tick_size": "0.01000000",
        "step_size": "0.00001000",
        "min_notional": "0",
    }


async def test_price_follows_trades_and_quotes(served: World) -> None:
    status, answer = await get(served, "/api/v1/symbols/btcusdt/price")
    assert (status, answer["error"]["code"]) == (503, "not_ready")
    quote = rows_of([(1, 99.5, 3.0)], kind=QUOTE)
    quote["ask"], quote["ask_quantity"] = 100.5, 4.0
    served.publish(quote)
    status, answer = await get(served, "/api/v1/symbols/btcusdt/price")
    assert (status, answer["price"], answer["bid"], answer["ask"], answer["volume"]) == (
        200,
        None,
        99.5,
        100.5,
        None,
    )
    served.publish(trades_at([BEGIN_S + 0.25]))
    status, answer = await get(served, "/api/v1/symbols/BtcUsdt/price")
    assert answer == {
        "symbol": "BTCUSDT",
        "price": 100.0,
        "bid": 99.5,
        "ask": 100.5,
        "volume": 0.5,
        "timestamp": BEGIN_S * 1_000 + 250,
    }


async def test_price_at_a_time(served: World) -> None:
    served.publish(trades_at([BEGIN_S, BEGIN_S + 0.0005, BEGIN_S + 500], first_id=7))
    served.publish(trades_at([BEGIN_S + 100], symbol_id=2))
    for at_ms, trade_id in ((0, 8), (1, 8), (499_999, 8), (500_000, 9), (9_000_000, 9)):
        status, answer = await get(served, f"/api/v1/symbols/BTCUSDT/price?at={BEGIN_S * 1_000 + at_ms}")
        assert (status, answer["trade_id"]) == (200, trade_id)
    assert answer == {
        "symbol": "BTCUSDT",
        "price": 102.0,
        "bid": None,
        "ask": None,
        "volume": 0.5,
        "timestamp": BEGIN_S * 1_000 + 500_000,
        "trade_id": 9,
        "complete": False,
    }
    status, answer = await get(served, f"/api/v1/symbols/BTCUSDT/price?at={BEGIN_S * 1_000 - 1}")
    assert (status, answer["error"]["code"]) == (404, "no_trade")
    status, answer = await get(served, "/api/v1/symbols/BTCUSDT/price?at=yesterday")
    assert (status, answer["error"]["code"]) == (400, "bad_request")


async def test_enigma(served: World) -> None:
    assert (await get(served, "/api/v1/symbols/BTCUSDT/enigma"))[0] == 503
    served.trade((1, 100.0, 1.0), (1, 200.0, 1.0), (1, 150.0, 1.0))
    status, answer = await get(served, "/api/v1/symbols/BTCUSDT/enigma")
    assert status == 200
    assert answer["fib_levels"] == {
        "0": 200.0,
        "23.6": 176.4,
        "38.2": 161.8,
        "50": 150.0,
        "61.8": 138.2,
        "78.6": 121.4,
        "100": 100.0,
    }
    assert [answer[key] for key in ("symbol", "level", "ath", "atl", "current_price", "trade_id")] == [
        "BTCUSDT",
        50.0,
        200.0,
        100.0,
        150.0,
        3,
    ]


@pytest.mark.parametrize("moment", ["in memory", "on its way", "stored"])
async def test_bars_are_whole_wherever_they_are_just_now(served: World, gate: Gate, moment: str) -> None:
    """A bar that moves from memory to the store is never missing and never counted twice."""
    times = [BEGIN_S + 30 * place for place in range(10)]  # two trades in each of five minutes
    served.publish(trades_at(times))
    if moment == "on its way":
        sink: Any = served.context.series
        gate.open.clear()
        sink.flush()
        assert sink.stored.sequence == 0
    elif moment == "stored":
        await flush(served)
    found = await bars_of(served, "resolution=1m")
    assert [bar["time"] for bar in found] == [BEGIN_S + 60 * place for place in range(5)]
    assert [bar["trade_count"] for bar in found] == [2] * 5
    assert [bar["volume"] for bar in found] == [1.0] * 5
    assert [(bar["open"], bar["high"], bar["low"], bar["close"]) for bar in found] == [
        (100.0 + 2 * place, 101.0 + 2 * place, 100.0 + 2 * place, 101.0 + 2 * place) for place in range(5)
    ]
    assert [bar["complete"] for bar in found] == [False, True, True, True, False]


async def test_a_bar_that_closes_between_the_look_and_the_read_is_not_counted_twice(
    served: World, gate: Gate
) -> None:
    served.publish(trades_at([BEGIN_S, BEGIN_S + 1]))
    gate.readable.clear()
    asked = asyncio.create_task(bars_of(served, "resolution=1m"))
    await asyncio.to_thread(gate.reading.wait, 10)
    served.publish(trades_at([BEGIN_S + 60 * place for place in range(1, 6)], first_id=3))
    await flush(served)
    gate.readable.set()
    found = await asked
    assert [(bar["time"], bar["trade_count"]) for bar in found] == [
        (BEGIN_S, 2),
        *((BEGIN_S + 60 * place, 1) for place in range(1, 6)),
    ]


async def test_a_store_that_cannot_be_read_is_a_503_without_its_words(
    served: World, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    gate.close()
    status, answer = await get(served, "/api/v1/symbols/BTCUSDT/bars")
    assert (status, answer["error"]["code"]) == (503, "not_ready")
    assert "closed" not in answer["error"]["message"]
    assert "BTCUSDT" in caplog.text


async def test_of_many_bars_the_newest_are_answered(served: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tradeback.api.market.BARS_PER_ANSWER_MAX", 4)
    served.publish(trades_at([BEGIN_S + 20 * place for place in range(18)]))
    found = await bars_of(served, "resolution=1m")
    assert [bar["time"] for bar in found] == [BEGIN_S + 60 * place for place in range(2, 6)]
    await flush(served)
    assert await bars_of(served, "resolution=1m") == found
    older = await bars_of(served, f"resolution=1m&to={BEGIN_S + 300}")
    assert [(bar["time"], bar["complete"]) for bar in older] == [
        (BEGIN_S + 60 * place, True) for place in range(1, 5)
    ]


async def test_range_of_bars_is_half_open_and_its_neighbours_prove_completeness(served: World) -> None:
    served.publish(trades_at([BEGIN_S + 20 * place for place in range(18)]))
    await flush(served)
    found = await bars_of(served, f"resolution=1m&from={BEGIN_S + 60}&to={BEGIN_S + 180}")
    assert [(bar["time"], bar["complete"]) for bar in found] == [(BEGIN_S + 60, True), (BEGIN_S + 120, True)]
    assert await bars_of(served, f"resolution=1m&from={BEGIN_S + 60}&to={BEGIN_S + 60}") == []
    assert len(await bars_of(served, f"resolution=1m&from={BEGIN_S + 0.001}&to={BEGIN_S + 120.5}")) == 2


async def test_bars_name_the_trade_behind_which_a_feed_goes_on(served: World) -> None:
    async def named(query: str) -> str | None:
        url = f"{served.http}/api/v1/symbols/BTCUSDT/bars?{query}"
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            assert answer.status == 200
            return answer.headers.get("Last-Trade-Id")

    assert await named("resolution=1m") is None, "there are no bars"
    served.publish(trades_at([BEGIN_S + 20 * place for place in range(8)], first_id=100))
    assert await named("resolution=1m") == "107", "of the running bar"
    assert await named(f"resolution=1m&to={BEGIN_S + 120}") == "105", "of a closed one in memory"
    await flush(served)
    assert await named(f"resolution=1m&to={BEGIN_S + 60}") == "102", "of one in the store"


async def test_all_resolutions(served: World) -> None:
    served.publish(trades_at([BEGIN_S + 0.1, BEGIN_S + 0.2]))
    for resolution in RESOLUTIONS:
        (bar,) = await bars_of(served, f"resolution={resolution}")
        assert bar["trade_count"] == 2
        assert not bar["complete"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("resolution=2m", "1s, 1m, 5m, 15m, 1h, 4h, 1d"),
        ("from=x", "from"),
        ("from=nan", "from"),
        ("to=-1", "to"),
        ("to=1700000000000", "milliseconds"),
        ("from=20&to=10", "from is after to"),
    ],
)
async def test_bad_parameters_are_named(served: World, query: str, words: str) -> None:
    for route in ("bars", "ticks"):
        if route == "ticks" and "resolution" in query:
            continue
        status, answer = await get(served, f"/api/v1/symbols/BTCUSDT/{route}?{query}")
        assert (status, answer["error"]["code"]) == (400, "bad_request")
        assert words in answer["error"]["message"]


async def test_ticks_page_by_page_in_order_of_id(served: World) -> None:
    served.publish(trades_at([BEGIN_S + place for place in range(7)], first_id=11))
    served.publish(trades_at([BEGIN_S + 1], symbol_id=2))
    repaired = trades_at([BEGIN_S + 2.5], first_id=5, price=50.0)
    repaired["flags"] = REPAIRED | BUYER_MAKER
    served.publish(repaired)
    path = f"/api/v1/symbols/BTCUSDT/ticks?from={BEGIN_S}&to={BEGIN_S + 6}&limit=3"
    seen: list[dict[str, Any]] = []
    pages = 0
    cursor: str | None = ""
    while cursor is not None:
        status, answer = await get(served, f"{path}&cursor={cursor}")
        assert status == 200, answer
        seen += answer["ticks"]
        cursor = answer["next"]
        pages += 1
    assert pages == 3
    assert [tick["id"] for tick in seen] == [5, 11, 12, 13, 14, 15, 16], "to is exclusive"
    assert seen[0] == {
        "id": 5,
        "price": 50.0,
        "quantity": 0.5,
        "side": "sell",
        "time": BEGIN_S * 1_000 + 2_500,
        "repaired": True,
    }
    assert seen[1]["side"] == "buy"


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 6, 7, 5_000])
async def test_pages_end_exactly_and_a_repair_between_them_is_never_a_double(
    served: World, limit: int
) -> None:
    """Six ticks inside, one right at `to` and one right before `from` outside, one that comes meanwhile."""
    times = [BEGIN_S - 0.001, *(BEGIN_S + place for place in range(5)), BEGIN_S + 5.999, BEGIN_S + 6]
    rows = trades_at(times, first_id=10)
    served.publish(rows[rows["id"] != 15])
    seen: list[int] = []
    query = f"from={BEGIN_S}&to={BEGIN_S + 6}&limit={limit}"
    pages = 0
    while query:
        status, answer = await get(served, f"/api/v1/symbols/BTCUSDT/ticks?{query}")
        assert status == 200
        assert 0 < len(answer["ticks"]) <= limit, "no empty page at the end"
        seen += [tick["id"] for tick in answer["ticks"]]
        query = f"cursor={answer['next']}&limit={limit}" if answer["next"] else ""
        if not pages:
            served.publish(rows[rows["id"] == 15])
        pages += 1
    assert seen == sorted(set(seen))
    whole = [11, 12, 13, 14, 15, 16]
    assert seen == (whole if limit < 5 else [number for number in whole if number != 15])


async def test_ticks_without_a_range_are_those_of_the_last_hour(served: World) -> None:
    served.publish(trades_at([BEGIN_S]))
    served.trade((1, 7.0, 1.0))
    _, answer = await get(served, "/api/v1/symbols/BTCUSDT/ticks")
    assert [tick["price"] for tick in answer["ticks"]] == [7.0]
    assert answer["next"] is None


@pytest.mark.parametrize("query", ["limit=0", "limit=5001", "limit=x", "cursor=zz", "cursor=W10", "cursor=ä"])
async def test_bad_page_parameters(served: World, query: str) -> None:
    status, answer = await get(served, f"/api/v1/symbols/BTCUSDT/ticks?{query}")
    assert (status, answer["error"]["code"]) == (400, "bad_request")
    assert query.partition("=")[0] in answer["error"]["message"]


@pytest.mark.parametrize("route", ["price", "bars", "ticks", "enigma"])
async def test_unknown_symbols(served: World, route: str) -> None:
    status, answer = await get(served, f"/api/v1/symbols/NOPE/{route}")
    assert (status, answer["error"]["code"]) == (404, "unknown_symbol")


@pytest.mark.parametrize("route", ["price", "bars", "ticks", "enigma"])
async def test_before_the_engine_is_up_routes_say_so(route: str) -> None:
    async with world(attach=False) as running:
        status, answer = await get(running, f"/api/v1/symbols/BTCUSDT/{route}")
        assert (status, answer["error"]["code"]) == (503, "not_ready")


@pytest.mark.parametrize(
    ("route", "features", "switch"),
    [
        ("bars", FeatureConfig(aggregation_enabled=False), "FEATURE_AGGREGATION_ENABLED"),
        ("enigma", FeatureConfig(enigma_enabled=False), "FEATURE_ENIGMA_ENABLED"),
    ],
)
@pytest.mark.parametrize("attach", [False, True])
async def test_what_is_switched_off_says_so_by_the_switch(
    route: str, features: FeatureConfig, switch: str, attach: bool
) -> None:
    async with world(attach=attach, features=features) as running:
        for name in ("bars", "enigma"):
            status, answer = await get(running, f"/api/v1/symbols/BTCUSDT/{name}")
            if name == route:
                assert (status, answer["error"]["code"]) == (404, "disabled")
                assert switch in answer["error"]["message"]
            else:
                assert (status, answer["error"]["code"]) == (503, "not_ready")


async def test_the_feed_over_a_real_tape(served: World) -> None:
    async with served.connect() as ws:
        await subscribe(ws, "*")
        trades = [(1 + place % 3, 100.0 + place, 0.25) for place in range(50)]
        for _ in range(200):  # more than twice round the ring
            served.trade(*trades)
            assert await entries(ws, 50) == trades
