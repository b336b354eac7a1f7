"""The index of a sealed segment, against a plain search."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tape.helpers import flip, make_rows
from tradeback.model.errors import TapeError
from tradeback.model.record import Rows, empty_rows, seal
from tradeback.tape.index import HEADER_BYTES, Times, build_index, read_index, read_times, write_index
from tradeback.tape.segment import Header, Segment, offset_of, pack_header


def make_segment(folder: Path, rows: Rows, first: int = 21, epoch: int = 77) -> Segment:
    segment = Segment.named(folder, epoch, first)
    seal(rows, first, epoch)
    segment.path.write_bytes(pack_header(Header(epoch, first, 0)) + rows.tobytes())
    return segment


@settings(max_examples=40, deadline=None)
@given(symbols=st.lists(st.integers(0, 65_535) | st.integers(1, 4), max_size=200))
def test_rows_of_every_symbol(symbols: list[int]) -> None:
    rows = empty_rows(len(symbols))
    rows["symbol_id"] = symbols
    with tempfile.TemporaryDirectory() as folder:
        segment = make_segment(Path(folder), rows)
        write_index(segment, build_index(segment))
        index = read_index(segment)
        assert index is not None
        assert index.rows == len(symbols)
        for symbol in {*symbols, 0, 7, 65_535}:
            wanted = [row for row, found in enumerate(symbols) if found == symbol]
            assert index.rows_of(symbol).tolist() == wanted


def test_times(tmp_path: Path) -> None:
    rows = empty_rows(5)
    rows["recv_ns"] = [50_000, 40_000, 70_000, 60_000, 55_000]
    rows["exchange_us"] = [0, 30, 0, 90, 0]
    segment = make_segment(tmp_path, rows)
    assert read_times(segment) is None
    write_index(segment, build_index(segment))
    times = read_times(segment)
    assert times == Times(30, 90, 40_000, 70_000)
    assert times.overlap(None, None)
    assert times.overlap(90, 91)
    assert not times.overlap(91, None)
    assert times.overlap(0, 31)
    assert not times.overlap(0, 30)


def test_times_without_any_exchange_time(tmp_path: Path) -> None:
    rows = empty_rows(2)
    rows["recv_ns"] = [5_000, 6_000]
    times = build_index(make_segment(tmp_path, rows)).times
    assert times.overlap(6, 7)
    assert not times.overlap(7, None)


def test_damage_is_noticed(tmp_path: Path) -> None:
    """Any flipped bit, any cut, an index of another segment: no index rather than a wrong one."""
    segment = make_segment(tmp_path, make_rows(30))
    write_index(segment, build_index(segment))
    good = segment.index_path.read_bytes()
    for bit in range(0, 8 * len(good), 13):
        raw = bytearray(good)
        raw[bit // 8] ^= 1 << bit % 8
        segment.index_path.write_bytes(raw)
        assert read_index(segment) is None
    for size in range(len(good)):
        segment.index_path.write_bytes(good[:size])
        assert read_index(segment) is None
    assert read_times(segment) is not None  # the last cut left the header whole
    segment.index_path.write_bytes(good[: HEADER_BYTES - 1])
    assert read_times(segment) is None
    other = make_segment(tmp_path, make_rows(30), first=99)
    other.index_path.write_bytes(good)
    assert read_index(other) is None
    segment.index_path.write_bytes(good)
    assert read_index(segment) is not None


def test_an_index_of_a_segment_that_has_grown(tmp_path: Path) -> None:
    segment = make_segment(tmp_path, make_rows(30))
    write_index(segment, build_index(segment))
    make_segment(tmp_path, make_rows(31))
    assert read_index(segment) is None
    assert read_times(segment) is None


def test_a_damaged_segment_gets_no_index(tmp_path: Path) -> None:
    segment = make_segment(tmp_path, make_rows(30))
    flip(segment.path, offset_of(9) + 1)
    with pytest.raises(TapeError, match="record 30 "):
        build_index(segment)


def test_an_empty_segment(tmp_path: Path) -> None:
    segment = make_segment(tmp_path, empty_rows(0))
    write_index(segment, build_index(segment))
    index = read_index(segment)
    assert index is not None
    assert len(index.rows_of(1)) == 0
    assert not index.times.overlap(None, 1)
    assert index.row_numbers.dtype == np.uint32
