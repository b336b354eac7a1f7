"""derive.completeness against plain sets of ids: losses, order, fills, stand-ins, restarts."""

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeback.derive import completeness_feed
from tradeback.derive.completeness import Completeness
from tradeback.derive.completeness_gap import (
    AGGS,
    OPEN,
    REPAIRED,
    TRADES,
    UNREPAIRABLE,
    Gap,
    StreamState,
    gap_rows,
)
from tradeback.derive.completeness_kernel import go_on, run_length
from tradeback.model.record import AGG, GAP, LATE, QUOTE, STAND_IN, TRADE, Rows, empty_rows
from tradeback.model.record import REPAIRED as REPAIRED_FLAG

GRACE_NS = 1_000
Record = tuple[int, int, int, int, int]
"""Symbol id, kind, id, first, last (aggregates and stand-ins)."""


def rows_of(*records: Record, recv_ns: int = 0, flags: int = 0) -> Rows:
    rows = empty_rows(len(records))
    for row, (symbol_id, kind, identifier, first, last) in zip(rows, records, strict=True):
        row["symbol_id"], row["kind"], row["id"] = symbol_id, kind, identifier
        row["exchange_us"], row["recv_ns"], row["flags"] = 10 * identifier, recv_ns, flags
        if kind == AGG:
            row["ask"], row["ask_quantity"] = first, last
    return rows


def trades(*ids: int, symbol_id: int = 1, recv_ns: int = 0, flags: int = 0) -> Rows:
    return rows_of(*((symbol_id, TRADE, number, 0, 0) for number in ids), recv_ns=recv_ns, flags=flags)


def agg(identifier: int, first: int, last: int, recv_ns: int = 0, symbol_id: int = 1) -> Rows:
    return rows_of((symbol_id, AGG, identifier, first, last), recv_ns=recv_ns)


def stand_in(first: int, last: int, count: int, recv_ns: int = 0) -> Rows:
    rows = trades(last, recv_ns=recv_ns, flags=STAND_IN)
    rows["ask"], rows["ask_quantity"] = first, count
    return rows


class Tape:
    """A ledger behind a tape: what it says of gaps comes back to it as records."""

    def __init__(self) -> None:
        self.ledger = Completeness(GRACE_NS, 4)
        self.parts: list[Rows] = [empty_rows(0)]
        self.count = 0
        self.states: dict[tuple[int, int], StreamState] = {}
        self.gaps: dict[tuple[int, int, int, int], Gap] = {}
        self.stored = 0

    def put(self, *chunks: Rows) -> "Tape":
        for rows in chunks:
            self.ledger.feed(rows, self.count + 1)
            self.parts.append(rows)
            self.count += len(rows)
        return self

    def sweep(self, now_ns: int) -> list[tuple[int, int, int, int]]:
        """(first, last, state, missing) of every record that came of it."""
        rows = self.ledger.sweep(now_ns)
        self.put(rows)
        return [tuple(int(row[name]) for name in ("id", "ask", "quantity", "price")) for row in rows]  # type: ignore[misc]

    def store(self) -> None:
        states, gaps = self.ledger.changes()
        self.states |= {(state.symbol_id, state.stream): state for state in states}
        self.gaps |= {(gap.symbol_id, gap.stream, *gap.name): gap for gap in gaps}
        self.stored = self.count

    def restart(self) -> None:
        """From the store, then what came behind it on the tape."""
        rows = np.concatenate(self.parts)[self.stored :]
        self.ledger = Completeness(GRACE_NS, 4)
        self.ledger.restore(self.states.values(), self.gaps.values())
        self.ledger.feed(rows, self.stored + 1)


def missing(ledger: Completeness, symbol_id: int = 1, stream: int = TRADES) -> set[int]:
    held = ledger._streams.get((symbol_id, stream))
    return {n for low, high in held.holes.pieces() for n in range(low, high + 1)} if held else set()


