"""Who was first, against sets of ids."""

import random
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ingest.oracle import AGG_WINDOW, TRADE_WINDOW, PlainArbiter, ws_frame
from tests.ingest.world import EPOCH, Room, agg, combined, quote, raw, trade
from tradeback.ingest import context as words
from tradeback.ingest.arbiter import find_uncertified, restore_rows
from tradeback.model.record import AGG, LATE, QUOTE, STAND_IN, TRADE, Rows, checksums, empty_rows

SYMBOLS = ["BTCUSDT", "ETHUSDT"]
COUNTERS = {
    "messages": words.MESSAGES,
    "accepted": words.ACCEPTED,
    "duplicates": words.DUPLICATES,
    "stale": words.STALE,
    "late": words.LATE_FILLS,
    "skipped": words.SKIPPED_IDS,
}


def row(
    kind: int, identifier: int, symbol_id: int = 1, first: int = 0, last: int = 0, flags: int = 0
) -> Rows:
    """One record; `first` and `last` as an aggregate or a stand-in has them."""
    rows = empty_rows(1)
    rows["kind"], rows["id"], rows["symbol_id"], rows["flags"] = kind, identifier, symbol_id, flags
    rows["price"], rows["quantity"], rows["recv_ns"] = 100.0 + identifier, 2.0, 1_000 + identifier
    rows["ask"], rows["ask_quantity"] = first, last
    return rows


def stand_in(first: int, last: int, symbol_id: int = 1) -> Rows:
    """A stand-in for all trades from `first` to `last`."""
    return row(TRADE, last, symbol_id, first, last - first + 1, STAND_IN)


