"""One world: a market that breaks by plan, an engine that is stopped and killed, and what is left of it."""

import asyncio
import logging
import random
import shutil
import signal
import traceback
from collections.abc import Awaitable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import structlog

from tests.flow.watching import Watcher
from tests.worlds.passing import PassingClock, PassingLoop, run
from tests.worlds.plan import Plan, Stop
from tests.worlds.truth import Ending, Told, Truth, Witness
from tradeback.engine import Engine
from tradeback.model.config import Config, ExchangeConfig, FeatureConfig, ServerConfig, TapeConfig
from tradeback.model.errors import StartupError
from tradeback.sim.config import SimConfig
from tradeback.sim.faults import make_fault
from tradeback.sim.market import Synthetic
from tradeback.sim.server import SimServer

REAL_S_MAX = 120
"""A world that takes longer hangs."""
POLL_S = 0.01
RESTART_S = 0.2
"""Within which whoever supervises an engine starts it again."""


class Broken(AssertionError):
    """An invariant does not hold."""


@dataclass
class Seen:
    """What one subscriber got from one run of the engine, of the tape in `folder`."""

    watcher: Watcher
    frames: int
    run: int


@dataclass
class Story:
    """Everything that is known about a world when it is over."""

    plan: Plan
    folder: Path
    told: dict[str, Told] = field(default_factory=dict)
    frames: dict[bytes, tuple[str, str, int]] = field(default_factory=dict)
    witness: Witness | None = None
    stops_s: list[float] = field(default_factory=list)
    """When runs of the engine ended, in the witness's time."""
    first_sequences: list[int] = field(default_factory=list)
    """The first sequence of each run."""
    seen: list[Seen] = field(default_factory=list)
    logs: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    """(level, event, fields)"""
    crashes: list[str] = field(default_factory=list)
    start_us: int = 0
    """Market time at which the market began."""


@contextmanager
def _noted(story: Story) -> Iterator[None]:
    """Collect what is logged instead of printing it."""

    def collect(_: Any, method: str, event: MutableMapping[str, Any]) -> Any:
        fields = dict(event)
        story.logs.append((method, str(fields.pop("event", "")), fields))
        raise structlog.DropEvent

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            words = self.format(record)
            story.logs.append((record.levelname.lower(), words, {"logger": record.name}))

    handler, root = Handler(logging.WARNING), logging.getLogger()
    before = structlog.get_config()
    structlog.configure(processors=[collect], cache_logger_on_first_use=False)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        structlog.configure(**before)


@contextmanager
def _bounded() -> Iterator[None]:
    """Break off what takes too long in real time, where it stands."""

    def late(number: int, frame: Any) -> None:
        where = "".join(traceback.format_stack(frame)[-6:])
        raise Broken(f"the world hangs: {REAL_S_MAX} s have passed\n{where}")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(REAL_S_MAX)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def live(plan: Plan, folder: Path) -> Story:
    """Live through a world; its tape is in `story.folder` afterwards."""
    story = Story(plan, folder / "run0")
    random.seed(plan.seed)
    with _bounded(), _noted(story):
        run(_World(story, folder).live())
    return story


