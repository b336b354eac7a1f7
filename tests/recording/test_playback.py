"""Reads in the order of receipt, framed as a server frames them."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.exchange.harness import frame as framed
from tests.recording.tools import A_TRADE, B_TRADE, START_NS, take, trade, writing
from tradeback.recording.playback import READ_BYTES_MAX, Read, RecordedClock, Span, batches, frame, reads
from tradeback.recording.reading import list_sources


@given(st.binary(max_size=70_000))
def test_frames_are_those_of_a_server(payload: bytes) -> None:
    assert frame(payload) == framed(payload)


def unframed(read: Read) -> int:
    """How many trades of the tests are in it; they all have the same length up to the id."""
    return read.data.count(b'"e":"trade"')


async def test_frames_of_one_read_are_played_as_one_and_lines_in_order_of_time(tmp_path: Path) -> None:
    async with writing(tmp_path) as writer:
        a, b = writer.track(A_TRADE), writer.track(B_TRADE)
        for time, track, count in ((3, a, 2), (5, b, 3), (5, a, 1), (9, a, 4), (7, b, 1)):
            for number in range(count):
                track.take(b"%d " % (START_NS + time), trade(number))
    found = list(reads(list_sources(tmp_path)))
    assert [(read.recv_ns - START_NS, read.source, read.frames) for read in found] == [
        (3, 0, 2), (5, 0, 1), (5, 1, 3), (7, 1, 1), (9, 0, 4),
    ]  # fmt: skip
    assert [unframed(read) for read in found] == [read.frames for read in found]
    assert found[0].data == framed(trade(0)) + framed(trade(1))
    assert found == [read for batch in batches(iter(found)) for read in batch]


async def test_a_span_and_symbols_choose(tmp_path: Path) -> None:
    async with writing(tmp_path) as writer:
        track = writer.track(A_TRADE)
        take(track, range(10))
        track.take(b"%d " % (START_NS + 20_000), trade(1, "ETHUSDT"))
        track.take(b"%d " % (START_NS + 20_000), b'{"stream":"btcusdt@depth@100ms","data":{}}')
        track.take(b"%d " % (START_NS + 20_000), b'{"result":null,"id":1}')
    sources = list_sources(tmp_path)
    span = Span(START_NS + 3_000, START_NS + 6_000)
    assert [read.recv_ns - START_NS for read in reads(sources, span)] == [3_000, 4_000, 5_000]
    (ether,) = reads(sources, Span(START_NS + 20_000), ["ETHUSDT"])
    assert ether.data == framed(trade(1, "ETHUSDT")) + framed(b'{"result":null,"id":1}')
    assert ether.frames == 2, "depth is none of the engine's streams"


async def test_a_thousand_frames_with_one_time_are_no_single_read(tmp_path: Path) -> None:
    async with writing(tmp_path) as writer:
        track = writer.track(A_TRADE)
        for number in range(2_000):
            track.take(b"%d " % START_NS, trade(number))
    found = list(reads(list_sources(tmp_path)))
    assert len(found) > 1
    assert all(len(read.data) < READ_BYTES_MAX + 8_192 for read in found)
    assert sum(read.frames for read in found) == 2_000


def test_the_clock_shows_recorded_time() -> None:
    clock = RecordedClock(5)
    assert clock.wall_ns() == 5
    clock.now_ns = 7
    assert clock.wall_ns() == 7
    assert clock.steady_ns() <= clock.steady_ns()