def check_state(room: Room, plain: PlainArbiter) -> None:
    for name, word in COUNTERS.items():
        assert room.count(word) == plain.counts[name], name
    for (symbol_id, kind), ids in plain.known.items():
        assert room.context.last_id(symbol_id, kind) == max(ids.high, 0)
        if kind == TRADE:
            assert room.context.missing_trades(symbol_id) == ids.missing
        elif kind == AGG:
            assert int(room.context.states[symbol_id, words.MISSING_AGGS // 8]) == ids.missing


def check(room: Room, plain: PlainArbiter, rows: Rows, sequence: int = 1) -> Rows:
    """Admit `rows`; what comes out must be the oracle's choice, sealed. Returns it."""
    found, expected = room.admit(rows, sequence), plain.take(rows)
    assert (found["checksum"] == checksums(found, sequence, EPOCH)).all()
    bare = found.copy()
    bare["checksum"] = 0
    assert bare.tobytes() == expected.tobytes()
    check_state(room, plain)
    return found


def two_lines(rng: random.Random, count: int, first: int, stretch: int) -> Iterator[int]:
    """Ids as two lines bring them: each loses some, both together some, order jumbled within `stretch`."""
    lost = {number for number in range(first, first + count) if rng.random() < 0.03}
    arrivals = []
    for _ in range(2):
        gap = rng.randrange(count)
        for index in range(count):
            if first + index in lost or rng.random() < 0.1 or gap <= index < gap + count // 10:
                continue
            for _ in range(2 if rng.random() < 0.05 else 1):
                arrivals.append((index + rng.random() * stretch, first + index))
    return (number for _, number in sorted(arrivals))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("stretch", [3, 300, 6_000])
def test_two_lines_with_loss_and_jumble(seed: int, stretch: int) -> None:
    rng = random.Random(seed * 10_000 + stretch)
    room, plain = Room(SYMBOLS), PlainArbiter()
    kinds = [(TRADE, 1, 0), (TRADE, 2, 10**10), (AGG, 1, 5), (QUOTE, 1, 1)]
    sources = [
        (kind, symbol_id, list(two_lines(rng, 5_000 if kind == TRADE else 1_500, first, stretch)))
        for kind, symbol_id, first in kinds
    ]
    picks = [index for index, (_, _, ids) in enumerate(sources) for _ in ids]
    rng.shuffle(picks)
    iterators = [iter(ids) for _, _, ids in sources]
    rows = empty_rows(len(picks))
    for place, pick in enumerate(picks):
        rows["kind"][place], rows["symbol_id"][place] = sources[pick][:2]
        rows["id"][place] = next(iterators[pick])
    rows["recv_ns"] = np.arange(len(rows))
    found, sequence = [], 1
    for start in range(0, len(rows), 700):
        found.append(check(room, plain, rows[start : start + 700], sequence))
        sequence += len(found[-1])
    tape = np.concatenate(found)
    for kind, symbol_id, ids in sources:
        own = tape["id"][(tape["kind"] == kind) & (tape["symbol_id"] == symbol_id)].tolist()
        assert len(own) == len(set(own)), "each id once"
        if stretch < 1_000 and kind != QUOTE:
            assert set(own) == set(ids), "within the window nothing is lost"
        if kind == QUOTE:
            assert own == sorted(own)
    late = tape["flags"] & LATE != 0
    assert late.any()
    for place in np.flatnonzero(late)[:50]:
        one = tape[place]
        before = tape[:place]
        same = before[(before["kind"] == one["kind"]) & (before["symbol_id"] == one["symbol_id"])]
        assert same["id"].max() > one["id"]


steps = st.one_of(
    st.tuples(st.just("next"), st.integers(1, 40)),
    st.tuples(st.just("jump"), st.sampled_from([1_023, 1_024, 1_025, 4_095, 4_096, 4_097, 9_000])),
    st.tuples(st.just("back"), st.integers(0, 60)),
    st.tuples(st.just("far back"), st.sampled_from([1_023, 1_024, 1_025, 4_095, 4_096, 4_097, 9_000])),
    st.tuples(st.just("stand in"), st.integers(0, 50)),
    st.tuples(st.just("stand in ahead"), st.sampled_from([0, 1, 5, 4_096, 5_000])),
    st.tuples(st.just("stand in far back"), st.sampled_from([4_050, 4_096, 4_200])),
)


@settings(max_examples=250, deadline=None)
@given(
    st.sampled_from([TRADE, AGG, QUOTE]),
    st.sampled_from([0, 1, 30, 5_000, 10**10]),
    st.lists(st.tuples(steps, st.integers(0, 70)), max_size=60),
)
def test_any_sequence_of_ids(kind: int, start: int, walk: list[tuple[tuple[str, int], int]]) -> None:
    room, plain = Room(SYMBOLS), PlainArbiter()
    for (step, amount), length in walk:
        high = max(plain.of(1, kind).high, start)
        if step.startswith("stand in"):
            if kind != TRADE:
                continue
            top = high + amount - 20
            if step == "stand in ahead":
                top = high + amount + length
            elif step == "stand in far back":
                top = high - amount
            if top < length:
                continue
            check(room, plain, stand_in(top - length, top))
            continue
        target = high + amount if step in ("next", "jump") else high - amount
        if target >= 0:
            check(room, plain, row(kind, target, first=3, last=4))


def test_a_new_listing_begins_with_id_0() -> None:
    """Trade 0 is a trade: once, whatever line brings it."""
    room = Room(SYMBOLS)
    rows = np.concatenate([row(TRADE, 0), row(TRADE, 0), row(TRADE, 1), row(TRADE, 0), row(TRADE, 2)])
    assert room.admit(rows)["id"].tolist() == [0, 1, 2]
    assert room.count(words.DUPLICATES) == 2
    assert room.context.missing_trades(1) == 0


@pytest.mark.parametrize(("kind", "window"), [(TRADE, TRADE_WINDOW), (AGG, AGG_WINDOW)])
def test_the_edge_of_the_window(kind: int, window: int) -> None:
    room = Room(SYMBOLS)
    top = 50_000
    assert len(room.admit(row(kind, top))) == 1
    assert len(room.admit(row(kind, top - window))) == 0
    assert room.count(words.STALE) == 1
    filled = room.admit(row(kind, top - window + 1))
    assert filled["flags"].tolist() == [LATE]
    assert len(room.admit(row(kind, top - window + 1))) == 0
    assert (room.count(words.DUPLICATES), room.count(words.LATE_FILLS)) == (1, 1)
    if kind == TRADE:
        assert room.context.missing_trades(1) == window - 2


def test_the_newest_aggregate_tells_how_far_trades_are_tiled() -> None:
    room = Room(SYMBOLS)
    room.admit(np.concatenate([row(AGG, 5, first=10, last=19), row(AGG, 4, first=8, last=9)]))
    assert int(room.context.states[1, words.AGG_TILED_TO // 8]) == 19


def test_a_trade_behind_its_stand_in_is_dropped() -> None:
    room = Room(SYMBOLS)
    room.admit(np.concatenate([row(TRADE, 10), row(TRADE, 15)]))
    assert room.context.missing_trades(1) == 4
    taken = room.admit(stand_in(12, 14))
    assert taken["flags"].tolist() == [STAND_IN | LATE]
    assert room.context.missing_trades(1) == 1
    assert len(room.admit(np.concatenate([row(TRADE, number) for number in (12, 13, 14)]))) == 0
    assert room.admit(row(TRADE, 11))["id"].tolist() == [11]
    assert room.context.missing_trades(1) == 0
    assert room.admit(stand_in(16, 18))["flags"].tolist() == [STAND_IN]
    assert room.admit(np.concatenate([row(TRADE, number) for number in (16, 18, 19)]))["id"].tolist() == [19]


def test_a_stand_in_behind_the_window_marks_nothing() -> None:
    """Its bits belong to newer ids by then."""
    room = Room(SYMBOLS)
    room.admit(np.concatenate([row(TRADE, 1_000), row(TRADE, 10_000)]))
    room.admit(stand_in(1_500, 1_600))
    newer = np.concatenate([row(TRADE, 1_500 + 2 * TRADE_WINDOW + step) for step in range(101)])
    assert len(room.admit(newer)) == 101


def uncertified(room: Room, rows: Rows) -> list[int]:
    found = np.full(len(rows) + 1, -1, np.int64)
    number = find_uncertified(room.context.address, int(rows.ctypes.data), len(rows), int(found.ctypes.data))
    assert (found[number:] == -1).all()
    return found[:number].tolist()  # type: ignore[no-any-return]


@settings(max_examples=150, deadline=None)
@given(
    st.sets(st.integers(0, 300)),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 320), st.integers(0, 30)), max_size=20),
    st.sampled_from([0, 7, 10**10]),
)
def test_aggregates_are_certified_by_the_trades_seen(
    seen: set[int], far: bool, spans: list[tuple[int, int]], base: int
) -> None:
    room, plain = Room(SYMBOLS), PlainArbiter()
    for number in seen:
        check(room, plain, row(TRADE, base + number))
    if far and seen:
        check(room, plain, row(TRADE, base + 150 + TRADE_WINDOW))
    rows = np.concatenate(
        [row(QUOTE, 1), row(TRADE, base)]
        + [
            row(AGG, index, 1 + index % 7 // 6, base + first, base + first + more)
            for index, (first, more) in enumerate(spans)
        ]
    )
    expected = [index for index, one in enumerate(rows) if one["kind"] == AGG and not plain.is_certified(one)]
    assert uncertified(room, rows) == expected


def test_an_aggregate_over_a_huge_range_is_judged_at_once() -> None:
    room = Room(SYMBOLS)
    room.admit(np.concatenate([row(TRADE, 1), row(TRADE, 10**15), row(TRADE, 10**15 + 1)]))
    rows = np.concatenate([row(AGG, 1, first=2, last=10**15 - 10**6), row(AGG, 2, first=2, last=10**15)])
    assert uncertified(room, rows) == [1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 1_500), st.sampled_from([3, 200, 6_000]))
def test_restoring_from_the_tape_equals_never_having_stopped(seed: int, stop: int, stretch: int) -> None:
    rng = random.Random(seed)
    rows = np.concatenate(
        [row(rng.choice([TRADE, TRADE, AGG]), number) for number in two_lines(rng, 900, 0, stretch)]
    )
    stand_ins = rng.sample(range(len(rows)), 5)
    for place in stand_ins:
        rows[place : place + 1] = stand_in(max(0, int(rows["id"][place]) - 4), int(rows["id"][place]))
    rows["symbol_id"] = [rng.choice([1, 2]) for _ in rows]
    steady, before, after = Room(SYMBOLS), Room(SYMBOLS), Room(SYMBOLS)
    tape = before.admit(rows[:stop].copy())
    assert steady.admit(rows[:stop].copy()).tobytes() == tape.tobytes()
    replayed = np.ascontiguousarray(tape)
    copy = replayed.tobytes()
    assert restore_rows(after.context.address, int(replayed.ctypes.data), len(replayed)) == 0
    assert replayed.tobytes() == copy, "reading the tape must not change it"
    assert after.context.states.tobytes() == steady.context.states.tobytes()
    assert after.context.trade_windows.tobytes() == steady.context.trade_windows.tobytes()
    assert after.context.agg_windows.tobytes() == steady.context.agg_windows.tobytes()
    rest = rows[stop:]
    sequence = 1 + len(tape)
    assert after.admit(rest.copy(), sequence).tobytes() == steady.admit(rest.copy(), sequence).tobytes()


def test_restoring_passes_over_records_that_have_no_id() -> None:
    room = Room(SYMBOLS)
    rows = np.concatenate([row(TRADE, 5), row(5, 9), row(6, 9), row(7, 9), row(TRADE, 5)])
    assert restore_rows(room.context.address, int(rows.ctypes.data), len(rows)) == 1
    assert room.context.last_id(1, TRADE) == 5


@pytest.mark.parametrize("seed", range(3))
def test_two_connections_end_to_end(seed: int) -> None:
    """The same market over two lines, each cut, lossy and with its own pace: each event once."""
    rng = random.Random(seed)
    payloads = []
    for number in range(400):
        symbol = rng.choice(SYMBOLS)
        payloads.append(
            raw(rng.choice([trade(symbol, number), agg(symbol, number, 1, 2), quote(symbol, number + 1)]))
        )
    sent = [[one for one in payloads if rng.random() > 0.1] for _ in range(2)]
    room, found, sequence = Room(SYMBOLS), [], 1
    places = [0, 0]
    while places != [len(sent[0]), len(sent[1])]:
        line = rng.randrange(2)
        size = rng.randrange(20)
        part = sent[line][places[line] : places[line] + size]
        places[line] += len(part)
        frames = [ws_frame(one if line else combined("x@y", one)) for one in part]
        read = room.read(b"".join(frames), line=line, sequence=sequence)
        assert read.side is None
        assert (read.rows["flags"] >> 6 == line).all()
        sequence += len(read.rows)
        found.append(read.rows)
    tape = np.concatenate(found)
    keys = list(zip(tape["kind"].tolist(), tape["symbol_id"].tolist(), tape["id"].tolist(), strict=True))
    assert len(keys) == len(set(keys))
    expected = set()
    for payload in {*sent[0], *sent[1]}:
        record = room.expected(payload)
        assert record is not None
        if record["kind"][0] != QUOTE:
            expected.add((int(record["kind"][0]), int(record["symbol_id"][0]), int(record["id"][0])))
    assert {key for key in keys if key[0] != QUOTE} == expected
    assert (tape["checksum"] == checksums(tape, 1, EPOCH)).all()
