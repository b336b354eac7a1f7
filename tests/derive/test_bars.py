"""The rules of merging and completeness."""

import random
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.derive.world import NAMES, Trade, feed, make_trades, rows_of, seen, symbol
from tradeback.derive.bars import (
    Bar,
    complete_mask,
    from_rows,
    is_complete,
    merge_all,
    merge_bars,
    settle,
    to_rows,
    volumes,
)
from tradeback.derive.layout import (
    ANCHORED,
    EXCHANGE,
    LATE,
    NO_FIRST_ID,
    NO_ID,
    PARTIAL,
    SEEDED,
    empty_bars,
)
from tradeback.derive.state import Derived

seeds = st.integers(0, 1 << 32)
MINUTE = NAMES.index("1m")


def bar(first: int, last: int, **changed: float) -> Bar:
    """A minute bar of the trades with ids first..last, each one lot at a price of its id."""
    whole = Bar(
        slot_us=60_000_000 * first, open=float(first), close=float(last), high=float(last), low=float(first),
        volume=last - first + 1, taker_volume=0, trade_count=last - first + 1, first_id=first, last_id=last,
        seed_count=0, boundary_us=0, symbol_id=1, resolution=MINUTE, flags=0, lot_digits=4,
    )  # fmt: skip
    return whole._replace(**changed)  # type: ignore[arg-type]


seed_part = bar(1, 3, first_id=NO_FIRST_ID, last_id=NO_ID, seed_count=3, boundary_us=500, flags=SEEDED)


@settings(max_examples=200)
@given(seeds, st.integers(1, 12), st.booleans())
def test_merging_in_any_grouping_gives_the_whole(seed: int, count: int, seeded: bool) -> None:
    rng = random.Random(seed)
    parts = [bar(n, n, volume=n * 7, taker_volume=n, slot_us=0) for n in range(10, 10 + count)]
    if seeded:
        parts.append(seed_part._replace(slot_us=0))
    whole = parts[0]
    for part in parts[1:]:
        whole = merge_bars(whole, part)
    while len(parts) > 1:
        rng.shuffle(parts)
        parts.append(merge_bars(parts.pop(), parts.pop()))
    assert parts[0] == whole
    assert whole.open == (1.0 if seeded else 10.0)
    assert (whole.close, whole.high) == (9.0 + count, 9.0 + count)
    assert whole.trade_count - whole.seed_count == count == whole.last_id - whole.first_id + 1
    assert whole.flags == (SEEDED if seeded else 0)


def test_empty_parts_are_neutral() -> None:
    (nothing,) = from_rows(empty_bars(1))
    nothing = nothing._replace(slot_us=bar(5, 9).slot_us, symbol_id=1, resolution=MINUTE, lot_digits=4)
    assert merge_bars(bar(5, 9), nothing) == merge_bars(nothing, bar(5, 9)) == bar(5, 9)


def test_equal_ids_leave_no_trace_of_order() -> None:
    one, other = bar(5, 5, open=3.0, close=3.0), bar(5, 5, open=4.0, close=4.0)
    assert merge_bars(one, other) == merge_bars(other, one)
    assert (merge_bars(one, other).open, merge_bars(one, other).close) == (3.0, 4.0)


def test_the_exchanges_bar_keeps_its_values_and_learns_ids() -> None:
    closed = bar(5, 9, first_id=NO_FIRST_ID, last_id=NO_ID, flags=EXCHANGE, seed_count=5)
    own = bar(7, 8, open=99.0, volume=1_000, flags=PARTIAL)
    for merged in (merge_bars(closed, own), merge_bars(own, closed)):
        assert merged == closed._replace(first_id=7, last_id=8)


def test_a_late_trade_that_the_seed_covers_changes_nothing() -> None:
    held = merge_bars(seed_part, bar(4, 6, slot_us=seed_part.slot_us))
    covered = bar(3, 3, flags=LATE, boundary_us=499, slot_us=held.slot_us)
    assert merge_bars(held, covered) == merge_bars(covered, held) == held
    after = covered._replace(boundary_us=500, first_id=7, last_id=7)
    merged = merge_bars(held, after)
    assert merged.trade_count == held.trade_count + 1
    assert merged.boundary_us == 500
    assert not merged.flags & LATE
    assert settle(after).flags == settle(after).boundary_us == 0


def test_bars_on_two_lot_grids_meet_on_the_finer() -> None:
    coarse, fine = bar(1, 2, volume=3, taker_volume=1, lot_digits=4), bar(3, 3, volume=5, lot_digits=6)
    merged = merge_bars(coarse, fine)
    assert merged == merge_bars(fine, coarse)._replace(slot_us=merged.slot_us)
    assert (merged.volume, merged.taker_volume, merged.lot_digits) == (305, 100, 6)


