"""api/stats: the numbers of the health strip, cumulative, so that every reader has its own interval."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.feed.harness import get, rows_of, world
from tradeback.api import stats
from tradeback.api.stats import numbers
from tradeback.derive.completeness import Completeness
from tradeback.derive.completeness_gap import Gap
from tradeback.model.record import TRADE
from tradeback.ops.health import ComponentHealth, State
from tradeback.ops.metrics import Family, Histogram
from tradeback.stores.gaps_sqlite import GapQuery


@dataclass
class Part:
    name: str
    state: State = "ok"
    details: dict[str, Any] | None = None

    def health(self) -> ComponentHealth:
        return ComponentHealth(self.name, self.state, 1_700_000_000_000_000_000, None, None, self.details)


class Ledger:
    """A source of gaps whose ledger has read some records."""

    def __init__(self, ledger: Completeness) -> None:
        self.ledger = ledger

    async def find(self, query: GapQuery) -> list[Gap]:
        return []


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "KEPT_S", 0.0)


async def test_an_engine_that_knows_nothing_yet_says_so() -> None:
    async with world() as running:
        status, answer = await get(running, "/api/v1/stats?symbol=btcusdt")
        assert status == 200
        assert answer["gaps"] is None
        assert answer["clock"] is None
        assert answer["lines"] == {}
        assert answer["symbol"]["complete_through_id"] is None
        assert answer["waiting_for"] == ["no exchange line delivers yet"]
        assert answer["inside_engine"]["counts"] == [0] * (len(answer["inside_engine"]["bounds_us"]) + 1)
        assert answer["asked"] <= answer["timestamp"] <= answer["now"]
        assert len(answer["page"]) == 16


async def test_trades_lines_clock_and_completeness_are_told() -> None:
    async with world() as running:
        ledger = Completeness(0)
        running.context.gaps = Ledger(ledger)
        details = {"wins": 3, "losses": 4, "fills": 0, "reconnects": 1, "secret": 5}
        running.context.components += [
            Part("line:a:trade:0", details=details), Part("line:b:trade:0", "down"),
            Part("clock", details={"offset_ms": 1.5, "error_ms": 0.2, "is_apart": False}),
        ]  # fmt: skip
        rows = rows_of([(1, 100.0, 1.0)] * 5)
        rows["id"] = [10, 11, 12, 15, 16]
        running.publish(rows)
        ledger.feed(rows, 1)
        ledger.sweep(int(rows["recv_ns"][0]) + 1)
        _, answer = await get(running, "/api/v1/stats?symbol=BTCUSDT")
        assert sum(answer["inside_engine"]["counts"]) == 5
        assert answer["clock"] == {"offset_ms": 1.5, "error_ms": 0.2, "is_apart": False}
        (stream,) = answer["lines"]["a"]
        assert (stream["stream"], stream["state"], stream["wins"], stream["reconnects"]) == (
            "trade:0",
            "ok",
            3,
            1,
        )
        assert "secret" not in stream
        assert answer["lines"]["b"][0]["state"] == "down"
        assert answer["gaps"] == {"open": 1, "missing": 2, "repaired": 0, "unrepairable": 0}
        told = answer["symbol"]
        assert (told["symbol"], told["complete_through_id"], told["newest_id"]) == ("BTCUSDT", 12, 16)
        assert told["complete_through"] == pytest.approx(int(rows["exchange_us"][2]) / 1e3)
        assert rows["kind"][0] == TRADE


async def test_an_unknown_symbol_is_404() -> None:
    async with world() as running:
        status, answer = await get(running, "/api/v1/stats?symbol=NOPE")
        assert (status, answer["error"]["code"]) == (404, "unknown_symbol")


async def test_readers_within_a_moment_share_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "KEPT_S", 3_600.0)
    async with world() as running:
        _, one = await get(running, "/api/v1/stats")
        _, other = await get(running, "/api/v1/stats")
        assert one["timestamp"] == other["timestamp"]
        assert one["now"] < other["now"], "the clock is never shared"


async def test_a_collector_that_comes_later_is_asked_too() -> None:
    class Intake:
        def collect(self) -> Iterator[Family]:
            yield Family("tradeback_ingest_messages", "counter", "").add(7, stream="trade")

    async with world() as running:
        _, before = await get(running, "/api/v1/stats")
        running.context.collectors.append(Intake())
        _, answer = await get(running, "/api/v1/stats")
        assert (before["messages"], answer["messages"]) == ({}, {"trade": 7})


def test_histograms_of_all_processes_are_added_up() -> None:
    one, other = Histogram(), Histogram()
    one.observe(9)
    other.observe(10, 2)
    family = Family("tradeback_publish_latency_seconds", "histogram", "").add(one).add(other, worker="0")
    counts = Family("tradeback_ingest_messages", "counter", "").add(3, stream="trade").add(4, stream="quote")
    found = numbers([family, counts])
    assert found["inside_engine"]["counts"][0] == 3
    assert found["messages"] == {"trade": 3, "quote": 4}
    assert found["exchange_to_engine"]["ahead"] == 0
