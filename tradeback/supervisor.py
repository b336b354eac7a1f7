"""`tradeback run` itself: a small process that holds the port and keeps the others alive.

    supervisor -- engine      exchange lines, tape, feed, HTTP
               +- recorder    series store, from the tape's files
               +- worker:0..  feed of `feed.workers`, from the tape's files

The listening sockets stay open here, so that connections made while the engine restarts wait instead of
being refused. A child that dies is started again: at once, and slower and slower while it keeps failing.
`Family.start` needs no event loop, so that the engine loads while the supervisor's own loop does.
"""

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tradeback.feed.listening import bind
from tradeback.model.config import Config
from tradeback.processes.page import create_page
from tradeback.processes.setup import ENGINE, RECORDER, STOPPING, WORKER, Setup
from tradeback.processes.spawn import Started, how_it_ended, spawn

if TYPE_CHECKING:
    import asyncio

    from tradeback.ops.log import Log
    from tradeback.processes.link import Link

BACKOFF_S = (0.0, 0.25, 0.5, 1.0, 2.0, 5.0)
"""Pauses before the first, second, ... start in a row that follows a failure; the last one from then on."""
HEALTHY_S = 2.0
"""A child that was up for this long has not failed to start."""
STARTS_MAX = 5
"""So many failing starts of an engine end the run: at once before it was ever up, for a clear refusal (2)."""
STOP_S = 10.0
"""How long a child may take to end before it is killed."""
REFUSED = 2


@dataclass
class Child:
    """One place in the family, and the process that fills it now."""

    setup: Setup
    files: tuple[int, ...]
    started: Started | None = None
    link: "Link | None" = None
    since_ns: int = field(default_factory=time.time_ns)
    up_since: float = 0.0
    """time.monotonic() when it said that it is up; 0: not yet."""
    ever_up: bool = False
    failures: int = 0
    restarts: int = 0
    words: str = ""
    """What it said last."""
    last_end: dict[str, Any] | None = None
    timer: "asyncio.TimerHandle | None" = None

    @property
    def name(self) -> str:
        """engine, recorder, worker:0, ..."""
        return self.setup.name

    def describe(self) -> dict[str, Any]:
        """For the engine's health and metrics."""
        return {
            "name": self.name,
            "pid": self.started.process.pid if self.started else None,
            "since_ns": self.since_ns,
            "restarts": self.restarts,
            "last_end": self.last_end,
        }


class Family:
    """The files that all share, and the children. `start`, then a `Supervisor` looks after it."""

    def __init__(self, config: Config, *, colour: bool) -> None:
        """Open the port. Raises StartupError."""
        self._sockets = bind(config.server.host, config.server.port)
        page = create_page()
        wakes = tuple(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(config.feed.workers))
        workers = [f"{WORKER}:{number}" for number in range(config.feed.workers)]
        self._listening = {name: _listen() for name in (RECORDER, *workers)}
        ports = tuple(sock.fileno() for sock in self._sockets)
        base = Setup(
            role=ENGINE,
            name=ENGINE,
            config=config,
            control_fd=-1,
            page_fd=page,
            port_fds=ports,
            wake_fds=wakes,
            addresses={name: sock.getsockname()[1:].decode() for name, sock in self._listening.items()},
            colour=colour,
        )
        self.engine = Child(base, (page, *ports, *wakes))
        self.others = [self._other(base, name, number) for number, name in enumerate(self._listening, -1)]

    @property
    def children(self) -> list[Child]:
        """All, the engine first."""
        return [self.engine, *self.others]

    def start(self, child: Child) -> None:
        """Start a process in this place. Raises OSError."""
        child.started = spawn(child.setup, child.files)
        child.since_ns, child.up_since = time.time_ns(), 0.0

    def kill(self) -> None:
        """End all processes at once."""
        for child in self.children:
            if child.started is not None:
                child.started.process.kill()

    def leave_port(self) -> None:
        """Give the port up: with the engine, which still has it, it is closed."""
        for sock in self._sockets:
            sock.close()

    def close(self) -> None:
        """Close everything that listens."""
        self.leave_port()
        for sock in self._listening.values():
            sock.close()

    def _other(self, base: Setup, name: str, number: int) -> Child:
        import msgspec

        listen = self._listening[name].fileno()
        wakes = () if name == RECORDER else (base.wake_fds[number],)
        setup = msgspec.structs.replace(
            base,
            role=RECORDER if name == RECORDER else WORKER,
            name=name,
            number=max(0, number),
            port_fds=(),
            wake_fds=wakes,
            listen_fd=listen,
            addresses={},
        )
        return Child(setup, (base.page_fd, listen, *wakes))


