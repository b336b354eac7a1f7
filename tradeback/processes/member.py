"""What every child has: its link to the supervisor, its end with it, and its reports to the engine."""

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tradeback.model.symbols import Symbol
from tradeback.ops.health import HasHealth
from tradeback.ops.metrics import Collects
from tradeback.processes.link import Link, Listener, Message
from tradeback.processes.report import pack_families, pack_health
from tradeback.processes.setup import STOPPING, Setup, socket_of
from tradeback.stores.registry_sqlite import RegistrySqlite

WORD_S = 0.2
"""How long the supervisor's word may take that the whole run ends."""
REPORT_S = 0.5
"""How often a recorder or worker tells the engine how it is."""


def symbols_of(data_dir: Path) -> list[Symbol]:
    """The symbols in the registry of a data folder, read anew."""
    registry = RegistrySqlite(data_dir / "registry.sqlite")
    try:
        return registry.symbols()
    finally:
        registry.close()


class Control:
    """The link to the supervisor."""

    def __init__(self, setup: Setup) -> None:
        self.gone = asyncio.Event()
        """The supervisor has ended: so shall this process."""
        self._run_ends = asyncio.Event()
        """With the supervisor, or because it has said so."""
        self._early: list[Message] = []
        self._on_message: Callable[[Message], None] = self._early.append
        self._link = Link(socket_of(setup.control_fd), self._receive, self._lost)

    def _receive(self, message: Message, behind: bytes, files: list[int]) -> None:
        if STOPPING in message:
            self._run_ends.set()
        else:
            self._on_message(message)

    def _lost(self) -> None:
        self._run_ends.set()
        self.gone.set()

    async def goes_on(self) -> bool:
        """Whether the run goes on although this process is to end: another one will take its place.

        A service manager may have signalled all processes at once, so the supervisor gets a moment to say it.
        """
        self._link.read_rest()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WORD_S):
                await self._run_ends.wait()
        return not self._run_ends.is_set()

    def listen(self, on_message: Callable[[Message], None]) -> None:
        """Hear the supervisor from now on, and what it has said before."""
        early, self._early = self._early, []
        self._on_message = on_message
        for message in early:
            on_message(message)

    def tell(self, message: Message) -> None:
        """Send to the supervisor."""
        self._link.send(message)

    def close(self) -> None:
        """Close this end."""
        self._link.close()


class Reporter:
    """Tells every engine that is linked how this process is, now and then."""

    def __init__(self, listener: Listener, more: Callable[[], dict[str, Any]]) -> None:
        """`more`: what the engine needs besides health and numbers."""
        self.components: list[HasHealth] = []
        self.collectors: list[Collects] = []
        self._listener, self._more = listener, more
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Report now and from now on."""
        self._tick()

    def send_to(self, link: Link) -> None:
        """Report to one engine."""
        families = [family for collector in self.collectors for family in collector.collect()]
        report = {
            "report": {
                "pid": os.getpid(),
                "health": pack_health(part.health() for part in self.components),
                "families": pack_families(families),
                **self._more(),
            }
        }
        link.send(report)

    def close(self) -> None:
        """No more reports."""
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(REPORT_S, self._tick)
        for link in list(self._listener.links):
            self.send_to(link)
