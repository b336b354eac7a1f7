"""Answers of the newest bars, left in the latest store for other programs while they are fresh.

Nobody waits for this: an answer that finds no room, or no store, is not left there.
"""

import asyncio
import contextlib

from tradeback.model.clock import Clock
from tradeback.model.errors import StoreError
from tradeback.ops.tasks import finish
from tradeback.stores.ports import LatestStore

WAITING_MAX = 8
"""Answers that wait for the store; each is up to half a megabyte."""
SERIES_MAX = 10_000


class SharedBars:
    """`start`, `offer`, `stop`. Loop thread only."""

    def __init__(self, latest: LatestStore, clock: Clock, ttl_s: float) -> None:
        """`ttl_s`: how long the store keeps an answer; one half as old is not replaced."""
        self._latest, self._clock, self._again_ns = latest, clock, int(ttl_s * 1e9 / 2)
        self._waiting: dict[tuple[str, str], bytes] = {}
        self._left_ns: dict[tuple[str, str], int] = {}
        """When an answer was offered last, steady ns."""
        self._something = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.left = self.skipped = 0

    def start(self) -> None:
        """Take answers from now on."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """What waits is not left any more."""
        if self._task is not None:
            await finish([self._task])

    def offer(self, symbol: str, resolution: str, answer: bytes) -> None:
        """An answer of the newest bars that was just given."""
        key, now_ns = (symbol, resolution), self._clock.steady_ns()
        if now_ns - self._left_ns.get(key, -(1 << 62)) < self._again_ns or len(self._waiting) >= WAITING_MAX:
            self.skipped += 1
            return
        if len(self._left_ns) >= SERIES_MAX:
            self._left_ns.clear()
        self._left_ns[key] = now_ns
        self._waiting[key] = answer
        self._something.set()

    async def _run(self) -> None:
        while True:
            await self._something.wait()
            self._something.clear()
            while self._waiting:
                key = next(iter(self._waiting))
                answer = self._waiting.pop(key)
                with contextlib.suppress(StoreError):
                    await self._latest.put_bars(*key, answer)
                    self.left += 1
