"""An engine whose exchange is a recording or a range of a tape. Beside `engine`: what differs, and no more.

    recording  -> SocketReader -> ingest kernel -> tape -> feed, derived series -> API
    tape range -> arbitration ------------------^

There are no lines, no REST and no history from the exchange. What runs on a timer in a live engine and
writes to the tape (stand-ins) is driven by the recorded time instead, so that with `keep_times` every
replay of a source makes the same tape, bit for bit, but for epoch and checksums.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec
import numpy as np

from tradeback import kernel_cache
from tradeback.api.context import ServingContext
from tradeback.engine import FIRST_COMPILE, Engine, _load_kernels
from tradeback.exchange.rest import Rest
from tradeback.feed.server import Feed
from tradeback.model.clock import Clock
from tradeback.model.config import Config
from tradeback.model.errors import StartupError
from tradeback.model.record import Rows
from tradeback.model.symbols import Symbol
from tradeback.ops.clock import SystemClock
from tradeback.ops.health import ComponentHealth
from tradeback.recording.playback import RecordedClock, Span, batches, reads
from tradeback.recording.reading import Source
from tradeback.recording.tape_range import TapeSpan, records, runs
from tradeback.stores.ports import SymbolRecord
from tradeback.stores.registry import OpenRegistry
from tradeback.stores.registry_sqlite import RegistrySqlite
from tradeback.stores.series_sqlite import SeriesSqlite
from tradeback.tape.reader import TapeReader

if TYPE_CHECKING:
    from tradeback.exchange.standin import StandIns
    from tradeback.parts import Parts
    from tradeback.recording.replay_line import ReplayLine

REGISTRY_FILE = "registry.sqlite"
STAND_IN_STEP_NS = 250_000_000
"""How often stand-ins are judged, in recorded time."""
SLICE_S = 0.004
"""The loop belongs to subscribers and the API after this long."""
LEAP_NS = 60_000_000_000
"""A longer silence is leapt over."""
CONNECTIONS_MAX = 100_000
_T = TypeVar("_T")


@dataclass(slots=True)
class Progress:
    """How far a replay is."""

    frames: int = 0
    """Frames of a recording, records of a tape."""
    now_ns: int = 0
    """Recorded time."""
    refused: int = 0
    """Records of a tape that were not taken because their ids were known."""
    wall_s: float = 0.0
    done: bool = False


class Play(Protocol):
    """A source, ready to be played into an engine's parts."""

    def symbols(self, registry: RegistrySqlite) -> list[Symbol]:
        """The symbols with their wire ids in the new registry."""

    async def run(self, engine: "ReplayEngine", parts: "Parts") -> None:
        """Play to the end."""


@dataclass(slots=True)
class Pace:
    """When what was received at a recorded time is due. `speed` 0: at once."""

    speed: float
    _base_ns: int = 0
    _started: float = 0.0
    _last_ns: int = 0
    _slice_end: float = field(default_factory=time.monotonic)

    async def reach(self, recv_ns: int) -> None:
        """Wait until it is due; let the loop do its other work now and then."""
        now = time.monotonic()
        if self.speed:
            if recv_ns - self._last_ns > LEAP_NS or not self._last_ns:
                self._base_ns, self._started = recv_ns, now
            self._last_ns = recv_ns
            ahead_s = (recv_ns - self._base_ns) / 1e9 / self.speed - (now - self._started)
            if ahead_s > 0.0005:
                await asyncio.sleep(ahead_s)
                self._slice_end = time.monotonic() + SLICE_S
                return
        if now >= self._slice_end:
            await asyncio.sleep(0)
            self._slice_end = time.monotonic() + SLICE_S


