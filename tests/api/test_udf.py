"""The datafeed as a strict client sees it: paging, poller, edges, errors, caching (udf.md)."""

import gzip
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import orjson
import pytest

from tests.api.access_world import guarded
from tests.api.history_world import BEGIN_S, Exchange, flush, trades
from tests.api.udf_client import Poller, UdfError, charting
from tests.feed.harness import World, get, world
from tests.sinks.gate import Gate
from tradeback.api import udf_history
from tradeback.model.config import AuthConfig, FeatureConfig, ServerConfig
from tradeback.model.record import QUOTE, empty_rows

TICKER = "BINANCE:BTCUSDT"
HOLE = range(100, 700)
"""Minutes in which the market stood still."""


def minute_trades(minutes: Any, **more: Any) -> Any:
    return trades([BEGIN_S + 60 * minute + second for minute in minutes for second in (1, 31)], **more)


async def test_config_offers_what_there_is(served: World) -> None:
    async with charting(served) as client:
        config = await client.get("config")
        assert config["supports_search"] is True
        assert config["supports_group_request"] is False
        assert (
            config["supports_marks"] is config["supports_timescale_marks"] is config["supports_time"] is True
        )
        assert {"1S", "1", "5", "15", "60", "240", "1D"} <= set(config["supported_resolutions"])
        assert config["exchanges"][0]["value"] == ""
        assert "max-age" in client.headers["Cache-Control"]


async def test_symbols_and_search(served: World) -> None:
    async with charting(served) as client:
        for name in ("BTCUSDT", "btcusdt", TICKER, TICKER.lower()):
            assert (await client.resolve(name))["ticker"] == TICKER
        with pytest.raises(UdfError, match=r"^unknown_symbol$"):
            await client.resolve("NOPE")
        assert client.status == 200
        assert [one["ticker"] for one in await client.search("btc")] == [TICKER]
        assert len(await client.search("")) == 3
        assert len(await client.search("", limit=2)) == 2
        assert [one["symbol"] for one in await client.search("usdt")] == ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
        assert await client.search("nothing such") == []
        assert await client.search("btc", kind="stock") == []
        assert len(await client.search("btc", kind="crypto", exchange="binance")) == 1
        assert await client.search("btc", exchange="NYSE") == []


