"""derive.completeness_feed: ids that went by while nobody asked for a symbol are not missing."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.derive.test_completeness import GRACE_NS, Tape, agg, missing, trades
from tradeback.derive.completeness_gap import OPEN, REPAIRED, TRADES, UNREPAIRABLE, unwatched_rows
from tradeback.model.record import LATE
from tradeback.model.record import REPAIRED as REPAIRED_FLAG

LATER = 10 * GRACE_NS


def test_what_went_by_unwatched_is_no_gap() -> None:
    tape = Tape().put(trades(5, 6), agg(1, 5, 6), unwatched_rows([1], 50), agg(9, 80, 81), trades(81, 82))
    assert tape.sweep(LATER) == []
    assert tape.ledger.span(1) == (81, 82)
    assert tape.ledger.complete_through(1) == (82, 820)
    assert tape.ledger.fate(1, 80, 81) == [], "what an aggregate names from before is nobody's loss"
    assert not tape.ledger.holds(1, 6), "the claim is about what came behind"
    assert tape.ledger.doubles == 0


def test_behind_it_losses_are_losses_again() -> None:
    tape = Tape().put(trades(5), unwatched_rows([1], 0), trades(80, recv_ns=100), trades(83, recv_ns=100))
    assert tape.sweep(100 + GRACE_NS) == [(81, 82, OPEN, 2)]
    tape.put(trades(81, 82, flags=REPAIRED_FLAG | LATE))
    assert tape.sweep(LATER) == [(81, 82, REPAIRED, 0)]


def test_one_record_in_the_middle_of_a_batch_concerns_one_symbol() -> None:
    rows = np.concatenate(
        [
            trades(5, 6),
            trades(1, 2, symbol_id=2),
            unwatched_rows([1], 0),
            trades(40, 41),
            trades(4, symbol_id=2),
        ]
    )
    tape = Tape().put(rows)
    assert tape.sweep(LATER) == [(3, 3, OPEN, 1)]
    assert (tape.ledger.span(1), tape.ledger.span(2)) == ((40, 41), (1, 4))


def test_a_gap_of_before_is_still_repaired() -> None:
    """Its trades come when nobody asks for the symbol, and when somebody does again."""
    tape = Tape().put(trades(5, recv_ns=0), trades(9, recv_ns=0))
    assert tape.sweep(GRACE_NS) == [(6, 8, OPEN, 3)]
    tape.put(unwatched_rows([1], 0), trades(6, flags=REPAIRED_FLAG | LATE))
    assert tape.ledger.span(1) is None, "one trade of before begins no claim"
    tape.put(trades(70, 71), trades(7, flags=REPAIRED_FLAG | LATE))
    assert tape.ledger.complete_through(1) == (7, 50), "not while it is open"
    tape.put(trades(8, flags=REPAIRED_FLAG | LATE))
    assert tape.sweep(LATER) == [(6, 8, REPAIRED, 0)]
    assert tape.ledger.span(1) == (70, 71)
    assert tape.ledger.complete_through(1) == (71, 710)
    assert (missing(tape.ledger), tape.ledger.doubles) == (set(), 0)


def test_a_gap_of_before_that_is_given_up() -> None:
    tape = Tape().put(trades(5), trades(9))
    tape.sweep(GRACE_NS)
    (gap,) = tape.ledger.gaps()
    tape.put(unwatched_rows([1], 0), trades(70))
    tape.ledger.give_up(gap, LATER)
    assert tape.sweep(LATER) == [(6, 8, UNREPAIRABLE, 3)]
    assert tape.ledger.complete_through(1) == (70, 700)


def test_a_suspicion_of_before_becomes_a_gap() -> None:
    tape = Tape().put(trades(5, 8, recv_ns=100), unwatched_rows([1], 0))
    assert tape.sweep(100 + GRACE_NS) == [(6, 7, OPEN, 2)]
    assert tape.ledger.wanted(1, TRADES, 0, 99) == [(6, 7)]


def test_an_aggregate_ahead_of_the_trades_is_forgotten() -> None:
    """The streams of a symbol that goes do not end in the same moment."""
    tape = Tape().put(trades(5), agg(1, 5, 6, recv_ns=10), unwatched_rows([1], 0))
    assert tape.sweep(LATER) == []
    tape.put(trades(70, 71), agg(8, 70, 71))
    assert tape.sweep(2 * LATER) == []


@pytest.mark.parametrize("stored", [1, 3, 5])
def test_a_restart_knows_it(stored: int) -> None:
    """From the store at any moment, and from the tape alone: the same."""
    chunks = [trades(5), trades(9), unwatched_rows([1], 0), trades(70), trades(75)]
    tape = Tape()
    for number, rows in enumerate(chunks, 1):
        tape.put(rows)
        if number == stored:
            tape.store()
    tape.restart()
    assert sorted(tape.sweep(GRACE_NS)) == [(6, 8, OPEN, 3), (71, 74, OPEN, 4)]
    assert tape.ledger.span(1) == (70, 75)


def test_what_a_replay_says_of_gaps_of_before_begins_no_claim() -> None:
    tape = Tape().put(trades(5), trades(9), unwatched_rows([1], 0))
    noted = tape.ledger.sweep(GRACE_NS)
    assert len(noted) == 1
    other = Tape().put(unwatched_rows([1], 0), noted, trades(70))
    assert other.sweep(LATER) == []
    assert other.ledger.span(1) == (70, 70)
    other.put(trades(6, 7, 8, flags=REPAIRED_FLAG | LATE))
    assert other.sweep(LATER) == [(6, 8, REPAIRED, 0)]
    third = Tape().put(unwatched_rows([1], 0), trades(70), noted)
    assert third.sweep(LATER) == []
    assert third.ledger.span(1) == (70, 70)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 40)), min_size=1, max_size=6), st.integers(0, 2**32)
)
def test_any_number_of_times_away(spans: list[tuple[int, int]], seed: int) -> None:
    """Spans of ids with losses inside, and unwatched ids between: exactly the losses are missing."""
    rng = random.Random(seed)
    tape, at, lost = Tape(), 10, set[int]()
    for length, away in spans:
        ids = list(range(at, at + length))
        kept = [number for number in ids if number in (ids[0], ids[-1]) or rng.random() < 0.7]
        lost |= set(ids) - set(kept)
        for number in kept:
            tape.put(trades(number))
        tape.sweep(0)
        at += length + away
        tape.put(unwatched_rows([1], 0))
    tape.sweep(GRACE_NS)
    assert missing(tape.ledger) == lost
    assert sum(gap.missing for gap in tape.ledger.gaps()) == len(lost)
    for number in sorted(lost, key=lambda _: rng.random()):
        tape.put(trades(number, flags=REPAIRED_FLAG | LATE))
    tape.sweep(LATER)
    assert tape.ledger.gaps() == []
    assert tape.ledger.doubles == 0
