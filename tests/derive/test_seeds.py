"""Seeds: composed from klines, and put together with the tape, against aggregating everything."""

import random
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.derive.world import (
    DAY_US,
    NAMES,
    SIZES_S,
    START_US,
    Trade,
    aggregate,
    answers_of,
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
from tradeback.derive.bars import from_rows, is_complete
from tradeback.derive.klines import bars_of
from tradeback.derive.layout import EXCHANGE, PARTIAL, SEEDED
from tradeback.derive.seeds import (
    bar_rows,
    boundary_row,
    history_bars,
    levels_of,
    seed_ranges,
)
from tradeback.derive.state import Derived
from tradeback.model.record import SEED_BAR, SEED_BAR_MORE, TRADE, Rows

seeds = st.integers(0, 1 << 32)


def start(trades: list[Trade]) -> Derived:
    derived = Derived(1)
    derived.add_symbol(symbol())
    feed(derived, rows_of(trades))
    return derived


@settings(max_examples=80, deadline=None)
@given(seeds, st.integers(1, 150), st.integers(0, DAY_US))
def test_composed_seeds_equal_aggregating_everything_before_the_boundary(
    seed: int, count: int, offset: int
) -> None:
    world = make_trades(seed, count, gap_us=3_000_000)
    boundary = world[random.Random(seed).randrange(count)].time_us + offset % (1 << offset % 37 | 1)
    boundary -= boundary % 1_000_000
    rows = bar_rows(symbol(), boundary, answers_of(world, boundary))
    pairs = {int(pair["id"][0]): pair for pair in rows.reshape(-1, 2)}
    for index, name in enumerate(NAMES):
        size = SIZES_S[name] * 1_000_000
        slot = boundary - boundary % size
        if slot == boundary:
            assert index not in pairs
            continue
        first, more = pairs[index]
        assert (first["kind"], more["kind"]) == (SEED_BAR, SEED_BAR_MORE)
        assert first["exchange_us"] == more["exchange_us"] == slot
        assert more["ask_quantity"] == boundary
        before = [trade for trade in world if slot <= trade.time_us < boundary]
        assert more["ask"] == len(before)
        if before:
            whole = aggregate(before)
            prices = first["price"], first["quantity"], first["ask"], first["ask_quantity"]
            assert prices == (whole.open, whole.high, whole.low, whole.close)
            assert Decimal(more["price"]).scaleb(-8) == whole.volume
            assert Decimal(more["quantity"]).scaleb(-8) == whole.taker_volume


@settings(max_examples=150, deadline=None)
@given(seeds, st.integers(2, 120), st.data())
def test_seed_and_tape_make_the_whole_bar_whatever_the_order(
    seed: int, count: int, data: st.DataObject
) -> None:
    """The tape has some trades before the boundary and all after it; the seed comes any time."""
    rng = random.Random(seed)
    world = make_trades(seed, count, gap_us=2_000_000)
    begin = data.draw(st.integers(0, count - 1))
    tape = world[begin:]
    early = data.draw(st.integers(0, len(tape)))
    derived = start(tape[:early])
    newest = max((trade.time_us for trade in tape[:early]), default=world[begin].time_us)
    missed = world[begin - 1].time_us + 1 if begin else 1
    feed(derived, boundary_row(1, max(missed, newest - rng.randrange(3_000_000))))
    boundary = derived.boundary_us(1)
    assert boundary % 1_000_000 == 0
    if early:
        assert newest < boundary <= max(missed, newest) + 1_000_000
    rest = tape[early:]
    if data.draw(st.booleans()):
        rng.shuffle(rest)
    pairs = list(bar_rows(symbol(), boundary, answers_of(world, boundary)).reshape(-1, 2))
    rng.shuffle(pairs)
    at = data.draw(st.integers(0, len(rest)))
    feed(derived, rows_of(rest[:at]))
    for pair in pairs:
        feed(derived, pair, [rng.randrange(2)])
    feed(derived, rows_of(rest[at:]))
    refused = derived.counters["seeds_refused"]
    for index, name in enumerate(NAMES):
        size = SIZES_S[name] * 1_000_000
        slot = boundary - boundary % size
        found = {int(row["slot_us"]): row for row in seen(derived, 1, index)}
        held = found.pop(slot, None)
        if held is not None and held["flags"] & SEEDED:
            whole = slots(world, name)[slot // 1_000_000]
            assert expected_of(held) == whole
            assert not held["flags"] & PARTIAL
        elif slot < boundary:
            covered = [trade for trade in world if slot <= trade.time_us < boundary]
            if not refused:  # an empty seed of an empty bar leaves no mark
                assert not covered
                assert (held is None) == (slot // 1_000_000 not in slots(world, name))
                if held is not None:
                    assert expected_of(held) == slots(world, name)[slot // 1_000_000]
        own = slots(tape, name)
        for slot_us, row in found.items():
            assert expected_of(row) == own[slot_us // 1_000_000]
    if at == 0:
        assert refused == 0, "nothing can have left memory before the seed came"


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(2, 100), st.data())
def test_a_second_boundary_after_a_pause_replaces_what_the_first_has_counted(
    seed: int, count: int, data: st.DataObject
) -> None:
    """Trades of the pause never reach the tape; the second seed brings them."""
    world = make_trades(seed, count, gap_us=1_000_000)
    first = data.draw(st.integers(1, count - 1))
    second = data.draw(st.integers(first, count - 1))
    derived = start(world[: max(1, first // 2)])
    feed(derived, boundary_row(1, 1))
    boundary = derived.boundary_us(1)
    feed(derived, bar_rows(symbol(), boundary, answers_of(world, boundary)))
    live = list(world[max(1, first // 2) : first])
    feed(derived, rows_of(live))
    feed(derived, boundary_row(1, max(boundary, world[second].time_us) + 1))
    again = derived.boundary_us(1)
    assert again > boundary
    late = [trade for trade in world[second:] if trade.time_us < again]
    feed(derived, rows_of(late))
    feed(derived, bar_rows(symbol(), again, answers_of(world, again)))
    feed(derived, rows_of([trade for trade in world[second:] if trade.time_us >= again]))
    for index, name in enumerate(NAMES):
        slot = again - again % (SIZES_S[name] * 1_000_000)
        if slot == again:
            continue
        held = {int(row["slot_us"]): row for row in seen(derived, 1, index)}.get(slot)
        whole = slots(world, name).get(slot // 1_000_000)
        if whole is None:
            assert held is None
        else:
            assert held is not None
            assert expected_of(held) == whole


def seeded_day() -> tuple[Derived, list[Trade]]:
    base = START_US - START_US % DAY_US + 3_600_000_000
    world = [Trade(n, base + n * 250_000, f"{n}.00", "1.0000", n % 2 == 0) for n in range(1, 400)]
    derived = start(world[200:210])
    feed(derived, boundary_row(1, 1))
    boundary = derived.boundary_us(1)
    feed(derived, bar_rows(symbol(), boundary, answers_of(world, boundary)))
    return derived, world


def test_a_seeded_bar_is_proved_complete_by_the_trade_before_the_boundary() -> None:
    derived, world = seeded_day()
    feed(derived, rows_of(world[210:]))
    minute = NAMES.index("1m")
    bars = from_rows(seen(derived, 1, minute))
    assert bars[0].flags & SEEDED
    assert is_complete(bars[0], None, bars[1])
    assert not is_complete(bars[-1], bars[-2], None)


def test_a_seeded_bar_with_a_trade_missing_at_the_boundary_is_not_complete() -> None:
    derived, world = seeded_day()
    edge = next(n for n, trade in enumerate(world) if trade.time_us >= derived.boundary_us(1))
    feed(derived, rows_of(world[210:edge] + world[edge + 1 :]))
    bars = from_rows(seen(derived, 1, NAMES.index("1m")))
    assert bars[0].flags & SEEDED
    assert not is_complete(bars[0], None, bars[1])


def test_a_seed_comes_twice_without_harm() -> None:
    derived, world = seeded_day()
    feed(derived, rows_of(world[210:300]))
    before = [stable(seen(derived, 1, index)) for index in range(len(NAMES))]
    boundary = derived.boundary_us(1)
    feed(derived, bar_rows(symbol(), boundary, answers_of(world, boundary)))
    feed(derived, boundary_row(1, boundary))
    assert [stable(seen(derived, 1, index)) for index in range(len(NAMES))] == before


def test_without_a_boundary_a_seed_is_taken_only_if_no_counted_trade_is_after_it() -> None:
    base = START_US - START_US % DAY_US + 90_500_000
    world = [Trade(n, base + n * 400_000, "1.00", "1.0000", True) for n in range(1, 20)]
    boundary = base - base % 1_000_000 + 3_000_000
    rows = bar_rows(symbol(), boundary, answers_of(world, boundary))
    early = start([trade for trade in world if trade.time_us < boundary])
    feed(early, rows)
    assert early.boundary_us(1) == boundary
    assert early.counters["seeds"] == 6
    late = start(world)
    feed(late, rows)
    assert late.counters["seeds"] == 0
    assert late.counters["seeds_refused"] == 6
    assert expected_of(late.bars_open(1, 6)[0]).trade_count == 19


def damaged(rows: Rows, field: str, value: float, which: int) -> Rows:
    rows = rows.copy()
    rows[field][which] = value
    return rows


@pytest.mark.parametrize(
    ("field", "value", "which"),
    [("id", 1, 0), ("id", 9, 1), ("symbol_id", 2, 0), ("exchange_us", 1, 0), ("exchange_us", 1, 1),
     ("price", -1.0, 1), ("price", np.nan, 1), ("quantity", 1e17, 1), ("ask", -1.0, 1), ("ask", 1e300, 1),
     ("ask_quantity", 1.5e15, 1), ("ask_quantity", np.nan, 1), ("price", 1e9, 0), ("quantity", np.inf, 0),
     ("flags", 9, 1), ("kind", TRADE, 0)],
)  # fmt: skip
def test_a_damaged_seed_changes_no_bar(field: str, value: float, which: int) -> None:
    base = START_US - START_US % DAY_US + 90_500_000
    world = [Trade(n, base + n * 400_000, "3.00", "1.0000", True) for n in range(1, 9)]
    derived = start(world[5:6])
    derived.add_symbol(symbol(2))
    feed(derived, boundary_row(1, 1))
    pair = bar_rows(symbol(), derived.boundary_us(1), answers_of(world, derived.boundary_us(1)))[-2:]
    assert pair["id"].tolist() == [6, 6]
    feed(derived, damaged(pair, field, value, which))
    assert derived.counters["seeds"] == 0
    assert derived.counters["seeds_refused"] == 1
    assert derived.bars_open(1, 6)["seed_count"].tolist() == [0]


def test_seed_on_a_coarser_grid_is_brought_to_the_symbols_own() -> None:
    derived, _ = seeded_day()
    volume = derived.bars_open(1, 6)["volume"]
    coarse = symbol(1, "1.00000000")
    other = Derived(1)
    other.add_symbol(symbol())
    base = START_US - START_US % DAY_US + 3_600_000_000
    world = [Trade(n, base + n * 250_000, f"{n}.00", "1.0000", n % 2 == 0) for n in range(1, 400)]
    feed(other, rows_of(world[200:210]))
    feed(other, boundary_row(1, 1))
    feed(
        other,
        bar_rows(coarse, other.boundary_us(1), answers_of(world, other.boundary_us(1), coarse.lot_digits)),
    )
    assert other.bars_open(1, 6)["volume"] == volume


def test_ranges_are_within_one_request_and_tile_the_day() -> None:
    boundary = START_US - START_US % DAY_US + (13 * 3600 + 59 * 60 + 59) * 1_000_000
    ranges = seed_ranges(boundary)
    assert [(asked.interval, asked.limit) for asked in ranges] == [("1h", 13), ("1m", 59), ("1s", 59)]
    assert ranges[0].end_ms + 1 == ranges[1].start_ms
    assert ranges[1].end_ms + 1 == ranges[2].start_ms
    assert ranges[2].end_ms + 1 == boundary // 1000
    assert seed_ranges(boundary - boundary % DAY_US) == ()


def test_a_resolution_without_its_klines_gets_no_seed() -> None:
    boundary = START_US - START_US % DAY_US + (3600 + 61) * 1_000_000
    world = make_trades(1, 5)
    found = answers_of(world, boundary)
    del found["1h"]
    rows = bar_rows(symbol(), boundary, found)
    assert {NAMES[index] for index in rows["id"].tolist()} == {"1m", "5m", "15m", "1h"}
    with pytest.raises(ValueError, match="whole second"):
        bar_rows(symbol(), boundary + 1, found)


def test_history_takes_closed_klines_that_traded() -> None:
    base = START_US - START_US % DAY_US
    world = [Trade(n, base + n * 30_000_000, f"{n}.00", "2.5000", n % 2 == 0) for n in range(8)]
    found = bars_of(klines(world, "1m", base // 1000, base // 1000 + 299_999), 8)
    rows = history_bars(symbol(), "1m", found[::-1], base // 1000 + 179_999)
    assert rows["slot_us"].tolist() == [base, base + 60_000_000]
    assert set(rows["flags"].tolist()) == {EXCHANGE}
    own = slots(world, "1m")
    assert [expected_of(row) for row in rows] == [own[base // 1_000_000], own[base // 1_000_000 + 60]]
    assert len(history_bars(symbol(), "1m", found, 1 << 50)) == 4


def test_levels_come_from_klines_that_traded() -> None:
    month = [
        [0, "5", "9", "4", "6", "1", 1, "0", 3, "1", "0", "0"],
        [1, "1", "1", "1", "1", "0", 2, "0", 0, "0", "0", "0"],
    ]
    assert levels_of(bars_of(month, 4)) == (9.0, 4.0)
    assert levels_of(bars_of(month[1:], 4)) is None
