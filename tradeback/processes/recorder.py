"""The recorder: reads the tape's files behind its own position and keeps the series store up to date.

A process of its own, so that a slow store never shares the interpreter lock with the hot path. It is
the only one that writes bars, and answers the engine's questions for them. Killed at any moment it goes
on from the position that stands in the store, beside what was written with it.
"""

import asyncio
import importlib
import io
import os
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tradeback.derive.state import Derived
from tradeback.model.errors import TapeError, TradebackError
from tradeback.model.record import Rows
from tradeback.model.symbols import SYMBOL_IDS_MAX, SymbolTable
from tradeback.ops.clock import SystemClock
from tradeback.ops.log import Log
from tradeback.ops.runtime import Runtime
from tradeback.processes.ledger import ReadLedger
from tradeback.processes.link import Link, Listener, Message
from tradeback.processes.member import Reporter, symbols_of
from tradeback.processes.page import SharedPage
from tradeback.processes.series import pack_bars
from tradeback.processes.setup import Setup, socket_of
from tradeback.sinks.series import SeriesSink
from tradeback.sinks.series_replay import SLICE_ROWS, restore
from tradeback.sinks.servers import server_drains
from tradeback.stores import series_lock
from tradeback.stores.series_sqlite import SeriesSqlite
from tradeback.tape.reader import RecordsGone, TapeReader

if TYPE_CHECKING:
    from tradeback.processes.history import HistoryServer
    from tradeback.sinks.drain import Drain

POLL_S = 0.05


class ReadTape:
    """The tape up to where it has been read: to `SeriesSink` it is a tape that ends there."""

    def __init__(self, reader: TapeReader) -> None:
        self._reader = reader
        self.epoch, self.next_sequence = 0, 1

    @property
    def oldest_sequence(self) -> int:
        """Sequence of the oldest record held."""
        return self._reader.oldest_sequence

    def read_with_epoch(self, sequence: int, rows_max: int) -> tuple[int, Rows]:
        """See `TapeReader`."""
        return self._reader.read_with_epoch(sequence, rows_max)

    def resume(self, epoch: int, sequence: int) -> tuple[int, int]:
        """See `TapeReader`."""
        return self._reader.resume(epoch, sequence)


