"""The embedded series store: merging is exact, a write is all or nothing, repeating it changes nothing."""

import itertools
import random
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.derive.world import (
    NAMES,
    START_US,
    Trade,
    expected_of,
    feed,
    klines,
    make_trades,
    rows_of,
    seen,
    slots,
    stable,
    symbol,
)
from tradeback.derive.klines import bars_of
from tradeback.derive.layout import EXCHANGE, NO_FIRST_ID, PARTIAL, Bars, Drained, empty_bars
from tradeback.derive.seeds import history_bars
from tradeback.derive.state import Derived
from tradeback.model.errors import StartupError
from tradeback.stores.ports import Position
from tradeback.stores.series_sqlite import SeriesSqlite

ALWAYS = (0, 1 << 40)
MINUTE = NAMES.index("1m")
seeds = st.integers(0, 1 << 32)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    store = SeriesSqlite(tmp_path / "series.sqlite")
    yield store
    store.close()


def follow(symbols: int = 1) -> Derived:
    derived = Derived(symbols)
    for symbol_id in range(1, symbols + 1):
        derived.add_symbol(symbol(symbol_id))
    return derived


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(1, 120), st.lists(st.integers(1, 119), max_size=5))
def test_flushed_at_any_points_the_store_holds_every_trade_once(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, flushes: list[int]
) -> None:
    store = SeriesSqlite(tmp_path_factory.mktemp("series") / "series.sqlite")
    trades = make_trades(seed, count, symbols=2)
    mixed = list(trades)
    random.Random(seed).shuffle(mixed)
    rows, derived, whole = rows_of(mixed), follow(2), follow(2)
    feed(whole, rows)
    cuts = sorted({0, count, *(cut for cut in flushes if cut < count)})
    for begin, end in itertools.pairwise(cuts):
        feed(derived, rows[begin:end])
        drained = derived.drain()
        for _ in range(2):  # not knowing whether a write has succeeded, one may repeat it
            store.write(drained, Position(7, end))
    for symbol_id in (1, 2):
        own = [trade for trade in trades if trade.symbol_id == symbol_id]
        for index, name in enumerate(NAMES):
            held = store.range(symbol_id, index, *ALWAYS, 10_000)
            assert stable(held) == stable(seen(whole, symbol_id, index))
            assert {int(row["slot_us"]) // 1_000_000: expected_of(row) for row in held} == slots(own, name)
    loaded = store.load()
    assert loaded.position == store.position() == Position(7, count)
    again = follow(2)
    again.restore(loaded.states, loaded.parts)
    for symbol_id in (1, 2):
        assert again.enigma(symbol_id) == whole.enigma(symbol_id)
        for index in range(len(NAMES)):
            assert again.bars_open(symbol_id, index).tobytes() == whole.bars_open(symbol_id, index).tobytes()
    store.close()


def filled(store: SeriesSqlite, minutes: int, *, missing: int = -1) -> list[Trade]:
    """Two trades in each of so many minutes, one of them missing; flushed as the tape's first records."""
    base = START_US - START_US % 3_600_000_000
    world = [Trade(n, base + n * 30_000_000, f"{n}.00", "1.0000", n % 3 == 0) for n in range(1, 2 * minutes)]
    derived = follow()
    feed(derived, rows_of([trade for trade in world if trade.id != missing]))
    store.write(derived.drain(), Position(7, len(world)))
    return world


def minute_klines(world: list[Trade], base: int) -> Bars:
    """From the minute before `base` (us) to the tenth after it."""
    return bars_of(klines(world, "1m", base // 1000 - 60_000, base // 1000 + 599_999), symbol().lot_digits)


def times(bars: np.ndarray[Any, Any]) -> list[int]:
    return [int(slot) // 60_000_000 % 60 for slot in bars["slot_us"]]


def test_a_range_is_from_inclusive_to_exclusive_ascending_and_limited(store: SeriesSqlite) -> None:
    filled(store, 10)
    base = (START_US - START_US % 3_600_000_000) // 1_000_000
    assert times(store.range(1, MINUTE, base + 120, base + 300, 100)) == [2, 3, 4]
    assert times(store.range(1, MINUTE, base + 120, base + 300, 2)) == [2, 3]
    assert times(store.range(1, MINUTE, base, base + 3600, 100)) == list(range(10))
    assert times(store.range(1, MINUTE, base, base + 3600, 9)) == list(range(9))
    assert len(store.range(2, MINUTE, base, base + 3600, 100)) == 0
    assert len(store.range(1, MINUTE, base + 3600, base + 7200, 100)) == 0


def test_closed_bars_come_with_one_neighbour_on_either_side(store: SeriesSqlite) -> None:
    filled(store, 12)  # minutes 0 to 9 have left memory, 10 and 11 are open
    base = (START_US - START_US % 3_600_000_000) // 1_000_000
    found = store.closed(1, MINUTE, base + 120, base + 300, 100)
    assert (times(found.rows), found.truncated, found.position) == ([1, 2, 3, 4, 5], False, Position(7, 23))
    found = store.closed(1, MINUTE, base + 120, base + 300, 2)
    assert (times(found.rows), found.truncated) == ([1, 2, 3, 4], True)
    found = store.closed(1, MINUTE, base + 120, base + 300, 2, newest=True)
    assert (times(found.rows), found.truncated) == ([2, 3, 4, 5], True)
    found = store.closed(1, MINUTE, base, base + 3600, 100, newest=True)
    assert (times(found.rows), found.truncated) == (list(range(10)), False)


def test_history_replaces_what_is_not_proved_complete(store: SeriesSqlite) -> None:
    world = filled(store, 12, missing=9)
    base = START_US - START_US % 3_600_000_000
    extra = [Trade(n, base - 60_000_000 + n, "77.00", "5.0000", False) for n in range(3)]
    bars = history_bars(symbol(), "1m", minute_klines(extra + world, base), 1 << 50)
    assert bars["slot_us"].tolist() == [base + n * 60_000_000 for n in range(-1, 10)]
    # Minute 0 has no proved start, trade 9 is missing between 4 and 5, and 9 has no closed neighbour yet.
    assert store.put_history(bars) == 5
    held = store.range(1, MINUTE, base // 1_000_000 - 60, base // 1_000_000 + 600, 100)
    taken = [minute for minute, flags in zip(times(held), held["flags"], strict=True) if flags & EXCHANGE]
    assert taken == [59, 0, 4, 5, 9]
    own = slots(extra + world, "1m")
    for row in held:
        assert expected_of(row) == own[int(row["slot_us"]) // 1_000_000]
    assert held["first_id"][0] == NO_FIRST_ID
    assert held["first_id"][1] == 1, "the ids seen on the tape stay, they prove the neighbours"


def test_what_comes_late_does_not_change_the_exchanges_bar(store: SeriesSqlite) -> None:
    world = filled(store, 12, missing=9)
    base = START_US - START_US % 3_600_000_000
    store.put_history(history_bars(symbol(), "1m", minute_klines(world, base), 1 << 50))
    loaded = store.load()
    derived = follow()
    derived.restore(loaded.states, loaded.parts)
    feed(derived, rows_of([trade for trade in world if trade.id == 9]))
    store.write(derived.drain(), Position(7, 24))
    held = store.range(1, MINUTE, base // 1_000_000, base // 1_000_000 + 600, 100)
    own = slots(world, "1m")
    assert [expected_of(row) for row in held] == [own[int(row["slot_us"]) // 1_000_000] for row in held]


def test_a_rebuild_replaces_own_bars_and_keeps_the_exchanges(store: SeriesSqlite) -> None:
    world = filled(store, 12)
    base = START_US - START_US % 3_600_000_000
    older = [Trade(n, base - 60_000_000 + n, "77.00", "5.0000", False) for n in range(3)]
    store.put_history(history_bars(symbol(), "1m", minute_klines(older, base), 1 << 50))
    store.begin_rebuild()
    assert store.position() == Position(0, 0)
    assert len(store.load().states) == len(store.load().parts) == 0
    tape = world[10:]
    derived = follow()
    feed(derived, rows_of(tape))
    store.write(derived.drain(), Position(9, len(tape)))
    held = store.range(1, MINUTE, base // 1_000_000 - 60, base // 1_000_000 + 3600, 100)
    own, short = slots(older + world, "1m"), slots(tape, "1m")
    for row in held:
        slot = int(row["slot_us"]) // 1_000_000
        assert expected_of(row) == short.get(slot, own[slot])
    assert times(held) == [59, *range(12)]


def test_a_failed_write_leaves_nothing_behind(store: SeriesSqlite, tmp_path: Path) -> None:
    filled(store, 5)
    before = store.load()
    derived = follow()
    derived.restore(before.states, before.parts)
    feed(derived, rows_of([Trade(100, START_US + 86_400_000_000, "5.00", "1.0000", False)]))
    drained = derived.drain()
    blocked = Drained(drained.closed, drained.parts, drained.states)
    blocked.states = np.zeros(1, np.dtype([("dirty", "u1")]))  # fails after bars and parts were written
    with pytest.raises(ValueError, match="symbol_id"):
        store.write(blocked, Position(7, 10))
    after = store.load()
    assert after.position == before.position
    assert after.parts.tobytes() == before.parts.tobytes()
    store.write(drained, Position(7, 10))
    assert store.position() == Position(7, 10)


def test_reading_goes_on_while_a_thread_writes(store: SeriesSqlite) -> None:
    """Every view is of one moment: bars of all resolutions count as many trades as the position says."""
    base = START_US - START_US % 86_400_000_000
    world = [Trade(n, base + n * 1_500_000, "1.00", "1.0000", False) for n in range(1, 1201)]
    stop = threading.Event()

    def write() -> None:
        derived = follow()
        for begin in range(0, len(world), 30):
            feed(derived, rows_of(world[begin : begin + 30]))
            store.write(derived.drain(), Position(7, begin + 30))
        stop.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen_counts = set()
    while not stop.is_set():
        found = store.range(1, MINUTE, *ALWAYS, 10_000)
        count = int(found["trade_count"].sum())
        assert count % 30 == 0
        seen_counts.add(count)
    writer.join()
    assert int(store.range(1, 0, *ALWAYS, 10_000)["trade_count"].sum()) == 1200
    assert store.closed(1, MINUTE, *ALWAYS, 1).position == Position(7, 1200)


def test_a_store_of_another_shape_is_refused(tmp_path: Path) -> None:
    store = SeriesSqlite(tmp_path / "series.sqlite")
    filled(store, 3)
    store.close()
    connection = sqlite3.connect(tmp_path / "series.sqlite")
    connection.execute("UPDATE states SET state = x'00'")
    connection.commit()
    connection.close()
    store = SeriesSqlite(tmp_path / "series.sqlite")
    with pytest.raises(StartupError, match="remove the file"):
        store.load()
    store.close()


def test_an_empty_drain_moves_the_position_only(store: SeriesSqlite) -> None:
    nothing = follow().drain()
    store.write(nothing, Position(3, 5))
    assert store.load().position == Position(3, 5)
    store.write(nothing, Position(4, 2))
    assert store.load().position == Position(4, 2), "a new epoch counts from where it began"
    assert len(store.range(1, 0, *ALWAYS, 10)) == len(empty_bars(0))


def test_stores_and_sinks_do_not_import_numba() -> None:
    code = (
        "import sys, tradeback.stores.series_sqlite, tradeback.stores.registry_sqlite;"
        "import tradeback.sinks.series, tradeback.derive.seeds;"
        "sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_bars_of_memory_and_store_carry_the_same_hints(store: SeriesSqlite) -> None:
    world = filled(store, 3)
    derived = follow()
    feed(derived, rows_of(world))
    day = NAMES.index("1d")
    held = store.range(1, day, *ALWAYS, 10)
    assert held["flags"].tolist() == [PARTIAL]
    assert held.tobytes() == derived.bars_open(1, day).tobytes()
