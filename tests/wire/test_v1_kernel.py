"""wire/v1_kernel: the bytes of every group equal a plain-Python encoder's, whatever rows and interests."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.reading import entries_of
from tradeback.feed.interest import EVERYTHING, Interest, InterestTable
from tradeback.kernel.crc32 import TABLES_ADDRESS
from tradeback.model.record import AGG, LATE, QUOTE, TRADE, Rows, empty_rows
from tradeback.wire import v1_layout as at
from tradeback.wire.frames import v1_frames
from tradeback.wire.v1 import make_entries
from tradeback.wire.v1_kernel import encode_groups

SYMBOLS = (1, 2, 3, 500, 65_535)
interests = st.one_of(st.just(EVERYTHING), st.frozensets(st.sampled_from(SYMBOLS), min_size=1))


@dataclass
class Encoded:
    consumed: int
    streams: dict[Interest, bytes]


def make_table(keys: list[Interest]) -> InterestTable:
    table = InterestTable()
    table.context[at.CRC_TABLES] = TABLES_ADDRESS
    for key in keys:
        table.join(key)
    return table


def encode(table: InterestTable, rows: Rows) -> Encoded:
    """One kernel call; the result as a stream of bytes per interest."""
    consumed = encode_groups(table.context_address, int(rows.ctypes.data), len(rows))
    streams = {}
    for index, offset, size, _ in table.touched[: table.context[at.TOUCHED_COUNT]].tolist():
        streams[table.key_of(index)] = table.arena[offset : offset + size].tobytes()
    return Encoded(consumed, streams)


def oracle(keys: list[Interest], rows: Rows) -> dict[Interest, bytes]:
    """What each group must get; groups without a new trade are absent."""
    found = {}
    for key in keys:
        wanted = [
            (int(row["symbol_id"]), float(row["price"]), float(row["quantity"]))
            for row in rows
            if row["kind"] == TRADE and (key == EVERYTHING or int(row["symbol_id"]) in key)
        ]
        if wanted:
            found[key] = v1_frames(make_entries(wanted))
    return found


@st.composite
def batches(draw: st.DrawFn) -> Rows:
    count = draw(st.integers(0, 130))
    rows = empty_rows(count)
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    rows["kind"] = random.choice([TRADE, TRADE, TRADE, QUOTE, AGG], count)
    rows["symbol_id"] = random.choice(SYMBOLS, count)
    rows["price"] = random.integers(1, 10**9, count) / 100
    rows["quantity"] = random.integers(1, 10**9, count) / 10**5
    rows["recv_ns"] = random.integers(1, 2**60, count)
    return rows


@settings(deadline=None)
@given(st.lists(interests, unique=True, max_size=8), st.lists(batches(), min_size=1, max_size=3))
def test_every_group_gets_what_plain_python_encodes(keys: list[Interest], given_rows: list[Rows]) -> None:
    table = make_table(keys)
    for rows in given_rows:
        encoded = encode(table, rows)
        assert encoded.consumed == len(rows)
        assert encoded.streams == oracle(keys, rows)
        trades = rows[rows["kind"] == TRADE]
        assert table.context[at.TRADES] == len(trades)
        if len(trades):
            assert table.context[at.RECV_NS] == trades["recv_ns"][0]
        assert table.context[at.ENTRIES] == sum(len(entries_of(s)) for s in encoded.streams.values())


@settings(deadline=None)
@given(st.lists(interests, unique=True, min_size=1, max_size=6), batches(), st.integers(200, 3_000))
def test_a_small_arena_takes_a_prefix_and_the_rest_later(keys: list[Interest], rows: Rows, size: int) -> None:
    table = make_table(keys)
    table.grow_arena(size)
    streams: dict[Interest, bytes] = dict.fromkeys(keys, b"")
    done = 0
    while done < len(rows):
        encoded = encode(table, rows[done:])
        assert encoded.consumed > 0
        assert encoded.streams == oracle(keys, rows[done : done + encoded.consumed])
        for key, stream in encoded.streams.items():
            streams[key] += stream
        done += encoded.consumed
    whole = {key: entries_of(stream) for key, stream in oracle(keys, rows).items()}
    assert {key: entries_of(stream) for key, stream in streams.items() if stream} == whole


def test_an_arena_too_small_for_one_row_consumes_nothing_and_leaves_no_trace() -> None:
    table = make_table([frozenset({1}), EVERYTHING])
    rows = empty_rows(2)
    rows["kind"], rows["symbol_id"], rows["price"], rows["quantity"] = TRADE, 1, 5.0, 1.0
    table.grow_arena(40)
    assert encode(table, rows) == Encoded(0, {})
    assert not table.last_price.any()
    table.grow_arena(4_096)
    assert encode(table, rows).streams == oracle([frozenset({1}), EVERYTHING], rows)


def test_last_price_and_count_by_symbol_whoever_listens() -> None:
    table = make_table([])
    rows = empty_rows(4)
    rows["kind"] = [TRADE, TRADE, QUOTE, TRADE]
    rows["symbol_id"] = [1, 2, 1, 1]
    rows["price"] = [10.0, 20.0, 99.0, 11.0]
    rows["flags"] = [0, 0, 0, LATE]
    encode(table, rows)
    assert table.last_price[[1, 2, 3]].tolist() == [10.0, 20.0, 0.0], "a late trade does not turn it back"
    assert table.trades_seen[[1, 2, 3]].tolist() == [2, 1, 0]


@pytest.mark.parametrize("count", [6, 7, 50, 51, 100, 101])
def test_headers_at_the_borders(count: int) -> None:
    rows = empty_rows(count)
    rows["kind"], rows["symbol_id"], rows["price"], rows["quantity"] = TRADE, 1, 1.5, 2.0
    key = frozenset({1})
    assert encode(make_table([key]), rows).streams == oracle([key], rows)
