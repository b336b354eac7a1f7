"""Keeps the series store up to date with the derived state, and answers for bars from both.

The engine folds every batch into `Derived` in the callback that committed it, so between callbacks the
state is true for the whole tape. Every `flush_interval_s` the sink takes what has changed together with
the tape's position, and one writer thread puts both into the store in one transaction. After any crash
the tape behind the stored position is replayed: nothing is lost, nothing counted twice.

Bounds: one flush is in flight at a time; while the store is slow or refuses, the one in flight is retried
and everything newer waits in `Derived`. Should that overflow (PENDING_BARS_MAX closed bars, several
minutes of 500 busy symbols), the waiting bars are dropped, and once the store takes writes again they are
made anew from the tape in the writer thread. The feed never notices.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tradeback.derive.bars import complete_mask, merge_all
from tradeback.derive.layout import Bars, Drained
from tradeback.model.errors import TradebackError
from tradeback.ops.health import ComponentHealth
from tradeback.ops.metrics import Family, Histogram, unlabelled
from tradeback.sinks.series_replay import TapeSource, replay
from tradeback.stores.ports import Closed, Position, SeriesStore

if TYPE_CHECKING:
    from tradeback.derive.state import Derived

FLUSH_INTERVAL_S = 5.0
ATTEMPTS_MAX = 3
"""Readings of the store that may each be overtaken by a flush before `bars` gives up."""

_log = logging.getLogger("tradeback.sinks.series")


class LiveTape(TapeSource, Protocol):
    """What the sink needs of the `Tape` that is being written."""

    @property
    def epoch(self) -> int:
        """The epoch of the next record."""

    @property
    def next_sequence(self) -> int:
        """The sequence of the next record."""


class SeriesAnswer(NamedTuple):
    """Bars of one series, ascending, and of each whether it is proved that no trade is missing from it."""

    rows: Bars
    complete: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Batch:
    drained: Drained
    position: Position


class SeriesSink:
    """Owned by the engine; every method runs on the loop thread.

    `restore` (series_replay) comes first, then `start`, in the end `close`.
    """

    def __init__(
        self,
        derived: "Derived",
        store: SeriesStore,
        tape: LiveTape,
        flush_interval_s: float = FLUSH_INTERVAL_S,
    ) -> None:
        self._derived, self._store, self._tape = derived, store, tape
        self._interval_s = flush_interval_s
        self._batch: _Batch | None = None
        """In flight, or refused by the store and to be tried again."""
        self._flight: asyncio.Future[None] | None = None
        self._behind = False
        self._stopping = self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._writer = ThreadPoolExecutor(1, "series-writer")
        self._reader = ThreadPoolExecutor(1, "series-reader")
        self.stored = Position(0, 0)
        """What the store is known to cover."""
        self.flush_time = Histogram()
        self.flushes = self.errors = self.bars_written = self.rebuilds = 0
        self.last_error: str | None = None
        self._since_ns = time.time_ns()

    def start(self) -> None:
        """Begin to flush at the interval. Needs a running loop."""
        self._arm(asyncio.get_running_loop())

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(self._interval_s, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._arm(loop)
        self.flush()

    def flush(self) -> asyncio.Future[None] | None:
        """Hand what has changed to the writer thread; the flush in flight, or None when nothing has changed.

        The future ends without an exception whatever the store does; see `last_error`.
        """
        if self._flight is not None:
            return self._flight
        if self._batch is None:
            self._batch = self._take()
        if self._batch is None:
            return None
        loop = asyncio.get_running_loop()
        if self._behind:
            running = loop.run_in_executor(self._writer, self._catch_up, self._batch, self._derived.fresh())
        else:
            running = loop.run_in_executor(self._writer, self._write, self._batch)
        self._flight = loop.create_task(self._settle(running, self._batch))
        return self._flight

    def _take(self) -> _Batch | None:
        position = Position(self._tape.epoch, self._tape.next_sequence - 1)
        if position == self.stored or position.sequence == 0:
            return None
        drained = self._derived.drain()
        self._behind = self._behind or drained.lost
        return _Batch(drained, position)

    def _write(self, batch: _Batch) -> None:
        """In the writer thread."""
        self._store.write(batch.drained, batch.position)

    def _catch_up(self, batch: _Batch, derived: "Derived") -> None:
        """In the writer thread: make what was dropped anew from the tape, up to the batch's position."""
        stored = self._store.load()
        derived.restore(stored.states, stored.parts)
        start = stored.position.sequence + 1 if stored.position.sequence else self._tape.oldest_sequence
        end = batch.position.sequence + 1
        records, gone = replay(derived, self._tape, start, end, self._store, lambda: self._stopping)
        if self._stopping and records + gone < end - start:
            return
        if gone:
            _log.error("series store: %d records are gone by retention before it could take them", gone)
        self._store.write(derived.drain(), batch.position)

    async def _settle(self, running: asyncio.Future[None], batch: _Batch) -> None:
        began_ns = time.perf_counter_ns()
        try:
            await running
        except Exception as error:  # the boundary to a store: whatever it raises, the feed goes on
            self._refused(error)
        else:
            self.flush_time.observe((time.perf_counter_ns() - began_ns) // 1_000)
            self.flushes += 1
            self.bars_written += len(batch.drained.closed)
            self.rebuilds += self._behind
            self.stored, self._batch, self._behind = batch.position, None, False
            if self.last_error is not None:
                self.last_error, self._since_ns = None, time.time_ns()
                _log.warning("series store takes writes again")
        finally:
            self._flight = None

    def _refused(self, error: Exception) -> None:
        """Keep the batch for the next tick; a replay is begun anew, with what the tape holds by then."""
        self.errors += 1
        if self._behind:
            self._batch = None
        if self.last_error is None:
            self._since_ns = time.time_ns()
            _log.error("series store refuses a write, retrying every %s s: %r", self._interval_s, error)
        self.last_error = str(error) or type(error).__name__

    async def close(self) -> None:
        """Write everything up to now, if the store takes it, and stop. The store stays open.

        What it does not take is replayed from the tape at the next start.
        """
        if self._timer is not None:
            self._timer.cancel()
        for _ in range(2):  # the flush in flight, then the rest
            flight = self.flush()
            if flight is None:
                break
            self._stopping = self._behind
            await flight
        self._stopping = self._closed = True
        for pool in (self._writer, self._reader):
            pool.shutdown(wait=True)

    async def bars(
        self, symbol_id: int, resolution: int, from_s: int, to_s: int, limit: int, *, newest: bool = False
    ) -> SeriesAnswer:
        """Bars with from_s <= slot < to_s (unix seconds), the first `limit` or the newest, as of this moment.

        The store's, what is on its way there, and the open ones, each trade once. The store is read and the
        parts are put together in a thread. Raises TradebackError when the store cannot be read, and after
        `close`.
        """
        loop = asyncio.get_running_loop()
        ask = _Ask(symbol_id, resolution, from_s, to_s, limit, newest)
        for _ in range(ATTEMPTS_MAX):
            if self._closed:
                raise TradebackError("the series sink is closed")
            work = partial(self._read, ask, self._view(symbol_id, resolution))
            answer = await loop.run_in_executor(self._reader, work)
            if answer is not None:
                return answer
        raise TradebackError("the series store moves faster than it can be read")

    def _read(self, ask: "_Ask", view: "_View") -> SeriesAnswer | None:
        """In the reader thread; None when the store has moved beyond what memory held at the view."""
        try:
            held = self._store.closed(*ask[:5], newest=ask.newest)
        except Exception as error:  # the boundary to a store
            raise TradebackError(f"the series store cannot be read: {error}") from error
        if held.position.epoch == view.position.epoch and held.position.sequence > view.position.sequence:
            return None
        return _answer(held, view, ask)

    def _view(self, symbol_id: int, resolution: int) -> "_View":
        batch = self._batch
        return _View(
            Position(self._tape.epoch, self._tape.next_sequence - 1),
            self._derived.bars_open(symbol_id, resolution),
            self._derived.closed(symbol_id, resolution),
            batch,
        )

    def collect(self) -> Iterator[Family]:
        """Lag, flushes and their time, errors; and the counters of the derived state."""
        lag = max(0, self._tape.next_sequence - 1 - self.stored.sequence)
        yield Family("tradeback_series_lag_records", "gauge", "Records not in the series store yet.").add(lag)
        yield Family("tradeback_series_flush_seconds", "histogram", "Time of one flush to the store.").add(
            self.flush_time
        )
        waiting = self._derived.closed_count
        yield Family("tradeback_series_waiting_bars", "gauge", "Closed bars to be flushed.").add(waiting)
        counts = (
            ("flushes", self.flushes, "Flushes that the series store has taken."),
            ("flush_errors", self.errors, "Flushes that the series store has refused."),
            ("bars_written", self.bars_written, "Closed bars and late trades written."),
            ("rebuilds", self.rebuilds, "Times the store was brought up to date from the tape."),
        )
        yield from unlabelled("tradeback_series_", "counter", counts)
        derived = Family("tradeback_derived_records", "counter", "Records folded or refused, by outcome.")
        for name, value in self._derived.counters.items():
            derived.add(value, outcome=name)
        yield derived

    def health(self) -> ComponentHealth:
        """Degraded while the store refuses writes: the tape keeps what it has not taken."""
        state = "ok" if self.last_error is None else "degraded"
        return ComponentHealth("store:series", state, self._since_ns, self.last_error)  # type: ignore[arg-type]


class _Ask(NamedTuple):
    """What `bars` was asked for."""

    symbol_id: int
    resolution: int
    from_s: int
    to_s: int
    limit: int
    newest: bool


@dataclass(frozen=True, slots=True)
class _View:
    """What memory knows of one series at `position`: open, closed and not drained, in flight."""

    position: Position
    open: Bars
    closed: Bars
    flying: _Batch | None


def _covers(held: Position, position: Position) -> bool:
    """True when the store holds everything up to `position` already."""
    return held.epoch == position.epoch and held.sequence >= position.sequence


def _answer(held: Closed, view: _View, ask: _Ask) -> SeriesAnswer:
    """Put the store's bars and those of memory together, each trade once, and cut to what was asked."""
    memory = []
    if view.flying is not None and not _covers(held.position, view.flying.position):
        bars = view.flying.drained.closed
        memory.append(bars[(bars["symbol_id"] == ask.symbol_id) & (bars["resolution"] == ask.resolution)])
    if not _covers(held.position, view.position):
        memory.append(view.closed)
    memory.append(view.open)
    stored = held.rows
    if held.truncated and len(stored):
        # What the limit left out of the store's answer must not show through memory without it.
        first, last = int(stored["slot_us"][0]), int(stored["slot_us"][-1])
        memory = [
            bars[bars["slot_us"] >= first] if ask.newest else bars[bars["slot_us"] <= last] for bars in memory
        ]
    rows = merge_all([stored, *memory])
    complete = complete_mask(rows)
    slot_us = rows["slot_us"]
    inside = np.flatnonzero((slot_us >= ask.from_s * 1_000_000) & (slot_us < ask.to_s * 1_000_000))
    inside = inside[max(0, len(inside) - ask.limit) :] if ask.newest else inside[: ask.limit]
    return SeriesAnswer(rows[inside], complete[inside])
