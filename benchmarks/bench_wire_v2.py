"""Wire v2 on the recordings: bytes per event and speed, against v1, the exchange's JSON, permessage-deflate.

Small by default, so that CI runs it; TRADEBACK_BENCH=full takes whole recordings and repeats. Everything is
decoded again and compared before it is timed. The table of sizes in docs/wire.md is made by
`python -m benchmarks sizes_wire --full`, from `sizes` here.

Sizes count the WebSocket header. JSON is what the exchange sends: one combined-stream message per event.
permessage-deflate is as browsers and servers do it: level 6, window 2^15, context kept between messages. It
knows all that was sent before and is done anew for every client; v2's frames know nothing of each other.
"""

import os
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import orjson
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.harness.recorded import SYMBOLS, Recorded, load
from tradeback.feed.interest import InterestTable
from tradeback.feed.v2_table import V2Scratch, V2Table
from tradeback.kernel.crc32 import TABLES_ADDRESS
from tradeback.kernel.jit import entry
from tradeback.model.record import BUYER_MAKER, QUOTE, ROW_BYTES, TRADE, Rows
from tradeback.wire import v1_layout, v2_layout
from tradeback.wire.frames import LENGTH_7_MAX
from tradeback.wire.v1 import decode_v1
from tradeback.wire.v1_kernel import encode_groups
from tradeback.wire.v2 import Decoder
from tradeback.wire.v2_encode import encode_rows
from tradeback.wire.v2_kernel import encode_groups_v2

FULL = os.environ.get("TRADEBACK_BENCH") == "full"
LINES = None if FULL else 3_000
ROUNDS = 20 if FULL else 3
EPOCH, SEQUENCE = 0x9F3C21AA, 1_000_000_000
"""A tape of some days: its sequence takes five bytes."""
PUBLISH_AFTER_NS = 20_000
TRADES = frozenset({1, 2})
QUOTES = frozenset(v2_layout.CHANNEL_QUOTES * v2_layout.SYMBOL_IDS + symbol for symbol in TRADES)
BYTES_MAX = {1: 24.0, 5: 17.0}
"""Bytes per event that version 2 has to stay below, by window in ms."""

Encoder = Callable[[int, int], bytes]
"""Rows [start, end) to one batch of WebSocket messages."""


@cache
def recorded() -> Recorded:
    """What is measured."""
    return load(LINES)


def v2_encoder(rows: Rows, key: frozenset[int], sequence: int = SEQUENCE) -> Encoder:
    """The feed's own way, version 2."""
    scratch = V2Scratch()
    table = V2Table(scratch)
    for symbol in SYMBOLS:
        scratch.learn(symbol)
    table.context[v2_layout.CRC_TABLES] = TABLES_ADDRESS
    table.context[v2_layout.EPOCH], table.context[v2_layout.SEQUENCE] = EPOCH, sequence
    table.join(key)
    call, context, words = entry(encode_groups_v2), table.context_address, table.context.data
    touched, arena = table.touched.reshape(-1).data, table.arena.data
    stamps = (rows["recv_ns"] + PUBLISH_AFTER_NS).tolist()

    def encode(
        start: int, end: int, address: int = int(rows.ctypes.data), _alive: object = (table, rows)
    ) -> bytes:
        words[v2_layout.PUBLISH_NS] = stamps[end - 1]
        if call(context, address + ROW_BYTES * start, end - start) != end - start:
            raise ValueError("the arena is too small for a batch")
        if not words[v2_layout.TOUCHED_COUNT]:
            return b""
        offset = touched[v2_layout.TOUCHED_OFFSET]
        return bytes(arena[offset : offset + touched[v2_layout.TOUCHED_BYTES]])

    return encode


def v1_encoder(rows: Rows) -> Encoder:
    """The feed's own way, version 1: trades only."""
    table = InterestTable()
    table.context[v1_layout.CRC_TABLES] = TABLES_ADDRESS
    table.join(TRADES)
    call, context, words = entry(encode_groups), table.context_address, table.context.data
    touched, arena = table.touched.reshape(-1).data, table.arena.data

    def encode(
        start: int, end: int, address: int = int(rows.ctypes.data), _alive: object = (table, rows)
    ) -> bytes:
        call(context, address + ROW_BYTES * start, end - start)
        return bytes(arena[: touched[v1_layout.TOUCHED_BYTES]]) if words[v1_layout.TOUCHED_COUNT] else b""

    return encode