class PlayRecording:
    """Raw frames into the reader of sockets."""

    def __init__(
        self, sources: Sequence[Source], described: Sequence[SymbolRecord], span: Span, filtered: bool
    ) -> None:
        self._sources, self._described, self._span = sources, described, span
        self._filter = [record.symbol for record in described] if filtered else None
        self.lines: list[ReplayLine] = []

    def symbols(self, registry: RegistrySqlite) -> list[Symbol]:
        """New ids, in the order of the recording's description."""
        return registry.assign(self._described)

    async def run(self, engine: "ReplayEngine", parts: "Parts") -> None:
        """See `Play`."""
        from tradeback.recording.replay_line import ReplayLine

        clock, progress = engine.clock, engine.played
        self.lines = lines = [
            ReplayLine(parts.intake, clock, engine.symbols, source.line) for source in self._sources
        ]
        assert engine.stand_ins is not None
        judge = _Judge(engine.stand_ins, engine.config.exchange.stand_in_after_s)
        found = batches(reads(self._sources, self._span, self._filter))
        async for batch in _ahead(found):
            for read in batch:
                await engine.pace.reach(read.recv_ns)
                engine.show_time(read.recv_ns)
                judge.at(read.recv_ns if engine.keep_times else clock.wall_ns())
                lines[read.source].push(read.data)
                progress.frames += read.frames
                if parts.intake.stalled is not None:
                    await parts.intake.flowing()
        # What came last has its time of grace too.
        last_ns = (progress.now_ns if engine.keep_times else clock.wall_ns()) + judge.grace_ns
        engine.show_time(last_ns)
        judge.finish(last_ns)


class _Judge:
    """Stand-ins by recorded time: at most once per step, at points that only the source decides."""

    def __init__(self, stand_ins: "StandIns", grace_s: float) -> None:
        self._step, self._next_ns = stand_ins.step, 0
        self.grace_ns = int(grace_s * 1e9) + STAND_IN_STEP_NS

    def at(self, now_ns: int) -> None:
        """Before what was received at `now_ns`."""
        if now_ns >= self._next_ns:
            self._next_ns = now_ns - now_ns % STAND_IN_STEP_NS + STAND_IN_STEP_NS
            self.finish(now_ns)

    def finish(self, now_ns: int) -> None:
        """Judge everything that is old enough."""
        while self._step(now_ns):
            pass