@pytest.mark.parametrize("countback", [7, 329])
async def test_paging_back_through_a_hole_to_the_start_without_a_double(
    served: World, countback: int
) -> None:
    minutes = [minute for minute in range(1_200) if minute not in HOLE]
    served.publish(minute_trades(minutes))
    await flush(served)
    async with charting(served) as client:
        bars = await client.page_back(TICKER, "1", BEGIN_S + 1_300 * 60, countback)
        assert [bar["t"] for bar in bars] == [BEGIN_S + 60 * minute for minute in minutes]
        assert client.requests == -(-600 // countback) + 1


async def test_walking_back_without_countback_jumps_the_hole(served: World) -> None:
    minutes = [minute for minute in range(1_200) if minute not in HOLE]
    served.publish(minute_trades(minutes))
    async with charting(served) as client:
        bars = await client.walk_back(TICKER, "1", BEGIN_S + 1_300 * 60, 100 * 60)
        assert [bar["t"] for bar in bars] == [BEGIN_S + 60 * minute for minute in minutes]


async def test_older_bars_come_from_the_exchange(served: World, gate: Gate) -> None:
    served.publish(minute_trades(range(20)))
    exchange = Exchange(served, gate, BEGIN_S - 700 * 60, BEGIN_S)
    async with charting(served) as client:
        bars = await client.page_back(TICKER, "1", BEGIN_S + 60 * 60, 200)
        assert [bar["t"] for bar in bars] == list(range(BEGIN_S - 700 * 60, BEGIN_S + 20 * 60, 60))
        asked = len(exchange.asked)
        assert await client.page_back(TICKER, "1", BEGIN_S + 60 * 60, 200) == bars
        assert len(exchange.asked) == asked


async def test_while_older_bars_are_loading_nobody_is_told_that_there_are_none(
    served: World, gate: Gate
) -> None:
    served.publish(minute_trades(range(20)))
    Exchange(served, gate, BEGIN_S - 700 * 60, BEGIN_S).works = False
    async with charting(served) as client:
        page = await client.history(TICKER, "1", BEGIN_S, BEGIN_S + 1_200, 300)
        assert len(page.bars) == 20, "what is there is sent"
        with pytest.raises(UdfError, match="loaded"):
            await client.history(TICKER, "1", 0, BEGIN_S, 300)
        assert client.status == 503
        assert client.headers["Retry-After"]


async def test_window_edges(served: World) -> None:
    served.publish(minute_trades(range(50)))
    async with charting(served) as client:
        page = await client.history(TICKER, "1", BEGIN_S + 600, BEGIN_S + 1_200)
        assert [bar["t"] for bar in page.bars] == list(range(BEGIN_S + 600, BEGIN_S + 1_200, 60))
        page = await client.history(TICKER, "1", BEGIN_S + 600, BEGIN_S + 1_200, 20)
        assert len(page.bars) == 20, "countback outranks from"
        page = await client.history(TICKER, "1", BEGIN_S + 600, BEGIN_S + 1_200, 2)
        assert len(page.bars) == 10, "nothing is cut inside the range"
        page = await client.history(TICKER, "1", BEGIN_S - 1e9, BEGIN_S + 60.5, 0)
        assert [bar["t"] for bar in page.bars] == [BEGIN_S, BEGIN_S + 60]
        page = await client.history(TICKER, "1", -5.5, BEGIN_S + 1e9, 3)
        assert len(page.bars) == 50
        assert page.bars[-1]["t"] == BEGIN_S + 49 * 60, "nothing after now"
        page = await client.history(TICKER, "1", BEGIN_S, BEGIN_S, 10)
        assert page.no_data
        assert (await client.history(TICKER, "1", 0, BEGIN_S)).next_time is None
        page = await client.history(TICKER, "1", BEGIN_S + 10**6, BEGIN_S + 10**7)
        assert page.next_time == (BEGIN_S + 49 * 60) * 1_000
        page = await client.history("ETHUSDT", "1", 0, BEGIN_S + 60, 300)
        assert page.no_data, "a market without trades answers so"


async def test_of_too_many_bars_the_newest_are_kept(served: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udf_history, "BARS_MAX", 10)
    served.publish(minute_trades(range(50)))
    async with charting(served) as client:
        page = await client.history(TICKER, "1", 0, BEGIN_S + 1_800, 10_000)
        assert [bar["t"] for bar in page.bars] == list(range(BEGIN_S + 1_200, BEGIN_S + 1_800, 60))


async def test_every_resolution_agrees_with_rest_to_the_last_digit(served: World) -> None:
    served.publish(trades([BEGIN_S + 7 * place for place in range(3_000)]))
    await flush(served)
    names = {"1S": "1s", "1": "1m", "5": "5m", "15": "15m", "60": "1h", "240": "4h", "1D": "1d", "D": "1d"}
    async with charting(served) as client:
        for name, ours in names.items():
            page = await client.history(TICKER, name, 0, BEGIN_S + 10**6, 5)
            _, answer = await get(served, f"/api/v1/symbols/BTCUSDT/bars?resolution={ours}")
            rest = answer["bars"]
            keys = ("time", "open", "high", "low", "close", "volume")
            assert [tuple(bar.values()) for bar in page.bars] == [
                tuple(bar[key] for key in keys) for bar in rest
            ]
            assert page.incomplete == [bar["time"] for bar in rest if not bar["complete"]]


async def test_the_poller_loses_no_update_where_trades_are_rare(served: World) -> None:
    async with charting(served) as client:
        poller = Poller(client, TICKER, "1")
        number = 0
        for minute in (0, 1, 30, 31, 200, 201):
            for second in (1, 40):
                number += 1
                served.publish(trades([BEGIN_S + 60 * minute + second], first_id=number))
                await poller.poll(BEGIN_S + 60 * minute + second + 1)
        closed = {bar["t"]: bar for bar in poller.updates}
        assert list(closed) == [BEGIN_S + 60 * minute for minute in (0, 1, 30, 31, 200, 201)]
        page = await client.history(TICKER, "1", 0, BEGIN_S + 10**5, 10)
        assert [closed[int(bar["t"])] for bar in page.bars] == page.bars


async def test_a_repair_shows_in_the_next_answer(served: World) -> None:
    ids = [number for number in range(1, 101) if number not in (40, 41)]
    served.publish(trades([BEGIN_S + 30 * number for number in ids], ids=ids))
    await flush(served)
    async with charting(served) as client:
        torn = BEGIN_S + 1_200
        before = await client.history(TICKER, "1", BEGIN_S + 600, BEGIN_S + 2_400)
        assert torn not in [bar["t"] for bar in before.bars]
        assert before.incomplete == [torn - 60, torn + 60]
        assert client.headers["Cache-Control"] == "no-store"
        served.publish(trades([BEGIN_S + 1_200, BEGIN_S + 1_230], first_id=40))
        after = await client.history(TICKER, "1", BEGIN_S + 600, BEGIN_S + 2_400)
        assert torn in [bar["t"] for bar in after.bars]
        assert after.incomplete == []
        assert "max-age" in client.headers["Cache-Control"], "closed and complete: it never changes"


async def test_tags_and_compression(served: World) -> None:
    served.publish(minute_trades(range(2_000)))
    query = f"symbol=BTCUSDT&resolution=1&from={BEGIN_S + 60}&to={BEGIN_S + 90_000}"
    url = f"{served.http}/udf/history?{query}"
    async with aiohttp.ClientSession(auto_decompress=False) as http:
        async with http.get(url, headers={"Accept-Encoding": "identity"}) as answer:
            plain, tag = await answer.read(), answer.headers["ETag"]
            assert "Content-Encoding" not in answer.headers
            assert answer.headers["Vary"] == "Accept-Encoding"
        async with http.get(url, headers={"Accept-Encoding": "gzip, deflate"}) as answer:
            packed = await answer.read()
            assert answer.headers["Content-Encoding"] == "gzip"
            assert answer.headers["ETag"] == tag
        assert gzip.decompress(packed) == plain
        assert len(packed) < len(plain) / 2
        async with http.get(url, headers={"If-None-Match": tag}) as answer:
            assert answer.status == 304
            assert await answer.read() == b""
        async with http.get(url, headers={"If-None-Match": '"another"'}) as answer:
            assert answer.status == 200
    served.publish(minute_trades([2_000], first_id=4_001))
    async with aiohttp.ClientSession() as http, http.get(url, headers={"If-None-Match": tag}) as answer:
        assert answer.status == 304, "this window is closed"


@pytest.mark.parametrize(
    ("endpoint", "query", "status", "words"),
    [
        ("history", "symbol=BTCUSDT&resolution=1&from=x&to=5", 400, "from"),
        ("history", "symbol=BTCUSDT&resolution=1&from=1&to=[object Object]", 400, "to"),
        ("history", "symbol=BTCUSDT&resolution=1&from=1", 400, "to is missing"),
        ("history", "symbol=BTCUSDT&resolution=1&from=1&to=5&countback=many", 400, "countback"),
        ("history", "symbol=BTCUSDT&resolution=1&from=nan&to=5", 400, "from"),
        ("history", "symbol=NOPE&resolution=1&from=1&to=5", 200, "unknown_symbol"),
        ("history", "resolution=1&from=1&to=5", 200, "unknown_symbol"),
        ("history", "symbol=BTCUSDT&resolution=30&from=1&to=5", 200, "30"),
        ("history", "symbol=BTCUSDT&resolution=4h&from=1&to=5", 200, "4h"),
        ("history", "symbol=BTCUSDT&from=1&to=5", 200, "resolution"),
        ("symbols", "symbol=NOPE", 200, "unknown_symbol"),
        ("symbols", "", 200, "unknown_symbol"),
        ("search", "query=&limit=x", 400, "limit"),
        ("marks", "symbol=NOPE&from=1&to=5&resolution=1", 200, "unknown_symbol"),
        ("marks", "symbol=BTCUSDT&from=1&resolution=1", 400, "to is missing"),
        ("timescale_marks", "symbol=BTCUSDT&from=1&to=9&resolution=7", 200, "7"),
        ("quotes", "symbols=", 400, "symbols"),
        ("quotes", "symbols=" + ",".join(["BTCUSDT"] * 201), 400, "200"),
        ("symbol_info", "group=NYSE", 404, "nothing"),
        ("nowhere", "", 404, "nothing"),
    ],
)
async def test_errors_are_answers_with_a_text(
    served: World, endpoint: str, query: str, status: int, words: str
) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{served.http}/udf/{endpoint}?{query}") as answer,
    ):
        assert answer.content_type == "application/json"
        body = orjson.loads(await answer.read())
        assert body["s"] == "error"
        assert words in body["errmsg"]
        assert answer.status == status