def deflate_encoder(texts: list[bytes]) -> Encoder:
    """JSON that exists already, packed by permessage-deflate: what each further client costs."""
    pack = zlib.compressobj(6, zlib.DEFLATED, -15)
    return lambda start, end: pack.compress(b",".join(texts[start:end])) + pack.flush(zlib.Z_SYNC_FLUSH)


def header_bytes(size: int) -> int:
    """Bytes of a server's WebSocket header in front of `size` others."""
    return 2 if size <= LENGTH_7_MAX else 4


def payloads_of(stream: bytes) -> Iterator[bytes]:
    """What the messages of a batch carry."""
    place = 0
    while place < len(stream):
        size = stream[place + 1]
        place += 2
        if size == 126:
            size = int.from_bytes(stream[place : place + 2], "big")
            place += 2
        yield stream[place : place + size]
        place += size


def deflated_bytes(texts: list[bytes]) -> int:
    """Size of these messages with permessage-deflate (RFC 7692)."""
    pack = zlib.compressobj(6, zlib.DEFLATED, -15)
    total = 0
    for text in texts:
        size = len(pack.compress(text) + pack.flush(zlib.Z_SYNC_FLUSH)) - 4
        total += header_bytes(size) + size
    return total


def make_decoder(*, fast: bool) -> Decoder:
    """A client's."""
    decoder = Decoder()
    for symbol in SYMBOLS:
        decoder.learn(symbol.id, symbol.price_precision, symbol.quantity_precision)
    if fast and not decoder.accelerate():
        raise RuntimeError("numba is needed here")
    return decoder


def compare(batches: list[bytes], rows: Rows) -> None:
    """ValueError when version 2's frames do not say, bit by bit and in order, what the rows do."""
    decoder = make_decoder(fast=True)
    frames = [decoder.decode(payload) for batch in batches for payload in payloads_of(batch)]
    trades, quotes = (
        np.concatenate([getattr(frame, kind) for frame in frames]) for kind in ("trades", "quotes")
    )
    kept = rows[rows["kind"] == TRADE]
    same = [
        np.array_equal(trades[name], kept[name])
        for name in ("symbol_id", "id", "exchange_us", "price", "quantity")
    ]
    same.append(np.array_equal(trades["flags"] & BUYER_MAKER, kept["flags"] & BUYER_MAKER))
    kept = rows[rows["kind"] == QUOTE]
    pairs = {"bid": "price", "bid_quantity": "quantity", "ask": "ask", "ask_quantity": "ask_quantity"}
    pairs["symbol_id"] = "symbol_id"
    same += [np.array_equal(quotes[name], kept[field]) for name, field in pairs.items()]
    if not all(same):
        raise ValueError("what was decoded is not what was encoded")


def sizes(data: Recorded, window_ms: int) -> dict[str, float]:
    """Bytes per event, or per trade where only trades are sent. Checks what it counts (ValueError)."""
    cut = data.batches(window_ms)
    trades = int(np.count_nonzero(data.rows["kind"] == TRADE))

    def batches_of(encode: Encoder) -> list[bytes]:
        return [encode(start, end) for start, end in cut]

    both = batches_of(v2_encoder(data.rows, TRADES | QUOTES))
    compare(both, data.rows)
    only = batches_of(v2_encoder(data.rows, TRADES))
    compare(only, data.rows[data.rows["kind"] == TRADE])
    joined = [b"[" + b",".join(data.texts[start:end]) + b"]" for start, end in cut]
    events = len(data.rows)
    return {
        "v2": sum(map(len, both)) / events,
        "deflated batches": deflated_bytes(joined) / events,
        "deflated": deflated_bytes(data.texts) / events,
        "json": sum(header_bytes(len(text)) + len(text) for text in data.texts) / events,
        "v2 trades": sum(map(len, only)) / trades,
        "v1 trades": sum(map(len, batches_of(v1_encoder(data.rows)))) / trades,
        "events": events,
        "per frame": events / len(cut),
        "checksum": zlib.crc32(b"".join(both)),
    }


@pytest.mark.parametrize("window_ms", BYTES_MAX)
def test_bytes_per_event(benchmark: BenchmarkFixture, window_ms: int) -> None:
    timed: Any = benchmark
    found = timed.pedantic(sizes, (recorded(), window_ms), rounds=1)
    benchmark.group = "v2 sizes on the recordings"
    benchmark.extra_info.update({name: round(value, 2) for name, value in found.items()})
    assert found["v2"] < BYTES_MAX[window_ms]
    assert found["v2"] < found["json"] / 7
    assert found["v2 trades"] < found["v1 trades"]


