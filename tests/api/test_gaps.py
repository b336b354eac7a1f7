"""api/gaps, and what other routes say of completeness, over a real port, tape and store."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.api.test_market import BEGIN_S, bars_of, trades_at
from tests.feed.harness import World, get
from tradeback.derive.completeness import Completeness
from tradeback.derive.completeness_gap import AGGS, OPEN, REPAIRED, TRADES, UNREPAIRABLE, Gap
from tradeback.derive.seeds import boundary_row
from tradeback.model.record import LATE, STAND_IN, Rows
from tradeback.model.record import REPAIRED as REPAIRED_FLAG
from tradeback.stores.gaps_sqlite import GapQuery, GapsSqlite
from tradeback.stores.ports import Position

SECOND_NS = 1_000_000_000


class Source:
    """A ledger that reads what the test publishes, and a store."""

    def __init__(self, folder: Path, running: World) -> None:
        self.ledger = Completeness(0)
        self.store = GapsSqlite(folder / "gaps.sqlite")
        self._running, self._sequence = running, 1
        running.context.gaps = self

    def publish(self, rows: Rows) -> None:
        self._running.publish(rows)
        self.ledger.feed(rows, self._sequence)
        self._sequence += len(rows)

    async def find(self, query: GapQuery) -> list[Gap]:
        self.store.write(*self.ledger.changes(), Position(1, self._sequence))
        return self.store.find(query)


@pytest.fixture
def source(served: World, tmp_path: Path) -> Iterator[Source]:
    made = Source(tmp_path, served)
    yield made
    made.store.close()


def gap(first: int, state: int, at_s: int, *, symbol_id: int = 1, stream: int = TRADES) -> Gap:
    closed = 0 if state == OPEN else (at_s + 5) * SECOND_NS
    missing = 0 if state == REPAIRED else 10
    return Gap(
        symbol_id, stream, first, first + 9, state, missing, at_s * SECOND_NS, closed,
        (at_s - 100) * 1_000_000, (at_s - 1) * 1_000_000,
    )  # fmt: skip


async def gaps_of(running: World, query: str = "") -> list[Any]:
    status, answer = await get(running, f"/api/v1/gaps?{query}")
    assert status == 200, answer
    return [(one["symbol"], one["from_id"], one["state"]) for one in answer["gaps"]]


async def test_gaps_and_filters(served: World, source: Source) -> None:
    source.store.write(
        [],
        [
            gap(10, REPAIRED, 1000),
            gap(30, UNREPAIRABLE, 2000),
            gap(50, OPEN, 3000),
            gap(7, OPEN, 3000, symbol_id=2, stream=AGGS),
        ],
        Position(1, 1),
    )
    status, answer = await get(served, "/api/v1/gaps?symbol=btcusdt&limit=2")
    assert status == 200
    assert answer["gaps"][1] == {
        "symbol": "BTCUSDT", "stream": "trade", "state": "unrepairable", "from_id": 30, "to_id": 39,
        "missing": 10, "opened_at": 2_000_000, "closed_at": 2_005_000, "from_time": 1_900_000,
        "to_time": 1_999_000,
    }  # fmt: skip
    status, rest = await get(served, f"/api/v1/gaps?cursor={answer['next']}")
    assert [one["from_id"] for one in rest["gaps"]] == [50], "the filter goes on with the cursor"
    assert rest["next"] is None
    assert rest["gaps"][0]["closed_at"] is None
    whole = [("BTCUSDT", 10, "repaired"), ("BTCUSDT", 30, "unrepairable"), ("BTCUSDT", 50, "open"),
             ("ETHUSDT", 7, "open")]  # fmt: skip
    assert await gaps_of(served) == whole
    assert await gaps_of(served, "state=open") == whole[2:]
    assert await gaps_of(served, "from=1000&to=1901") == whole[:2]
    assert await gaps_of(served, "from=1000&to=1900") == whole[:1], "to is exclusive"
    assert await gaps_of(served, "from=1001&to=2950") == whole[1:]
    assert await gaps_of(served, "from=3001") == []


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("symbol=NOPE", 404, "unknown_symbol"),
        ("state=lost", 400, "bad_request"),
        ("from=x", 400, "bad_request"),
        ("from=9&to=3", 400, "bad_request"),
        ("limit=0", 400, "bad_request"),
        ("limit=5001", 400, "bad_request"),
        ("cursor=!", 400, "bad_request"),
    ],
)
async def test_questions_that_are_none(
    served: World, source: Source, query: str, status: int, code: str
) -> None:
    found, answer = await get(served, f"/api/v1/gaps?{query}")
    assert (found, answer["error"]["code"]) == (status, code)


async def test_before_the_engine_is_up(served: World) -> None:
    status, answer = await get(served, "/api/v1/gaps")
    assert (status, answer["error"]["code"]) == (503, "not_ready")


async def test_a_price_knows_whether_it_is_complete(served: World, source: Source) -> None:
    source.publish(trades_at([BEGIN_S, BEGIN_S + 1], first_id=1))
    source.publish(trades_at([BEGIN_S + 9, BEGIN_S + 10], first_id=5))

    async def asked(after_s: float) -> tuple[int, bool]:
        at_ms = int((BEGIN_S + after_s) * 1000)
        status, answer = await get(served, f"/api/v1/symbols/BTCUSDT/price?at={at_ms}")
        assert status == 200
        return answer["trade_id"], answer["complete"]

    assert await asked(0.5) == (1, True)
    assert await asked(5) == (2, False), "3 and 4 are missing"
    assert await asked(9.5) == (5, True)
    assert await asked(11) == (6, False), "nothing proves the newest"
    source.ledger.sweep(SECOND_NS)
    late = trades_at([BEGIN_S + 4, BEGIN_S + 6], first_id=3)
    late["flags"] = REPAIRED_FLAG | LATE
    source.publish(late)
    assert await asked(5) == (3, True)
    assert await asked(6) == (4, True)
    stand_in = trades_at([BEGIN_S + 12], first_id=8)
    stand_in["flags"], stand_in["ask"], stand_in["ask_quantity"] = STAND_IN, 7, 2
    source.publish(stand_in)
    source.publish(trades_at([BEGIN_S + 20], first_id=9))
    assert await asked(13) == (8, False), "a stand-in is no trade"
    assert await asked(11) == (6, False)


async def test_ticks_are_in_order_of_id_wherever_they_stand(served: World, source: Source) -> None:
    source.publish(trades_at([BEGIN_S, BEGIN_S + 1, BEGIN_S + 9], first_id=1)[[0, 1]])
    source.publish(trades_at([BEGIN_S + 9], first_id=5))
    late = trades_at([BEGIN_S + 4, BEGIN_S + 6], first_id=3)
    late["flags"] = REPAIRED_FLAG | LATE
    source.publish(late)
    seen: list[tuple[int, bool]] = []
    query = f"from={BEGIN_S}&to={BEGIN_S + 60}&limit=2"
    while query:
        _, answer = await get(served, f"/api/v1/symbols/BTCUSDT/ticks?{query}")
        seen += [(tick["id"], tick["repaired"]) for tick in answer["ticks"]]
        query = f"cursor={answer['next']}" if answer["next"] else ""
    assert seen == [(1, False), (2, False), (3, True), (4, True), (5, False)]


async def test_bars_know_of_gaps_and_of_their_repair(served: World, source: Source) -> None:
    times = [BEGIN_S + 10 * number for number in range(30)]  # six trades a minute, five minutes
    rows = trades_at(times, first_id=1)
    gone = np.isin(rows["id"], (12, 13))  # the last of the second minute, the first of the third
    source.publish(rows[~gone])

    async def complete() -> list[bool]:
        return [bar["complete"] for bar in await bars_of(served, f"resolution=1m&from={BEGIN_S - 600}")]

    assert await complete() == [False, False, False, True, False]
    late = rows[gone]
    late["flags"] = REPAIRED_FLAG | LATE
    source.publish(late)
    assert await complete() == [False, True, True, True, False]
    bars = await bars_of(served, f"resolution=1m&from={BEGIN_S - 600}")
    assert [bar["trade_count"] for bar in bars] == [6] * 5
    assert [bar["volume"] for bar in bars] == [3.0] * 5
    # An answer of one bar: the ledger knows its neighbours.
    (bar,) = await bars_of(served, f"resolution=1m&from={BEGIN_S + 60}&to={BEGIN_S + 120}")
    assert bar["complete"]


async def test_a_seeded_bar_is_proved_by_what_was_repaired(served: World, source: Source) -> None:
    """The trade just before the boundary comes late: only then is it known that none fell between."""
    edge_s = BEGIN_S + 30
    before = trades_at([BEGIN_S - 5, BEGIN_S + 5], first_id=1)
    source.publish(before)
    source.publish(boundary_row(1, edge_s * 1_000_000))
    seeds = _seeds(edge_s)
    source.publish(seeds)
    source.publish(trades_at([edge_s + 1, edge_s + 2, edge_s + 40, edge_s + 140], first_id=4))

    async def minute() -> dict[str, Any]:
        return (await bars_of(served, f"resolution=1m&from={BEGIN_S}&to={BEGIN_S + 60}"))[0]

    assert (await minute())["complete"] is False
    assert (await minute())["trade_count"] == 4
    late = trades_at([edge_s - 1], first_id=3)
    late["flags"] = REPAIRED_FLAG | LATE
    source.publish(late)
    found = await minute()
    assert found["trade_count"] == 4, "the klines have it already"
    assert found["complete"] is True


def _seeds(edge_s: int) -> Rows:
    """The seed of the minute: two trades before the boundary."""
    from tradeback.derive.layout import RESOLUTIONS
    from tradeback.model.record import SEED_BAR, SEED_BAR_MORE, empty_rows

    pair = empty_rows(2)
    pair["kind"], pair["symbol_id"] = (SEED_BAR, SEED_BAR_MORE), 1
    pair["id"], pair["exchange_us"] = RESOLUTIONS.index("1m"), BEGIN_S * 1_000_000
    pair["flags"] = 5
    pair["price"] = 101.0, 100_000.0
    pair["quantity"] = 102.0, 50_000.0
    pair["ask"] = 100.0, 2.0
    pair["ask_quantity"] = 101.5, edge_s * 1_000_000.0
    return pair
