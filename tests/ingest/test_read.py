"""One socket read, one call: frames in, sealed records out, whatever the stream is cut into."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ingest.oracle import event_of, ws_frame
from tests.ingest.world import EPOCH, RECV_NS, Arena, Room, agg, combined, quote, raw, trade
from tradeback.ingest import context as words
from tradeback.ingest.grammar import NOT_EXACT, NOT_KNOWN, NOT_MINE
from tradeback.ingest.read import CLOSE_PROTOCOL_ERROR, CLOSE_TOO_BIG
from tradeback.model.limits import READ_BUFFER_BYTES_MAX
from tradeback.model.record import LINE_MASK, LINE_SHIFT, checksums
from tradeback.ops.metrics import Histogram

SYMBOLS = ["BTCUSDT", "ETHUSDT", "币安人生USDT"]
PING, PONG, CLOSE, BINARY = 0x9, 0xA, 0x8, 0x2


def market(count: int, seed: int = 1) -> list[bytes]:
    """Payloads of a small market, ids rising, combined and raw, some of them twice."""
    rng = random.Random(seed)
    found: list[bytes] = []
    for number in range(1, count + 1):
        symbol = rng.choice(SYMBOLS)
        time = str(1_700_000_000_123 - rng.randrange(-5, 3_000))
        payload = rng.choice(
            [
                raw(quote(symbol, number)),
                raw(trade(symbol, number, E=time, T=time)),
                raw(agg(symbol, number, number, number + 3, E=time + "456")),
            ]
        )
        found.append(payload if rng.random() < 0.3 else combined(f"{symbol.lower()}@x", payload))
        if rng.random() < 0.1:
            found.append(rng.choice(found))
    return found


def others(rng: random.Random) -> bytes:
    """A frame that Python must see."""
    return rng.choice(
        [
            ws_frame(b"payload", PING),
            ws_frame(b"", PONG),
            ws_frame(b"\x03\xe8bye", CLOSE),
            ws_frame(b'{"result":null,"id":1}'),
            ws_frame(raw(trade("NOSUCH", 1))),
            ws_frame(raw(trade("BTCUSDT", 1, "1234567890123456789.5"))),
            ws_frame(b"x" * 70_000, BINARY),
            ws_frame(b"x" * 130, final=False),
            ws_frame(b"", 0),
            ws_frame(b""),
        ]
    )


def stream_of(seed: int, count: int = 40) -> bytes:
    rng = random.Random(seed)
    frames = [ws_frame(payload, form=rng.choice([0, 0, 0, 126, 127])) for payload in market(count, seed)]
    for _ in range(6):
        frames.insert(rng.randrange(len(frames) + 1), others(rng))
    return b"".join(frames)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5), st.integers(0, 10**9), st.sampled_from([1, 3, 40, 4_000]), st.integers(1, 7))
def test_any_split_gives_the_same(seed: int, cuts: int, size_max: int, rows_max: int) -> None:
    stream = stream_of(seed)
    whole = Arena(Room(SYMBOLS))
    whole.feed(stream)
    assert whole.rest == b""
    assert len(whole.sides) == 6
    parts, rng = Arena(Room(SYMBOLS), rows_max), random.Random(cuts)
    at = 0
    while at < len(stream):
        # A long binary frame is not worth many reads.
        size = rng.randint(1, size_max if len(parts.rest) < 1_000 else 20_000)
        parts.feed(stream[at : at + size])
        at += size
    assert parts.rest == b""
    assert parts.all_rows.tobytes() == whole.all_rows.tobytes()
    assert (parts.order, parts.sides) == (whole.order, whole.sides)
    lag, other = parts.room.lag, whole.room.lag
    assert (lag.counts.tolist(), lag.sums.tolist()) == (other.counts.tolist(), other.sums.tolist())
    counters = slice(words.COUNTERS, None)
    assert parts.room.context.words[counters].tolist() == whole.room.context.words[counters].tolist()


def test_every_split_in_two() -> None:
    stream = b"".join(map(ws_frame, market(4))) + ws_frame(b"hello", PING, form=127) + ws_frame(market(5)[4])
    whole = Arena(Room(SYMBOLS))
    whole.feed(stream)
    assert len(whole.all_rows) == 5
    for at in range(len(stream) + 1):
        parts = Arena(Room(SYMBOLS))
        parts.feed(stream[:at])
        parts.feed(stream[at:])
        assert parts.rest == b""
        assert parts.all_rows.tobytes() == whole.all_rows.tobytes()
        assert parts.order == whole.order


def test_records_are_whole_and_sealed() -> None:
    payloads = market(40)
    room = Room(SYMBOLS)
    arena = Arena(room, line=2)
    arena.feed(b"".join(map(ws_frame, payloads)))
    rows = arena.all_rows
    assert set(rows["recv_ns"]) == {RECV_NS}
    assert set(rows["flags"] & LINE_MASK) == {2 << LINE_SHIFT}
    assert (rows["checksum"] == checksums(rows, 1, EPOCH)).all()
    bare = rows.copy()
    bare["recv_ns"], bare["checksum"] = 0, 0
    bare["flags"] &= 1
    expected, seen = [], set()
    for payload in payloads:
        event = event_of(payload)
        assert event is not None
        if (event.kind, event.symbol, event.id) not in seen:  # one id counter for all: none comes late
            seen.add((event.kind, event.symbol, event.id))
            record = room.expected(payload)
            assert record is not None
            expected.append(record)
    assert bare.tobytes() == np.concatenate(expected).tobytes()
    assert len(rows) == 40 < len(payloads)
    assert room.count(words.DUPLICATES) + room.count(words.STALE) == len(payloads) - 40


@pytest.mark.parametrize("rows_max", [0, 1, 3, 20])
def test_no_more_rows_than_there_is_room_for(rows_max: int) -> None:
    frames = [ws_frame(raw(trade("BTCUSDT", 1 + number))) for number in range(20)]
    found = Room(SYMBOLS).read(b"".join(frames), rows_max=rows_max)
    assert len(found.rows) == rows_max
    assert found.consumed == sum(map(len, frames[:rows_max]))
    assert (found.side, found.error, found.needed) == (None, 0, 0)


def test_duplicates_take_no_room() -> None:
    frame = ws_frame(raw(trade("BTCUSDT", 5)))
    found = Room(SYMBOLS).read(frame * 9 + ws_frame(raw(trade("BTCUSDT", 6))), rows_max=2)
    assert found.rows["id"].tolist() == [5, 6]


@pytest.mark.parametrize(
    ("frame", "opcode", "status"),
    [
        (ws_frame(b"abc", PING), 0x89, NOT_MINE),
        (ws_frame(b"", PONG), 0x8A, NOT_MINE),
        (ws_frame(b"\x03\xe8", CLOSE), 0x88, NOT_MINE),
        (ws_frame(b"\0\1", BINARY), 0x82, NOT_MINE),
        (ws_frame(raw(trade("BTCUSDT", 2)), final=False), 0x01, NOT_MINE),
        (ws_frame(raw(trade("BTCUSDT", 2)), 0), 0x80, NOT_MINE),
        (ws_frame(b"{}", 0, final=False), 0x00, NOT_MINE),
        (ws_frame(b'{"result":null,"id":1}'), 0x81, NOT_MINE),
        (ws_frame(b"not json"), 0x81, NOT_MINE),
        (ws_frame(raw(trade("NOSUCH", 2))), 0x81, NOT_KNOWN),
        (ws_frame(raw(quote("BTCUSDT", 2, b='"1234567890123456789.5"'))), 0x81, NOT_EXACT),
        (ws_frame(b""), 0x81, NOT_MINE),
    ],
)
def test_what_python_must_see_stops_the_call(frame: bytes, opcode: int, status: int) -> None:
    before, behind = ws_frame(raw(trade("BTCUSDT", 1))), ws_frame(raw(trade("BTCUSDT", 3)))
    room = Room(SYMBOLS)
    first = room.read(before + frame + behind)
    assert first.rows["id"].tolist() == [1]
    assert first.consumed == len(before + frame)
    assert first.side == (opcode, frame[4 if frame[1] == 126 else 2 :], status)
    second = room.read(behind, sequence=2)
    assert second.rows["id"].tolist() == [3]
    assert second.side is None
    assert second.rows["checksum"][0] == checksums(second.rows, 2, EPOCH)[0]


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (ws_frame(raw(trade("BTCUSDT", 2)), masked=True), CLOSE_PROTOCOL_ERROR),
        (ws_frame(raw(trade("BTCUSDT", 2)), reserved=4), CLOSE_PROTOCOL_ERROR),
        (ws_frame(raw(trade("BTCUSDT", 2)), reserved=2), CLOSE_PROTOCOL_ERROR),
        (ws_frame(raw(trade("BTCUSDT", 2)), reserved=1), CLOSE_PROTOCOL_ERROR),
        (b"\x81\x7f" + (READ_BUFFER_BYTES_MAX + 1).to_bytes(8, "big"), CLOSE_TOO_BIG),
        (b"\x81\x7f" + b"\xff" * 8, CLOSE_TOO_BIG),
        (b"\x81\x7f\x80" + bytes(7), CLOSE_TOO_BIG),
        (b"\x81\xfe", CLOSE_PROTOCOL_ERROR),
    ],
)
def test_a_broken_stream_is_refused(frame: bytes, code: int) -> None:
    before = ws_frame(raw(trade("BTCUSDT", 1)))
    found = Room(SYMBOLS).read(before + frame + before)
    assert found.rows["id"].tolist() == [1]
    assert (found.consumed, found.error, found.side) == (len(before), code, None)


@pytest.mark.parametrize("form", [0, 126, 127])
def test_a_frame_that_has_not_arrived_is_waited_for(form: int) -> None:
    frame = ws_frame(raw(trade("BTCUSDT", 1)), form=form)
    header = len(frame) - len(raw(trade("BTCUSDT", 1)))
    for size in range(len(frame)):
        # Behind the end lies the rest of the very frame: it has not been received and does not count.
        found = Room(SYMBOLS).read(frame[:size], behind=frame[size:] + bytes(64))
        assert (len(found.rows), found.consumed, found.side, found.error) == (0, 0, None, 0)
        assert found.needed == (len(frame) if size >= header else 0)
    largest = b"\x82\x7f" + READ_BUFFER_BYTES_MAX.to_bytes(8, "big")
    assert Room(SYMBOLS).read(largest).needed == READ_BUFFER_BYTES_MAX + 10


def test_the_decoder_can_be_switched_off() -> None:
    room = Room(SYMBOLS)
    room.context.words[words.ALL_TO_SIDE] = 1
    frame = ws_frame(raw(trade("BTCUSDT", 1)))
    found = room.read(frame * 2)
    assert len(found.rows) == 0
    assert found.side == (0x81, raw(trade("BTCUSDT", 1)), NOT_MINE)
    assert found.consumed == len(frame)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-(10**7), 2 * 10**7), min_size=1, max_size=20))
def test_lag_is_counted_as_the_histogram_counts(lags: list[int]) -> None:
    room, plain = Room(SYMBOLS), Histogram()
    lags += [int(bound) + step for bound in plain.bounds for step in (-1, 0, 1)]
    frames = []
    for number, lag in enumerate(lags, 1):
        frames.append(ws_frame(raw(trade("BTCUSDT", number, E=str(RECV_NS // 1000 - lag)))))
        frames.append(ws_frame(raw(quote("BTCUSDT", number))))  # has no time, is not counted
        plain.observe(lag)
    found = room.read(b"".join(frames))
    assert len(found.rows) == 2 * len(lags)
    assert room.lag.counts.tolist() == plain.counts.tolist()
    assert room.lag.sums.tolist() == plain.sums.tolist()


def test_no_event_time_no_lag() -> None:
    room = Room(SYMBOLS)
    event = trade("BTCUSDT", 1)
    del event["E"]
    assert len(room.read(ws_frame(raw(event))).rows) == 1
    assert room.lag.total == 0


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 3))
def test_noise_is_never_a_record_by_accident(noise: bytes, seed: int) -> None:
    """Whatever comes, the kernel stays inside its bytes, and what it writes is what the oracle reads."""
    room = Room(SYMBOLS)
    good = b"".join(map(ws_frame, market(3, seed)))
    arena = Arena(room)
    arena.feed(good + noise)
    assert arena.order[:1]
    assert (arena.all_rows["checksum"] == checksums(arena.all_rows, 1, EPOCH)).all()
    assert len(arena.all_rows) <= 3