class _World:
    def __init__(self, story: Story, folder: Path) -> None:
        self._story, self._plan, self._folder = story, story.plan, folder
        self._begun_s = 0.0

    async def live(self) -> None:
        plan, story = self._plan, self._story
        loop = asyncio.get_running_loop()
        assert isinstance(loop, PassingLoop)
        self._loop, self._clock = loop, PassingClock(loop)
        loop.set_exception_handler(self._on_exception)
        market = Ending(Synthetic(plan.symbols, plan.rate, plan.seed, bursts=plan.bursts), plan.span_s)
        names = list(market.books)
        faults = [make_fault(entry, f"fault {n}") for n, entry in enumerate(plan.faults, 1)]
        story.witness = witness = Witness(faults, plan.seed, names)
        wanted = 3 * len(names) * (plan.lines + 1)
        settings = SimConfig(
            start_after_streams=wanted,
            connections_per_window=10_000,
            life_rate=plan.life_rate,
            ping_interval_s=0.5 * plan.life_rate,
            pong_timeout_s=3.0 * plan.life_rate,
        )
        self._sim = await SimServer.start(market, settings, clock=self._clock, faults=witness)
        truth = Truth(self._sim.hub, market.books.values())
        try:
            for number, stop in enumerate((*plan.stops, None)):
                while not await self._run_once(number, stop):
                    await asyncio.sleep(RESTART_S)
        finally:
            await self._sim.stop()
        story.told, story.frames = truth.told()
        story.start_us = self._sim.started_us
        if loop.busy:
            story.crashes.append("work in threads went on after the engine had stopped")

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._story.crashes.append(f"{context.get('message')}: {context.get('exception')!r}")

    async def _run_once(self, number: int, stop: Stop | None) -> bool:
        """One run of the engine, until its stop or the end of the world.

        False when it refused to start because REST answered nonsense, which a fault may make it do: whoever
        supervises it starts it again.
        """
        plan, story = self._plan, self._story
        engine = Engine(self._config(story.folder), self._clock)
        await engine.start()
        seen: list[Seen] = []
        ended = asyncio.create_task(engine.wait_stopped())
        try:
            assert engine.tape is not None
            story.first_sequences.append(engine.tape.next_sequence)
            url = engine.url.replace("http", "ws", 1) + "/api/v1/ws"
            if not number:
                await self._until(ended, lambda: self._started)
                self._begun_s = self._loop.time()
            else:
                try:
                    await self._until(ended, lambda: engine.parts is not None)
                except StartupError:
                    if not any(entry["kind"] == "rest_garbage" for entry in plan.faults):
                        raise
                    story.first_sequences.pop()
                    return False
            for _ in range(plan.watchers):
                seen.append(Seen(await Watcher.subscribe(url, "*"), 0, number))
            end_s = plan.span_s + plan.settle_s if stop is None else stop.at_s
            await self._until(ended, lambda: self._loop.time() - self._begun_s >= end_s)
            if stop is None:
                await self._ask(engine)
            if stop is not None and stop.how == "kill":
                await self._kill(number, seen)
        finally:
            ended.cancel()
            story.stops_s.append(story.witness.now_s if story.witness else 0.0)
            await engine.stop()
        for one in seen:
            await one.watcher.end()
            one.frames = one.frames or len(one.watcher.frames)
        story.seen += seen
        if stop is not None:
            await asyncio.sleep(stop.away_s)
        return True

    @property
    def _started(self) -> bool:
        return self._sim.player is not None and self._sim.player.started.is_set()

    async def _until(self, ended: "asyncio.Task[None]", done: Any) -> None:
        while not done():
            if ended.done():
                ended.result()
            await asyncio.sleep(POLL_S)

    async def _kill(self, number: int, seen: list[Seen]) -> None:
        """What kill -9 at this moment would leave: the files as they are. The next run has these."""
        while self._loop.busy:
            await asyncio.sleep(0)
        following = self._folder / f"run{number + 1}"
        shutil.copytree(self._story.folder, following)
        self._story.folder = following
        for one in seen:
            one.frames = len(one.watcher.frames)

    async def _ask(self, engine: Engine) -> None:
        """Health and metrics answer whatever has happened."""

        async def status(http: aiohttp.ClientSession, path: str) -> None:
            async with http.get(f"{engine.url}{path}") as answer:
                await answer.read()
                if answer.status != 200:
                    raise Broken(f"{path} answers {answer.status}")

        async with aiohttp.ClientSession() as http:
            asked: list[Awaitable[None]] = [
                status(http, path) for path in ("/api/v1/health/detailed", "/metrics", "/api/v1/symbols")
            ]
            await asyncio.gather(*asked)

    def _config(self, folder: Path) -> Config:
        plan = self._plan
        exchange = ExchangeConfig(
            ws_endpoint=self._sim.ws_url, rest_endpoint=self._sim.rest_url, symbols=("*",), lines=plan.lines,
            connect_timeout_s=2.0, idle_timeout_s=2.0, backoff_first_s=0.05, backoff_max_s=1.0,
            stand_in_after_s=2.0,
        )  # fmt: skip
        return Config(
            server=ServerConfig(port=0),
            exchange=exchange,
            tape=TapeConfig(hot_rows=16_384, segment_bytes=1 << 20),
            feature=FeatureConfig(aggregation_enabled=plan.history, enigma_enabled=plan.history),
            data_dir=str(folder),
        )
