"""Answers of bars are left for others while they are fresh, and nobody waits for that."""

import asyncio

from tests.sinks.drain_world import until
from tests.stores.accounts_world import TestClock
from tradeback.model.errors import StoreError
from tradeback.stores.latest_bars import WAITING_MAX, SharedBars
from tradeback.stores.latest_memory import LatestMemory


class Slow(LatestMemory):
    """A store that waits, or fails, as it is told."""

    def __init__(self, clock: TestClock) -> None:
        super().__init__(clock, bars_ttl_s=1.0)
        self.open, self.broken, self.puts = asyncio.Event(), False, 0

    async def put_bars(self, symbol: str, resolution: str, answer: bytes) -> None:
        self.puts += 1
        await self.open.wait()
        if self.broken:
            raise StoreError("away")
        await super().put_bars(symbol, resolution, answer)


async def test_answers_are_left_while_they_are_fresh() -> None:
    clock = TestClock()
    latest = Slow(clock)
    latest.open.set()
    shared = SharedBars(latest, clock, 1.0)
    shared.start()
    shared.offer("A", "1m", b"one")
    await until(lambda: shared.left == 1)
    assert await latest.bars("A", "1m") == b"one"
    clock.move(0.4)
    shared.offer("A", "1m", b"too soon")
    shared.offer("A", "5m", b"other")
    await until(lambda: shared.left == 2)
    clock.move(0.2)
    shared.offer("A", "1m", b"two")
    await until(lambda: shared.left == 3)
    assert await latest.bars("A", "1m") == b"two"
    await shared.stop()


async def test_a_store_that_is_slow_or_away_holds_little_and_nobody() -> None:
    clock = TestClock()
    latest = Slow(clock)
    shared = SharedBars(latest, clock, 1.0)
    shared.start()
    shared.offer("A", "1m", b"x")
    await until(lambda: latest.puts == 1)
    for number in range(100):
        shared.offer(f"S{number}", "1m", b"x")
    assert len(shared._waiting) == WAITING_MAX
    assert shared.skipped == 100 - WAITING_MAX
    latest.broken = True
    latest.open.set()
    await until(lambda: latest.puts == 1 + WAITING_MAX and not shared._waiting)
    assert shared.left == 0
    latest.broken = False
    clock.move(1.0)
    shared.offer("A", "1m", b"again")
    await until(lambda: shared.left == 1)
    await shared.stop()
