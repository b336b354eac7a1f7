"""Bars for tests of REST and UDF: a market of trades, and an exchange whose klines can be had."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.feed.harness import SYMBOLS, World
from tradeback.derive.completeness_ranges import IdRanges, minus
from tradeback.derive.lacking import Span
from tradeback.derive.layout import EXCHANGE, RESOLUTION_S, Bars, empty_bars
from tradeback.model.record import TRADE as TRADE_KIND
from tradeback.model.record import Rows, empty_rows
from tradeback.model.symbols import Symbol

BEGIN_S = 1_700_006_400
"""The start of a day, in unix seconds."""
assert BEGIN_S % 86_400 == 0 or BEGIN_S % 3_600 == 0


def trades(
    times_s: Sequence[float], *, first_id: int = 1, symbol_id: int = 1, ids: Sequence[int] = ()
) -> Rows:
    """Trades at these exchange times, prices moving with the ids."""
    rows = empty_rows(len(times_s))
    numbers = np.array(ids, np.int64) if len(ids) else np.arange(first_id, first_id + len(rows))
    rows["kind"], rows["symbol_id"], rows["id"] = TRADE_KIND, symbol_id, numbers
    rows["exchange_us"] = (np.array(times_s, np.float64) * 1_000_000).astype(np.int64)
    rows["recv_ns"] = rows["exchange_us"] * 1_000
    rows["price"] = 100.0 + (numbers * 7 % 50) / 100
    rows["quantity"] = 0.5 + (numbers % 3) / 4
    return rows


async def flush(running: World) -> None:
    """Put into the store what has closed, as the engine does every few seconds."""
    sink: Any = running.context.series
    while (flight := sink.flush()) is not None:
        await flight


class Exchange:
    """The exchange's klines as `api.context.Klines`: what it has goes into the store when it is asked for."""

    def __init__(
        self, running: World, store: Any, first_s: int, end_s: int, holes: set[int] | None = None
    ) -> None:
        self._store = store
        self.first_s, self.end_s, self.holes = first_s, end_s, holes or set()
        self.covered: dict[tuple[int, int], IdRanges] = {}
        self.generations: dict[tuple[int, int], int] = {}
        self.asked: list[tuple[list[Span], int]] = []
        self.works = True
        running.context.klines = self

    def generation(self, symbol_id: int, resolution: int) -> int:
        return self.generations.get((symbol_id, resolution), 0)

    async def fill(
        self, symbol: Symbol, resolution: int, spans: Sequence[Span], bars_wanted: int, wait_s: float
    ) -> bool:
        series = symbol.id, resolution
        covered = self.covered.setdefault(series, IdRanges())
        parts = minus([(span.from_s, span.to_s - 1) for span in spans], covered)
        if not parts:
            return True
        self.asked.append((list(spans), bars_wanted))
        if not self.works:
            return False
        for first, last in parts:
            bars = self.klines(symbol, resolution, max(first, self.first_s), min(last + 1, self.end_s))
            if not first:
                bars = bars[max(0, len(bars) - bars_wanted) :]
                first = int(bars["slot_us"][0]) // 1_000_000 if len(bars) >= bars_wanted else 0
            self._store.put_history(bars)
            covered.add(first, last)
        self.generations[series] = self.generation(*series) + 1
        return True

    def klines(self, symbol: Symbol, resolution: int, from_s: int, to_s: int) -> Bars:
        """One bar for each slot but the holes."""
        step = RESOLUTION_S[resolution]
        slots = [at for at in range(from_s + -from_s % step, to_s, step) if at not in self.holes]
        bars = empty_bars(len(slots))
        bars["slot_us"] = np.array(slots, np.int64) * 1_000_000
        bars["open"] = bars["high"] = bars["low"] = bars["close"] = 50.0 + np.arange(len(slots)) % 7
        bars["volume"], bars["trade_count"], bars["seed_count"] = 10**symbol.lot_digits, 5, 5
        bars["flags"], bars["lot_digits"] = EXCHANGE, symbol.lot_digits
        bars["symbol_id"], bars["resolution"] = symbol.id, resolution
        return bars


BTC = SYMBOLS[0]
