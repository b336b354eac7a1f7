"""All lines of a recording, the writer, and the description of its symbols beside the files."""

import asyncio
import fcntl
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tradeback.exchange.budget import Budget
from tradeback.exchange.listing import ALL, Listing
from tradeback.exchange.streams import STREAMS, endpoint_of, plan_lines
from tradeback.model.clock import Clock
from tradeback.model.config import ExchangeConfig
from tradeback.model.errors import StartupError
from tradeback.model.limits import CONNECT_ATTEMPTS_PER_5_MIN
from tradeback.model.symbols import Symbol
from tradeback.ops.log import Log, RepeatLimiter
from tradeback.recording.format import SYMBOLS_FILE, Channel
from tradeback.recording.line import Line
from tradeback.recording.part_file import mend
from tradeback.recording.writer import Counts, Rotation, Writer
from tradeback.stores.ports import SymbolRecord
from tradeback.version import VERSION

LOCK_NAME = ".lock"


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be recorded, and where to."""

    folder: Path
    streams: tuple[str, ...] = STREAMS
    rotation: Rotation = field(default_factory=Rotation)


class Recorder:
    """`start`, `wait_stopped`, `stop`. Loop thread only."""

    def __init__(self, order: Order, config: ExchangeConfig, clock: Clock, log: Log) -> None:
        self.order, self.config = order, config
        self._clock, self._log = clock, log
        self.writer = Writer(order.folder, clock, log, rotation=order.rotation)
        self.lines: list[Line] = []
        self._listing = Listing(config, log, clock)
        self._tasks: list[asyncio.Task[None]] = []
        self._failed: asyncio.Future[None] | None = None
        self._lock: int | None = None

    @property
    def counts(self) -> Counts:
        """What has been recorded so far."""
        return self.writer.counts

    async def start(self) -> None:
        """Lock the folder, mend what a killed recorder left, bring the connections up in the background.

        Raises StartupError when the folder cannot be written or is being recorded to, ConfigError when
        the symbols need more connections than allowed.
        """
        self._failed = asyncio.get_running_loop().create_future()
        self._lock = _lock(self.order.folder)
        for note in await asyncio.to_thread(mend, self.order.folder, self._clock.wall_ns()):
            self._log.warning(note)
        self.writer.start()
        if self.config.symbols == ALL:
            self._watch(asyncio.create_task(self._record_all()))
        else:
            # Recording does not wait for REST: it may be that which is down.
            self._connect(self.config.symbols)
            self._watch(asyncio.create_task(self._describe()))

    async def wait_stopped(self) -> None:
        """Until it cannot go on: raises what ended it."""
        assert self._failed is not None, "start comes first"
        await asyncio.shield(self._failed)

    async def delivering(self) -> None:
        """Until every line has been subscribed once."""
        await asyncio.gather(*(line.was_up.wait() for line in self.lines))

    async def stop(self) -> None:
        """Close the connections, complete the files, unlock the folder."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._listing.close()
        await self.writer.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if self._failed is not None and self._failed.done() and not self._failed.cancelled():
            self._failed.exception()  # whoever waited has seen it

    async def _record_all(self) -> None:
        self._connect(await self._describe())

    async def _describe(self) -> list[str]:
        """Ask what the symbols are until the exchange answers, and write it down; returns their names."""
        names = _Names()
        await self._listing.symbols(names)
        await asyncio.to_thread(write_symbols, self.order.folder, names.records)
        return [record.symbol for record in names.records]

    def _connect(self, symbols: Sequence[str]) -> None:
        config = self.config
        plans = [
            plan
            for plan in plan_lines(symbols, config.lines, config.max_connections)
            if plan.stream in self.order.streams
        ]
        attempts, limiter = Budget(CONNECT_ATTEMPTS_PER_5_MIN, 300.0), RepeatLimiter()
        turn = asyncio.Lock()
        for plan in plans:
            endpoint = endpoint_of(plan.line, config.ws_endpoint, config.ws_endpoint_b)
            track = self.writer.track(
                Channel(plan.line, plan.stream, plan.shard),
                endpoint=urlsplit(endpoint).netloc.rpartition("@")[2],
                symbols=len(plan.symbols), version=VERSION,
            )  # fmt: skip
            line = Line(plan, config, self._clock, track, attempts, self._log, limiter, turn)
            self.lines.append(line)
            self._watch(asyncio.create_task(line.run(), name=plan.name))

    def _watch(self, task: "asyncio.Task[object]") -> None:
        def done(ended: "asyncio.Task[object]") -> None:
            error = None if ended.cancelled() else ended.exception()
            if error is not None and self._failed is not None and not self._failed.done():
                self._failed.set_exception(error)

        task.add_done_callback(done)
        self._tasks.append(task)  # type: ignore[arg-type]


class _Names:
    """A registry that only remembers what it was given: a recording has names and no ids."""

    def __init__(self) -> None:
        self.records: list[SymbolRecord] = []

    async def all_symbols(self) -> list[Symbol]:
        """None are known."""
        return []

    async def assign_ids(self, records: Sequence[SymbolRecord]) -> list[Symbol]:
        """Keep the records."""
        self.records = list(records)
        return []


def write_symbols(folder: Path, records: Sequence[SymbolRecord]) -> None:
    """Write `symbols.json`: what a replay needs to know of the symbols. Added to what it held before."""
    held = {record.symbol: record for record in read_symbols(folder)}
    held |= {record.symbol: record for record in records}
    rows = [record._asdict() for record in held.values()]
    part = folder / f".{SYMBOLS_FILE}.part"
    part.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", "utf-8")
    os.replace(part, folder / SYMBOLS_FILE)


def read_symbols(folder: Path) -> list[SymbolRecord]:
    """The records in `symbols.json`; none when there is no such file, or it is none of ours."""
    try:
        return [SymbolRecord(**row) for row in json.loads((folder / SYMBOLS_FILE).read_text("utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def _lock(folder: Path) -> int:
    """Create the folder and lock it for one recorder; the lock's descriptor."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StartupError(
            f"the folder {folder} cannot be written ({error.strerror}): give another with -o"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StartupError(
            f"another process records into {folder}: stop it, or give another folder with -o"
        ) from error
    return descriptor
