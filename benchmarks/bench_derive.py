"""Bars, Enigma and latest prices: the kernel against plain Python in the same run.

    pytest benchmarks/bench_derive.py                        # small, for CI
    TRADEBACK_BENCH=full pytest benchmarks/bench_derive.py   # the sizes of docs/performance.md

500 symbols, batches of 1, 16 and 256 records. Two rhythms: `busy` (50,000 trades a second: most trades
fall into the second of the one before them) and `calm` (1,000 a second: nearly every trade of a symbol
begins a new second, so that its bars roll). Every run ends in a checksum over all bars and levels, which
must be the same for kernel and Python; `ns_per_row` in extra_info is the figure to look at.
"""

import os
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tradeback.derive.bars import merge_all
from tradeback.derive.enigma import fib_of, level_of
from tradeback.derive.layout import RESOLUTION_COUNT, RESOLUTION_S
from tradeback.derive.state import Derived
from tradeback.model.record import BUYER_MAKER, QUOTE, ROW_BYTES, TRADE, Rows, empty_rows
from tradeback.model.symbols import Symbol

FULL = os.environ.get("TRADEBACK_BENCH") == "full"
ROWS = 200_000 if FULL else 20_000
PYTHON_ROWS = 20_000 if FULL else 4_000
ROUNDS = 7 if FULL else 3
SYMBOLS = 500
DIGITS = 8
PAUSE_US = {"busy": 20, "calm": 1_000}


def make_rows(count: int, pause_us: int, kind: int = TRADE) -> Rows:
    """A market of 500 symbols with exact decimals, the same on every run."""
    random = np.random.default_rng(7)
    rows = empty_rows(count)
    rows["kind"] = kind
    rows["exchange_us"] = 1_700_000_000_000_000 + np.cumsum(random.integers(0, 2 * pause_us, count))
    rows["recv_ns"] = rows["exchange_us"] * 1_000 + 250_000
    rows["symbol_id"] = random.integers(1, SYMBOLS + 1, count)
    order = np.argsort(rows["symbol_id"], kind="stable")
    rows["id"][order] = np.arange(count)  # rising by one within each symbol
    rows["price"] = np.round(100 + random.standard_normal(count).cumsum() / 100, 2)
    rows["quantity"] = random.integers(1, 1_000_000, count) / 1e4
    rows["ask"], rows["ask_quantity"] = rows["price"] + 0.01, rows["quantity"]
    rows["flags"] = random.integers(0, 2, count)
    return rows


def new_state() -> Derived:
    derived = Derived(SYMBOLS)
    for symbol_id in range(1, SYMBOLS + 1):
        derived.add_symbol(Symbol(symbol_id, f"S{symbol_id}USDT", step_size="0.0001"))
    return derived


class PlainPython:
    """What one would write without a compiler: a dictionary of lists, one update per resolution."""

    def __init__(self) -> None:
        self.bars: dict[tuple[int, int, int], list[Any]] = {}
        self.levels: dict[int, list[Any]] = {}

    def on_rows(self, rows: list[tuple[Any, ...]]) -> None:
        for time_us, _, trade_id, price, quantity, _, _, symbol_id, _, flags, _ in rows:
            lots = round(quantity * 10**DIGITS)
            taker = 0 if flags & BUYER_MAKER else lots
            second = time_us // 1_000_000
            for index, size in enumerate(RESOLUTION_S):
                key = (symbol_id, index, second - second % size)
                bar = self.bars.get(key)
                if bar is None:
                    self.bars[key] = [price, price, price, price, lots, taker, 1, trade_id, trade_id]
                    continue
                if trade_id < bar[7]:
                    bar[7], bar[0] = trade_id, price
                if trade_id > bar[8]:
                    bar[8], bar[1] = trade_id, price
                if price > bar[2]:
                    bar[2] = price
                if price < bar[3]:
                    bar[3] = price
                bar[4] += lots
                bar[5] += taker
                bar[6] += 1
            levels = self.levels.setdefault(symbol_id, [price, price, price, trade_id])
            levels[0] = max(levels[0], price)
            levels[1] = min(levels[1], price)
            if trade_id >= levels[3]:
                levels[2], levels[3] = price, trade_id

    def checksum(self) -> str:
        bars = [(*key, *bar) for key, bar in self.bars.items()]
        levels = [
            (symbol_id, level_of(price, ath, atl), *fib_of(ath, atl), trade_id)
            for symbol_id, (ath, atl, price, trade_id) in self.levels.items()
        ]
        return checksum_of(bars, levels)


def checksum_of(bars: Iterable[tuple[Any, ...]], levels: Iterable[tuple[Any, ...]]) -> str:
    return f"{zlib.crc32(repr((sorted(bars), sorted(levels))).encode()):08x}"


