"""What is written to InfluxDB, each by a drain of its own: every trade, and bars with levels.

Trades come straight from the tape. Bars and levels are read from the series store, which has merged seeds,
repairs and stand-ins: of every batch of the tape, the bars that its records touch, as they are now. The
drain of bars keeps behind the series store's position, so when it has passed the last record of a bar, the
bar in InfluxDB is the final one; a late trade touches it again.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import numpy as np

from tradeback.derive.enigma import enigma_rows
from tradeback.derive.layout import RESOLUTION_S, RESOLUTIONS, Bars
from tradeback.model.clock import Clock
from tradeback.model.config import Config
from tradeback.model.record import SEED_BAR, SEED_BAR_MORE, TRADE, Rows
from tradeback.ops.troubles import Troubles
from tradeback.sinks.drain import Drain
from tradeback.sinks.drain_ports import Batch, BatchRefused, DrainConfig, Rejected, Source, Written
from tradeback.sinks.drain_until import Until
from tradeback.stores.influx_client import WriteRefused
from tradeback.stores.influx_lines import Names, bar_lines, body_of, enigma_lines
from tradeback.stores.influx_trades import Lines, TradeLines
from tradeback.stores.ports import Position, Stored
from tradeback.stores.series_influx import SeriesInflux, slot_of
from tradeback.tape.reader import RecordsGone
from tradeback.wire.influx_layout import QUOTE_BACK_ROWS

BARS_FROM = RESOLUTIONS.index("1m")
BARS_MAX = 10_000
CACHED_BATCHES = 3
LINES_MAX = 5_000
UNWRITABLE = "no line for it: its symbol has no name, or its price is no number"

Known = Callable[[], Iterable[tuple[int, str]]]


class SeriesRead(Protocol):
    """What is asked of the embedded series store; in a thread."""

    def range(self, symbol_id: int, resolution: int, from_s: int, to_s: int, limit: int) -> Bars:
        """Bars with from_s <= slot < to_s, the open ones included."""

    def load(self) -> Stored:
        """The state of all symbols."""

    def position(self) -> Position:
        """Up to where the store is true."""


class _Influx:
    """What both targets share: the connection and the position in InfluxDB itself."""

    def __init__(self, sink: str, series: SeriesInflux) -> None:
        self._sink, self._series = sink, series

    async def open(self) -> Position | None:
        """See Target."""
        await self._series.open()
        return await self._series.position(self._sink)

    async def save(self, position: Position) -> None:
        """See Target."""
        await self._series.save_position(self._sink, position)

    async def close(self) -> None:
        """See Target."""
        await self._series.close()


class TradesTarget(_Influx):
    """Every trade of the tape as one point of `trades`."""

    def __init__(self, series: SeriesInflux, source: Source) -> None:
        super().__init__("trades", series)
        self._source = source
        self._encoder = TradeLines(series.names)
        self._next = (0, 0)
        """Epoch and sequence of the record that would follow on what the encoder has seen."""
        self._encoded: dict[tuple[int, int], Lines] = {}
        """Lines of the newest batches by epoch and first sequence, for when they are repeated."""

    async def open(self) -> Position | None:
        """See Target."""
        await asyncio.to_thread(self._encoder.attach)
        return await super().open()

    async def write(self, batch: Batch) -> Written:
        """See Target."""
        lines = self._lines(batch)
        try:
            dropped = await self._series.client.write(lines.data)
        except WriteRefused as error:
            raise BatchRefused(str(error)) from error
        trades = np.flatnonzero(batch.rows["kind"] == TRADE)
        bad = trades[~lines.has(trades)].tolist()
        return Written(tuple(Rejected(row, UNWRITABLE) for row in bad), dropped)

    def _lines(self, batch: Batch) -> Lines:
        """The lines of a batch; the same however often, and in whatever parts, it is asked."""
        count = len(batch.rows)
        for (epoch, first), lines in self._encoded.items():
            start = batch.first_sequence - first
            if epoch == batch.epoch and 0 <= start <= start + count <= len(lines.ends) - 1:
                return lines if count == len(lines.ends) - 1 else lines.part(start, start + count)
        if self._next != (batch.epoch, batch.first_sequence):
            self._warm(batch.first_sequence)
        lines = self._encoder.encode(batch.rows, batch.first_sequence)
        self._next = batch.epoch, batch.last_sequence + 1
        self._encoded[batch.epoch, batch.first_sequence] = lines
        while len(self._encoded) > CACHED_BATCHES:
            del self._encoded[next(iter(self._encoded))]
        return lines

    def _warm(self, sequence: int) -> None:
        """Show the encoder the records before `sequence`, as far as they are held."""
        self._encoder.forget()
        at = max(self._source.oldest_sequence, sequence - QUOTE_BACK_ROWS)
        while at < sequence:
            try:
                _, rows = self._source.read_with_epoch(at, sequence - at)
            except RecordsGone as error:
                at = error.oldest_sequence
                continue
            if not len(rows):
                return
            self._encoder.warm(rows, at)
            at += len(rows)


class BarsTarget(_Influx):
    """The bars that records touch, in every resolution from a minute up, and the levels of their symbols."""

    def __init__(
        self, series: SeriesInflux, store: SeriesRead, *, bars: bool = True, enigma: bool = True
    ) -> None:
        super().__init__("bars", series)
        self._store, self._bars, self._enigma = store, bars, enigma

    async def write(self, batch: Batch) -> Written:
        """See Target. Bars older than the bucket's retention are let go by the server, uncounted."""
        lines = await asyncio.to_thread(self._lines, batch.rows)
        try:
            for start in range(0, len(lines), LINES_MAX):
                await self._series.client.write(body_of(lines[start : start + LINES_MAX]))
        except WriteRefused as error:
            raise BatchRefused(str(error)) from error
        return Written()

    def _lines(self, rows: Rows) -> list[str]:
        """In a thread."""
        kinds = rows["kind"]
        touched = rows[(kinds == TRADE) | (kinds == SEED_BAR) | (kinds == SEED_BAR_MORE)]
        touched = touched[touched["exchange_us"] > 0]
        lines: list[str] = []
        names: Names = self._series.names
        symbols = np.unique(touched["symbol_id"]).tolist()
        for symbol_id in symbols if self._bars else ():
            times = touched["exchange_us"][touched["symbol_id"] == symbol_id]
            for resolution in range(BARS_FROM, len(RESOLUTIONS)):
                for from_s, to_s in _slots(times, resolution):
                    found = self._store.range(symbol_id, resolution, from_s, to_s, BARS_MAX)
                    lines += bar_lines(found, names)
        if self._enigma and symbols:
            states = self._store.load().states
            lines += enigma_lines(enigma_rows(states[np.isin(states["symbol_id"], symbols)]), names)
        return lines


