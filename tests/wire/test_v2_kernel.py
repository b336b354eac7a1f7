"""wire/v2_kernel: the bytes of every group equal the plain encoder's, whatever rows, interests and flags."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.reading import messages
from tests.wire.v2_world import (
    EPOCH,
    EVERYTHING,
    GRIDS,
    RECV_NS,
    Table,
    batches,
    keys,
    market,
    subject,
    wants,
)
from tradeback.feed.interest import Interest
from tradeback.model.record import GAP, QUOTE, TRADE, Rows, empty_rows
from tradeback.wire import v2_layout as at
from tradeback.wire.frames import BINARY, server_frame
from tradeback.wire.v2_encode import encode_rows
from tradeback.wire.v2_kernel import encode_groups_v2

PUBLISH_NS = RECV_NS + 45_000


@dataclass
class Encoded:
    consumed: int
    streams: dict[Interest, bytes]
    frames: dict[Interest, int]


def encode(table: Table, rows: Rows) -> Encoded:
    """One kernel call; the result as a stream of bytes per interest."""
    consumed = encode_groups_v2(table.context_address, int(rows.ctypes.data), len(rows))
    streams, frames = {}, {}
    for index, offset, size, count in table.touched[: table.context[at.TOUCHED_COUNT]].tolist():
        streams[table.key_of(index)] = table.arena[offset : offset + size].tobytes()
        frames[table.key_of(index)] = count
    return Encoded(consumed, streams, frames)


def oracle(given_keys: list[Interest], rows: Rows, first: int, **how: int) -> dict[Interest, bytes]:
    """What each group must get; groups of which no row is wanted are absent."""
    found = {}
    for key in given_keys:
        payloads = encode_rows(
            rows,
            first,
            epoch=EPOCH,
            grids=GRIDS,
            wanted=lambda kind, symbol_id, key=key: wants(key, kind, symbol_id),  # type: ignore[misc]
            publish_ns=PUBLISH_NS,
            **how,  # type: ignore[arg-type]
        )
        if payloads:
            found[key] = b"".join(server_frame(BINARY, payload) for payload in payloads)
    return found


def table_of(given_keys: list[Interest], **options: int) -> Table:
    table = Table(given_keys, **options)
    table.context[at.PUBLISH_NS] = PUBLISH_NS
    return table


several_keys = st.lists(keys(), unique=True, max_size=5)


@settings(deadline=None)
@given(several_keys, st.lists(batches(), min_size=1, max_size=3), st.integers(1, 1 << 53))
def test_every_group_gets_what_plain_python_encodes(
    given_keys: list[Interest], given_rows: list[Rows], sequence: int
) -> None:
    table = table_of(given_keys, sequence=sequence)
    for rows in given_rows:
        encoded = encode(table, rows)
        assert encoded.consumed == len(rows)
        assert encoded.streams == oracle(given_keys, rows, sequence)
        sequence += len(rows)
        assert table.context[at.SEQUENCE] == sequence
        sent = [messages(stream) for stream in encoded.streams.values()]
        assert table.context[at.FRAMES] == sum(map(len, sent)) == sum(encoded.frames.values())


@settings(deadline=None)
@given(several_keys, batches(), st.booleans(), st.sampled_from([0, at.SNAPSHOT]), st.integers(0, 3))
def test_flags_and_conflation(
    given_keys: list[Interest], rows: Rows, conflate: bool, entry_flags: int, frame_flags: int
) -> None:
    table = table_of(given_keys)
    table.context[at.CONFLATE] = conflate
    table.context[at.ENTRY_FLAGS], table.context[at.FRAME_FLAGS] = entry_flags, frame_flags
    how = {"conflate": conflate, "entry_flags": entry_flags, "frame_flags": frame_flags}
    assert encode(table, rows).streams == oracle(given_keys, rows, 1, **how)
    table.context[at.CONFLATE] = 0  # it leaves nothing behind
    how["conflate"] = False
    assert encode(table, rows).streams == oracle(given_keys, rows, 1 + len(rows), **how)


@settings(deadline=None)
@given(st.lists(keys(), unique=True, min_size=1, max_size=5), batches(), st.integers(1_200, 4_000))
def test_a_small_arena_takes_a_prefix_and_the_rest_later(
    given_keys: list[Interest], rows: Rows, size: int
) -> None:
    table = table_of(given_keys, arena=size)
    done = 0
    while done < len(rows):
        encoded = encode(table, rows[done:])
        assert encoded.consumed > 0
        part = rows[done : done + encoded.consumed]
        assert encoded.streams == oracle(given_keys, part, 1 + done)
        done += encoded.consumed


def test_an_arena_too_small_for_one_row_consumes_nothing_and_leaves_no_trace() -> None:
    rows = market(np.random.default_rng(1), 30)
    table = table_of([EVERYTHING], arena=64)
    assert encode(table, rows) == Encoded(0, {}, {})
    assert table.context[at.SEQUENCE] == 1
    table.grow_arena(8_192)
    assert encode(table, rows).streams == oracle([EVERYTHING], rows, 1)


def test_conflation_is_for_all_rows_or_none() -> None:
    rows = market(np.random.default_rng(2), 60)
    table = table_of([EVERYTHING], arena=1_000)
    table.context[at.CONFLATE] = 1
    assert encode(table, rows) == Encoded(0, {}, {})
    table.grow_arena(16_384)
    assert encode(table, rows).streams == oracle([EVERYTHING], rows, 1, conflate=True)


@pytest.mark.parametrize("count", [1_000, 20_000])
def test_frames_are_bounded_and_each_says_how_far_it_reaches(count: int) -> None:
    rows = market(np.random.default_rng(count), count)
    some: Interest = frozenset({subject(TRADE, 1), subject(QUOTE, 0)})
    table = table_of([EVERYTHING, some], arena=8 << 20)
    encoded = encode(table, rows)
    assert encoded.streams == oracle([EVERYTHING, some], rows, 1)
    payloads = [payload for _, payload in messages(encoded.streams[EVERYTHING])]
    assert max(map(len, payloads)) <= at.FRAME_BYTES_MAX
    assert len(payloads) >= (2 if count > 1_000 else 1)


def test_the_longest_entries_fit_a_frame_and_the_arena() -> None:
    rows = empty_rows(1_000)
    rows["kind"] = [QUOTE, TRADE, GAP, TRADE] * 250
    rows["symbol_id"] = [65_535, 65_534] * 500
    rows["id"] = [(-1) ** place * (1 << 62) for place in range(1_000)]
    rows["exchange_us"] = [0, 1, (1 << 53) - 1, 3] * 250
    rows["recv_ns"] = [(1 << 63) - 1, 1] * 500
    rows["flags"] = 14
    for name in ("price", "quantity", "ask", "ask_quantity"):
        rows[name] = 9.007199254740989e-07
    table = table_of([EVERYTHING], sequence=1 << 62, arena=1_000 * 64 + 4 * 48)
    encoded = encode(table, rows)
    assert encoded.consumed == 999, "the last one is let in only when it could be the first of its group"
    assert encoded.streams == oracle([EVERYTHING], rows[:999], 1 << 62)
    payloads = [payload for _, payload in messages(encoded.streams[EVERYTHING])]
    assert max(map(len, payloads)) <= at.FRAME_BYTES_MAX