def checksum(derived: Derived) -> str:
    bars = []
    names = ["open", "close", "high", "low", "volume", "taker_volume", "trade_count", "first_id", "last_id"]
    closed = derived.snapshot().closed
    for symbol_id in range(1, SYMBOLS + 1):
        own = closed[closed["symbol_id"] == symbol_id]
        for index in range(RESOLUTION_COUNT):
            rows = merge_all([own[own["resolution"] == index], derived.bars_open(symbol_id, index)])
            slots = (rows["slot_us"] // 1_000_000).tolist()
            bars += [
                (symbol_id, index, slot, *row) for slot, row in zip(slots, rows[names].tolist(), strict=True)
            ]
    levels = [
        (held.symbol_id, held.level, *held.fib, held.trade_id)
        for held in map(derived.enigma, range(1, SYMBOLS + 1))
        if held is not None
    ]
    return checksum_of(bars, levels)


def feed(derived: Derived, address: int, count: int, batch: int) -> None:
    on_rows = derived.on_rows
    for start in range(0, count, batch):
        on_rows(address + start * ROW_BYTES, min(batch, count - start))


def report(benchmark: BenchmarkFixture, rows: int, checksum: str) -> None:
    benchmark.extra_info["rows"] = rows
    benchmark.extra_info["checksum"] = checksum
    if benchmark.stats is not None:
        benchmark.extra_info["ns_per_row"] = round(benchmark.stats.stats.min / rows * 1e9, 1)


def measure_kernel(benchmark: BenchmarkFixture, rows: Rows, batch: int) -> Derived:
    """The best of ROUNDS runs over all rows, each on a new state; returns the last state."""
    states: list[Derived] = []
    count = len(rows) if batch > 1 else min(len(rows), 20_000)

    def setup() -> tuple[tuple[Any, ...], dict[str, Any]]:
        states[:] = [new_state()]
        return (states[0], int(rows.ctypes.data), count, batch), {}

    benchmark.pedantic(feed, setup=setup, rounds=ROUNDS, warmup_rounds=1)  # type: ignore[no-untyped-call]
    report(benchmark, count, "")
    return states[0]


@pytest.mark.parametrize("rhythm", PAUSE_US)
@pytest.mark.parametrize("batch", [1, 16, 256])
@pytest.mark.benchmark(group="derive-trades")
def test_kernel(benchmark: BenchmarkFixture, rhythm: str, batch: int) -> None:
    rows = make_rows(ROWS, PAUSE_US[rhythm])
    derived = measure_kernel(benchmark, rows, batch)
    counted = benchmark.extra_info["rows"]
    benchmark.extra_info["checksum"] = checksum(derived)
    assert derived.counters["trades"] == counted
    assert derived.counters["off_grid"] == 0
    whole = new_state()
    feed(whole, int(rows.ctypes.data), counted, counted)
    assert checksum(whole) == benchmark.extra_info["checksum"]


@pytest.mark.parametrize("rhythm", PAUSE_US)
@pytest.mark.benchmark(group="derive-trades")
def test_plain_python(benchmark: BenchmarkFixture, rhythm: str) -> None:
    rows = make_rows(PYTHON_ROWS, PAUSE_US[rhythm])
    plain: list[PlainPython] = []
    values = rows.tolist()

    def setup() -> tuple[tuple[Any, ...], dict[str, Any]]:
        plain[:] = [PlainPython()]
        return (values,), {}

    def run(records: list[tuple[Any, ...]]) -> None:
        plain[0].on_rows(records)

    benchmark.pedantic(run, setup=setup, rounds=ROUNDS)  # type: ignore[no-untyped-call]
    derived = new_state()
    feed(derived, int(rows.ctypes.data), len(rows), 256)
    report(benchmark, len(rows), plain[0].checksum())
    assert checksum(derived) == benchmark.extra_info["checksum"], "kernel and Python must agree bit for bit"


@pytest.mark.parametrize("batch", [1, 16, 256])
@pytest.mark.benchmark(group="derive-quotes")
def test_kernel_quotes(benchmark: BenchmarkFixture, batch: int) -> None:
    rows = make_rows(ROWS, 20, QUOTE)
    derived = measure_kernel(benchmark, rows, batch)
    counted = rows[: benchmark.extra_info["rows"]]
    total = 0.0
    for symbol_id in range(1, SYMBOLS + 1):
        own = counted[counted["symbol_id"] == symbol_id]
        held = derived.latest(symbol_id)
        assert held is not None
        if len(own):
            assert (held["bid"], held["ask"]) == (own["price"][-1], own["ask"][-1])
            total += float(held["bid"])
    benchmark.extra_info["checksum"] = f"{zlib.crc32(repr(total).encode()):08x}"


@pytest.mark.parametrize("batch", [256])
@pytest.mark.benchmark(group="derive-drain")
def test_drain(benchmark: BenchmarkFixture, batch: int) -> None:
    """What the loop thread pays every five seconds: copies of all that 500 symbols have changed."""
    rows = make_rows(10_000, 500)
    taken: list[int] = []

    def setup() -> tuple[tuple[Any, ...], dict[str, Any]]:
        derived = new_state()
        feed(derived, int(rows.ctypes.data), len(rows), batch)
        return (derived,), {}

    def run(derived: Derived) -> None:
        drained = derived.drain()
        taken[:] = [len(drained.closed), len(drained.parts), len(drained.states)]

    benchmark.pedantic(run, setup=setup, rounds=ROUNDS)  # type: ignore[no-untyped-call]
    assert taken[2] == SYMBOLS
    benchmark.extra_info["taken"] = taken
