"""Marks and file names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradeback.recording.format import Channel, channel_of, file_name, mark, parse_mark, part_name
from tradeback.sim.recording_files import parse_line


@given(st.integers(10**18, 2 * 10**18), st.text(), st.integers())
def test_a_mark_is_one_line_reads_back_and_is_no_frame_to_the_simulator(
    time_ns: int, text: str, number: int
) -> None:
    line = mark(time_ns, "lost", reason=text, count=number)
    assert line.count(b"\n") == 1
    time, _, body = line.removesuffix(b"\n").partition(b" ")
    assert int(time) == time_ns
    assert parse_mark(body) == {"event": "lost", "reason": text, "count": number}
    assert parse_line(line) is None


@pytest.mark.parametrize("body", [b"", b"#", b"#[]", b'#{"event":1}', b'#{"x":"y"}', b'{"event":"lost"}'])
def test_what_only_looks_like_a_mark(body: bytes) -> None:
    assert parse_mark(body) is None


@pytest.mark.parametrize("channel", [Channel(0, "trade", 0), Channel(1, "bookTicker", 12)])
def test_names_tell_the_channel_and_sort_by_time(channel: Channel) -> None:
    times = [
        1_781_000_000_000_000_000,
        1_781_000_000_000_000_001,
        1_781_000_000_999_999_999,
        1_781_000_001 * 10**9,
    ]
    names = [file_name(channel, time) for time in times]
    assert names == sorted(names)
    assert len(set(names)) == len(names)
    assert {channel_of(name) for name in names} == {channel}
    assert channel_of(part_name(names[0])) == channel
    assert channel_of("btcusdt_20240808.gz") is None


def test_the_name_of_a_channel_is_that_of_a_line() -> None:
    assert Channel(1, "aggTrade", 3).name == "b:aggTrade:3"
