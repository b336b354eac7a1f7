"""Decoding market frames: the kernel against orjson + float and msgspec in the same run.

    pytest benchmarks/bench_decode.py                        # small, for CI
    TRADEBACK_BENCH=full pytest benchmarks/bench_decode.py   # the sizes of docs/performance.md

500 symbols; bookTicker, trade and aggTrade 6:2:2, as combined and as raw streams. The kernel gets batches
of 1, 16 and 256 frames per call; to Python it makes no difference. All of them must give the same records:
`extra_info["checksum"]` is their CRC. The figures to look at are `ns_per_frame` and, once orjson has been
measured, `times_orjson`. msgspec decodes into one typed struct, once with float() afterwards, once with
its own lax conversion of strings to floats.
"""

import os
import random
import string
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np
import orjson
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from tradeback.ingest.batch import decode_many
from tradeback.ingest.context import IngestContext
from tradeback.kernel.jit import entry
from tradeback.model.record import AGG, BUYER_MAKER, QUOTE, ROW_BYTES, TRADE, Rows, empty_rows
from tradeback.ops.metrics import Histogram

FULL = os.environ.get("TRADEBACK_BENCH") == "full"
FRAMES = 50_000 if FULL else 8_192
ROUNDS = 9 if FULL else 5
SYMBOLS = 500
BATCHES = [1, 16, 256]
FRAMINGS = ["combined", "raw"]
START_MS = 1_723_161_255_000

Record = tuple[int, int, int, float, float, float, float, int, int, int]
"""exchange_us, receive time, id, price, quantity, ask, ask_quantity, symbol id, kind, flags."""


class Market(NamedTuple):
    """Frames, the symbols in them, and the same frames as one run of bytes with offsets for the kernel."""

    frames: list[bytes]
    symbol_ids: dict[str, int]
    texts: NDArray[np.uint8]
    offsets: NDArray[np.int64]


def payload_of(rng: random.Random, symbol: str, number: int, kind: str) -> str:
    """One event as the exchange writes it."""
    price = f"{rng.lognormvariate(3, 3):.2f}000000"
    quantity = f"{rng.lognormvariate(1, 2):.5f}000"
    if kind == "bookTicker":
        return (
            f'{{"u":{71_000_000_512 + number},"s":"{symbol}","b":"{price}","B":"{quantity}",'
            f'"a":"{price[:-7]}9000000","A":"{quantity}"}}'
        )
    ids = f'"t":{990_000_101 + number}'
    tail = ""
    if kind == "aggTrade":
        ids = f'"a":{410_000_777 + number}'
        tail = f',"f":{990_000_101 + number},"l":{990_000_101 + number + rng.randrange(4)}'
    time, maker = START_MS + number // 50, rng.choice(["true", "false"])
    return (
        f'{{"e":"{kind}","E":{time + 1},"s":"{symbol}",{ids},"p":"{price}","q":"{quantity}"{tail},'
        f'"T":{time},"m":{maker},"M":true}}'
    )


def make_market(framing: str) -> Market:
    """The same market on every run."""
    rng = random.Random(7)
    names = {"".join(rng.choices(string.ascii_uppercase, k=rng.randint(2, 6))) + "USDT" for _ in range(900)}
    symbols = sorted(names)[:SYMBOLS]
    frames = []
    for number in range(FRAMES):
        symbol = rng.choice(symbols)
        kind = rng.choices(["bookTicker", "trade", "aggTrade"], [6, 2, 2])[0]
        payload = payload_of(rng, symbol, number, kind)
        if framing == "combined":
            payload = f'{{"stream":"{symbol.lower()}@{kind}","data":{payload}}}'
        frames.append(payload.encode())
    texts = np.frombuffer(b"".join(frames) + bytes(64), np.uint8)
    offsets = np.cumsum([0, *map(len, frames)])
    return Market(frames, {name: index for index, name in enumerate(symbols, 1)}, texts, offsets)


@pytest.fixture(scope="module", params=FRAMINGS)
def market(request: pytest.FixtureRequest) -> Market:
    return make_market(request.param)


def with_orjson(frames: list[bytes], symbol_ids: dict[str, int]) -> list[Record]:
    """What one writes first: loads, float, a dictionary for the symbol."""
    records: list[Record] = []
    add, loads = records.append, orjson.loads
    for frame in frames:
        event = loads(frame)
        if "data" in event:
            event = event["data"]
        symbol_id, kind = symbol_ids[event["s"]], event.get("e")
        if kind is None:
            bid, bid_quantity = float(event["b"]), float(event["B"])
            ask, ask_quantity = float(event["a"]), float(event["A"])
            add((0, 0, event["u"], bid, bid_quantity, ask, ask_quantity, symbol_id, QUOTE, 0))
            continue
        price, quantity, flags = float(event["p"]), float(event["q"]), BUYER_MAKER * event["m"]
        time_us = event["T"] * 1_000
        if kind == "trade":
            add((time_us, 0, event["t"], price, quantity, 0.0, 0.0, symbol_id, TRADE, flags))
        else:
            first, last = float(event["f"]), float(event["l"])
            add((time_us, 0, event["a"], price, quantity, first, last, symbol_id, AGG, flags))
    return records


class TextEvent(msgspec.Struct):
    """All three payloads in one; numbers that are strings stay strings."""

    s: str
    e: str = ""
    t: int = 0
    a: int | str = 0
    u: int = 0
    f: int = 0
    l: int = 0  # noqa: E741 - the exchange's name
    T: int = 0
    p: str = ""
    q: str = ""
    b: str = ""
    B: str = ""
    A: str = ""
    m: bool = False


