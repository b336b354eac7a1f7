"""wire/frames: shortest length form at every border, and cutting into frames of 50."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.reading import messages
from tradeback.wire.frames import BINARY, TEXT, server_frame, v1_frames
from tradeback.wire.v1 import decode_v1, make_entries


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, "8100"),
        (125, "817d"),
        (126, "817e007e"),
        (65_535, "817effff"),
        (65_536, "817f0000000000010000"),
    ],
)
def test_shortest_length_form(size: int, header: str) -> None:
    assert server_frame(TEXT, bytes(size)) == bytes.fromhex(header) + bytes(size)


@given(st.integers(0, 170))
def test_entries_are_cut_into_frames_of_50_in_order(count: int) -> None:
    rows = [(1 + place % 7, float(place), 0.5) for place in range(count)]
    found = messages(v1_frames(make_entries(rows)))
    assert [opcode for opcode, _ in found] == [BINARY] * (-(-count // 50))
    decoded = [decode_v1(payload) for _, payload in found]
    assert [entry for entries in decoded for entry in entries.tolist()] == rows
    assert all(len(entries) == 50 for entries in decoded[:-1])
