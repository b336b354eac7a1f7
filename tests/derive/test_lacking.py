"""derive.lacking against a slot-by-slot oracle."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeback.derive.lacking import Span, join, lacking
from tradeback.derive.layout import NO_FIRST_ID, NO_ID, Bars, empty_bars

SLOT_S = 60


def series(slots: list[int], ids: list[tuple[int, int] | None]) -> Bars:
    rows = empty_bars(len(slots))
    rows["slot_us"] = np.array(slots, np.int64) * SLOT_S * 1_000_000
    for row, known in zip(rows, ids, strict=True):
        row["first_id"], row["last_id"] = known or (NO_FIRST_ID, NO_ID)
    return rows


def test_a_row_of_complete_bars_lacks_nothing() -> None:
    rows = series([1, 2, 3], [None, None, None])
    assert lacking(rows, np.ones(3, bool), SLOT_S, 60, 240) == []


def test_what_is_before_behind_and_between() -> None:
    rows = series([1000, 2000, 2001], [(1, 5), (6, 7), (9, 10)])
    found = lacking(rows, np.array([True, True, False]), SLOT_S, 0, 199_980)
    assert found == [Span(0, 60_000), Span(120_060, 199_980)], "linked bars prove that nothing lies between"
    rows["first_id"][1] = 7
    found = lacking(rows, np.array([True, True, True]), SLOT_S, 60_000, 120_120)
    assert found == [Span(60_060, 120_000)]


def test_without_bars_all_is_lacking_and_edges_are_whole_slots() -> None:
    assert lacking(empty_bars(0), np.zeros(0, bool), SLOT_S, 61, 1_000) == [Span(120, 960)]
    assert lacking(empty_bars(0), np.zeros(0, bool), SLOT_S, 61, 119) == []
    assert lacking(empty_bars(0), np.zeros(0, bool), SLOT_S, 120, 60) == []


def test_near_spans_are_joined() -> None:
    spans = [Span(0, 10), Span(15, 20), Span(18, 19), Span(100, 110)]
    assert join(spans, 5) == [Span(0, 20), Span(100, 110)]


@settings(deadline=None, max_examples=200)
@given(
    slots=st.sets(st.integers(0, 40)),
    doubt=st.sets(st.integers(0, 40)),
    cuts=st.sets(st.integers(0, 40)),
    first=st.integers(0, 45),
    count=st.integers(0, 45),
)
def test_every_lacking_slot_is_in_a_span_and_spans_begin_and_end_with_one(
    slots: set[int], doubt: set[int], cuts: set[int], first: int, count: int
) -> None:
    """`cuts`: bars before which a trade id is missing."""
    end = first + count
    inside = sorted(slot for slot in slots if first <= slot < end)
    ids, number = [], 1
    for slot in inside:
        number += slot in cuts
        ids.append((number, number))
        number += 1
    rows = series(inside, list(ids))
    complete = np.array([slot not in doubt for slot in inside], bool)
    unknown = set()
    for slot in range(first, end):
        before = max((held for held in inside if held < slot), default=None)
        after = min((held for held in inside if held > slot), default=None)
        if slot in inside:
            if slot in doubt:
                unknown.add(slot)
        elif before is None or after is None or after in cuts:
            unknown.add(slot)
    spans = lacking(rows, complete, SLOT_S, first * SLOT_S, end * SLOT_S)
    covered = {at for span in spans for at in range(span.from_s // SLOT_S, span.to_s // SLOT_S)}
    assert unknown <= covered
    for span in spans:
        assert {span.from_s // SLOT_S, span.to_s // SLOT_S - 1} <= unknown
