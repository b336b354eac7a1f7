"""Who won, by how much, and what each line has brought: the kernel against dictionaries."""

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ingest.oracle import ws_frame
from tests.ingest.world import RECV_NS, Room, agg, combined, quote, raw, trade
from tradeback.ingest import context as words
from tradeback.ingest.context import LAG_BOUNDS_US, LINE_FILLS, LINE_LOSSES, LINE_REPEATS
from tradeback.model.record import AGG, LINE_SHIFT, QUOTE, REPAIRED, STAND_IN, TRADE, empty_rows
from tradeback.ops.metrics import Histogram

NAMES = ["BTCUSDT", "ETHUSDT"]
LINE_WINS = 0
"""Stands for `line_wins` where the others are words."""
COUNTERS = (LINE_WINS, LINE_LOSSES, LINE_REPEATS, LINE_FILLS)


def frame(kind: int, identifier: int, symbol: str = "BTCUSDT") -> bytes:
    event = {
        TRADE: lambda: trade(symbol, identifier),
        QUOTE: lambda: quote(symbol, identifier),
        AGG: lambda: agg(symbol, identifier, identifier, identifier),
    }[kind]()
    return ws_frame(combined(f"{symbol.lower()}@x", raw(event)))


def count_of(room: Room, word: int, line: int, kind: int) -> int:
    context = room.context
    return context.line_counter(word, line, kind) if word else context.line_wins(line, kind)


def lag_of(room: Room, line: int, kind: int) -> Histogram:
    histogram = Histogram(LAG_BOUNDS_US)
    histogram.counts, histogram.sums = room.context.line_lag(line, kind)
    return histogram