def _listen() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind("")  # Linux chooses an address outside of the file system
    sock.listen(16)
    return sock


class Supervisor:
    """Looks after a family whose engine has been started. Needs the running loop."""

    def __init__(self, family: Family, log: "Log", on_open: Callable[[str], None]) -> None:
        """`on_open` is called with the address once the first engine serves it."""
        import asyncio

        self._family, self._log, self._on_open = family, log, on_open
        self._loop = asyncio.get_running_loop()
        self._opened = self._stopping = False
        self.ended: asyncio.Future[int] = self._loop.create_future()
        """The exit code, when the family cannot go on."""
        self._gone = asyncio.Event()
        self._adopt(family.engine)

    def reap(self) -> None:
        """Some child may have ended (SIGCHLD)."""
        for child in self._family.children:
            if child.started is not None:
                code = child.started.process.poll()
                if code is not None:
                    self._ended(child, code)

    async def stop(self) -> None:
        """End all: engine and workers together, then the recorder, which takes what they left on the tape."""
        import asyncio

        self._stopping = True
        # The engine answers 503 until it is gone; then nobody shall wait for an answer that never comes.
        self._family.leave_port()
        last = [child for child in self._family.others if child.setup.role == RECORDER]
        for group in ([child for child in self._family.children if child not in last], last):
            for child in group:
                if child.timer is not None:
                    child.timer.cancel()
                if child.started is not None:
                    if child.link is not None:
                        child.link.send({STOPPING: True})
                    child.started.process.terminate()
            try:
                async with asyncio.timeout(STOP_S):
                    await self._all_gone(group)
            except TimeoutError:
                for child in group:
                    if child.started is not None:
                        self._log.warning("it does not end and is killed", process=child.name)
                        child.started.process.kill()
                await self._all_gone(group)
        self._family.close()

    async def _all_gone(self, group: list[Child]) -> None:
        self.reap()
        while any(child.started is not None for child in group):
            self._gone.clear()
            await self._gone.wait()

    def _adopt(self, child: Child) -> None:
        """Listen to a process that has been started."""
        from tradeback.processes.link import Link

        assert child.started is not None
        child.words = ""
        child.link = Link(child.started.control, lambda message, *_: self._hear(child, message), lambda: None)
        self._tell_engine()

    def _hear(self, child: Child, message: dict[str, Any]) -> None:
        if "words" in message:
            child.words = message["words"]
        elif "open" in message and not self._opened:
            self._opened = True
            self._on_open(message["open"])
        elif "up" in message:
            child.up_since, child.ever_up = time.monotonic(), True
            if child is self._family.engine and not self._stopping:
                for other in self._family.others:
                    if other.started is None and other.timer is None and other.last_end is None:
                        self._start(other)

    def _start(self, child: Child) -> None:
        child.timer = None
        try:
            self._family.start(child)
        except OSError as error:
            self._failed(child, f"it cannot be started: {error}", "")
            return
        self._adopt(child)

    def _ended(self, child: Child, code: int) -> None:
        assert child.started is not None
        if child.link is not None:
            child.link.read_rest()
            child.link.close()
        child.started, child.link = None, None
        self._gone.set()
        if self._stopping:
            return
        if child.up_since and time.monotonic() - child.up_since >= HEALTHY_S:
            child.failures = 0
        if self._hopeless(child, code):
            if not self.ended.done():
                self.ended.set_result(REFUSED if code == REFUSED else 1)
            return
        self._failed(child, how_it_ended(code), child.words)

    def _hopeless(self, child: Child, code: int) -> bool:
        """A refusal to start is final before the child was ever up; later, and other ends, when repeated."""
        if code == REFUSED and not child.ever_up:
            return True
        in_a_row = child.failures + 1 >= STARTS_MAX and not child.up_since
        return in_a_row and (code == REFUSED or (code > 0 and not self._family.engine.ever_up))

    def _failed(self, child: Child, how: str, words: str) -> None:
        delay_s = BACKOFF_S[min(child.failures, len(BACKOFF_S) - 1)]
        child.failures += 1
        child.restarts += 1
        child.since_ns = time.time_ns()
        child.last_end = {"how": how, "words": words or "it said nothing", "at": child.since_ns // 1_000_000}
        fields = {"how": how, "words": words or None, "again_in_s": delay_s}
        self._log.error("a process has ended and is started again", process=child.name, **fields)
        if delay_s:
            child.timer = self._loop.call_later(delay_s, self._start, child)
            self._tell_engine()
        else:
            self._start(child)

    def _tell_engine(self) -> None:
        link = self._family.engine.link
        if link is not None:
            link.send({"processes": [child.describe() for child in self._family.children]})