def test_is_complete_needs_inside_start_and_end() -> None:
    before, held, after = bar(1, 4), bar(5, 9), bar(10, 12)
    assert is_complete(held, before, after)
    assert not is_complete(held, None, after)
    assert not is_complete(held, before, None)
    assert not is_complete(held, bar(1, 3), after)
    assert not is_complete(held, before, bar(11, 12))
    assert not is_complete(held._replace(trade_count=4), before, after)
    assert is_complete(held._replace(flags=EXCHANGE, trade_count=1), None, None)
    seeded = held._replace(flags=SEEDED, trade_count=8, seed_count=3)
    assert not is_complete(seeded, before, after)
    assert is_complete(seeded._replace(flags=SEEDED | ANCHORED), None, after)
    assert not is_complete(seeded._replace(flags=SEEDED | ANCHORED, seed_count=4), None, after)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 80), st.floats(0, 0.3))
def test_no_bar_that_misses_a_trade_is_called_complete(seed: int, count: int, loss: float) -> None:
    rng = random.Random(seed)
    world = make_trades(seed, count)
    tape = [trade for trade in world if rng.random() >= loss]
    rng.shuffle(tape)
    derived = Derived(1)
    derived.add_symbol(symbol())
    feed(derived, rows_of(tape))
    for index, name in enumerate(NAMES):
        rows = seen(derived, 1, index)
        mask = complete_mask(rows)
        bars: list[Bar | None] = [None, *from_rows(rows), None]
        scalar = [
            is_complete(bars[n] or bar(0, 0), bars[n - 1], bars[n + 1]) for n in range(1, len(bars) - 1)
        ]
        assert mask.tolist() == scalar
        size = {"1s": 1, "1m": 60, "5m": 300, "15m": 900, "1h": 3600, "4h": 14400, "1d": 86400}[
            name
        ] * 1_000_000
        for row, complete in zip(rows, mask, strict=True):
            slot = int(row["slot_us"])
            wanted = [trade for trade in world if slot <= trade.time_us < slot + size]
            missing = len(wanted) - int(row["trade_count"])
            if complete:
                assert missing == 0
        if loss == 0.0 and len(rows) > 2:
            assert mask[1:-1].all()


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 6), st.integers(1, 40), st.sampled_from([0, LATE, PARTIAL]))),
        max_size=4,
    )
)
def test_merge_all_is_merge_bars_slot_by_slot(chunks: list[list[tuple[int, int, int]]]) -> None:
    parts = [
        [bar(n, n, slot_us=60_000_000 * slot, flags=flags, boundary_us=n if flags & LATE else 0)
         for slot, n, flags in chunk]
        for chunk in chunks
    ]  # fmt: skip
    expected: dict[int, Bar] = {}
    for part in (part for chunk in parts for part in chunk):
        held = expected.get(part.slot_us)
        expected[part.slot_us] = settle(part) if held is None else merge_bars(held, part)
    merged = merge_all([to_rows(chunk) for chunk in parts])
    assert from_rows(merged) == [expected[slot] for slot in sorted(expected)]


def test_mask_of_nothing_is_empty() -> None:
    assert complete_mask(empty_bars(0)).tolist() == []
    assert merge_all([]).tolist() == []
    assert complete_mask(to_rows([bar(1, 2)])).tolist() == [False]


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, (1 << 62) - 1), st.integers(0, 8)), min_size=1, max_size=5))
def test_volumes_are_correctly_rounded(pairs: list[tuple[int, int]]) -> None:
    rows = to_rows([bar(1, 1, volume=lots, lot_digits=digits) for lots, digits in pairs])
    for found, (lots, digits) in zip(volumes(rows).tolist(), pairs, strict=True):
        assert found == float(Fraction(lots, 10**digits))


def test_rows_and_tuples_are_the_same() -> None:
    bars = [bar(1, 4), seed_part, bar(7, 7, flags=255)]
    assert from_rows(to_rows(bars)) == bars
    again = to_rows(from_rows(to_rows(bars)))
    assert again.tobytes() == to_rows(bars).tobytes()


def test_a_stand_in_keeps_its_bar_contiguous() -> None:
    derived = Derived(1)
    derived.add_symbol(symbol())
    base = 1_700_000_000_000_000
    trades = [
        Trade(4, base - 60_000_000, "1.0", "1.0", False),
        Trade(9, base, "1.0", "3.0", False, first=5, count=4),
        Trade(7, base, "2.0", "1.0", False),
        Trade(10, base + 60_000_000, "1.0", "1.0", False),
    ]
    feed(derived, rows_of(trades))
    assert complete_mask(seen(derived, 1, MINUTE)).tolist() == [False, True, False]
    assert np.array_equal(volumes(seen(derived, 1, MINUTE)), [1.0, 4.0, 1.0])