def test_ids_that_go_on_leave_nothing() -> None:
    tape = Tape().put(trades(5, 6, 7), trades(0, 1, symbol_id=2), trades(8), rows_of((1, QUOTE, 900, 0, 0)))
    assert tape.sweep(10**9) == []
    assert tape.ledger.complete_through(1) == (8, 80)
    assert tape.ledger.complete_through(2) == (1, 10)
    assert tape.ledger.complete_through(3) is None
    assert tape.ledger.complete_through(70_000) is None
    assert tape.ledger.span(1) == (5, 8)
    assert [tape.ledger.holds(1, number) for number in (4, 5, 8, 9)] == [False, True, True, False]
    assert not tape.ledger._streams


def test_suspected_then_open_then_repaired() -> None:
    tape = Tape().put(trades(5, recv_ns=100), trades(9, 10, recv_ns=200))
    assert tape.sweep(200 + GRACE_NS - 1) == []
    assert not tape.ledger.is_calm()
    assert tape.ledger.complete_through(1) == (5, 50)
    assert tape.ledger.wanted(1, TRADES, 0, 99) == [], "the other line has its chance first"
    assert tape.sweep(200 + GRACE_NS) == [(6, 8, OPEN, 3)]
    assert tape.sweep(999_999) == []
    (gap,) = tape.ledger.gaps()
    assert (gap.before_us, gap.after_us, gap.opened_ns, gap.sequence) == (50, 90, 200 + GRACE_NS, 2)
    assert tape.ledger.wanted(1, TRADES, 7, 99) == [(7, 8)]
    tape.put(trades(6, 8, flags=REPAIRED_FLAG | LATE))
    assert tape.sweep(2_000) == []
    assert not tape.ledger.is_calm()
    assert tape.ledger.gaps()[0].missing == 1
    assert tape.ledger.complete_through(1) == (6, 50)
    tape.put(trades(7))
    assert tape.sweep(3_000) == [(6, 8, REPAIRED, 0)]
    assert tape.ledger.complete_through(1) == (10, 100)
    assert tape.ledger.gaps() == tape.ledger.gaps(UNREPAIRABLE) == []
    assert tape.ledger._streams[1, TRADES].gaps == {}
    assert (tape.ledger.opened, tape.ledger.repaired, tape.ledger.unrepairable) == (1, 1, 0)
    assert tape.ledger.is_calm()


def test_a_gap_that_is_given_up_keeps_nobody_waiting() -> None:
    tape = Tape().put(trades(5, recv_ns=100), trades(9, recv_ns=200))
    tape.sweep(200 + GRACE_NS)
    (gap,) = tape.ledger.gaps()
    tape.ledger.give_up(gap, 5_000)
    assert tape.sweep(5_000) == [(6, 8, UNREPAIRABLE, 3)]
    assert tape.ledger.gaps(UNREPAIRABLE)
    assert tape.ledger.is_calm()


def test_what_the_other_line_brings_in_time_was_no_gap() -> None:
    tape = Tape().put(trades(5, 9, recv_ns=100), trades(8, 6, 7, recv_ns=150))
    assert tape.sweep(10**6) == []
    assert tape.ledger.complete_through(1) == (9, 90)
    assert tape.ledger.opened == tape.ledger.doubles == 0


def test_a_trade_twice_is_counted() -> None:
    tape = Tape().put(trades(5, 6, 7), trades(6, 7), trades(8, 8))
    assert tape.ledger.doubles == 3
    assert tape.ledger.complete_through(1) == (8, 80)


def test_unrepairable_is_passed() -> None:
    tape = Tape().put(trades(5, 9))
    tape.sweep(GRACE_NS)
    tape.put(trades(7))
    (gap,) = tape.ledger.gaps()
    tape.ledger.give_up(gap, 5_000)
    assert tape.sweep(5_000) == [(6, 8, UNREPAIRABLE, 2)]
    assert tape.ledger.complete_through(1) == (9, 90)
    assert tape.ledger.gaps(UNREPAIRABLE)[0].closed_ns == 5_000
    tape.put(trades(6, 8))
    assert tape.sweep(6_000) == [(6, 8, REPAIRED, 0)], "they came after all"