class PlainLines:
    """The same in dictionaries, for ids that all lie within the fine ring."""

    def __init__(self) -> None:
        self.winner: dict[tuple[int, int, int], tuple[int, int]] = {}
        self.high: dict[tuple[int, int], int] = {}
        self.counts: Counter[tuple[int, int, int]] = Counter()
        self.seen: dict[tuple[int, int, int], tuple[int, int]] = {}
        self.lags: dict[tuple[int, int], list[int]] = {}

    def take(self, symbol: int, kind: int, identifier: int, line: int, recv_ns: int) -> None:
        _, number = self.seen.get((symbol, kind, line), (0, 0))
        self.seen[symbol, kind, line] = (identifier, number + 1)
        won = self.winner.get((symbol, kind, identifier))
        high = self.high.get((symbol, kind), 0)
        if won is None and not (kind == QUOTE and identifier <= high):
            self.winner[symbol, kind, identifier] = (line, recv_ns)
            self.counts[LINE_WINS, line, kind] += 1
            self.counts[LINE_FILLS, line, kind] += identifier < high
            self.high[symbol, kind] = max(high, identifier)
        elif won is not None and won[0] == line:
            self.counts[LINE_REPEATS, line, kind] += 1
        else:
            self.counts[LINE_LOSSES, line, kind] += 1
            if won is not None:
                ticks = (recv_ns >> 10) - (won[1] >> 10)
                self.lags.setdefault((line, kind), []).append(ticks * 1024 // 1000)


messages = st.lists(
    st.tuples(
        st.sampled_from([1, 2]),
        st.sampled_from([TRADE, QUOTE, AGG]),
        st.integers(1_000, 1_060),
        st.integers(0, 1),
        st.integers(-5_000, 40_000_000_000),
    ),
    max_size=120,
)


@settings(max_examples=150, deadline=None)
@given(messages)
def test_lines_equal_the_plain_ones(sent: list[tuple[int, int, int, int, int]]) -> None:
    room, plain = Room(NAMES), PlainLines()
    now = RECV_NS
    for symbol, kind, identifier, line, step in sent:
        now += step
        room.read(frame(kind, identifier, NAMES[symbol - 1]), line=line, recv_ns=now)
        plain.take(symbol, kind, identifier, line, now)
    for word in COUNTERS:
        for line in (0, 1):
            for kind in words.KINDS:
                assert count_of(room, word, line, kind) == plain.counts[word, line, kind]
    for (symbol, kind, line), wanted in plain.seen.items():
        held = room.context.streams[symbol, kind - 1, 2 * line : 2 * line + 2]
        assert tuple(held.tolist()) == wanted
    for line in (0, 1):
        for kind in words.KINDS:
            wanted_lags = Histogram(LAG_BOUNDS_US)
            for lag_us in plain.lags.get((line, kind), []):
                wanted_lags.observe(lag_us)
            found = lag_of(room, line, kind)
            assert found.counts.tolist() == wanted_lags.counts.tolist()
            assert found.sums.tolist() == wanted_lags.sums.tolist()


@pytest.mark.parametrize("late", [63, 1_024], ids=["fine ring", "coarse ring"])
def test_empty_places_know_no_winner(late: int) -> None:
    """Ids of a new symbol have the tag of a place that nobody has written to."""
    room = Room(NAMES)
    room.read(frame(QUOTE, late + 1), line=0)
    room.read(frame(QUOTE, late), line=0)
    room.read(frame(QUOTE, late), line=1)
    for line in (0, 1):
        assert count_of(room, LINE_LOSSES, line, QUOTE) == 1
        assert count_of(room, LINE_REPEATS, line, QUOTE) == 0
        assert lag_of(room, line, QUOTE).counts.sum() == 0


def test_every_bound_is_inclusive() -> None:
    room = Room(NAMES)
    base = (RECV_NS >> 10) << 10
    wanted = Histogram(LAG_BOUNDS_US)
    identifier = 0
    for bound in LAG_BOUNDS_US:
        for ticks in (bound * 1000 // 1024, bound * 1000 // 1024 + 1, bound * 2):
            identifier += 1
            room.read(frame(TRADE, identifier), line=0, recv_ns=base)
            room.read(frame(TRADE, identifier), line=1, recv_ns=base + (ticks << 10))
            wanted.observe(ticks * 1024 // 1000)
    found = lag_of(room, 1, TRADE)
    assert found.counts.tolist() == wanted.counts.tolist()
    assert found.counts.sum() == identifier
    assert found.sums.tolist() == wanted.sums.tolist()
    assert lag_of(room, 0, TRADE).total == 0
    assert sorted(LAG_BOUNDS_US) == list(LAG_BOUNDS_US)


def test_a_line_far_behind_is_measured_by_samples() -> None:
    """2,000 ids behind: the fine ring has forgotten them all, the coarse one knows every 64th."""
    room = Room(NAMES)
    count, lag_us = 2_048, 250_000
    for identifier in range(1, count + 1):
        room.read(frame(TRADE, identifier), line=1, recv_ns=RECV_NS + 1_000 * identifier)
    for identifier in range(1, count + 1 - 64):
        recv_ns = RECV_NS + 1_000 * identifier + 1_000 * lag_us
        room.read(frame(TRADE, identifier), line=0, recv_ns=recv_ns)
    assert count_of(room, LINE_WINS, 1, TRADE) == count
    assert count_of(room, LINE_LOSSES, 0, TRADE) == count - 64
    found = lag_of(room, 0, TRADE)
    assert found.total == (count - 64) // 64 * 64
    assert found.sums[0] / found.total == pytest.approx(lag_us, abs=3)
    assert found.quantile_us(0.5) == 262_144


def test_ids_with_the_same_place_are_told_apart() -> None:
    room = Room(NAMES)
    for identifier in (70, 70 + 64, 70 + 64 * 64, 70 + (1 << 20)):
        room.read(frame(QUOTE, identifier), line=0)
    room.read(frame(QUOTE, 70), line=1, recv_ns=RECV_NS + 5_000_000)
    assert room.context.line_counter(LINE_LOSSES, 1, QUOTE) == 1
    assert lag_of(room, 1, QUOTE).total == 0, "nobody remembers when 70 came"


def test_the_slow_path_counts_for_its_line_and_others_for_none() -> None:
    room = Room(NAMES)
    rows = empty_rows(6)
    rows["kind"], rows["symbol_id"], rows["recv_ns"] = TRADE, 1, RECV_NS
    rows["id"] = [5, 5, 6, 7, 8, 9]
    rows["flags"] = np.array([0, 1, 1, 2, 3, 0]) << LINE_SHIFT
    rows["flags"][4] |= STAND_IN
    rows["flags"][5] |= REPAIRED
    rows["ask"][4] = 8
    rows["recv_ns"][1] += 3_000_000
    assert len(room.admit(rows)) == 5
    assert [count_of(room, LINE_WINS, line, TRADE) for line in (0, 1)] == [1, 1]
    assert [count_of(room, LINE_LOSSES, line, TRADE) for line in (0, 1)] == [0, 1]
    assert lag_of(room, 1, TRADE).sums[0] == pytest.approx(3_000, abs=2)
    assert room.context.streams[1, 0, :4].tolist() == [5, 1, 6, 2]


def test_growing_keeps_what_was_counted() -> None:
    room = Room(NAMES)
    room.read(frame(TRADE, 41), line=1)
    room.context.add_symbol("LATEUSDT", 5_000)
    room.read(frame(TRADE, 41), line=0, recv_ns=RECV_NS + 2_000_000)
    room.read(frame(TRADE, 3, "LATEUSDT"), line=0)
    assert room.context.streams[1, 0, :4].tolist() == [41, 1, 41, 1]
    assert room.context.streams[5_000, 0, :4].tolist() == [3, 1, 0, 0]
    assert lag_of(room, 0, TRADE).total == 1


def test_two_lines_of_noise_add_up() -> None:
    """Each line loses and delays at random: wins, losses and fills together are what was sent."""
    rng, room = random.Random(3), Room(NAMES)
    events = []
    for identifier in range(1, 3_001):
        for line in (0, 1):
            if rng.random() > 0.2:
                events.append((identifier * 50 + rng.randrange(400), line, identifier))
    for time_us, line, identifier in sorted(events):
        room.read(frame(TRADE, identifier), line=line, recv_ns=RECV_NS + 1_000 * time_us)
    brought = {identifier for _, _, identifier in events}
    assert count_of(room, LINE_WINS, 0, TRADE) + count_of(room, LINE_WINS, 1, TRADE) == len(brought)
    total = sum(count_of(room, word, line, TRADE) for word in (LINE_WINS, LINE_LOSSES) for line in (0, 1))
    assert total == len(events)
    fills = count_of(room, LINE_FILLS, 0, TRADE) + count_of(room, LINE_FILLS, 1, TRADE)
    assert fills == room.context.counter(words.LATE_FILLS, TRADE)
    assert fills > 100
