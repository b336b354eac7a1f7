"""The state as a whole: taking, keeping and giving back, at any point of the tape."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.derive.world import (
    NAMES,
    START_US,
    Trade,
    answers_of,
    feed,
    make_trades,
    rows_of,
    seen,
    stable,
    symbol,
)
from tradeback.derive import state as state_module
from tradeback.derive.bars import finish_open, from_rows, merge_all
from tradeback.derive.layout import (
    BAR,
    BEFORE,
    CURRENT,
    HALF,
    PART,
    PREVIOUS,
    RESOLUTION_COUNT,
    STATE,
    Bars,
    Drained,
)
from tradeback.derive.seeds import bar_rows, boundary_row, levels_row
from tradeback.derive.state import Derived
from tradeback.model.record import QUOTE, Rows, empty_rows

seeds = st.integers(0, 1 << 32)


def make_tape(seed: int, count: int) -> Rows:
    """Records of every kind: trades out of order, quotes, levels, boundaries and seeds, two symbols."""
    rng = random.Random(seed)
    world = make_trades(seed, count, symbols=2)
    order = sorted(world, key=lambda trade: trade.time_us + rng.choice((0, 0, 0, 0, rng.randrange(10**9))))
    probe = follow(2)
    chunks: list[Rows] = []
    fed = 0
    for trade in order:
        chunks.append(rows_of([trade]))
        roll = rng.random()
        if roll < 0.1:
            quote = empty_rows(1)
            quote["kind"], quote["symbol_id"], quote["recv_ns"] = QUOTE, trade.symbol_id, rng.randrange(1, 99)
            quote["price"], quote["ask"] = rng.random(), rng.random()
            chunks.append(quote)
        elif roll < 0.15:
            chunks.append(levels_row(trade.symbol_id, 1e6 * rng.random() + 1, 0.01))
        elif roll < 0.2:
            chunks.append(boundary_row(trade.symbol_id, trade.time_us + rng.randrange(-(10**6), 10**7)))
        elif roll < 0.3:
            boundary = probe.boundary_us(trade.symbol_id)
            if boundary:
                own = [one for one in world if one.symbol_id == trade.symbol_id]
                chunks.append(bar_rows(symbol(trade.symbol_id), boundary, answers_of(own, boundary)))
        feed(probe, np.concatenate(chunks[fed:]))
        fed = len(chunks)
    return np.concatenate(chunks)


def follow(symbols: int) -> Derived:
    derived = Derived(symbols)
    for symbol_id in range(1, symbols + 1):
        derived.add_symbol(symbol(symbol_id))
    return derived


def assert_same(one: Drained, other: Drained) -> None:
    assert one.states.tobytes() == other.states.tobytes()
    assert one.parts.tobytes() == other.parts.tobytes()


class Memory:
    """What a store would hold, in dictionaries."""

    def __init__(self) -> None:
        self.closed: list[bytes] = []
        self.parts: dict[tuple[int, int, int], np.void] = {}
        self.states: dict[int, np.void] = {}

    def take(self, drained: Drained) -> None:
        self.closed += [bar.tobytes() for bar in drained.closed]
        self.parts = {key: part for key, part in self.parts.items() if key[2] != HALF}
        for part in drained.parts:
            bar = part["bar"]
            self.parts[int(bar["symbol_id"]), int(bar["resolution"]), int(part["part"])] = part
        for row in drained.states:
            self.states[int(row["symbol_id"])] = row

    def give(self, derived: Derived) -> None:
        parts = np.array(list(self.parts.values()), PART) if self.parts else np.zeros(0, PART)
        derived.restore(np.array(list(self.states.values()), STATE), parts)


@settings(max_examples=60, deadline=None)
@example(47, 5, [], [6])  # a late bar in two pieces, the restart between them
@given(
    seeds,
    st.integers(1, 60),
    st.lists(st.integers(0, 100), max_size=5),
    st.lists(st.integers(0, 100), max_size=5),
)
def test_drained_and_restored_anywhere_the_state_goes_on_bit_for_bit(
    seed: int, count: int, drains: list[int], restarts: list[int]
) -> None:
    tape = make_tape(seed, count)
    straight = follow(2)
    feed(straight, tape)
    memory, derived = Memory(), follow(2)
    cuts = sorted({0, len(tape), *(cut for cut in (*drains, *restarts) if cut < len(tape))})
    for begin, end in itertools.pairwise(cuts):
        feed(derived, tape[begin:end])
        memory.take(derived.drain())
        if end in restarts:
            derived = follow(2)
            memory.give(derived)
    whole = straight.snapshot()
    again = derived.snapshot()
    again.states.sort(order="symbol_id")
    for name in whole.states.dtype.names or ():
        assert whole.states[name].tobytes() == again.states[name].tobytes(), name
    for symbol_id in (1, 2):
        for index in range(RESOLUTION_COUNT):
            assert (
                straight.bars_open(symbol_id, index).tobytes()
                == derived.bars_open(symbol_id, index).tobytes()
            )
    told = np.frombuffer(b"".join(memory.closed), BAR)
    assert series_of(told) == series_of(whole.closed)


def series_of(closed: Bars) -> dict[tuple[int, int], bytes]:
    """What a store makes of drained bars: late trades of one bar may leave in one piece or in several."""
    keys = {(int(bar["symbol_id"]), int(bar["resolution"])) for bar in closed}
    return {
        key: merge_all([closed[(closed["symbol_id"] == key[0]) & (closed["resolution"] == key[1])]]).tobytes()
        for key in keys
    }


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 60), st.lists(st.integers(0, 100), max_size=8))
def test_batches_do_not_matter(seed: int, count: int, splits: list[int]) -> None:
    tape = make_tape(seed, count)
    one, other = follow(2), follow(2)
    feed(one, tape)
    feed(other, tape, splits)
    assert_same(one.snapshot(), other.snapshot())
    assert one.snapshot().closed.tobytes() == other.snapshot().closed.tobytes()


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 80))
def test_python_finishes_stored_parts_as_the_kernel_does(seed: int, count: int) -> None:
    derived = follow(2)
    feed(derived, make_tape(seed, count))
    whole = derived.snapshot()
    for state in whole.states:
        for index in range(RESOLUTION_COUNT):
            own = whole.parts[
                (whole.parts["bar"]["symbol_id"] == state["symbol_id"])
                & (whole.parts["bar"]["resolution"] == index)
            ]
            parts = {int(part["part"]): from_rows(np.array([part["bar"]]))[0] for part in own}
            finished = finish_open(
                parts[CURRENT],
                parts[PREVIOUS],
                parts[BEFORE],
                int(state["anchor_id"]),
                int(state["since_us"]),
            )
            assert finished == from_rows(derived.bars_open(int(state["symbol_id"]), index))


def test_a_drain_takes_only_what_has_changed() -> None:
    derived = follow(3)
    feed(derived, rows_of([Trade(1, START_US, "1.0", "1.0", False, 2)]))
    drained = derived.drain()
    assert drained.states["symbol_id"].tolist() == [2]
    assert set(drained.parts["bar"]["symbol_id"].tolist()) == {2}
    nothing = derived.drain()
    assert (len(nothing.states), len(nothing.parts), len(nothing.closed), nothing.lost) == (0, 0, 0, False)
    quote = empty_rows(1)
    quote["kind"], quote["symbol_id"] = QUOTE, 3
    feed(derived, quote)
    drained = derived.drain()
    assert (drained.states["symbol_id"].tolist(), len(drained.parts)) == ([3], 0)


def test_it_grows_without_losing_anything() -> None:
    small, large = Derived(1), Derived(300)
    trades = make_trades(3, 200, symbols=50)
    for symbol_id in range(1, 51):
        for derived in (small, large):
            derived.add_symbol(symbol(symbol_id))
            feed(derived, rows_of([trade for trade in trades if trade.symbol_id == symbol_id]))
    assert_same(small.snapshot(), large.snapshot())
    assert len(small.latest_all()) == 50


def test_a_full_ring_is_set_aside_and_no_bar_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    trades = make_trades(5, 400, gap_us=5_000_000)
    whole = follow(1)
    feed(whole, rows_of(trades))
    monkeypatch.setattr(state_module, "RING_BARS", RESOLUTION_COUNT)
    tight = follow(1)
    feed(tight, rows_of(trades))
    assert tight.drain().closed.tobytes() == whole.drain().closed.tobytes()


def test_beyond_the_bound_closed_bars_are_dropped_and_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "PENDING_BARS_MAX", 50)
    monkeypatch.setattr(state_module, "RING_BARS", 20)
    derived = follow(1)
    feed(derived, rows_of(make_trades(5, 400, gap_us=5_000_000)))
    drained = derived.drain()
    assert drained.lost
    assert len(drained.closed) == 0
    feed(derived, rows_of([Trade(10_000, START_US + 10**14, "1.0", "1.0", False)]))
    after = derived.drain()
    assert not after.lost
    assert 0 < len(after.closed) <= RESOLUTION_COUNT


def test_a_finer_step_moves_open_bars_to_its_grid() -> None:
    derived = Derived(1)
    derived.add_symbol(symbol(1, "0.01"))
    feed(derived, rows_of([Trade(1, START_US, "1.0", "1.25", False)]))
    derived.add_symbol(symbol(1, "1"))
    assert derived.bars_open(1, 0)["lot_digits"] == 6
    derived.add_symbol(symbol(1, "0.0001"))
    feed(derived, rows_of([Trade(2, START_US, "1.0", "0.0001", True)]))
    (row,) = derived.bars_open(1, 0)
    assert (row["volume"], row["taker_volume"], row["lot_digits"]) == (125_010_000, 125_000_000, 8)
    stored = derived.snapshot()
    other = Derived(1)
    other.add_symbol(symbol(1, "0.0001"))
    other.restore(stored.states, stored.parts)
    assert_same(other.snapshot(), stored)


def test_restoring_keeps_the_finer_grid_of_a_symbol() -> None:
    old = Derived(1)
    old.add_symbol(symbol(1, "0.01"))
    feed(old, rows_of([Trade(1, START_US, "1.0", "1.25", False)]))
    stored = old.snapshot()
    new = Derived(1)
    new.add_symbol(symbol(1, "0.0001"))
    new.restore(stored.states, stored.parts)
    assert new.bars_open(1, 0)["volume"] == 125_000_000
    with pytest.raises(ValueError, match="seen no record"):
        old.restore(stored.states, stored.parts)


def test_fresh_follows_the_same_symbols_and_knows_nothing() -> None:
    derived = follow(9)
    feed(derived, rows_of(make_trades(1, 50, symbols=9)))
    assert_same(derived.fresh().snapshot(), follow(9).snapshot())


def test_five_hundred_symbols_fit_in_four_megabytes() -> None:
    derived = follow(500)
    arrays = [value for value in vars(derived).values() if isinstance(value, np.ndarray)]
    total = sum(array.nbytes for array in arrays) + derived._ring.bars.nbytes
    assert total < 4_000_000


def test_views_are_copies() -> None:
    derived = follow(1)
    feed(derived, rows_of([Trade(1, START_US, "1.0", "1.0", False)]))
    held, latest = derived.bars_open(1, 0), derived.latest(1)
    feed(derived, rows_of([Trade(2, START_US, "2.0", "1.0", False)]))
    assert held["close"] == 1.0
    assert latest is not None
    assert latest["price"] == 1.0
    day = NAMES.index("1d")
    assert stable(merge_all([seen(derived, 1, day)])) == stable(derived.bars_open(1, day))
    assert derived.newest_us() == START_US
