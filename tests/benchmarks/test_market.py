import ctypes
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.harness.market import CHUNK_BYTES, MarketPool, Tally
from benchmarks.harness.trades import FIRST_ID, symbol_names

START_US = 1_781_000_000_000_000
ROUNDS = 3


def frames_of(data: bytes) -> Iterator[dict[str, Any]]:
    """Independent walk: header, then JSON."""
    at = 0
    while at < len(data):
        size, header = data[at + 1], 2
        if size == 126:
            size, header = int.from_bytes(data[at + 2 : at + 4], "big"), 4
        yield json.loads(data[at + header : at + header + size])
        at += header + size


@pytest.fixture(scope="module")
def sent(native: ctypes.CDLL) -> tuple[MarketPool, Tally, list[dict[str, Any]]]:
    pool = MarketPool(symbol_names(50), 2_000, START_US)
    received = bytearray()
    chunks = 0

    def send(chunk: memoryview) -> None:
        nonlocal chunks
        received.extend(chunk)
        chunks += 1

    tally = pool.send(send, lambda: chunks == ROUNDS * len(pool.chunks))
    return pool, tally, list(frames_of(bytes(received)))


def test_the_tally_is_what_was_sent(sent: tuple[MarketPool, Tally, list[dict[str, Any]]]) -> None:
    pool, tally, frames = sent
    ids = [next(frame["data"][key] for key in ("u", "t", "a") if key in frame["data"]) for frame in frames]
    assert tally.frames == len(frames) == ROUNDS * pool.count
    assert tally.id_sum == sum(ids)
    assert tally.total_bytes == ROUNDS * len(pool.data)


def test_ids_rise_without_holes_over_the_rounds(sent: tuple[MarketPool, Tally, list[dict[str, Any]]]) -> None:
    trades, aggregates, books = defaultdict(list), defaultdict(list), defaultdict(list)
    for frame in sent[2]:
        data = frame["data"]
        assert frame["stream"].startswith(data["s"].lower() + "@")
        if data.get("e") == "trade":
            trades[data["s"]].append(data["t"])
        elif data.get("e") == "aggTrade":
            aggregates[data["s"]].append((data["a"], data["f"], data["l"]))
        else:
            books[data["s"]].append(data["u"])
    assert len(trades) > 10
    for ids in trades.values():
        assert ids == list(range(FIRST_ID, FIRST_ID + len(ids)))
    for found in aggregates.values():
        assert [aggregate for aggregate, _, _ in found] == list(range(FIRST_ID, FIRST_ID + len(found)))
        assert [first for _, first, _ in found] == [last for _, _, last in found]
    for ids in books.values():
        assert all(later > earlier for earlier, later in itertools.pairwise(ids))


def test_every_trade_is_certified_after_it_was_sent(
    sent: tuple[MarketPool, Tally, list[dict[str, Any]]],
) -> None:
    seen, certified = set(), set()
    for frame in sent[2]:
        data = frame["data"]
        if data.get("e") == "trade":
            seen.add((data["s"], data["t"]))
        elif data.get("e") == "aggTrade":
            assert (data["s"], data["f"]) in seen
            certified.add((data["s"], data["f"]))
    assert seen == certified


def test_event_time_goes_on_over_the_rounds(sent: tuple[MarketPool, Tally, list[dict[str, Any]]]) -> None:
    times = [frame["data"]["T"] for frame in sent[2] if "T" in frame["data"]]
    assert times[0] >= START_US
    assert times == sorted(times)


def test_the_mix_and_the_chunks(sent: tuple[MarketPool, Tally, list[dict[str, Any]]]) -> None:
    pool, _, frames = sent
    quotes = sum("e" not in frame["data"] for frame in frames) / len(frames)
    assert 0.5 < quotes < 0.7
    assert all(chunk.end - chunk.start >= CHUNK_BYTES for chunk in pool.chunks[:-1])
    assert [chunk.start for chunk in pool.chunks[1:]] == [chunk.end for chunk in pool.chunks[:-1]]


def test_a_second_send_begins_anew(native: ctypes.CDLL) -> None:
    pool = MarketPool(symbol_names(20), 1_000, START_US)
    first, second = bytearray(), bytearray()
    pool.send(first.extend, lambda: len(first) >= 2 * len(pool.data))
    pool.send(second.extend, lambda: len(second) >= len(pool.data))
    assert bytes(second) == bytes(first[: len(second)])