def test_aggregates_show_a_dead_trade_line() -> None:
    tape = Tape().put(trades(5), agg(1, 4, 5), agg(2, 6, 9, recv_ns=100))
    assert tape.sweep(100 + GRACE_NS - 1) == []
    assert tape.sweep(100 + GRACE_NS) == [(6, 9, OPEN, 4)]
    tape.put(agg(3, 10, 12, recv_ns=300))
    tape.sweep(400)
    assert tape.sweep(10**6) == [], "one after the other"
    assert tape.ledger.complete_through(1) == (5, 50)
    tape.put(trades(6, 7, 8, 9, flags=REPAIRED_FLAG))
    assert tape.sweep(10**6) == [(6, 9, REPAIRED, 0)]
    assert tape.sweep(2 * 10**6) == [(10, 12, OPEN, 3)]


def test_aggregates_that_come_first_show_nothing() -> None:
    tape = Tape().put(agg(3, 1, 3, recv_ns=0), trades(1, 2, 3))
    for number in range(4, 100):
        tape.put(agg(number, number, number, recv_ns=number * 100))
        assert tape.sweep(number * 100 + 50) == []
        tape.put(trades(number))
    assert tape.sweep(10**9) == []


def test_a_stream_without_any_trade_begins_with_its_aggregates() -> None:
    tape = Tape().put(agg(7, 20, 22, recv_ns=100), agg(8, 23, 23, recv_ns=120))
    assert tape.sweep(GRACE_NS) == []
    assert tape.sweep(100 + GRACE_NS) == [(20, 22, OPEN, 3)]
    assert tape.ledger.complete_through(1) == (19, 0)
    assert Tape().put(agg(7, 20, 22), trades(22)).sweep(10**6) == [], "what came before us is not ours"


def test_aggregate_ids_have_gaps_of_their_own() -> None:
    tape = Tape().put(trades(*range(1, 10)), agg(1, 1, 2), agg(4, 8, 9, recv_ns=5))
    assert tape.sweep(5 + GRACE_NS) == [(2, 3, OPEN, 2)]
    (gap,) = tape.ledger.gaps()
    assert (gap.stream, gap.symbol_id) == (AGGS, 1)
    assert int(gap_rows([gap])["ask_quantity"][0]) == AGG
    assert tape.ledger.complete_through(1) == (9, 90)
    tape.put(agg(2, 3, 4), agg(3, 5, 7))
    assert tape.sweep(10**6) == [(2, 3, REPAIRED, 0)]


def test_a_stand_in_covers_and_does_not_repair() -> None:
    tape = Tape().put(trades(5, 9, 10))
    tape.sweep(GRACE_NS)
    assert tape.ledger.fate(1, 6, 7) is None, "it may still come"
    assert tape.ledger.fate(1, 9, 11) is None, "not known yet"
    tape.ledger.give_up(tape.ledger.gaps()[0], 2_000)
    tape.sweep(2_000)
    assert tape.ledger.fate(1, 5, 7) == [(6, 7)]
    assert tape.ledger.fate(1, 9, 10) == []
    no, yes = np.array([False]), np.array([True])
    assert tape.ledger.proved(1, np.array([6]), np.array([9])) == no
    tape.put(stand_in(6, 7, 2))
    assert tape.ledger.fate(1, 5, 7) == []
    assert tape.ledger.fate(1, 5, 8) == [(8, 8)]
    tape.put(stand_in(8, 8, 1))
    assert tape.ledger.proved(1, np.array([6]), np.array([9])) == yes
    assert not tape.ledger.holds(1, 7)
    assert tape.ledger.gaps(UNREPAIRABLE)[0].missing == 3


def test_a_gap_that_is_stood_in_for_is_unrepairable_at_once() -> None:
    """As an older version leaves it on the tape; also of a stream whose trades never came."""
    tape = Tape().put(trades(5), stand_in(6, 8, 3), trades(9))
    assert tape.sweep(GRACE_NS) == [(6, 8, UNREPAIRABLE, 3)]
    tape = Tape().put(stand_in(6, 8, 3))
    assert tape.sweep(GRACE_NS) == [(6, 8, UNREPAIRABLE, 3)]
    assert tape.ledger.complete_through(1) == (8, 80)


