"""A hub without an exchange: a tape, the drain that publishes it, answers on the bus; and a copy of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import numpy as np

from tests.sinks.drain_world import SystemTime
from tests.sinks.nats_world import (
    LOG,
    SYMBOLS,
    WAIT_S,
    config_of,
    connected,
    drained,
    drains_of,
    node_name,
    open_tape,
    rows_of,
)
from tradeback.api.bus_answers import BusAnswers
from tradeback.api.context import ServingContext
from tradeback.derive.state import Derived
from tradeback.edge.hub import HubTape
from tradeback.edge.turn import Turn
from tradeback.model.config import Config
from tradeback.model.record import Rows
from tradeback.model.symbols import SymbolTable
from tradeback.ops.log import get_log
from tradeback.sinks.drain import Drain
from tradeback.sinks.series import SeriesSink
from tradeback.stores.bus_nats import NatsBus
from tradeback.stores.nats_stream import TapeStream
from tradeback.stores.series_sqlite import SeriesSqlite
from tradeback.tape import follow
from tradeback.tape.reader import TapeReader
from tradeback.tape.writer import Tape


class Hub:
    """What an engine is to its edges."""

    def __init__(self, folder: Path, url: str, node: str | None = None) -> None:
        self.config: Config = config_of(folder, url, node or node_name())
        self.folder, self.node = folder, self.config.nats.node
        folder.mkdir(parents=True, exist_ok=True)
        self.tape = open_tape(folder)
        self.seed = 0
        self.drain: Drain | None = None

    def append(self, count: int) -> None:
        """Further records."""
        self.seed += 1
        self.tape.append(rows_of(count, self.seed))

    async def publish(self) -> None:
        """Until the stream has the tape's end."""
        if self.drain is None:
            self.drain = drains_of(self.config)["nats:ticks"]
            self.drain.start()
        await drained(self.drain, self.tape)

    async def stop(self) -> None:
        """The drain and the tape."""
        if self.drain is not None:
            await self.drain.stop()
            self.drain = None
        self.tape.close()


class Copy:
    """An edge's tape and what fills it."""

    def __init__(self, hub: Hub, folder: Path, bus: NatsBus) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        follow.settle(folder / "tape")
        self.tape = open_tape(folder)
        self.reader = TapeReader(folder / "tape")
        self.hub = HubTape(
            bus, hub.config.nats, self.tape, self.reader.epochs, self._put, SystemTime(), get_log("hub")
        )
        self.task = asyncio.create_task(self.hub.run())

    async def _put(self, rows: Rows) -> None:
        self.tape.append(np.ascontiguousarray(rows))

    async def until(self, sequence: int) -> None:
        """Until the tape ends before `sequence`; raises what ended the following."""
        async with asyncio.timeout(WAIT_S):
            while self.tape.next_sequence < sequence:
                if self.task.done():
                    self.task.result()
                await asyncio.sleep(0.005)

    async def caught_up(self) -> None:
        """Until the stream's end is reached once; raises what ended the following."""
        waiting = asyncio.create_task(self.hub.caught_up.wait())
        async with asyncio.timeout(WAIT_S):
            await asyncio.wait({waiting, self.task}, return_when=asyncio.FIRST_COMPLETED)
        if self.task.done():
            self.task.result()

    async def turned(self) -> Turn:
        """The turn that ends the following."""
        async with asyncio.timeout(WAIT_S):
            done, _ = await asyncio.wait({self.task})
        error = done.pop().exception()
        assert isinstance(error, Turn), error
        return error

    async def stop(self) -> None:
        """Both."""
        self.task.cancel()
        with suppress(asyncio.CancelledError, Turn):
            await self.task
        self.tape.close()


@asynccontextmanager
async def copying(hub: Hub, folder: Path) -> AsyncIterator[Copy]:
    """A copy over a connection of its own; turned as often as the hub says."""
    async with connected(hub.config.nats) as bus:
        copy = Copy(hub, folder, bus)
        try:
            yield copy
        finally:
            await copy.stop()


async def settle(hub: Hub, folder: Path) -> None:
    """Copy everything there is, whatever turns that takes."""
    held: Turn | None = None
    for _ in range(3):
        if held is not None:
            held.apply(folder / "tape")
        async with copying(hub, folder) as copy:
            try:
                async with asyncio.timeout(WAIT_S):
                    while (copy.tape.epoch, copy.tape.next_sequence) != (
                        hub.tape.epoch,
                        hub.tape.next_sequence,
                    ):
                        if copy.task.done():
                            copy.task.result()
                        await asyncio.sleep(0.005)
                return
            except Turn as turn:
                held = turn
    raise AssertionError(f"it turns again and again: {held}")


def check_same(hub: Tape, folder: Path) -> None:
    """The copy holds what the hub's tape holds, from where it begins."""
    with open_tape(folder) as tape:
        at = tape.oldest_sequence
        assert tape.next_sequence == hub.next_sequence
        while at < tape.next_sequence:
            epoch, rows = tape.read_with_epoch(at, 2_000)
            other, truth = hub.read_with_epoch(at, len(rows))
            assert (epoch, rows.tobytes()) == (other, truth[: len(rows)].tobytes())
            at += len(rows)


class Answering:
    """The hub's answers, and the series that they come from."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.derived = Derived()
        for symbol in SYMBOLS:
            self.derived.add_symbol(symbol)
        self.store = SeriesSqlite(hub.folder / "series.sqlite")
        self.sink = SeriesSink(self.derived, self.store, hub.tape)
        self.context = ServingContext(
            config=hub.config, clock=SystemTime(), symbols=SymbolTable.of(SYMBOLS), tape=hub.tape,
            derived=self.derived, series=self.sink,
        )  # fmt: skip
        self.answers = BusAnswers(
            self.context, NatsBus(hub.config.nats, LOG, "answers"), hub.node, self.store.load
        )
        self._at = 1

    async def fold(self) -> None:
        """Derive from what is new on the tape, and store it."""
        tape = self.hub.tape
        while self._at < tape.next_sequence:
            rows = np.ascontiguousarray(tape.read(self._at, 10_000))
            self.derived.on_rows(int(rows.ctypes.data), len(rows))
            self._at += len(rows)
        flush = self.sink.flush()
        if flush is not None:
            await flush

    async def stop(self) -> None:
        """Everything."""
        await self.answers.stop()
        await self.sink.close()
        self.store.close()


async def trim(hub: Hub, keep: int) -> None:
    """Let the stream forget all but its newest messages, as retention does."""
    async with connected(hub.config.nats) as bus:
        await bus.jetstream(5.0).purge_stream(TapeStream(bus, hub.config.nats).name, keep=keep)
