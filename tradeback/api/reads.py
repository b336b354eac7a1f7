"""Readings of the tape's files for answers: by threads, a few at a time.

Each may take a core for a while. A crowd of them would take the interpreter lock from the feed and the
threads from everything else that needs one, so the others wait, and beyond a bound are told to come again.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from tradeback.api.errors import ApiError

AT_ONCE = 2
WAITING_MAX = 64
Found = TypeVar("Found")


class Reads:
    """One for an application. Loop thread."""

    def __init__(self) -> None:
        self.open = 0
        """Readings that run or wait."""
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def run(self, work: Callable[[], Found]) -> Found:
        """The result of `work` in a thread. ApiError 503 when too many wait."""
        if self.open >= WAITING_MAX:
            words = "many read the tape just now; try again in a moment"
            raise ApiError(503, "busy", words, {"Retry-After": "1"})
        self.open += 1
        try:
            async with self._slots:
                return await asyncio.to_thread(work)
        finally:
            self.open -= 1
