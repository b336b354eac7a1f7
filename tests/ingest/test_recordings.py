"""The real recordings: every market frame is decoded in the kernel, and is what the oracle reads."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest

from tests.ingest.oracle import event_of, ws_frame
from tests.ingest.world import RECV_NS, Arena, Room
from tradeback.ingest import context as words
from tradeback.ingest.grammar import OK
from tradeback.model.record import AGG, QUOTE, TRADE, empty_rows

MARKET = re.compile(rb'\{"stream":"[^"]+@(?:trade|bookTicker|aggTrade)"')
FILES = {
    "spot_ws/btcusdt_20240808.gz": {TRADE: 9_757, QUOTE: 28_040},
    "spot_ws/ethusdt_20240808.gz": {TRADE: 6_106, QUOTE: 24_077},
    "spot_ws/btcusdt_20240809_part1.gz": {},
    "spot_ws/ethusdt_20240809_part1.gz": {},
    "spot_ws/btcusdt_20230405_legacy.gz": {TRADE: 3_144, QUOTE: 8_015},
    "cryptofeed/BINANCE.ws.1.0.gz": {AGG: 2, QUOTE: 84},
    "derived/btcusdt_20230405_aggtrade_DERIVED.gz": {AGG: 2_638},
}
SYMBOLS = ["BTCUSDT", "ETHUSDT", "NKNUSDT", "BLZETH", "LRCBTC", "RUNEEUR"]


def frames_of(path: Path) -> list[bytes]:
    """The frames of a recording that are for the tape, byte for byte."""
    with gzip.open(path) as lines:
        frames = [line.partition(b" ")[2].rstrip(b"\r\n") for line in lines]
    return [frame for frame in frames if MARKET.match(frame)]


def inner(frame: bytes) -> bytes:
    """The payload of a combined frame, as a raw stream sends it."""
    return frame[frame.index(b'"data":') + 7 : -1]


@pytest.mark.parametrize("file", FILES)
def test_every_recorded_frame(shared_folder: Path, file: str) -> None:
    frames = frames_of(shared_folder / "data" / "binance" / file)
    room = Room(SYMBOLS)
    expected = empty_rows(len(frames))
    for index, frame in enumerate(frames):
        event = event_of(frame)
        assert event is not None, frame
        (kind, symbol, number, time, price, quantity, ask, ask_quantity, flags, _) = event
        values = (time, 0, number, price, quantity, ask, ask_quantity, room.ids[symbol], kind, flags, 0)
        expected[index] = values
    for kind, count in FILES[file].items():
        assert np.count_nonzero(expected["kind"] == kind) == count
    assert len(frames) >= max(sum(FILES[file].values()), 80)
    for texts in (frames, [inner(frame) for frame in frames]):
        statuses, rows = room.decode_all(texts)
        assert (statuses == OK).all(), texts[int(np.flatnonzero(statuses != OK)[0])]
        assert rows.tobytes() == expected.tobytes()
    arena = Arena(room)
    arena.feed(b"".join(map(ws_frame, frames[:5_000])))
    read = arena.all_rows
    assert arena.sides == []
    assert len(read) == min(len(frames), 5_000), "nothing in a recording comes twice or out of order"
    assert set(read["recv_ns"]) == {RECV_NS}
    assert (read["price"] == expected["price"][: len(read)]).all()
    assert (read["id"] == expected["id"][: len(read)]).all()
    if file.startswith("spot_ws"):
        assert room.count(words.SKIPPED_IDS) == 0, "no recording has a hole in its trade ids"
