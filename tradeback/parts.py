"""The parts of an engine that stand on kernels: made once these are loaded, see `engine`.

Importing this module compiles or loads every kernel, so it happens in a thread behind the open port.
"""

import asyncio
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tradeback.derive.row_kernel import apply_rows
from tradeback.derive.state import Derived
from tradeback.exchange.backfill import Backfill
from tradeback.exchange.catalogue import Catalogue
from tradeback.exchange.clock_offset import ClockOffset
from tradeback.exchange.history import History
from tradeback.exchange.intake import Intake
from tradeback.exchange.pool import Pool
from tradeback.exchange.repair import Repair
from tradeback.exchange.repair_gaps import GapKeeper
from tradeback.exchange.rest import Rest
from tradeback.exchange.stall_watch import StallWatch
from tradeback.exchange.standin import StandIns
from tradeback.exchange.streams import plan_lines
from tradeback.exchange.wanted import Source, Wanted
from tradeback.kernel.jit import address
from tradeback.model.clock import Clock
from tradeback.model.config import Config
from tradeback.model.symbols import Symbol, SymbolTable
from tradeback.ops import memory
from tradeback.ops.log import get_log
from tradeback.path.path import Path as HotPath
from tradeback.processes.series import RecordedSeries, StoreOfAnother
from tradeback.sinks.series import SeriesSink
from tradeback.sinks.series_replay import Restored, restore
from tradeback.stores import series_lock
from tradeback.stores.gaps_sqlite import GapsSqlite
from tradeback.stores.ports import SeriesStore, SymbolIds, SymbolRecord
from tradeback.stores.registry_rows import record_of
from tradeback.tape.writer import Tape

RESTORE_ROWS_MAX = 2_000_000
"""Records before the head from which the arbiter learns what was seen; 0.1 s of a start at the most."""
RESTORE_SLICE = 65_536
STAND_IN_BACK_ROWS = 65_536


