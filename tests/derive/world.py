"""A small market for the tests of derived series, and the obvious way to aggregate it.

Nothing here shares code with the product but the record's dtype: bars are made by sorting all trades of a
slot, with Decimal for volumes.
"""

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from tradeback.derive.bars import merge_all
from tradeback.derive.klines import bars_of
from tradeback.derive.layout import ANCHORED, BAR, PARTIAL, Bars
from tradeback.derive.seeds import seed_ranges
from tradeback.derive.state import Derived
from tradeback.model.record import BUYER_MAKER, STAND_IN, TRADE, Rows, empty_rows
from tradeback.model.symbols import Symbol

SIZES_S = {"1s": 1, "1m": 60, "5m": 300, "15m": 900, "1h": 3600, "4h": 14400, "1d": 86400}
NAMES = list(SIZES_S)
DAY_US = 86_400 * 1_000_000
START_US = 1_700_000_000 * 1_000_000
STEP = "0.00010000"


def symbol(symbol_id: int = 1, step: str = STEP) -> Symbol:
    return Symbol(symbol_id, f"S{symbol_id}USDT", step_size=step)


@dataclass(frozen=True)
class Trade:
    """`count` > 1 or `first` < `id` make it a stand-in."""

    id: int
    time_us: int
    price: str
    quantity: str
    buyer_maker: bool
    symbol_id: int = 1
    first: int = -1
    count: int = 1

    @property
    def first_id(self) -> int:
        return self.first if self.first >= 0 else self.id

    @property
    def is_stand_in(self) -> bool:
        return self.first >= 0


@dataclass(frozen=True)
class Expected:
    open: float
    close: float
    high: float
    low: float
    volume: Decimal
    taker_volume: Decimal
    trade_count: int


def rows_of(trades: Sequence[Trade]) -> Rows:
    rows = empty_rows(len(trades))
    for row, trade in zip(rows, trades, strict=True):
        row["kind"], row["symbol_id"] = TRADE, trade.symbol_id
        row["exchange_us"], row["id"], row["recv_ns"] = trade.time_us, trade.id, trade.time_us * 1000 + 7
        row["price"], row["quantity"] = float(trade.price), float(trade.quantity)
        row["flags"] = BUYER_MAKER if trade.buyer_maker else 0
        if trade.is_stand_in:
            row["flags"] |= STAND_IN
            row["ask"], row["ask_quantity"] = trade.first, trade.count
    return rows


def aggregate(trades: Iterable[Trade]) -> Expected:
    """One bar of trades, by sorting them."""
    ordered = sorted(trades, key=lambda trade: trade.id)
    prices = [float(trade.price) for trade in ordered]
    opening = min(ordered, key=lambda trade: trade.first_id)
    return Expected(
        float(opening.price),
        prices[-1],
        max(prices),
        min(prices),
        sum((Decimal(trade.quantity) for trade in ordered), Decimal(0)),
        sum((Decimal(trade.quantity) for trade in ordered if not trade.buyer_maker), Decimal(0)),
        sum(trade.count for trade in ordered),
    )


def slots(trades: Iterable[Trade], name: str) -> dict[int, Expected]:
    """Bars of one symbol's trades by start of the slot in seconds."""
    grouped: dict[int, list[Trade]] = {}
    for trade in trades:
        seconds = trade.time_us // 1_000_000
        grouped.setdefault(seconds - seconds % SIZES_S[name], []).append(trade)
    return {slot: aggregate(group) for slot, group in grouped.items()}


def expected_of(row: np.void) -> Expected:
    digits = int(row["lot_digits"])
    return Expected(
        float(row["open"]),
        float(row["close"]),
        float(row["high"]),
        float(row["low"]),
        Decimal(int(row["volume"])).scaleb(-digits),
        Decimal(int(row["taker_volume"])).scaleb(-digits),
        int(row["trade_count"]),
    )


def seen(derived: Derived, symbol_id: int, index: int) -> Bars:
    """All bars of a series: those that left memory, merged, and the open ones."""
    return merge_all([derived.closed(symbol_id, index), derived.bars_open(symbol_id, index)])


