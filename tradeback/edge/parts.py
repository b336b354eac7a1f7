"""The parts of an edge that stand on kernels: what an engine has, without lines, repair and history."""

import asyncio
import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from tradeback.derive.row_kernel import apply_rows
from tradeback.derive.state import Derived
from tradeback.exchange.intake import Intake
from tradeback.exchange.repair_gaps import GapKeeper
from tradeback.kernel.jit import address
from tradeback.model.clock import Clock
from tradeback.model.config import Config
from tradeback.model.errors import TapeError
from tradeback.model.record import Rows, empty_rows
from tradeback.model.symbols import Symbol, SymbolTable
from tradeback.ops.log import get_log
from tradeback.path.path import Path as HotPath
from tradeback.sinks.series import SeriesSink
from tradeback.sinks.series_replay import Restored, restore
from tradeback.stores import series_lock
from tradeback.stores.gaps_sqlite import GapsSqlite
from tradeback.stores.ports import SeriesStore
from tradeback.tape.writer import Tape

NEVER_S = 1e9
"""The hub judges what is missing and says so on its tape; a ledger here only follows that."""


class EdgeGaps(GapKeeper):
    """Knows what the hub knows to be missing. Puts nothing on the tape: it is the hub's."""

    def _say(self) -> None:
        self._unsaid = empty_rows(0)


class EdgeParts:
    """Everything behind the port. Loop thread, but for `restore`."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        path: HotPath,
        tape: Tape,
        symbols: SymbolTable,
        series: SeriesStore,
        gap_store: GapsSqlite,
    ) -> None:
        self.tape, self._series, self._data_dir = tape, series, config.data_dir
        self.derived = Derived(max(64, 2 * len(symbols)))
        self.intake = Intake(tape, path)
        path.derive(self.derived, address(apply_rows), self.derived.context_address)
        self.learn(symbols)
        self.sink = SeriesSink(self.derived, series, tape)
        self.gaps = EdgeGaps(self.intake, gap_store, clock, NEVER_S, get_log("gaps"))
        self.serving = False
        """Records go to feed and derived series, too; before that onto the tape only."""
        self.copying = asyncio.Lock()
        """Held while records are put on the tape."""
        self._lock: io.FileIO | None = None

    def learn(self, symbols: Iterable[Symbol]) -> None:
        """Follow these symbols, too, before their first record."""
        for symbol in symbols:
            self.derived.add_symbol(symbol)

    async def put(self, rows: Rows) -> None:
        """Put the hub's records on the tape, behind its last one, and serve them. Waits for a full disk."""
        async with self.copying:
            first = self.tape.next_sequence
            while (done := self.tape.next_sequence - first) < len(rows):
                await self.intake.flowing()
                done = self.tape.next_sequence - first  # what waited for the disk is on the tape now
                try:
                    if self.serving:
                        self.intake.append(np.ascontiguousarray(rows[done:]))
                    else:
                        self.tape.append(rows[done:])
                except TapeError:
                    if self.intake.stalled is None:
                        raise

    def restore(self) -> Restored:
        """What the store holds, and the tape behind it. In a thread, while nothing is put on the tape."""
        self.gaps.restore()
        return restore(self.derived, self._series, self.tape, self.tape.next_sequence)

    def lock(self) -> None:
        """Nobody else writes the series store. Raises StartupError."""
        self._lock = series_lock.take(Path(self._data_dir))

    def start(self, fail: Callable[[BaseException], None]) -> None:
        """Begin the work in the background; a bug in it goes to `fail`."""

        def watch(task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()
            if error is not None:
                fail(error)

        self.serving = True
        self.sink.start()
        self.gaps.start(watch)

    async def stop(self) -> None:
        """The last flush. The hub has been left before."""
        if self.serving:
            await self.gaps.stop()
            self.intake.close()
        await self.sink.close()
        if self._lock is not None:
            self._lock.close()