def run(benchmark: BenchmarkFixture, events: int, work: Callable[[], object], made: bytes) -> None:
    """Time `work`, which takes `events` events, and note the checksum of what was made."""
    timed: Any = benchmark
    timed.pedantic(work, rounds=ROUNDS, warmup_rounds=1)
    benchmark.extra_info["checksum"] = zlib.crc32(made)
    benchmark.extra_info["events"] = events
    if benchmark.stats is not None:  # None with --benchmark-disable
        benchmark.extra_info["ns_per_event"] = round(benchmark.stats.stats.median * 1e9 / events, 1)


def fixed_batches(size: int) -> list[tuple[int, int]]:
    """The recordings cut into batches of `size` events, whatever their time; the rest is left out."""
    return [(start, start + size) for start in range(0, len(recorded().rows) - size + 1, size)]


per_batch = pytest.mark.parametrize("size", [1, 10, 100])


@per_batch
@pytest.mark.parametrize("name", ["v2 kernel", "v2 plain Python", "v1 kernel", "orjson", "deflate"])
def test_encode(benchmark: BenchmarkFixture, name: str, size: int) -> None:
    """v1 leaves the quotes out; its cost is told per event that it looked at.

    orjson is given ready dicts of strings, deflate ready JSON.
    """
    data, batches = recorded(), fixed_batches(size)
    if name == "v2 plain Python":
        batches = batches[: 2_000 // size]
    grids = {symbol.id: (symbol.price_precision, symbol.quantity_precision) for symbol in SYMBOLS}
    objects = [orjson.loads(text) for text in data.texts] if name == "orjson" else []
    encoders: dict[str, Encoder] = {
        "v2 kernel": v2_encoder(data.rows, TRADES | QUOTES),
        "v1 kernel": v1_encoder(data.rows),
        "v2 plain Python": lambda start, end: b"".join(
            encode_rows(data.rows[start:end], SEQUENCE + start, epoch=EPOCH, grids=grids)
        ),
        "orjson": lambda start, end: orjson.dumps(objects[start:end]),
        "deflate": deflate_encoder(data.texts),
    }
    encode = encoders[name]
    made = [encode(start, end) for start, end in batches]
    if name == "v2 kernel":
        compare(made, data.rows[: batches[-1][1]])

    def work() -> None:
        for start, end in batches:
            encode(start, end)

    benchmark.group = f"v2 encode, {size} per batch"
    run(benchmark, size * len(batches), work, b"".join(made))


def read_json(text: bytes) -> list[tuple[Any, ...]]:
    """What a client makes of a JSON array: floats in tuples."""
    found: list[tuple[Any, ...]] = []
    for message in orjson.loads(text):
        data = message["data"]
        if "b" in data and "B" in data:
            found.append((data["s"], float(data["b"]), float(data["B"]), float(data["a"]), float(data["A"])))
        else:
            found.append((data["s"], data["t"], float(data["p"]), float(data["q"]), data["T"], data["m"]))
    return found


@per_batch
@pytest.mark.parametrize("name", ["v2 kernel", "v2 plain Python", "v1 numpy", "orjson"])
def test_decode(benchmark: BenchmarkFixture, name: str, size: int) -> None:
    """v1 has batches of `size` trades; the others `size` events."""
    data = recorded()
    rows = data.rows[data.rows["kind"] == TRADE].copy() if name == "v1 numpy" else data.rows
    batches = [(start, start + size) for start in range(0, len(rows) - size + 1, size)]
    if name == "v2 plain Python":
        batches = batches[: 2_000 // size]
    if name == "orjson":
        made = [b"[" + b",".join(data.texts[start:end]) + b"]" for start, end in batches]
    else:
        encode = v1_encoder(rows) if name == "v1 numpy" else v2_encoder(rows, TRADES | QUOTES)
        encoded = [encode(start, end) for start, end in batches]
        if name == "v2 kernel":
            compare(encoded, rows[: batches[-1][1]])
        made = [payload for batch in encoded for payload in payloads_of(batch)]
    decoders: dict[str, Callable[[bytes], object]] = {
        "v2 kernel": make_decoder(fast=True).decode,
        "v2 plain Python": make_decoder(fast=False).decode,
        "v1 numpy": decode_v1,
        "orjson": read_json,
    }
    decode = decoders[name]

    def work() -> None:
        for payload in made:
            decode(payload)

    benchmark.group = f"v2 decode, {size} per batch"
    run(benchmark, size * len(batches), work, b"".join(made))