class Parts:
    """Everything behind the port. Loop thread, but for `restore`."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        path: HotPath,
        tape: Tape,
        symbols: SymbolTable,
        series: SeriesStore,
        rest: Rest,
        wanted: Sequence[Symbol],
        recorded: RecordedSeries | None = None,
        gap_store: GapsSqlite | None = None,
    ) -> None:
        """`recorded`: bars are kept by a recorder, which this asks for them; without one by a sink here.

        `gap_store`: where what is missing is kept; without it nothing is looked for or repaired.
        """
        self._clock, self._tape, self._symbols, self._series = clock, tape, symbols, series
        self.derived = Derived(max(64, 2 * len(symbols)))
        self.intake = Intake(tape, path)
        path.derive(self.derived, address(apply_rows), self.derived.context_address)
        for symbol in symbols:
            self.derived.add_symbol(symbol)
        for symbol in wanted:
            self.intake.add_symbol(symbol)
        plans = plan_lines(
            [symbol.symbol for symbol in wanted], config.exchange.lines, config.exchange.max_connections
        )
        self.pool = Pool(plans, config.exchange, clock, self.intake, symbols, get_log("line"))
        self.stalls = StallWatch(
            self.pool.lines, self.intake, symbols, rest, clock, config.exchange, get_log("watchdog")
        )
        self.clock_offset = ClockOffset(
            rest.time_us, config.exchange, clock, get_log("clock"), self.intake.lag
        )
        self._recorded, self._data_dir = recorded is not None, config.data_dir
        self._lock: io.FileIO | None = None
        self.sink: SeriesSink | RecordedSeries = recorded or SeriesSink(self.derived, series, tape)
        if recorded is not None:
            recorded.derived = self.derived
        # From a little before the head: aggregates that the last run had no time to judge.
        start = max(tape.oldest_sequence, tape.next_sequence - STAND_IN_BACK_ROWS)
        self.gaps: GapKeeper | None = None
        self.repair: Repair | None = None
        if gap_store is not None:
            exchange = config.exchange
            self.gaps = GapKeeper(self.intake, gap_store, clock, exchange.gap_after_s, get_log("gaps"))
            self.repair = Repair(self.gaps, self.intake, rest, symbols, clock, exchange, get_log("repair"))
        ledger = self.gaps.ledger if self.gaps is not None else None
        self.stand_ins = StandIns(self.intake, symbols, config.exchange.stand_in_after_s, start, ledger)
        self._rest, self._config = rest, config
        self.history = self._history_of(wanted)
        self.backfill = Backfill(rest, series, clock, self.derived.newest_us, get_log("backfill"))
        self.history.on_covered.append(self.backfill.note)
        self._configured = [symbol.symbol for symbol in wanted]
        self.wanted: Wanted | None = None
        """What market watches add to the symbols; see `watch_symbols`."""
        self._tasks: list[asyncio.Task[None]] = []

    def _history_of(self, symbols: Sequence[Symbol]) -> History:
        features, log = self._config.feature, get_log("history")
        return History(
            symbols, self._rest, self.intake, self.derived, self._series, self._clock, features, log
        )

    def watch_symbols(
        self,
        sources: Sequence[Source],
        ids: SymbolIds,
        records: Sequence[SymbolRecord],
        also: Iterable[str] = (),
    ) -> Wanted:
        """Let market watches, as `sources` read them, decide what is subscribed besides. Before `start`.

        `records`: all that the exchange lists; empty when it is away, then what the registry says of symbols
        has to do. `also`: symbols that wait for their ids.
        """
        held = (record_of(symbol)._replace(is_active=True) for symbol in self._symbols)
        catalogue = Catalogue(self._rest, records or held, self._clock)
        who = self.pool, self.intake, self.derived, self.stalls
        self.wanted = Wanted(
            self._configured, also, sources, catalogue, ids, self._symbols, who, self._learn, self._clock,
            self._config.exchange, get_log("symbols"),
        )  # fmt: skip
        return self.wanted

    async def _learn(self, symbols: Sequence[Symbol]) -> None:
        """The history of symbols that came later."""
        history = self._history_of(symbols)
        history.on_covered = self.history.on_covered
        await history.run()

    def restore(self) -> Restored:
        """What the last run knew: derived series from store and tape, seen ids from the tape. In a thread."""
        tape = self._tape
        start = max(tape.oldest_sequence, tape.next_sequence - RESTORE_ROWS_MAX)
        while start < tape.next_sequence:
            rows = tape.read(start, RESTORE_SLICE)
            if not len(rows):
                break
            self.intake.restore(rows)
            start += len(rows)
        if self.gaps is not None:
            self.gaps.restore()
            self.stand_ins.restore()
        if not self._recorded:
            self._lock = series_lock.take(Path(self._data_dir))
        store = StoreOfAnother(self._series.load()) if self._recorded else self._series
        return restore(self.derived, store, tape, tape.next_sequence)

    def start(self, fail: Callable[[BaseException], None]) -> None:
        """Bring the lines up and begin all background work; a bug in any of it goes to `fail`."""

        def watch(task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()
            if error is not None:
                fail(error)

        self.sink.start()
        self.pool.start(watch)
        self.stalls.start().add_done_callback(watch)
        if self.wanted is not None:
            self.wanted.start(watch)
        if self.gaps is not None and self.repair is not None:
            self.gaps.start(watch)
            self.repair.start(watch)
        for work in (self.stand_ins.run(self._clock), self._learn_history(), self.clock_offset.run()):
            task = asyncio.create_task(work)
            task.add_done_callback(watch)
            self._tasks.append(task)

    async def stop(self) -> None:
        """Lines first, then background work, then the last flush."""
        if self.wanted is not None:
            await self.wanted.stop()
        await self.stalls.stop()
        await self.pool.stop()
        await self.backfill.close()
        if self.repair is not None:
            await self.repair.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.gaps is not None:
            await self.gaps.stop()
        self.intake.close()
        await self.sink.close()
        if self._lock is not None:
            self._lock.close()

    async def _learn_history(self) -> None:
        await self.pool.delivering()
        await self.history.run()
        memory.give_back()
