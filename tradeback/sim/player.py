"""Moves the market through time: when to start, how fast, how much at once, and when to write."""

import asyncio
from collections.abc import Callable

from tradeback.model.clock import Clock
from tradeback.sim.book import Source
from tradeback.sim.config import SimConfig
from tradeback.sim.periodic import TICK_US, Periodic

SLEEP_MAX_S = 0.05
SLEEP_MIN_S = 0.001
"""Frames of one millisecond are written together; a shorter sleep would only burn the core."""
FAST_TICKS_PER_ROUND = 50


class Player:
    """Runs one source. `flush` writes what has been published; `crowded` tells that readers are behind."""

    def __init__(
        self,
        source: Source,
        periodic: Periodic,
        config: SimConfig,
        clock: Clock,
        flush: Callable[[], None],
        crowded: Callable[[], bool],
    ) -> None:
        self._source, self._periodic, self._config, self._clock = source, periodic, config, clock
        self._flush, self._crowded = flush, crowded
        self.started = asyncio.Event()
        self.finished = asyncio.Event()
        """Set when the source has nothing more (a recording's end)."""
        self.events = 0
        self.market_us = source.begin(clock.wall_ns() // 1_000)
        self._base_market_us = self.market_us
        self._base_steady_ns = clock.steady_ns()
        self._waits_with_clock = source.silence_max_us is None

    def start(self) -> None:
        """Let the market begin."""
        if self.started.is_set():
            return
        if self._waits_with_clock:
            self.market_us = self.now_us()
            self._source.skip_to(self.market_us)
        self._base_market_us = self.market_us
        self._base_steady_ns = self._clock.steady_ns()
        self.started.set()

    def shift(self, step_us: int) -> None:
        """The exchange's clock steps. After a step back the market is silent until it has caught up."""
        self._base_market_us += step_us
        if self._waits_with_clock and self.started.is_set():
            self._source.skip_to(self.now_us())

    def now_us(self) -> int:
        """Market time: what the exchange's clock shows."""
        passed_us = (self._clock.steady_ns() - self._base_steady_ns) // 1_000
        if not self.started.is_set():
            # A synthetic market's clock runs while it waits; a recording's stands.
            return self._base_market_us + (passed_us if self._waits_with_clock else 0)
        if self._config.speed <= 0:
            return self.market_us
        return self._base_market_us + int(passed_us * self._config.speed)

    async def run(self) -> None:
        """Play until the source ends."""
        await self.started.wait()
        tick_us = self.market_us // TICK_US * TICK_US + TICK_US
        while True:
            due = self._source.next_us()
            if due is None:
                self.finished.set()
                due = tick_us
                if self._config.speed <= 0:
                    return
            if self._config.speed <= 0:
                tick_us = await self._fast(tick_us)
                continue
            now_us = self.now_us()
            silence_us = self._source.silence_max_us
            if silence_us is not None and not self.finished.is_set() and due - now_us > silence_us:
                self._base_market_us += due - now_us
                now_us, tick_us = due, due // TICK_US * TICK_US
            if min(due, tick_us) > now_us:
                wait_s = (min(due, tick_us) - now_us) / 1e6 / self._config.speed
                await asyncio.sleep(max(SLEEP_MIN_S, min(wait_s, SLEEP_MAX_S)))
                continue
            tick_us = self._step(now_us, tick_us)
            await asyncio.sleep(0)

    def _step(self, until_us: int, tick_us: int) -> int:
        """Everything due up to `until_us`, in order, at most one chunk; returns the next tick."""
        room = self._config.chunk_frames_max
        while room > 0:
            bound = min(until_us, tick_us)
            done = self._source.advance(bound, room)
            self.events += done
            room -= done
            if room <= 0:
                break
            self.market_us = bound
            if tick_us > until_us:
                break
            self._periodic.tick(tick_us)
            tick_us += TICK_US
        self._flush()
        return tick_us

    async def _fast(self, tick_us: int) -> int:
        """One round at full speed: as much as the readers take."""
        give_up_ns = self._clock.steady_ns() + int(self._config.backlog_grace_s * 1e9)
        # Polled: transports tell of their high-water mark only, not of this one.
        while self._crowded() and self._clock.steady_ns() < give_up_ns:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        due = self._source.next_us()
        until_us = tick_us if due is None else max(due, tick_us) + FAST_TICKS_PER_ROUND * TICK_US
        if due is not None and due > tick_us:
            tick_us = max(tick_us, due // TICK_US * TICK_US)
        tick_us = self._step(until_us, tick_us)
        await asyncio.sleep(0)
        return tick_us
