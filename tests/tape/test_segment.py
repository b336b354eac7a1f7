"""Segment files: name, header, reading."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tape.helpers import flip, make_rows, same
from tradeback.model.errors import TapeError
from tradeback.model.record import seal
from tradeback.tape.segment import (
    HEADER_BYTES,
    Header,
    Segment,
    create_segment,
    list_segments,
    offset_of,
    pack_header,
    replace_file,
    unpack_header,
)

HEADERS = st.builds(
    Header,
    st.integers(1, 2**32 - 1),
    st.integers(1, 2**63 - 1),
    st.integers(0, 2**63 - 1),
)


@given(HEADERS)
def test_header_round_trip(header: Header) -> None:
    raw = pack_header(header)
    assert len(raw) == HEADER_BYTES
    assert unpack_header(raw) == header


@given(HEADERS, st.integers(0, 8 * HEADER_BYTES - 1))
def test_one_flipped_bit_spoils_a_header(header: Header, bit: int) -> None:
    raw = bytearray(pack_header(header))
    raw[bit // 8] ^= 1 << bit % 8
    assert unpack_header(bytes(raw)) is None


@given(HEADERS, st.integers(0, HEADER_BYTES - 1))
def test_a_torn_header_is_none(header: Header, size: int) -> None:
    assert unpack_header(pack_header(header)[:size]) is None


def test_the_header_as_documented() -> None:
    """The bytes that docs/tape.md shows; a change here is a change of the format."""
    raw = pack_header(Header(epoch=0x01020304, first=5, created_ns=6))
    assert raw[:60].hex() == (
        "54424b544150450a" "0100" "4000" "04030201" "0500000000000000" "0600000000000000" "40000000"
        + "00" * 24
    )  # fmt: skip
    assert raw[60:].hex() == "95544278"


def make_segment(folder: Path, count: int, first: int = 7, epoch: int = 9) -> Segment:
    segment = Segment.named(folder, epoch, first)
    rows = make_rows(count)
    seal(rows, first, epoch)
    segment.path.write_bytes(pack_header(Header(epoch, first, 0)) + rows.tobytes())
    return segment


def test_load_by_row(tmp_path: Path) -> None:
    segment = make_segment(tmp_path, 20)
    assert segment.row_count() == segment.count_intact() == 20
    assert same(segment.load(0, 100), make_rows(20))
    assert same(segment.load(5, 3), make_rows(3, first_id=6))
    assert len(segment.load(20, 5)) == len(segment.load(99, 5)) == len(segment.load(3, 0)) == 0


def test_load_leaves_out_a_partial_record(tmp_path: Path) -> None:
    segment = make_segment(tmp_path, 3)
    with segment.path.open("ab") as file:
        file.write(b"x" * 63)
    assert segment.row_count() == 3
    assert same(segment.load(1, 9), make_rows(2, first_id=2))


def test_count_intact_stops_at_the_first_bad_record(tmp_path: Path) -> None:
    segment = make_segment(tmp_path, 20)
    flip(segment.path, offset_of(11) + 30)
    assert segment.count_intact() == 11


def test_a_segment_under_a_wrong_name_is_refused(tmp_path: Path) -> None:
    segment = make_segment(tmp_path, 3)
    moved = Segment.named(tmp_path, segment.epoch, segment.first + 1)
    segment.path.rename(moved.path)
    assert moved.header() is None
    with pytest.raises(TapeError, match="damaged header"):
        moved.load(0, 1)


def test_listing_sorts_and_ignores_strangers(tmp_path: Path) -> None:
    for name in ("state.json", "1-2.tape", f"{1:020d}-{1:08x}.tape.cut", f".{1:020d}-{1:08x}.tape.tmp"):
        (tmp_path / name).touch()
    second, first = make_segment(tmp_path, 1, first=100, epoch=3), make_segment(tmp_path, 1, first=9, epoch=4)
    assert list_segments(tmp_path) == (first, second)


def test_create_appends_behind_the_header(tmp_path: Path) -> None:
    segment = Segment.named(tmp_path, 5, 1)
    descriptor = create_segment(segment, 77, segment.path)
    with open(descriptor, "wb") as file:
        file.write(b"12")
    assert segment.header() == Header(5, 1, 77)
    assert segment.path.read_bytes()[HEADER_BYTES:] == b"12"


def test_replace_file_leaves_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    replace_file(path, b"one")
    replace_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]
