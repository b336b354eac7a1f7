"""The other processes as the engine sees them: links that come back by themselves, and their reports."""

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

from tradeback.processes.link import Link, Message, connect

RECONNECT_S = 0.05
SILENT_S = 3.0
"""A peer that has not reported for this long hangs: nothing new is given to it."""


def _close_files(message: Message, behind: bytes, files: list[int]) -> None:
    """Nobody wants them."""
    for descriptor in files:
        os.close(descriptor)


class Peer:
    """A recorder or worker. `report` is its newest; empty when it has none or is gone."""

    def __init__(self, name: str, address: str, on_message: Callable[[Message, bytes], None]) -> None:
        self.name, self._address, self._on_message = name, address, on_message
        self.report: dict[str, Any] = {}
        self.reported_s = 0.0
        self.since_report = 0
        """Clients given to it since its newest report."""
        self.on_files: Callable[[Message, bytes, list[int]], None] = _close_files
        """Called with messages that bring open files, which are the receiver's then."""
        self.on_link: Callable[[], None] = lambda: None
        """Called when a process of this name answers after there was none."""
        self._link: Link | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Connect, and again whenever the link is lost."""
        sock = connect(self._address)
        if sock is None:
            self._timer = asyncio.get_running_loop().call_later(RECONNECT_S, self.start)
            return
        self._link = Link(sock, self._receive, self._lost)

    @property
    def alive(self) -> bool:
        """It reports."""
        return bool(self.report) and time.monotonic() - self.reported_s < SILENT_S

    @property
    def clients(self) -> int:
        """Clients that it has, as far as known."""
        return int(self.report.get("clients", 0)) + self.since_report

    def send(self, message: Message, behind: bytes = b"", files: tuple[int, ...] = ()) -> bool:
        """False when there is no link."""
        return self._link is not None and self._link.send(message, behind, files)

    def close(self) -> None:
        """Give the link up."""
        if self._timer is not None:
            self._timer.cancel()
        if self._link is not None:
            self._link.close()

    def _receive(self, message: Message, behind: bytes, files: list[int]) -> None:
        if files:
            self.on_files(message, behind, files)
            return
        report = message.get("report")
        if report is None:
            self._on_message(message, behind)
            return
        fresh = not self.report
        self.report, self.reported_s, self.since_report = report, time.monotonic(), 0
        if fresh:
            self.on_link()

    def _lost(self) -> None:
        self._link, self.report = None, {}
        self._timer = asyncio.get_running_loop().call_later(RECONNECT_S, self.start)
