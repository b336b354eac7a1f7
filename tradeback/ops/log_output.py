"""From events to lines on stderr: repeats are held back, and writing neither waits nor fails."""

import io
import os
import select
import threading
import time
from collections.abc import Callable
from typing import TextIO

from tradeback.ops.components import LEVELS
from tradeback.ops.repeats import Event, Repeats

FIRST = ("timestamp", "level", "component", "process", "event")
"""Every line begins with these, as far as it has them."""

PIPE_BYTES = 4_096
"""A pipe that poll calls writable takes so much without waiting (PIPE_BUF of Linux)."""


class Output:
    """Writes whole lines. Never raises and never waits: a log that nobody reads stops no engine."""

    def __init__(self, stream: TextIO) -> None:
        self.lost = 0
        """Lines that could not be written."""
        self._stream = stream
        self._broken = b""
        """What ends a line of which only a part went out."""
        self._poll = None
        try:
            self._descriptor = stream.fileno()
        except (io.UnsupportedOperation, AttributeError, OSError, ValueError):
            self._descriptor = -1
        else:
            self._poll = select.poll()
            self._poll.register(self._descriptor, select.POLLOUT)

    def write(self, line: str) -> bool:
        """False when it is lost."""
        try:
            written = self._write_stream(line) if self._poll is None else self._write_descriptor(line)
        except (OSError, ValueError):  # the terminal, the file or the reader has gone
            written = False
        self.lost += not written
        return written

    def _write_stream(self, line: str) -> bool:
        self._stream.write(line + "\n")
        self._stream.flush()
        return True

    def _write_descriptor(self, line: str) -> bool:
        data = memoryview(self._broken + line.encode("utf-8", "backslashreplace") + b"\n")
        assert self._poll is not None
        whole = data
        while data:
            if not self._poll.poll(0):
                self._broken = b"\n" if len(data) < len(whole) else self._broken
                return False
            data = data[os.write(self._descriptor, data[:PIPE_BYTES]) :]
        self._broken = b""
        return True


class Delivery:
    """Takes events of any thread. What was held back is shown by a thread that lives only meanwhile."""

    def __init__(
        self, output: Output, render: Callable[[Event], str], repeats: Repeats | None = None
    ) -> None:
        self.output = output
        self.lines = dict.fromkeys(LEVELS, 0)
        """Lines that were shown, by level."""
        self._render = render
        self._repeats = repeats if repeats is not None else Repeats()
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._lost_told = 0
        self._ended = False

    @property
    def held_back(self) -> int:
        """Events that were not shown when they came."""
        return self._repeats.held_back

    def take(self, event: Event) -> None:
        """One event with clean fields."""
        with self._lock:
            self._show(self._repeats.offer(event, time.monotonic_ns()))
            self._arm()

    def finish(self) -> None:
        """Show what is still held back; from now on nothing is held back for later."""
        with self._lock:
            self._ended = True
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._show(self._repeats.rest())

    def _show(self, events: list[Event]) -> None:
        for event in events:
            if self.output.write(self._render(event)):
                level = str(event.get("level"))
                self.lines[level] = self.lines.get(level, 0) + 1
                if self.output.lost > self._lost_told:
                    self._tell_lost(event)

    def _tell_lost(self, event: Event) -> None:
        """Behind an event that could be written again: how many could not."""
        lost = self.output.lost
        told = {key: event[key] for key in FIRST if key in event}
        told |= {"level": "warning", "event": "log lines were lost: nobody read them"}
        if self.output.write(self._render(told | {"lost": lost - self._lost_told})):
            self._lost_told = lost

    def _arm(self) -> None:
        due_ns = self._repeats.next_due_ns() if self._timer is None else None
        if due_ns is None:
            return
        if self._ended:
            self._show(self._repeats.rest())
            return
        delay_s = max(0.0, (due_ns - time.monotonic_ns()) / 1e9)
        self._timer = threading.Timer(delay_s, self._later)
        self._timer.name, self._timer.daemon = "log", True
        self._timer.start()

    def _later(self) -> None:
        with self._lock:
            if self._timer is None:
                return
            self._timer = None
            self._show(self._repeats.due(time.monotonic_ns()))
            self._arm()