async def test_other_methods_and_a_late_start_are_errors_too(served: World) -> None:
    async with aiohttp.ClientSession() as http, http.post(f"{served.http}/udf/config") as answer:
        assert answer.status == 405
        assert (await answer.json())["s"] == "error"
        assert answer.headers["Allow"]
    async with world(attach=False) as starting, charting(starting) as client:
        with pytest.raises(UdfError, match="starting"):
            await client.history(TICKER, "1", 0, BEGIN_S, 300)
        assert client.status == 503
        assert (await client.resolve(TICKER))["name"] == "BTCUSDT"
    off = FeatureConfig(aggregation_enabled=False)
    async with world(features=off) as running, charting(running) as client:
        with pytest.raises(UdfError, match="switched off"):
            await client.history(TICKER, "1", 0, BEGIN_S, 300)


async def test_refusals_of_the_guard_are_errors_that_charts_can_read(tmp_path: Path) -> None:
    site = "https://charts.example"
    auth, server = AuthConfig(mode="required"), ServerConfig(origins=(site,))
    async with guarded(tmp_path, auth=auth, server=server) as closed:
        headers = {"Origin": site}
        async with closed.jar().get("/udf/config", headers=headers) as answer:
            assert answer.status == 401
            assert (await answer.json())["s"] == "error"
            assert answer.headers["Access-Control-Allow-Origin"] == site
        await closed.user()
        http = await closed.logged_in(symbols=["ETHUSDT"])
        async with http.get("/udf/config") as answer:
            assert answer.status == 200
        async with http.get("/udf/search?query=") as answer:
            assert [one["symbol"] for one in await answer.json()] == ["ETHUSDT"]
        for query in ("symbols?symbol=BTCUSDT", "quotes?symbols=ETHUSDT,BINANCE:BTCUSDT"):
            async with http.get(f"/udf/{query}") as answer:
                assert answer.status == 403
                assert (await answer.json())["s"] == "error"