def seen_slots(derived: Derived, symbol_id: int, index: int) -> dict[int, Expected]:
    return {int(row["slot_us"]) // 1_000_000: expected_of(row) for row in seen(derived, symbol_id, index)}


def stable(bars: Bars) -> bytes:
    """The bytes of bars without the hints that depend on what was known when they were written."""
    bars = bars.copy()
    assert bars.dtype == BAR
    bars["flags"] &= ~np.uint8(PARTIAL | ANCHORED)
    return bars.tobytes()


def feed(derived: Derived, rows: Rows, splits: Iterable[int] = ()) -> None:
    """Hand the rows over in the batches that `splits` (positions) make."""
    cuts = sorted({0, len(rows), *(cut for cut in splits if 0 < cut < len(rows))})
    for start, end in itertools.pairwise(cuts):
        part = rows[start:end].copy()
        derived.on_rows(part.ctypes.data, len(part))


def make_trades(seed: int, count: int, *, gap_us: int = 300_000, symbols: int = 1) -> list[Trade]:
    """Trades in id order whose times rise, with pauses long enough to leave slots of every size empty."""
    rng = random.Random(seed)
    time_us, ids, trades = START_US + rng.randrange(DAY_US), dict.fromkeys(range(1, symbols + 1), 100), []
    for _ in range(count):
        pause = rng.choice((0, 0, 1, gap_us, gap_us, 20 * gap_us, 300 * gap_us if rng.random() < 0.1 else 5))
        time_us += rng.randrange(pause + 1)
        if rng.random() < 0.05:
            time_us -= time_us % 60_000_000 - 60_000_000  # exactly on a slot's edge
        which = rng.randrange(1, symbols + 1)
        ids[which] += 1
        trades.append(
            Trade(
                ids[which], time_us, f"{rng.randrange(1, 10**7) / 100:.2f}",
                f"{rng.randrange(0, 10**9) / 10**4:.4f}", rng.random() < 0.5, which,
            )
        )  # fmt: skip
    return trades


def stand_ins(seed: int, trades: Sequence[Trade]) -> list[Trade]:
    """Some runs of neighbours replaced by one stand-in, perhaps with a hole that a real trade fills."""
    rng, result, at = random.Random(seed), [], 0
    while at < len(trades):
        size = rng.choice((1, 1, 1, 2, 3, 4))
        run = list(trades[at : at + size])
        at += size
        if len(run) < 2 or len({trade.symbol_id for trade in run}) > 1:
            result += run
            continue
        hole = run.pop(1) if len(run) > 2 and rng.random() < 0.5 else None
        whole = aggregate(run)
        result.append(
            Trade(run[-1].id, run[-1].time_us, run[-1].price, f"{whole.volume:f}", run[-1].buyer_maker,
                  run[-1].symbol_id, first=run[0].id, count=len(run))
        )  # fmt: skip
        if hole is not None:
            result.append(hole)
    return result


def klines(trades: Sequence[Trade], interval: str, start_ms: int, end_ms: int) -> list[list[Any]]:
    """The exchange's answer for one interval: also slots without a trade have a kline."""
    size_ms = SIZES_S[interval] * 1000
    found = slots(trades, interval)
    answer: list[list[Any]] = []
    last = "1.00"
    for open_ms in range(start_ms - start_ms % size_ms, end_ms + 1, size_ms):
        bar = found.get(open_ms // 1000)
        if bar is None:
            answer.append(
                [open_ms, last, last, last, last, "0.0", open_ms + size_ms - 1, "0", 0, "0.0", "0", "0"]
            )
            continue
        last = f"{bar.close:.8f}"
        answer.append(
            [open_ms, f"{bar.open:.8f}", f"{bar.high:.8f}", f"{bar.low:.8f}", last, f"{bar.volume:.8f}",
             open_ms + size_ms - 1, "0", bar.trade_count, f"{bar.taker_volume:.8f}", "0", "0"]
        )  # fmt: skip
    return answer


def answers_of(world: Sequence[Trade], boundary_us: int, lot_digits: int = 8) -> dict[str, Bars]:
    """What the exchange answers for the seed's ranges; one more at either end, as a careless caller asks."""
    found = {}
    for asked in seed_ranges(boundary_us):
        size = SIZES_S[asked.interval] * 1000
        answer = klines(world, asked.interval, asked.start_ms - size, asked.end_ms + size)
        found[asked.interval] = bars_of(answer, lot_digits)
    return found