def _slots(times_us: "np.ndarray[tuple[int], np.dtype[np.int64]]", resolution: int) -> list[tuple[int, int]]:
    """Runs of slots that hold the times: (from_s, to_s), apart from each other."""
    step_s = RESOLUTION_S[resolution]
    slots = sorted({slot_of(us, resolution) for us in times_us.tolist()})
    runs: list[tuple[int, int]] = []
    for slot in slots:
        if runs and runs[-1][1] == slot and slot + step_s - runs[-1][0] <= BARS_MAX * step_s:
            runs[-1] = runs[-1][0], slot + step_s
        else:
            runs.append((slot, slot + step_s))
    return runs


class Behind(Until):
    """A tape that ends where the series store's position does."""

    def __init__(self, source: Source, store: SeriesRead) -> None:
        super().__init__(source, lambda: store.position().sequence + 1)


def influx_drains(
    config: Config, source: Source, store: SeriesRead | None, known: Known, clock: Clock, log: logging.Logger
) -> list[Drain]:
    """The drains into InfluxDB, not started; none when `influx.url` is empty.

    `store`: the embedded series store, for bars and levels (None: without). `known`: all (id, symbol) now.
    """
    if not config.influx.url:
        return []
    names = Names(known)
    aside, troubles = Path(config.data_dir) / "set-aside", Troubles(clock)
    limit_s = config.influx.timeout_s

    def drain(name: str, tape: Source, target: TradesTarget | BarsTarget, how: DrainConfig) -> Drain:
        path = aside / f"influx-{name}.jsonl"
        return Drain(f"influx:{name}", tape, target, how, clock, log, path, troubles=troubles)

    trades = TradesTarget(SeriesInflux(config.influx, names), source)
    drains = [drain("trades", source, trades, DrainConfig(write_timeout_s=limit_s))]
    bars, enigma = config.feature.aggregation_enabled, config.feature.enigma_enabled
    if store is not None and (bars or enigma):
        target = BarsTarget(SeriesInflux(config.influx, names), store, bars=bars, enigma=enigma)
        how = DrainConfig(batch_rows=50_000, batch_age_s=2.0, in_flight=1, write_timeout_s=3 * limit_s)
        drains.append(drain("bars", Behind(source, store), target, how))
    return drains