async def test_unknown_parameters_are_ignored(served: World) -> None:
    served.publish(minute_trades(range(5)))
    async with charting(served) as client:
        answer = await client.get(
            "history", symbol=TICKER, resolution="1", **{"from": 0, "to": BEGIN_S + 600},
            currencyCode="USD", unitId="x",
        )  # fmt: skip
        assert answer["s"] == "ok"


async def test_quotes(served: World) -> None:
    served.publish(trades([BEGIN_S - 100, BEGIN_S - 50]))
    served.publish(trades([BEGIN_S + 10, BEGIN_S + 20, BEGIN_S + 30], first_id=3))
    async with charting(served) as client:
        answer = await client.get("quotes", symbols=f"{TICKER},ethusdt,NOPE,btcusdt")
        assert answer["s"] == "ok"
        entries = answer["d"]
        assert [entry["n"] for entry in entries] == [TICKER, "ethusdt", "NOPE", "btcusdt"]
        assert [entry["s"] for entry in entries] == ["ok", "error", "error", "ok"]
        assert entries[1]["v"] == entries[2]["v"] == {}
        value = entries[0]["v"]
        price = [100.0 + (number * 7 % 50) / 100 for number in range(6)]
        assert value["lp"] == price[5]
        assert value["open_price"] == price[3]
        assert (value["high_price"], value["low_price"]) == (max(price[3:6]), min(price[3:6]))
        assert value["prev_close_price"] == price[2]
        assert value["ch"] == pytest.approx(price[5] - price[2])
        assert value["chp"] == pytest.approx(100 * (price[5] - price[2]) / price[2])
        assert value["volume"] == sum(0.5 + (number % 3) / 4 for number in (3, 4, 5))
        assert {"bid", "ask", "spread"}.isdisjoint(value), "no zero bids"
        quote = empty_rows(1)
        quote["kind"], quote["symbol_id"], quote["recv_ns"] = QUOTE, 1, 1
        quote["price"], quote["ask"] = 99.5, 100.5
        served.publish(quote)
        value = (await client.get("quotes", symbols=TICKER))["d"][0]["v"]
        assert (value["bid"], value["ask"], value["spread"]) == (99.5, 100.5, 1.0)


async def test_time_is_a_bare_number(served: World) -> None:
    async with charting(served) as client:
        now_s = await client.get("time")
        assert isinstance(now_s, int)
        assert abs(now_s - served.context.clock.wall_ns() / 1e9) < 60


async def test_answers_repeat(served: World) -> None:
    """Closed bars are the same on every request, whatever window they come in."""
    served.publish(minute_trades(range(300)))
    rng = np.random.default_rng(3)
    async with charting(served) as client:
        everything = (await client.history(TICKER, "1", 0, BEGIN_S + 10**6, 1)).bars
        for _ in range(20):
            first, count = int(rng.integers(0, 280)), int(rng.integers(1, 20))
            begin = BEGIN_S + 60 * first
            page = await client.history(TICKER, "1", begin, begin + 60 * count)
            assert page.bars == everything[first : first + count]
