"""Bounds of pieces, against plain Python; a piece that holds a match is never passed over."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tradeback.model.record import AGG, QUOTE, TRADE, Rows, empty_rows
from tradeback.tape.spans import ID_MAX, Spans, Wanted, bounds_of, times_us

RECORDS = st.lists(
    st.tuples(
        st.sampled_from([TRADE, TRADE, QUOTE, AGG]),
        st.integers(0, 60),
        st.integers(0, 60) | st.just(0),
        st.integers(1_000, 60_000),
    ),
    min_size=1,
    max_size=12,
)
BOUND = st.none() | st.integers(-1, 61)


def rows_of(records: list[tuple[int, int, int, int]]) -> Rows:
    rows = empty_rows(len(records))
    for place, (kind, number, exchange_us, recv_ns) in enumerate(records):
        rows[place]["kind"], rows[place]["id"] = kind, number
        rows[place]["exchange_us"], rows[place]["recv_ns"] = exchange_us, recv_ns
    return rows


@given(pieces=st.lists(RECORDS, min_size=1, max_size=5))
def test_bounds_are_those_of_the_trades(pieces: list[list[tuple[int, int, int, int]]]) -> None:
    starts = np.cumsum([0, *(len(piece) for piece in pieces[:-1])])
    found = bounds_of(rows_of([record for piece in pieces for record in piece]), starts)
    for piece, bounds in zip(pieces, found.tolist(), strict=True):
        times = [time or recv // 1_000 for kind, _, time, recv in piece if kind == TRADE]
        ids = [number for kind, number, _, _ in piece if kind == TRADE]
        none = [ID_MAX, -ID_MAX]
        assert bounds == [
            *([min(times), max(times)] if times else none), *([min(ids), max(ids)] if ids else none)
        ]  # fmt: skip


@given(piece=RECORDS, from_us=BOUND, to_us=BOUND, from_id=BOUND, id_max=st.integers(0, 61) | st.just(ID_MAX))
def test_a_piece_with_a_match_is_read(
    piece: list[tuple[int, int, int, int]],
    from_us: int | None,
    to_us: int | None,
    from_id: int | None,
    id_max: int,
) -> None:
    rows, wanted, spans = rows_of(piece), Wanted(from_us, to_us, from_id, id_max), Spans(2)
    assert spans.may_hold(1, wanted), "nothing is known yet"
    spans.learn(1, rows)
    spans.learn(1, rows[:1])
    assert spans.may_hold(0, wanted)
    matches = [
        kind == TRADE
        and (from_us is None or time >= from_us)
        and (to_us is None or time < to_us)
        and (from_id is None or number >= from_id)
        and number <= id_max
        for kind, number, time in zip(rows["kind"], rows["id"], times_us(rows), strict=True)
    ]
    assert spans.may_hold(1, wanted) or not any(matches)
    if TRADE not in rows["kind"]:
        assert not spans.may_hold(1, wanted), "without trades there is nothing to read"