class PlayTape:
    """Records of another tape through arbitration onto this one."""

    def __init__(self, data_dir: Path, span: TapeSpan, wanted: Sequence[str] | None) -> None:
        self.reader = TapeReader(data_dir / "tape")
        self._registry, self._span, self._wanted = data_dir / REGISTRY_FILE, span, wanted
        if not self._registry.exists():
            raise StartupError(f"{data_dir} has no {REGISTRY_FILE}: the tape's symbols cannot be named")
        self._ids: set[int] | None = None

    def symbols(self, registry: RegistrySqlite) -> list[Symbol]:
        """All symbols under the ids that the records carry."""
        held = registry.symbols()
        if self._wanted is None:
            return held
        by_name = {symbol.symbol: symbol for symbol in held}
        unknown = [name for name in self._wanted if name not in by_name]
        if unknown:
            raise StartupError(
                f"the tape does not hold {', '.join(unknown)}: correct --symbols, it has {', '.join(by_name)}"
            )
        self._ids = {by_name[name].id for name in self._wanted}
        return [by_name[name] for name in self._wanted]

    def copy_registry(self, data_dir: Path) -> None:
        """The ids in the records stay what they are. Before the engine opens its registry."""
        data_dir.mkdir(parents=True, exist_ok=True)
        with (
            closing(sqlite3.connect(f"{self._registry.absolute().as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(data_dir / REGISTRY_FILE)) as target,
        ):
            source.backup(target)

    async def run(self, engine: "ReplayEngine", parts: "Parts") -> None:
        """See `Play`."""
        async for rows in _ahead(records(self.reader, self._span, self._ids)):
            for part in _paced(rows, engine.pace.speed):
                await engine.pace.reach(int(part["recv_ns"][0]))
                engine.show_time(int(part["recv_ns"][-1]))
                await self._put(engine, parts, part)

    async def _put(self, engine: "ReplayEngine", parts: "Parts", rows: Rows) -> None:
        if not engine.keep_times:
            rows["recv_ns"] = engine.clock.wall_ns()
        for needs_arbitration, part in runs(rows):
            await parts.intake.flowing()
            if needs_arbitration:
                engine.played.refused += len(part) - parts.intake.admit(part)
            else:
                parts.intake.append(part)
        engine.played.frames += len(rows)
        await parts.intake.flowing()


def _paced(rows: Rows, speed: float) -> list[Rows]:
    """At a speed: the records received within a millisecond together. As fast as it goes: slices."""
    if not speed:
        return [rows[start : start + 512] for start in range(0, len(rows), 512)]
    steps = rows["recv_ns"] // 1_000_000
    return np.split(rows, np.flatnonzero(np.diff(steps)) + 1)


async def _ahead(found: Iterator[_T]) -> AsyncIterator[_T]:
    """Items made in a thread, one ahead of whoever takes them."""
    loop = asyncio.get_running_loop()
    end = object()
    waiting = loop.run_in_executor(None, next, found, end)
    try:
        while (item := await waiting) is not end:
            waiting = loop.run_in_executor(None, next, found, end)
            yield item  # type: ignore[misc]
    finally:
        await asyncio.gather(waiting, return_exceptions=True)


class ReplayEngine(Engine):
    """One replay into a fresh data folder: `start`, `finished`, `stop`. Feed and API as of an engine."""

    def __init__(self, config: Config, play: Play, *, speed: float = 0.0, keep_times: bool = True) -> None:
        """Raises StartupError when the data folder has a tape already: a replay never mixes with one."""
        folder = Path(config.data_dir)
        if (folder / "tape").exists() or (folder / REGISTRY_FILE).exists():
            raise StartupError(
                f"{folder} has a tape already, and a replay would mix with it: "
                "name a new folder with --data-dir"
            )
        if isinstance(play, PlayTape):
            play.copy_registry(folder)
        self._recorded = RecordedClock(time.time_ns())
        clock: Clock = self._recorded if keep_times else SystemClock()
        exchange = msgspec.structs.replace(config.exchange, lines=1, max_connections=CONNECTIONS_MAX)
        super().__init__(msgspec.structs.replace(config, exchange=exchange), clock)
        self.play, self.pace, self.keep_times = play, Pace(speed), keep_times
        self.played = Progress()
        self.stand_ins: StandIns | None = None
        self._finished = asyncio.Event()

    async def finished(self) -> None:
        """Until everything is on the tape and with its readers."""
        await self._finished.wait()

    def health(self) -> ComponentHealth:
        """Stands where an engine has its lines."""
        words = "the replay is over" if self.played.done else None
        return ComponentHealth("line:replay", "ok", self.played.now_ns, words)

    def show_time(self, recv_ns: int) -> None:
        """The recorded time is now this."""
        self._recorded.now_ns = self.played.now_ns = recv_ns

    async def _come_up(
        self, context: ServingContext, feed: Feed, registry: OpenRegistry, series: SeriesSqlite
    ) -> None:
        context.not_ready = lambda: ["waiting for the kernels"]
        if not kernel_cache.is_warm():
            self.progress(FIRST_COMPILE)
        await asyncio.to_thread(_load_kernels)
        # A replay is of the past: its symbols are those of its own folder.
        assert self._registry is not None
        wanted = await asyncio.to_thread(self.play.symbols, self._registry)
        rest = Rest(self.config.exchange.rest_endpoint, self.clock)
        self._closing.append(rest.close)
        parts = self._make_parts(context, feed, series, rest, wanted)
        self.parts = parts
        self._closing.append(parts.stop)
        playing = asyncio.create_task(self._play(parts))
        playing.add_done_callback(self._on_bring_up_done)

        async def end() -> None:
            playing.cancel()
            await asyncio.gather(playing, return_exceptions=True)

        self._closing.append(end)

    def _make_parts(
        self, context: ServingContext, feed: Feed, series: SeriesSqlite, rest: Rest, wanted: list[Symbol]
    ) -> "Parts":
        """As `Engine._wire`, without lines and history."""
        from tradeback.exchange.standin import StandIns
        from tradeback.parts import Parts

        assert self.tape is not None
        for symbol in wanted:
            self.symbols.put(symbol)
        parts = Parts(self.config, self.clock, feed.path, self.tape, self.symbols, series, rest, wanted)
        feed.attach_kernels()
        context.derived, context.series = parts.derived, parts.sink
        context.no_settlements = "a replay settles nothing: its market is over"
        context.components += [parts.sink, self]
        # Without the ledger: nothing repairs here, so nothing is worth waiting for.
        self.stand_ins = StandIns(parts.intake, self.symbols, self.config.exchange.stand_in_after_s, 1)
        context.collectors += [parts.intake, self.stand_ins, parts.sink]
        parts.intake.on_stall.append(lambda stalled: self._note_refusal(parts.intake.stalled))
        context.not_ready = None
        parts.sink.start()
        return parts

    async def _play(self, parts: "Parts") -> None:
        began = time.monotonic()
        await self.play.run(self, parts)
        self.played.wall_s = time.monotonic() - began
        self.played.done = True
        self._finished.set()