class LaxEvent(msgspec.Struct):
    """The same with floats. `a` is an id or a price, so it is a float too: exact below 2^53."""

    s: str
    e: str = ""
    t: int = 0
    a: float = 0.0
    u: int = 0
    f: float = 0.0
    l: float = 0.0  # noqa: E741 - the exchange's name
    T: int = 0
    p: float = 0.0
    q: float = 0.0
    b: float = 0.0
    B: float = 0.0
    A: float = 0.0
    m: bool = False


class CombinedText(msgspec.Struct):
    data: TextEvent


class CombinedLax(msgspec.Struct):
    data: LaxEvent


def with_msgspec(frames: list[bytes], symbol_ids: dict[str, int]) -> list[Record]:
    """Typed decoding, then float()."""
    combined = frames[0].startswith(b'{"stream"')
    wrapped = msgspec.json.Decoder(CombinedText).decode
    bare = msgspec.json.Decoder(TextEvent).decode
    records: list[Record] = []
    add = records.append
    for frame in frames:
        event = wrapped(frame).data if combined else bare(frame)
        symbol_id, kind = symbol_ids[event.s], event.e
        if not kind:
            bid, bid_quantity, ask, ask_quantity = (
                float(event.b),
                float(event.B),
                float(event.a),
                float(event.A),
            )
            add((0, 0, event.u, bid, bid_quantity, ask, ask_quantity, symbol_id, QUOTE, 0))
            continue
        price, quantity, flags = float(event.p), float(event.q), BUYER_MAKER * event.m
        if kind == "trade":
            add((event.T * 1_000, 0, event.t, price, quantity, 0.0, 0.0, symbol_id, TRADE, flags))
        else:
            first, last = float(event.f), float(event.l)
            add((event.T * 1_000, 0, int(event.a), price, quantity, first, last, symbol_id, AGG, flags))
    return records


def with_lax_msgspec(frames: list[bytes], symbol_ids: dict[str, int]) -> list[Record]:
    """Typed decoding that turns strings into floats itself."""
    combined = frames[0].startswith(b'{"stream"')
    wrapped = msgspec.json.Decoder(CombinedLax, strict=False).decode
    bare = msgspec.json.Decoder(LaxEvent, strict=False).decode
    records: list[Record] = []
    add = records.append
    for frame in frames:
        event = wrapped(frame).data if combined else bare(frame)
        symbol_id, kind = symbol_ids[event.s], event.e
        if not kind:
            add((0, 0, event.u, event.b, event.B, event.a, event.A, symbol_id, QUOTE, 0))
        elif kind == "trade":
            flags = BUYER_MAKER * event.m
            add((event.T * 1_000, 0, event.t, event.p, event.q, 0.0, 0.0, symbol_id, TRADE, flags))
        else:
            flags = BUYER_MAKER * event.m
            add((event.T * 1_000, 0, int(event.a), event.p, event.q, event.f, event.l, symbol_id, AGG, flags))
    return records


BASELINES: dict[str, Callable[[list[bytes], dict[str, int]], list[Record]]] = {
    "orjson": with_orjson,
    "msgspec": with_msgspec,
    "msgspec-lax": with_lax_msgspec,
}
ORJSON_NS: dict[str, float] = {}
CHECKSUMS: dict[str, str] = {}


def report(benchmark: BenchmarkFixture, framing: str, name: str, rows: Rows) -> None:
    """Figures for one frame, and the checksum, which must be that of whoever ran first."""
    checksum = f"{zlib.crc32(rows.tobytes()):08x}"
    benchmark.extra_info.update(frames=len(rows), checksum=checksum)
    assert checksum == CHECKSUMS.setdefault(framing, checksum), "all decoders must give the same records"
    if benchmark.stats is None:  # --benchmark-disable
        return
    each_ns = benchmark.stats.stats.min / len(rows) * 1e9
    benchmark.extra_info["ns_per_frame"] = round(each_ns, 1)
    if name == "orjson":
        ORJSON_NS[framing] = each_ns
    if framing in ORJSON_NS:
        benchmark.extra_info["times_orjson"] = round(ORJSON_NS[framing] / each_ns, 1)


def framing_of(market: Market) -> str:
    return "combined" if market.frames[0].startswith(b'{"stream"') else "raw"


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.benchmark(group="decode")
def test_python(benchmark: BenchmarkFixture, market: Market, name: str) -> None:
    found: list[list[Record]] = []

    def run() -> None:
        found[:] = [BASELINES[name](market.frames, market.symbol_ids)]

    benchmark.pedantic(run, rounds=ROUNDS, warmup_rounds=1)  # type: ignore[no-untyped-call]
    rows = empty_rows(FRAMES)
    rows[:] = [(*record, 0) for record in found[0]]
    report(benchmark, framing_of(market), name, rows)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.benchmark(group="decode")
def test_kernel(benchmark: BenchmarkFixture, market: Market, batch: int) -> None:
    lag = Histogram()
    context = IngestContext(lag.bounds, lag.counts, lag.sums)
    for name, symbol_id in market.symbol_ids.items():
        context.add_symbol(name, symbol_id)
    rows, statuses = empty_rows(FRAMES), np.zeros(FRAMES, np.uint8)
    addresses = [int(array.ctypes.data) for array in (market.texts, market.offsets, rows, statuses)]
    texts, offsets, row, status = addresses
    decode: Callable[..., Any] = entry(decode_many)

    def run() -> None:
        for start in range(0, FRAMES, batch):
            count = min(batch, FRAMES - start)
            decode(
                context.address, texts, offsets + 8 * start, count, row + ROW_BYTES * start, status + start
            )

    benchmark.pedantic(run, rounds=ROUNDS, warmup_rounds=1)  # type: ignore[no-untyped-call]
    assert not statuses.any(), "every frame must have taken the fast path"
    report(benchmark, framing_of(market), f"kernel-{batch}", rows)
