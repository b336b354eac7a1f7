"""Every GET row of the HTTP contract: what it answers to good input, and what to bad."""

from typing import Any

import pytest

from tests.api.history_world import BEGIN_S, trades
from tests.api.test_gaps import Source, gap
from tests.feed.harness import World, get
from tradeback.derive.completeness_gap import OPEN, REPAIRED, UNREPAIRABLE
from tradeback.stores.ports import Position

V1 = "/api/v1"
AT_MS = BEGIN_S * 1_000 + 65_000

GOOD: list[tuple[str, set[str]]] = [
    (f"{V1}/symbols/btcusdt/price", {"symbol", "price", "bid", "ask", "volume", "timestamp"}),
    (
        f"{V1}/symbols/BTCUSDT/price?at={AT_MS}",
        {"symbol", "price", "bid", "ask", "volume", "timestamp", "trade_id", "complete"},
    ),
    (f"{V1}/symbols/BtcUsdt/bars?resolution=1m&from={BEGIN_S}&to={BEGIN_S + 120}", {"bars", "loading"}),
    (f"{V1}/symbols/BTCUSDT/ticks?from={BEGIN_S}&limit=2", {"ticks", "next"}),
    (
        f"{V1}/symbols/btcusdt/enigma",
        {"symbol", "level", "ath", "atl", "current_price", "fib_levels", "trade_id", "timestamp"},
    ),
    (f"{V1}/gaps", {"gaps", "next"}),
    (f"{V1}/gaps?symbol=btcusdt&state=open&from=0&to={BEGIN_S * 2}", {"gaps", "next"}),
    (f"{V1}/health", {"status"}),
    (f"{V1}/health/live", {"status"}),
    (f"{V1}/health/detailed", {"status", "ready", "components"}),
]
BAD: list[tuple[str, int, str]] = [
    (f"{V1}/symbols/NOPE/price", 404, "unknown_symbol"),
    (f"{V1}/symbols/%00/price", 404, "unknown_symbol"),
    (f"{V1}/symbols/{'A' * 300}/price", 404, "unknown_symbol"),
    (f"{V1}/symbols/ETHUSDT/price", 503, "not_ready"),
    (f"{V1}/symbols/BTCUSDT/price?at=x", 400, "bad_request"),
    (f"{V1}/symbols/BTCUSDT/price?at=-1", 400, "bad_request"),
    (f"{V1}/symbols/BTCUSDT/price?at=5", 404, "no_trade"),
    (f"{V1}/symbols/BTCUSDT/bars?resolution=2m", 400, "bad_request"),
    (f"{V1}/symbols/BTCUSDT/bars?from=nan", 400, "bad_request"),
    (f"{V1}/symbols/BTCUSDT/bars?to={BEGIN_S * 1000}", 400, "bad_request"),
    (f"{V1}/symbols/BTCUSDT/ticks?limit=0", 400, "bad_request"),
    (f"{V1}/symbols/BTCUSDT/ticks?cursor=zz", 400, "bad_request"),
    (f"{V1}/symbols/ETHUSDT/enigma", 503, "not_ready"),
    (f"{V1}/symbols/NOPE/enigma", 404, "unknown_symbol"),
    (f"{V1}/gaps?state=lost", 400, "bad_request"),
    (f"{V1}/gaps?symbol=NOPE", 404, "unknown_symbol"),
    (f"{V1}/gaps?from=99999999999999", 400, "bad_request"),
    (f"{V1}/settlements/x", 503, "not_ready"),
    (f"{V1}/ws", 426, "upgrade_required"),
    (f"{V1}/nowhere", 404, "not_found"),
    ("/nowhere", 404, "not_found"),
]


@pytest.fixture
def full(served: World, tmp_path: Any) -> Any:
    source = Source(tmp_path, served)
    source.publish(trades([BEGIN_S + 10 * number for number in range(40)]))
    held = [gap(10, OPEN, BEGIN_S), gap(30, REPAIRED, BEGIN_S), gap(50, UNREPAIRABLE, BEGIN_S)]
    source.store.write([], held, Position(1, 1))
    yield served
    source.store.close()


@pytest.mark.parametrize(("path", "fields"), GOOD)
async def test_good_input(full: World, path: str, fields: set[str]) -> None:
    status, answer = await get(full, path)
    assert status == 200, answer
    assert set(answer) == fields


@pytest.mark.parametrize(("path", "status", "code"), BAD)
async def test_bad_input(full: World, path: str, status: int, code: str) -> None:
    got, answer = await get(full, path)
    assert (got, answer["error"]["code"]) == (status, code)
    assert answer["error"]["message"]


async def test_values_are_those_of_the_market(full: World) -> None:
    _, answer = await get(full, GOOD[1][0])
    assert (answer["trade_id"], answer["timestamp"], answer["complete"]) == (7, AT_MS - 5_000, True)
    _, answer = await get(full, GOOD[2][0])
    assert [bar["time"] for bar in answer["bars"]] == [BEGIN_S, BEGIN_S + 60]
    assert answer["loading"] is False
    _, answer = await get(full, f"{V1}/gaps")
    assert [one["state"] for one in answer["gaps"]] == ["open", "repaired", "unrepairable"]
