"""The keeper of gaps: reads the tape behind its own cursor, writes down what is missing, and says so.

Every STEP_S, or two while nothing is missing, the completeness ledger gets what is new on the tape. What it
finds becomes GAP records on the tape and rows in the store of gaps, together with the position for which they
are true: after a restart the ledger goes on from there, and reading the same stretch again changes nothing.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from tradeback.derive.completeness import Completeness
from tradeback.derive.completeness_gap import (
    AGGS,
    OPEN,
    STATE_NAMES,
    STREAM_KINDS,
    TRADES,
    UNREPAIRABLE,
    Gap,
    StreamState,
)
from tradeback.exchange.intake import Intake
from tradeback.model.clock import Clock
from tradeback.model.errors import TapeError
from tradeback.model.record import KIND_NAMES, Rows, empty_rows
from tradeback.ops.beat import beat
from tradeback.ops.health import ComponentHealth
from tradeback.ops.log import Log
from tradeback.ops.metrics import Family, unlabelled
from tradeback.stores.gaps_sqlite import GapQuery, GapsSqlite
from tradeback.stores.ports import Position
from tradeback.tape.reader import RecordsGone

STEP_S = 0.25
CALM_STEPS = 2
"""A step is so much longer while nothing is missing: each holds up the trades of a moment."""
FLUSH_S = 1.0
FLUSHES_SPARED = 10
"""So many times nothing is stored while no gap changes: what a restart reads of the tape is little."""
ROWS_PER_STEP = 4_096
"""A step takes less than 0.1 ms with so many."""
ROWS_AT_ONCE = 512
"""Fewer wait for the next turn: what comes while others are read would never let it sleep."""
RESTORE_ROWS_MAX = 2_000_000
"""Records before the head from which a ledger without a store is made: 0.2 s."""
RESTORE_SLICE = 65_536
OPEN_LONG_S = 60.0
"""A gap that is open for longer makes the health degraded."""


class RestoredGaps(NamedTuple):
    """What `restore` found: streams from the store, records read behind it, why not more."""

    streams: int
    records: int
    reason: str


class GapKeeper:
    """Owned by the engine. Loop thread but for `restore`, which comes first; then `start`, at last `stop`.

    `on_change` is called whenever a gap has opened or closed.
    """

    def __init__(self, intake: Intake, store: GapsSqlite, clock: Clock, gap_after_s: float, log: Log) -> None:
        self._intake, self._store, self._clock, self._log = intake, store, clock, log
        self.ledger = Completeness(int(gap_after_s * 1e9))
        self.cursor = intake.tape.next_sequence
        self._epoch = 0
        self.on_change: list[Callable[[], None]] = []
        self._version = 0
        self._unsaid = empty_rows(0)
        """GAP records that the tape has not taken yet."""
        self._unsaved: tuple[dict[tuple[int, int], StreamState], dict[tuple[int, ...], Gap]] = ({}, {})
        self._writing = asyncio.Lock()
        self._stored = Position(0, 0)
        self._tasks: list[asyncio.Task[None]] = []
        self.last_error: str | None = None
        self._since_ns = clock.wall_ns()

    # Life.

    def restore(self) -> RestoredGaps:
        """Become what the last run knew: from the store, and the tape behind it. In a thread."""
        tape = self._intake.tape
        stored, reason = self._store.load(), ""
        start = stored.position.sequence + 1
        if stored.position.sequence:
            epoch, sequence = tape.resume(stored.position.epoch, start)
            if start > min(sequence, tape.next_sequence):
                reason = "the tape has lost records that the ledger of gaps had seen: it is made anew"
            elif start < tape.oldest_sequence:
                reason = "the tape has removed records that the ledger of gaps had not seen"
            self._epoch = epoch
            fits = start <= min(sequence, tape.next_sequence)
        else:
            fits = False
        if fits:
            self.ledger.restore(stored.states, stored.gaps)
        else:
            self._store.forget()
            start = max(tape.oldest_sequence, tape.next_sequence - RESTORE_ROWS_MAX)
        self.cursor = max(start, tape.oldest_sequence)
        begun = self.cursor
        while self.cursor < tape.next_sequence and self._read(RESTORE_SLICE):
            pass
        if not fits:
            self._settle_unknown(stored.gaps)
        return RestoredGaps(len(stored.states) if fits else 0, self.cursor - begun, reason)

    def _settle_unknown(self, stored: Iterable[Gap]) -> None:
        """Gaps that were open and of which a ledger made anew knows nothing: nobody can close them."""
        known = {(gap.symbol_id, gap.stream, *gap.name) for gap in self.ledger.gaps(OPEN)}
        known |= {(gap.symbol_id, gap.stream, *gap.name) for gap in self.ledger.gaps(UNREPAIRABLE)}
        for gap in stored:
            name = gap.symbol_id, gap.stream, *gap.name
            if gap.state == OPEN and name not in known:
                closed = replace(gap, state=UNREPAIRABLE, closed_ns=self._clock.wall_ns())
                self._unsaved[1][name] = closed

    def start(self, watch: Callable[[asyncio.Task[None]], None]) -> None:
        """Begin to read; a task that ends by itself is shown to `watch`."""
        for work in (self._keep_reading(), self._keep_storing()):
            task = asyncio.create_task(work)
            task.add_done_callback(watch)
            self._tasks.append(task)

    async def stop(self) -> None:
        """Read what is there, store it, and end. The store stays open."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.catch_up()
        self._judge()
        self.catch_up()
        await self.flush()

    async def _keep_reading(self) -> None:
        while True:
            if self.step():
                await asyncio.sleep(0)
            else:
                await beat(STEP_S * (CALM_STEPS if self.ledger.is_calm() else 1))

    async def _keep_storing(self) -> None:
        stored, spared = -1, 0
        while True:
            await beat(FLUSH_S)
            spared += 1
            if self.ledger.version != stored or self._unsaved[1] or spared >= FLUSHES_SPARED:
                stored, spared = self.ledger.version, 0
                await self.flush()

    # Reading.

    def step(self) -> bool:
        """Take the next records and judge; True when there are many more."""
        if self._intake.stalled is not None:
            return False
        read = self._read(ROWS_PER_STEP)
        self._judge()
        return read and self._intake.tape.next_sequence - self.cursor >= ROWS_AT_ONCE

    def catch_up(self) -> None:
        """Know every record there is, for one who is about to add some."""
        while self.cursor < self._intake.tape.next_sequence and self._read(RESTORE_SLICE):
            pass

    def _read(self, rows_max: int) -> bool:
        tape = self._intake.tape
        try:
            self._epoch, rows = tape.view_with_epoch(self.cursor, rows_max)
        except RecordsGone as error:
            # The ledger sees a jump of ids where records are gone, and that is what it is.
            self._log.warning("the tape was faster than the ledger of gaps", error=str(error))
            self.cursor = max(error.oldest_sequence, self.cursor + 1)
            return True
        self.ledger.feed(rows, self.cursor)
        self.cursor += len(rows)
        return len(rows) > 0

    def _judge(self) -> None:
        fresh = self.ledger.sweep(self._clock.wall_ns())
        if len(fresh):
            self._unsaid = np.concatenate([self._unsaid, fresh])
        if len(self._unsaid):
            self._say()
        if self.ledger.version != self._version:
            self._version = self.ledger.version
            for tell in self.on_change:
                tell()

    def _say(self) -> None:
        """Put what has changed on the tape. What it refuses is said again: twice does no harm."""
        rows, self._unsaid = self._unsaid, empty_rows(0)
        self._log_changes(rows)
        try:
            self._intake.append(rows)
        except TapeError:
            self._unsaid = rows

    def _log_changes(self, rows: Rows) -> None:
        for state, name in STATE_NAMES.items():
            mine = rows[rows["quantity"] == state]
            if len(mine):
                tell = self._log.warning if state != 2 else self._log.info
                tell(
                    f"gaps {name}",
                    gaps=len(mine),
                    missing=int(mine["price"].sum()),
                    symbols=len(set(mine["symbol_id"].tolist())),  # np.unique imports for 7 ms at first
                )

    # Storing.

    async def flush(self) -> None:
        """Store what has changed. What the store refuses is stored with the next."""
        async with self._writing:
            states, gaps = self._unsaved
            fresh = self.ledger.changes()
            states |= {(state.symbol_id, state.stream): state for state in fresh[0]}
            gaps |= {(gap.symbol_id, gap.stream, *gap.name): gap for gap in fresh[1]}
            position = Position(self._epoch, self.cursor - 1)
            if position == self._stored and not gaps and not states:
                return
            self._unsaved = states, gaps
            work = list(states.values()), list(gaps.values()), position
            try:
                await asyncio.to_thread(self._store.write, *work)
            except Exception as error:  # the boundary to a store: whatever it raises, the feed goes on
                if self.last_error is None:
                    self._since_ns = self._clock.wall_ns()
                    self._log.error("the store of gaps refuses a write", error=str(error))
                self.last_error = str(error) or type(error).__name__
                return
            self._stored, self._unsaved = position, ({}, {})
            if self.last_error is not None:
                self.last_error, self._since_ns = None, self._clock.wall_ns()

    async def find(self, query: GapQuery) -> list[Gap]:
        """Gaps as of now, in the order in which they were noted."""
        await self.flush()
        return await asyncio.to_thread(self._store.find, query)

    # Telling.

    def health(self) -> ComponentHealth:
        """Degraded while the store refuses, or a gap is open for longer than OPEN_LONG_S."""
        gaps = self.ledger.gaps(OPEN)
        age_s = self._oldest_s(gaps)
        words = None
        if gaps:
            missing = sum(gap.missing for gap in gaps)
            words = f"{len(gaps)} open gaps, {missing} ids missing, the oldest for {age_s:.0f} s"
        if self.last_error is not None:
            words = f"the store refuses: {self.last_error}"
        bad = self.last_error is not None or age_s > OPEN_LONG_S
        since_ns = min((gap.opened_ns for gap in gaps), default=self._since_ns) if bad else self._since_ns
        return ComponentHealth(
            "gaps", "degraded" if bad else "ok", since_ns, words, lag=age_s if gaps else None
        )

    def _oldest_s(self, gaps: list[Gap]) -> float:
        begun_ns = min((gap.opened_ns for gap in gaps), default=None)
        return 0.0 if begun_ns is None else max(0.0, (self._clock.wall_ns() - begun_ns) / 1e9)

    def collect(self) -> Iterator[Family]:
        """How many gaps, what is missing, for how long; and what came twice."""
        ledger = self.ledger
        opened, settled = ledger.gaps(OPEN), ledger.gaps(UNREPAIRABLE)
        now = Family("tradeback_gaps_open", "gauge", "Gaps that are open.")
        missing = Family("tradeback_gap_missing_ids", "gauge", "Ids that are missing, by state of their gap.")
        for stream in (TRADES, AGGS):
            kind = KIND_NAMES[STREAM_KINDS[stream]]
            now.add(sum(gap.stream == stream for gap in opened), stream=kind)
            for state, gaps in (("open", opened), ("unrepairable", settled)):
                total = sum(gap.missing for gap in gaps if gap.stream == stream)
                missing.add(total, stream=kind, state=state)
        yield now
        yield missing
        yield Family("tradeback_gap_oldest_seconds", "gauge", "Age of the oldest open gap.").add(
            self._oldest_s(opened)
        )
        yield Family(
            "tradeback_gap_lag_records", "gauge", "Records the ledger of gaps has not read yet."
        ).add(self._intake.tape.next_sequence - self.cursor)
        counts = (
            ("gaps_opened", ledger.opened, "Gaps opened."),
            ("gaps_repaired", ledger.repaired, "Gaps closed because every id came."),
            ("gaps_unrepairable", ledger.unrepairable, "Gaps given up."),
            ("doubled_ids", ledger.doubles, "Trades and aggregates that stand on the tape twice: a fault."),
        )
        yield from unlabelled("tradeback_", "counter", counts)
