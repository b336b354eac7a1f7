"""Gaps and repairs as marks on the chart."""

from typing import Any

import pytest

from tests.api.history_world import BEGIN_S, trades
from tests.api.udf_client import charting
from tests.feed.harness import World
from tradeback.derive.completeness import Completeness
from tradeback.derive.completeness_gap import AGGS, OPEN, REPAIRED, TRADES, UNREPAIRABLE, Gap
from tradeback.stores.gaps_sqlite import GapQuery

TICKER = "BINANCE:BTCUSDT"


class Gaps:
    """What a test says is missing."""

    def __init__(self, *gaps: Gap) -> None:
        self.ledger = Completeness(0)
        self.gaps, self.queries = list(gaps), list[GapQuery]()

    async def find(self, query: GapQuery) -> list[Gap]:
        self.queries.append(query)
        return [
            gap for gap in self.gaps
            if gap.symbol_id == query.symbol_id and (not query.states or gap.state in query.states)
        ]  # fmt: skip


def gap(first: int, state: int, at_s: float, *, closed_s: float = 0, stream: int = TRADES) -> Gap:
    return Gap(
        1, stream, first, first + 4, state, 0 if state == REPAIRED else 5, int((at_s + 1) * 1e9),
        int(closed_s * 1e9), int(at_s * 1e6), int((at_s + 1) * 1e6),
    )  # fmt: skip


@pytest.fixture
def marked(served: World) -> World:
    served.publish(trades([BEGIN_S + 30 * place for place in range(200)]))
    served.context.gaps = Gaps(
        gap(10, OPEN, BEGIN_S + 301),
        gap(20, UNREPAIRABLE, BEGIN_S + 302, closed_s=BEGIN_S + 500),
        gap(30, REPAIRED, BEGIN_S + 1_201, closed_s=BEGIN_S + 1_265),
        gap(40, OPEN, BEGIN_S + 900, stream=AGGS),
    )
    return served


async def test_bars_that_lack_trades_are_marked_once(marked: World) -> None:
    async with charting(marked) as client:
        query = {"symbol": TICKER, "from": BEGIN_S, "to": BEGIN_S + 6_000, "resolution": "1"}
        (mark,) = await client.get("marks", **query)
        assert mark["time"] == BEGIN_S + 300, "that of a bar"
        assert mark["text"] == "10 trades are missing (open, unrepairable)"
        assert len(mark["label"]) == 1
        assert mark["color"] in ("red", "green", "blue", "yellow")
        assert await client.get("marks", **{**query, "symbol": "ETHUSDT"}) == []
        for resolution, size in (("1S", 1), ("5", 300), ("1D", 86_400), ("1W", 7 * 86_400), ("1M", 86_400)):
            (mark,) = await client.get("marks", **{**query, "resolution": resolution})
            assert mark["time"] <= BEGIN_S + 301
            assert mark["time"] % min(size, 86_400) == 0


async def test_gaps_and_repairs_lie_on_the_time_scale(marked: World) -> None:
    async with charting(marked) as client:
        query = {"symbol": TICKER, "from": BEGIN_S, "to": BEGIN_S + 6_000, "resolution": "1"}
        marks: list[Any] = await client.get("timescale_marks", **query)
        assert [(mark["id"], mark["time"] - BEGIN_S, mark["color"]) for mark in marks] == [
            ("gap-10-14", 300, "red"),
            ("gap-20-24", 300, "yellow"),
            ("gap-30-34", 1_200, "green"),
            ("repair-30-34", 1_260, "green"),
        ]
        assert all(isinstance(mark["tooltip"], list) and mark["shape"] for mark in marks)
        assert marks[0]["tooltip"][-1] == "5 trades are missing"
        later = await client.get("timescale_marks", **{**query, "from": BEGIN_S + 1_200})
        assert [mark["id"] for mark in later] == ["gap-30-34", "repair-30-34"]
        early = await client.get("timescale_marks", **{**query, "to": BEGIN_S + 1_200})
        assert [mark["id"] for mark in early] == ["gap-10-14", "gap-20-24"]


@pytest.mark.parametrize("endpoint", ["marks", "timescale_marks"])
async def test_any_span_is_answered(marked: World, endpoint: str) -> None:
    async with charting(marked) as client:
        for begin, end in ((-5, 0), (0, 10**30), (10, 5), (BEGIN_S + 0.5, BEGIN_S + 0.6)):
            for resolution in ("1", "1W", "1M", "D"):
                query = {"symbol": TICKER, "from": begin, "to": end, "resolution": resolution}
                assert isinstance(await client.get(endpoint, **query), list)


async def test_without_a_ledger_there_are_no_marks(served: World) -> None:
    async with charting(served) as client:
        query = {"symbol": TICKER, "from": 0, "to": 10**10, "resolution": "1"}
        assert await client.get("marks", **query) == await client.get("timescale_marks", **query) == []
