"""stores.gaps_sqlite: what goes in comes out, twice does no harm, and it survives a restart."""

from pathlib import Path

import pytest

from tradeback.derive.completeness_gap import AGGS, OPEN, REPAIRED, TRADES, UNREPAIRABLE, Gap, StreamState
from tradeback.stores.gaps_sqlite import GapQuery, GapsSqlite
from tradeback.stores.ports import Position

STATES = [
    StreamState(1, TRADES, 5, 900, 123, ((7, 8), (20, 30)), ((20, 22),), ((7, 8, 111, 222, 333, 444),)),
    StreamState(1, AGGS, 0, 3, 9),
]
GAPS = [
    Gap(1, TRADES, 20, 30, OPEN, 8, 1_000, 0, 1, 2, 3),
    Gap(1, TRADES, 40, 41, REPAIRED, 0, 500, 900, 1, 2, 3),
    Gap(2, AGGS, 40, 41, UNREPAIRABLE, 2, 2_000, 2_500),
]


@pytest.fixture
def store(tmp_path: Path) -> GapsSqlite:
    return GapsSqlite(tmp_path / "gaps.sqlite")


def test_a_new_file(store: GapsSqlite) -> None:
    loaded = store.load()
    assert (loaded.position, list(loaded.states), list(loaded.gaps)) == (Position(0, 0), [], [])
    assert store.find(GapQuery()) == []


def test_there_and_back(store: GapsSqlite, tmp_path: Path) -> None:
    for _ in range(2):
        store.write(STATES, GAPS, Position(7, 99))
    store.close()
    again = GapsSqlite(tmp_path / "gaps.sqlite")
    loaded = again.load()
    assert loaded.position == Position(7, 99)
    assert list(loaded.states) == STATES
    assert list(loaded.gaps) == [GAPS[0], GAPS[2]], "repaired ones are history"
    assert again.find(GapQuery()) == [GAPS[1], GAPS[0], GAPS[2]], "in the order in which they were noted"
    again.close()


def test_the_newest_word_counts(store: GapsSqlite) -> None:
    store.write(STATES, GAPS, Position(7, 99))
    closed = Gap(1, TRADES, 20, 30, REPAIRED, 0, 1_000, 3_000, 1, 2, 3)
    store.write([StreamState(1, AGGS, 0, 8, 10)], [closed], Position(7, 120))
    assert closed in store.find(GapQuery(symbol_id=1))
    assert [state.top_id for state in store.load().states] == [900, 8]
    assert store.load().position == Position(7, 120)
    store.close()


def test_filters_and_pages(store: GapsSqlite) -> None:
    gaps = [
        Gap(1 + n % 2, TRADES, 10 * n, 10 * n + 1, OPEN + n % 3, 2, 1_000_000 * n, 0, 900 * n, 950 * n)
        for n in range(1, 40)
    ]
    store.write([], gaps, Position(1, 1))
    assert store.find(GapQuery(symbol_id=2)) == [gap for gap in gaps if gap.symbol_id == 2]
    assert store.find(GapQuery(states=(OPEN, REPAIRED))) == [g for g in gaps if g.state in (OPEN, REPAIRED)]
    # A gap lasts from the record before it (or its note, if that was earlier) until it was noted.
    found = store.find(GapQuery(from_us=10_000, to_us=20_000))
    assert found == [gap for gap in gaps if gap.opened_ns >= 10_000_000 and gap.before_us < 20_000]
    seen: list[Gap] = []
    while page := store.find(
        GapQuery(limit=7, after=(seen[-1].opened_ns, seen[-1].symbol_id, 0, *seen[-1].name) if seen else None)
    ):
        seen += page
    assert seen == gaps
    store.close()


def test_forgetting_keeps_history(store: GapsSqlite) -> None:
    store.write(STATES, GAPS, Position(7, 99))
    store.forget()
    assert store.load().position == Position(0, 0)
    assert list(store.load().states) == []
    assert len(store.find(GapQuery())) == 3
    store.close()
