"""wire/v1: the field's format to the byte, both directions, and what it refuses."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeback.model.errors import DecodeError
from tradeback.wire.v1 import ENTRY, decode_v1, encode_v1, make_entries

Row = tuple[int, float, float]

GOLDEN: list[tuple[str, list[Row]]] = [
    # crc32 | count | id   | price           | volume: the snapshot after a subscribe
    ("38f52449" "0100" "0100" "00000000104ced40" "0000000000000000", [(1, 60000.5, 0.0)]),
    (
        "0316ca29" "0200" "0100" "9a9999999999b93f" "9a9999999999c93f"
        "ffff" "0080faca73f93f43" "3a8c30e28e79453e",
        [(1, 0.1, 0.2), (65_535, 9e15, 1e-8)],
    ),
]  # fmt: skip

finite = st.floats(allow_nan=False, allow_infinity=False)
rows_of_one_frame = st.lists(st.tuples(st.integers(0, 65_535), finite, finite), min_size=1, max_size=50)


def independent(rows: list[Row]) -> bytes:
    """The format written down a second time, with nothing but struct and zlib."""
    body = struct.pack("<H", len(rows)) + b"".join(struct.pack("<Hdd", *row) for row in rows)
    return struct.pack("<I", zlib.crc32(body)) + body


@pytest.mark.parametrize(("frame", "rows"), GOLDEN)
def test_golden_vectors(frame: str, rows: list[Row]) -> None:
    assert encode_v1(make_entries(rows)).hex() == frame
    assert decode_v1(bytes.fromhex(frame)).tolist() == rows


@given(rows_of_one_frame)
def test_both_directions_agree_with_the_format(rows: list[Row]) -> None:
    frame = encode_v1(make_entries(rows))
    assert frame == independent(rows)
    assert decode_v1(frame).tolist() == rows


@pytest.mark.parametrize("count", [0, 51, 1_000])
def test_a_frame_holds_1_to_50_entries(count: int) -> None:
    with pytest.raises(ValueError, match="1 to 50"):
        encode_v1(np.zeros(count, ENTRY))
    body = struct.pack("<H", count) + bytes(18 * count)
    with pytest.raises(DecodeError, match="1 to 50"):
        decode_v1(struct.pack("<I", zlib.crc32(body)) + body)


@given(rows_of_one_frame, st.data())
def test_any_damaged_bit_is_noticed(rows: list[Row], data: st.DataObject) -> None:
    frame = bytearray(encode_v1(make_entries(rows)))
    bit = data.draw(st.integers(0, 8 * len(frame) - 1))
    frame[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DecodeError):
        decode_v1(bytes(frame))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_give_only_the_documented_error(frame: bytes) -> None:
    try:
        decode_v1(frame)
    except DecodeError:
        return
    assert encode_v1(decode_v1(frame)) == frame


@given(rows_of_one_frame, st.integers(1, 40))
def test_a_cut_or_longer_frame_is_refused(rows: list[Row], size: int) -> None:
    frame = encode_v1(make_entries(rows))
    with pytest.raises(DecodeError):
        decode_v1(frame[:-size])
    with pytest.raises(DecodeError, match="bytes"):
        decode_v1(frame + bytes(size))