def test_doubtful_aggregates_up_to_the_first_young_record() -> None:
    tape = Tape().put(trades(5, 6, 7, 9), trades(1, 2, symbol_id=2))
    rows = np.concatenate(
        [agg(1, 5, 6), trades(5), agg(2, 7, 9), agg(1, 1, 2, symbol_id=2), agg(2, 3, 3, symbol_id=2),
         agg(1, 1, 1, symbol_id=9_999), agg(3, 9, 9, recv_ns=2), agg(4, 10, 10)]
    )  # fmt: skip
    ripe, aggregates, found = tape.ledger.ripe(rows, 1)
    assert (ripe, aggregates) == (6, 5)
    assert found.tolist() == [0, 2, 4, 5], "by symbol, and beyond what is known"
    ripe, aggregates, found = tape.ledger.ripe(rows, 2)
    assert (ripe, aggregates, found.tolist()) == (8, 7, [0, 2, 4, 5, 6, 7])
    ripe, aggregates, found = tape.ledger.ripe(empty_rows(0), 2)
    assert (ripe, aggregates, found.tolist()) == (0, 0, [])


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), limit_ns=st.integers(0, 2 * GRACE_NS))
def test_the_kernel_of_ripe_aggregates_equals_plain_python(seed: int, limit_ns: int) -> None:
    world, rng = World(seed), np.random.default_rng(seed)
    ledger = Completeness(GRACE_NS, 2)
    for _ in range(20):
        rows = world.batch()
        rows["recv_ns"] = rng.integers(0, 2 * GRACE_NS, len(rows))
        ledger.feed(rows, 1)
    rows = np.concatenate([world.batch() for _ in range(5)])
    rows["recv_ns"] = np.sort(rng.integers(0, 2 * GRACE_NS, len(rows)))
    ripe, wanted, aggregates = 0, [], 0
    for row in rows:
        if row["recv_ns"] > limit_ns:
            break
        if row["kind"] == AGG:
            aggregates += 1
            span = ledger.span(int(row["symbol_id"]))
            top = span[1] if span is not None else -1
            if row["ask_quantity"] > top or missing(ledger, int(row["symbol_id"])):
                wanted.append(ripe)
        ripe += 1
    said = ledger.ripe(rows, limit_ns)
    assert (said[0], said[1], said[2].tolist()) == (ripe, aggregates, wanted)


def test_old_unrepairable_gaps_are_forgotten_and_the_claim_begins_behind_them() -> None:
    tape = Tape().put(trades(*range(0, 802, 2)))
    tape.sweep(GRACE_NS)
    for gap in tape.ledger.gaps():
        tape.ledger.give_up(gap, 2_000)
    tape.sweep(2_000)
    assert len(tape.ledger.gaps(UNREPAIRABLE)) == 256
    assert tape.ledger.span(1) == (288, 800)


def test_records_that_say_nonsense_of_gaps_are_passed_over() -> None:
    tape = Tape().put(trades(5, 9))
    rows = gap_rows([Gap(1, TRADES, 6, 8, 9, 3, 1), Gap(1, TRADES, 6, 8, OPEN, 3, 1)])
    rows["ask_quantity"][1] = QUOTE
    assert tape.put(rows).ledger.gaps() == []


def test_an_older_word_on_a_gap_changes_nothing() -> None:
    tape = Tape().put(trades(5, 9))
    opened = tape.ledger.sweep(GRACE_NS)
    tape.ledger.give_up(tape.ledger.gaps()[0], 5_000)
    closed = tape.ledger.sweep(5_000)
    tape.put(opened)
    assert tape.ledger.gaps() == []
    tape.put(closed)
    assert len(tape.ledger.gaps(UNREPAIRABLE)) == 1


