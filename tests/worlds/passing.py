"""An event loop whose time jumps: real sockets, but nobody ever sleeps.

While something is ready (a socket, a callback) it runs as everywhere. When nothing is, the clock jumps to
the next timer instead of waiting for it. What leaves over the loopback arrives before the call returns,
so hours of a quiet exchange pass in milliseconds. Work in threads takes no time: the clock stands as long
as some is under way.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

EPOCH_NS = 1_781_000_000_000_000_000
"""The wall's time when a loop begins."""
HANG_S = 20.0
"""Real seconds without any event and any timer after which nothing can come any more."""

T = TypeVar("T")


class Hang(Exception):
    """Nothing is ready, nothing will be: everybody waits for somebody."""


class _Selector(selectors.DefaultSelector):
    """Asks the system without waiting; time passes by jumps."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.busy = 0
        """Pieces of work that run in threads."""

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        if self.busy:
            return super().select(HANG_S)
        if timeout is None:
            events = super().select(HANG_S)
            if not events:
                raise Hang("nothing is ready and no timer runs")
            return events
        self.now_s += timeout
        return events


class PassingLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._passing = _Selector()
        super().__init__(self._passing)

    def time(self) -> float:
        return self._passing.now_s

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> "asyncio.Future[T]":
        running = super().run_in_executor(executor, func, *args)
        self._passing.busy += 1
        running.add_done_callback(self._on_done)
        return running

    def _on_done(self, done: "asyncio.Future[Any]") -> None:
        self._passing.busy -= 1

    @property
    def busy(self) -> int:
        """Pieces of work that run in threads."""
        return self._passing.busy


class PassingClock:
    """Clock protocol over a loop: both clocks move with it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._time = loop.time

    def wall_ns(self) -> int:
        return EPOCH_NS + int(self._time() * 1e9)

    def steady_ns(self) -> int:
        return int(self._time() * 1e9)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on a loop of its own whose time jumps."""
    with asyncio.Runner(loop_factory=PassingLoop) as runner:
        return runner.run(main)
