"""Wire v1: encode and decode against orjson (objects, arrays) and struct + zlib, with sizes.

Small by default, so that CI runs it; TRADEBACK_BENCH=full repeats for the table. Every variant encodes the
same trades, is checked before it is timed, and reports the checksum of what it made. `ns_per_entry` and the
bytes per entry, WebSocket header included, stand in extra_info. Kernel and numpy begin at tape rows; struct
and orjson are given ready Python objects, whose making is not timed, so they look better than they are.
"""

import os
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tradeback.feed.interest import InterestTable
from tradeback.kernel.crc32 import TABLES_ADDRESS
from tradeback.kernel.jit import entry
from tradeback.model.record import TRADE, Rows, empty_rows
from tradeback.wire import v1_layout as at
from tradeback.wire.frames import BINARY, TEXT, server_frame
from tradeback.wire.v1 import ENTRY, Entries, decode_v1, encode_v1
from tradeback.wire.v1_kernel import encode_groups

FULL = os.environ.get("TRADEBACK_BENCH") == "full"
SIZES = (1, 10, 50)
ROUNDS = 200 if FULL else 5
CALLS = 2_000 if FULL else 50

Encoder = Callable[[], bytes]
sizes = pytest.mark.parametrize("n", SIZES)


def make_rows(n: int) -> Rows:
    """`n` trades of ten symbols."""
    random = np.random.default_rng(n)
    rows = empty_rows(n)
    rows["kind"] = TRADE
    rows["symbol_id"] = random.integers(1, 11, n)
    rows["price"] = random.integers(6_000_000, 6_100_000, n) / 100
    rows["quantity"] = random.integers(1, 1_000_000, n) / 100_000
    return rows


def tuples_of(rows: Rows) -> list[tuple[int, float, float]]:
    """(symbol_id, price, volume) of each row."""
    columns = (rows[name].tolist() for name in ("symbol_id", "price", "quantity"))
    return list(zip(*columns, strict=True))


def kernel_encoder(rows: Rows) -> Encoder:
    """The feed's own way: rows in the ring to bytes that a socket takes."""
    table = InterestTable()
    table.context[at.CRC_TABLES] = TABLES_ADDRESS
    table.join(frozenset(range(1, 11)))
    call, context, n = entry(encode_groups), table.context_address, len(rows)
    touched, arena = table.touched.reshape(-1).data, table.arena.data

    def encode(address: int = int(rows.ctypes.data), _alive: object = (table, rows)) -> bytes:
        call(context, address, n)
        return bytes(arena[: touched[at.TOUCHED_BYTES]])

    return encode


def numpy_encoder(rows: Rows) -> Encoder:
    """wire.v1 in numpy and zlib, from tape rows as the kernel."""
    entries = np.zeros(len(rows), ENTRY)

    def encode() -> bytes:
        entries["symbol_id"] = rows["symbol_id"]
        entries["price"] = rows["price"]
        entries["volume"] = rows["quantity"]
        return server_frame(BINARY, encode_v1(entries))

    return encode


def struct_encoder(rows: Rows) -> Encoder:
    """struct and zlib, entry by entry."""
    trades, pack = tuples_of(rows), struct.Struct("<Hdd").pack

    def encode() -> bytes:
        body = len(trades).to_bytes(2, "little") + b"".join([pack(*trade) for trade in trades])
        return server_frame(BINARY, zlib.crc32(body).to_bytes(4, "little") + body)

    return encode


def objects_encoder(rows: Rows) -> Encoder:
    """JSON objects with short keys."""
    objects = [{"s": symbol, "p": price, "v": volume} for symbol, price, volume in tuples_of(rows)]
    return lambda: server_frame(TEXT, orjson.dumps(objects))


def arrays_encoder(rows: Rows) -> Encoder:
    """JSON arrays."""
    arrays = tuples_of(rows)
    return lambda: server_frame(TEXT, orjson.dumps(arrays))


ENCODERS: dict[str, Callable[[Rows], Encoder]] = {
    "kernel": kernel_encoder,
    "numpy": numpy_encoder,
    "struct": struct_encoder,
    "orjson_objects": objects_encoder,
    "orjson_arrays": arrays_encoder,
}


def payload_of(frame: bytes) -> bytes:
    """What a server's frame carries."""
    return frame[{126: 4, 127: 10}.get(frame[1], 2) :]


def decode_objects(payload: bytes) -> list[tuple[int, float, float]]:
    """JSON objects to tuples."""
    return [(item["s"], item["p"], item["v"]) for item in orjson.loads(payload)]


def decode_struct(payload: bytes) -> list[tuple[int, float, float]]:
    """v1 with struct, CRC checked."""
    if zlib.crc32(payload[4:]).to_bytes(4, "little") != payload[:4]:
        raise ValueError("CRC")
    return list(struct.iter_unpack("<Hdd", payload[6:]))


DECODERS: dict[str, tuple[str, Callable[[bytes], Any]]] = {
    "numpy": ("numpy", decode_v1),
    "struct": ("numpy", decode_struct),
    "orjson_objects": ("orjson_objects", decode_objects),
    "orjson_arrays": ("orjson_arrays", orjson.loads),
}


def run(benchmark: BenchmarkFixture, n: int, work: Callable[[], Any], frame: bytes) -> None:
    """Time `work` and note what it made."""

    def batch() -> None:
        for _ in range(CALLS):
            work()

    timed: Any = benchmark
    timed.pedantic(batch, rounds=ROUNDS, warmup_rounds=1)
    benchmark.extra_info["checksum"] = zlib.crc32(frame)
    benchmark.extra_info["frame_bytes"] = len(frame)
    benchmark.extra_info["bytes_per_entry"] = round(len(frame) / n, 2)
    if benchmark.stats is not None:  # None with --benchmark-disable
        nanoseconds = benchmark.stats.stats.median * 1e9 / CALLS / n
        benchmark.extra_info["ns_per_entry"] = round(nanoseconds, 2)


@sizes
@pytest.mark.parametrize("name", ENCODERS)
def test_encode(benchmark: BenchmarkFixture, name: str, n: int) -> None:
    rows = make_rows(n)
    encode = ENCODERS[name](rows)
    frame = encode()
    if name.startswith("orjson"):
        decode = DECODERS[name][1]
        assert [tuple(item) for item in decode(payload_of(frame))] == tuples_of(rows)
    else:
        assert frame == numpy_encoder(rows)(), "the same bytes"
    benchmark.group = f"v1 encode, {n} per frame"
    run(benchmark, n, encode, frame)


@sizes
@pytest.mark.parametrize("name", DECODERS)
def test_decode(benchmark: BenchmarkFixture, name: str, n: int) -> None:
    rows = make_rows(n)
    encoder, decode = DECODERS[name]
    frame = ENCODERS[encoder](rows)()
    payload = payload_of(frame)
    found: Entries | list[Any] = decode(payload)
    assert [
        tuple(item) for item in (found.tolist() if isinstance(found, np.ndarray) else found)
    ] == tuples_of(rows)
    benchmark.group = f"v1 decode, {n} per frame"
    run(benchmark, n, lambda: decode(payload), frame)