class World:
    """What a random run does, and what sets say of it."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.tape = Tape()
        self.now_ns = 0
        self.next_id = {1: 100, 2: 0}
        self.next_agg = {1: 7, 2: 0}
        self.lost: dict[tuple[int, int], list[Any]] = {}
        self.on_tape: dict[tuple[int, int], set[int]] = {}
        self.known: dict[int, int] = {}
        self.doubles = 0

    def note(self, symbol_id: int, kind: int, identifier: int) -> None:
        held = self.on_tape.setdefault((symbol_id, kind), set())
        self.doubles += identifier in held
        held.add(identifier)

    def batch(self) -> Rows:
        """Some trades and their aggregates, some lost, some out of order, some that were lost before."""
        rng, records = self.rng, list[Record]()
        for _ in range(rng.randrange(1, 12)):
            symbol_id = rng.choice((1, 1, 2))
            first = self.next_id[symbol_id]
            last = first + rng.choice((0, 0, 1, 4))
            self.next_id[symbol_id] = last + 1
            loss = rng.choice((0.0, 0.0, 0.3, 1.0))
            made = [(symbol_id, TRADE, number, 0, 0) for number in range(first, last + 1)]
            made.append((symbol_id, AGG, self.next_agg[symbol_id], first, last))
            self.next_agg[symbol_id] += 1
            for record in made:
                if rng.random() < loss:
                    self.lost.setdefault(record[:2], []).append(record)
                else:
                    records.append(record)
        for lost in self.lost.values():
            while lost and rng.random() < 0.3:
                records.append(lost.pop(rng.randrange(len(lost))))
        if rng.random() < 0.5:
            records.sort(key=lambda record: rng.random() * 3 + record[2] % 100 / 20)
        for record in records:
            self.note(*record[:3])
        return rows_of(*records, recv_ns=self.now_ns)

    def check(self) -> None:
        ledger = self.tape.ledger
        for (symbol_id, kind), held in self.on_tape.items():
            stream = AGGS if kind == AGG else TRADES
            span = ledger.span(symbol_id, stream)
            assert span is not None
            assert span[0] == min(held) or (kind == TRADE and span[0] < min(held))
            assert span[1] >= max(held)
            assert missing(ledger, symbol_id, stream) == set(range(span[0], span[1] + 1)) - held
        assert ledger.doubles == 0

    def check_settled(self) -> None:
        """After the grace time every missing id is in exactly one gap, and none is missing unnoticed."""
        ledger = self.tape.ledger
        for key, stream in ledger._streams.items():
            named = [n for gap in stream.gaps.values() for n in range(gap.first_id, gap.last_id + 1)]
            assert len(named) == len(set(named)), "gaps do not overlap"
            assert missing(ledger, *key) <= set(named)
            for gap in stream.gaps.values():
                inside = missing(ledger, *key) & set(range(gap.first_id, gap.last_id + 1))
                assert gap.missing == len(inside)
                assert (gap.state == REPAIRED) == (not inside)
            through = ledger.complete_through(*key)
            unsettled = [
                n for gap in stream.gaps.values() if gap.state == OPEN
                for n in missing(ledger, *key) & set(range(gap.first_id, gap.last_id + 1))
            ]  # fmt: skip
            span = ledger.span(*key)
            assert through is not None
            assert span is not None
            assert through[0] == min([*(n - 1 for n in unsettled), span[1]])


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(1, 25))
def test_any_loss_order_and_restart(seed: int, rounds: int) -> None:
    world = World(seed)
    rng, tape = world.rng, world.tape
    for _ in range(rounds):
        world.now_ns += rng.choice((1, 100, GRACE_NS))
        tape.put(world.batch())
        world.check()
        tape.sweep(world.now_ns)
        for gap in tape.ledger.gaps():
            if rng.random() < 0.1:
                tape.ledger.give_up(gap, world.now_ns)
        world.check()
        if rng.random() < 0.4:
            tape.store()
        if rng.random() < 0.3:
            tape.restart()
            world.check()
    for _ in range(3):  # a tail is opened when it was marked before
        world.now_ns += 2 * GRACE_NS
        tape.sweep(world.now_ns)
        world.check_settled()
    # Everything that was lost comes in the end: no gap is left.
    for _ in range(40):
        rest = [record for lost in world.lost.values() for record in lost]
        world.lost.clear()
        rng.shuffle(rest)
        for record in rest:
            world.note(*record[:3])
        tape.put(rows_of(*rest, recv_ns=world.now_ns))
        world.now_ns += 2 * GRACE_NS
        tape.sweep(world.now_ns)
    tape.sweep(world.now_ns + GRACE_NS)
    world.check()
    assert tape.ledger.gaps() == tape.ledger.gaps(UNREPAIRABLE) == []
    for symbol_id, kind in world.on_tape:
        if kind == TRADE:
            through = tape.ledger.complete_through(symbol_id)
            assert through is not None
            assert through[0] == max(world.on_tape[symbol_id, kind])
    rows = np.concatenate(tape.parts)
    last = {(int(r["symbol_id"]), int(r["ask_quantity"]), int(r["id"]), int(r["ask"])): int(r["quantity"])
            for r in rows[rows["kind"] == GAP]}  # fmt: skip
    assert set(last.values()) <= {REPAIRED}, "every gap's last word"


@pytest.mark.parametrize("seed", range(5))
def test_batches_make_no_difference(seed: int) -> None:
    world = World(seed)
    rows = np.concatenate([world.batch() for _ in range(60)])
    whole, single = Tape().put(rows), Tape().put(*(rows[n : n + 1] for n in range(len(rows))))
    for tape in (whole, single):
        tape.sweep(10**6)
        tape.sweep(2 * 10**6)
    for stream in (TRADES, AGGS):
        for symbol_id in (1, 2):
            assert missing(whole.ledger, symbol_id, stream) == missing(single.ledger, symbol_id, stream)
            assert whole.ledger.span(symbol_id, stream) == single.ledger.span(symbol_id, stream)
            assert whole.ledger.complete_through(symbol_id, stream) == single.ledger.complete_through(
                symbol_id, stream
            )


def run_of(rows: Rows) -> int:
    """Records of one stream from the first on whose ids rise by one, in plain Python."""
    kind, symbol, number = (rows[0][name] for name in ("kind", "symbol_id", "id"))
    for count, row in enumerate(rows):
        if (row["kind"], row["symbol_id"], row["id"]) != (kind, symbol, number + count):
            return count
        if count and row["flags"] & STAND_IN:
            return count
    return len(rows)


class _RunByRun(Completeness):
    """The ledger without its kernels: what goes on record by record, what does not run by run."""

    def feed(self, rows: Rows, first_sequence: int) -> None:
        place = 0
        while place < len(rows):
            row = rows[place]
            span = self.span(int(row["symbol_id"]), AGGS if row["kind"] == AGG else TRADES)
            goes_on = span is not None and row["id"] == span[1] + 1
            count = 1 if goes_on else run_of(rows[place:])
            self._feed_rest(rows[place : place + count], first_sequence + place)
            place += count


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 80))
def test_kernels_take_runs_as_arrays_take_records(seed: int, size: int) -> None:
    world, rng = World(seed), np.random.default_rng(seed)
    rows = np.concatenate([world.batch() for _ in range(20)])
    ledgers, now_ns, at = (Completeness(GRACE_NS), _RunByRun(GRACE_NS)), 0, 0
    while at < len(rows):
        part = rows[at : at + int(rng.integers(1, size + 1))]
        now_ns += int(rng.integers(0, GRACE_NS))
        said = []
        for ledger in ledgers:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(completeness_feed, "ODD_RUNS_MAX", len(part))
                ledger.feed(part, 1 + at)
            said.append(ledger.sweep(now_ns).tobytes())
        assert said[0] == said[1]
        at += len(part)
    one, other = ledgers
    assert (one.doubles, one.fills) == (other.doubles, other.fills)
    assert one.changes() == other.changes()


@settings(deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_length_of_a_run_equals_plain_python(seed: int) -> None:
    world = World(seed)
    rows = np.concatenate([world.batch() for _ in range(5)])
    rows["flags"][np.random.default_rng(seed).random(len(rows)) < 0.1] |= STAND_IN
    for place in range(len(rows)):
        assert run_length(rows[place:]) == run_of(rows[place:])


def test_the_kernel_takes_all_of_a_quiet_tape_and_stops_before_what_is_amiss() -> None:
    ledger = Completeness(10**9)
    ledger.feed(np.concatenate([trades(1), agg(1, 1, 1)]), 1)
    quiet = np.concatenate([trades(2, 3), agg(2, 2, 3), trades(4)])
    assert go_on(ledger._words, quiet) == len(quiet)
    assert ledger.span(1) == (1, 4)
    for amiss in (
        trades(7),
        trades(4),
        trades(1, symbol_id=2),
        stand_in(5, 6, 2),
        trades(1, symbol_id=9_999),
    ):
        assert go_on(ledger._words, np.concatenate([trades(5), amiss])) == 1
        ledger._top[TRADES, 1] = 4