class Recorder:
    """`start`, `work` until cancelled, `stop`. Loop thread, but for the restoring."""

    def __init__(self, setup: Setup, log: Log) -> None:
        folder = Path(setup.config.data_dir)
        self._folder, self._log, self._config = folder, log, setup.config
        self._page = SharedPage(setup.page_fd)
        self._generation = self._page.generation
        self._reader = TapeReader(folder / "tape")
        self.tape = ReadTape(self._reader)
        self.store = SeriesSqlite(folder / "series.sqlite")
        self.derived = Derived()
        self._known = np.zeros(SYMBOL_IDS_MAX + 1, np.bool_)
        self._symbols = SymbolTable()
        self._learn_symbols()
        self.sink = SeriesSink(self.derived, self.store, self.tape)
        self._listener = Listener(socket_of(setup.listen_fd), self._greet, self._on_message)
        self._reporter = Reporter(self._listener, self._more)
        self._reporter.components.append(self.sink)
        self._reporter.collectors += [self.sink, Runtime(setup.name)]
        self._ledger = ReadLedger(setup.config.exchange.gap_after_s)
        self._history: HistoryServer | None = None
        """Made when the first connection comes: until then it costs no memory."""
        self._making_history = asyncio.Lock()
        self._drains: list[Drain] = []
        self._answering: set[asyncio.Task[None]] = set()
        self._ready = asyncio.Event()
        self._lock: io.FileIO | None = None

    async def start(self) -> None:
        """What the store knows, and the tape behind it."""
        self._lock = await asyncio.to_thread(series_lock.take, self._folder)
        end = self._page.published
        restored = await asyncio.to_thread(restore, self.derived, self.store, self._reader, end)
        self._log.info("restored", how=restored.how, records=restored.records, reason=restored.reason or None)
        self.tape.epoch, self.tape.next_sequence = self._reader.resume(0, end)
        await asyncio.to_thread(self._ledger.restore, self._folder, self._reader, end)
        self.sink.start()
        self._start_drains()
        self._ready.set()
        self._reporter.start()

    def _start_drains(self) -> None:
        """The servers that are configured, each behind a cursor of its own."""
        known = partial(symbols_of, self._folder)
        self._drains = server_drains(
            self._config,
            self._reader,
            lambda: self.tape.next_sequence,
            self.store,
            self.derived,
            known,
            SystemClock(),
        )
        for drain in self._drains:
            drain.start()
            self._reporter.components.append(drain)
            self._reporter.collectors.append(drain)

    async def work(self) -> None:
        """Read on for ever. Raises TradebackError when the tape has lost what was read already."""
        while True:
            try:
                self.read_on(self._page.published)
            except RecordsGone as error:
                gone = error.oldest_sequence - self.tape.next_sequence
                self._log.error("records are gone by retention before they could be recorded", records=gone)
                self.tape.next_sequence = error.oldest_sequence
            await asyncio.sleep(POLL_S)

    def read_on(self, end: int) -> None:
        """Fold the records before `end`."""
        tape = self.tape
        while tape.next_sequence < end:
            epoch, rows = tape.read_with_epoch(tape.next_sequence, min(SLICE_ROWS, end - tape.next_sequence))
            # After the records: whoever wrote them was of this generation or an earlier one.
            if self._page.generation != self._generation:
                self._meet_engine()
            if not len(rows):
                return
            if not self._known[rows["symbol_id"]].all():
                self._learn_symbols()
                self._known[rows["symbol_id"]] = True
            rows = np.ascontiguousarray(rows)
            self.derived.on_rows(int(rows.ctypes.data), len(rows))
            self._ledger.feed(rows, tape.next_sequence)
            tape.epoch, tape.next_sequence = epoch, tape.next_sequence + len(rows)

    async def stop(self) -> None:
        """Everything up to the tape's end into the store."""
        self._reporter.close()
        if self._history is not None:
            await self._history.stop()
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)
        self._listener.close()
        if self._ready.is_set():
            try:
                self.read_on(self._page.published)
            except TapeError as error:
                self._log.warning("the end of the tape cannot be read", error=str(error))
        await self.sink.close()
        for drain in self._drains:
            await drain.stop()
        self.store.close()
        if self._lock is not None:
            self._lock.close()

    def _meet_engine(self) -> None:
        """A new engine has come: with symbols, and perhaps without the tail of the tape."""
        self._generation = self._page.generation
        self._learn_symbols()
        tape = self.tape
        if self._reader.resume(tape.epoch, tape.next_sequence)[1] < tape.next_sequence:
            raise TradebackError(
                "the tape has lost records that were recorded: beginning anew from the store"
            )

    def _learn_symbols(self) -> None:
        for symbol in symbols_of(self._folder):
            self.derived.add_symbol(symbol)
            self._symbols.put(symbol)
            self._known[symbol.id] = True

    async def _history_server(self) -> "HistoryServer":
        async with self._making_history:
            if self._history is None:
                module = await asyncio.to_thread(importlib.import_module, "tradeback.processes.history")
                made: HistoryServer = module.of_recorder(
                    self._config, self._symbols, self.tape, self.derived, self.sink, self._ledger,
                    lambda: list(self._listener.links), self._catch_up,
                )  # fmt: skip
                await made.start()
                self._reporter.collectors.append(made.requests)
                self._history = made
            return self._history

    async def _take_connection(self, link: Link, descriptor: int, data: bytes) -> None:
        history = await self._history_server()
        history.take(link, descriptor, data)

    def _catch_up(self) -> None:
        """Read up to the newest record, for an answer."""
        self.read_on(self._page.published)

    def _greet(self, link: Link) -> None:
        if self._history is not None:
            self._history.klines.met()
        if self._ready.is_set():
            self._reporter.send_to(link)

    def _more(self) -> dict[str, Any]:
        return {"behind": max(0, self._page.published - self.tape.next_sequence)}

    def _on_message(self, link: Link, message: Message, behind: bytes, files: list[int]) -> None:
        for descriptor in files:
            if self._ready.is_set():
                self._answer_in(self._take_connection(link, descriptor, behind))
            else:
                link.send({"back": True}, behind, (descriptor,))
                os.close(descriptor)
        if files or "bars" not in message:
            if self._history is not None:
                self._history.klines.take(message)
            return
        self._answer_in(self._answer(link, message))

    def _answer_in(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, link: Link, message: Message) -> None:
        """Bars as of the moment of the question."""
        number = message["bars"]
        await self._ready.wait()
        try:
            self.read_on(message["next_sequence"])
            *ask, newest = message["ask"]
            answer = await self.sink.bars(*ask, newest=newest)
        except TradebackError as error:
            link.send({"bars": number, "error": str(error)})
        else:
            link.send(*pack_bars(number, answer.rows, answer.complete))
