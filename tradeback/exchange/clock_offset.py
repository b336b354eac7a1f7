"""How far this machine's clock is from the exchange's, with a bound that the truth cannot leave.

A round trip of REST's `time` proves an interval: the exchange read its clock somewhere between our sending
and our receiving, and cut it to `resolution_us`. So the offset (theirs minus ours) lies in an interval as
wide as the round trip; the shortest trip proves most. Intervals of several trips, each widened by what the
clocks may have drifted since, are intersected: the estimate is the middle, the error half the width.

The offset is no latency. A one-way latency is the raw difference of the two stamps plus the offset, with
the same error.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tradeback.model.clock import Clock
from tradeback.model.config import ExchangeConfig
from tradeback.model.errors import ExchangeError, RateLimited
from tradeback.ops.health import ComponentHealth, State
from tradeback.ops.log import Log
from tradeback.ops.metrics import Family, Histogram

SAMPLES_MAX = 32
SAMPLES_FIRST = 6
SAMPLES_EACH = 3
SAMPLE_PAUSE_S = 0.2
DRIFT_PPM = 100.0
"""What two quartz clocks may part by, each second, in us: 50 ppm each."""
STEP_US = 2_000.0
"""A wall clock that moved this far against the steady one between two samples was set."""
RESOLUTION_US = 1_000
"""The exchange cuts its time to whole milliseconds."""
OLD_INTERVALS = 3
"""An estimate this many intervals old is called old."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One round trip. `low_us` to `high_us` holds the offset at steady time `steady_us`."""

    low_us: float
    high_us: float
    steady_us: float
    wall_ahead_us: float
    """Wall minus steady clock, which changes only when the wall clock is set."""
    round_trip_us: float


@dataclass(frozen=True, slots=True)
class Offset:
    """The exchange's clock minus ours, in us: within `error_us` of `offset_us`."""

    offset_us: float
    error_us: float


class OffsetEstimate:
    """The estimator: told what was measured, knows no clock. Times in us."""

    def __init__(self, drift_ppm: float = DRIFT_PPM, samples_max: int = SAMPLES_MAX) -> None:
        self._drift = drift_ppm / 1e6
        self.samples: deque[Sample] = deque(maxlen=samples_max)

    def add(
        self,
        sent_wall_us: float,
        exchange_us: float,
        sent_steady_us: float,
        round_trip_us: float,
        resolution_us: float = RESOLUTION_US,
    ) -> None:
        """One round trip: sent at `sent_wall_us` on our wall clock, answered with `exchange_us`."""
        sample = Sample(
            exchange_us - (sent_wall_us + round_trip_us),
            exchange_us + resolution_us - sent_wall_us,
            sent_steady_us + round_trip_us,
            sent_wall_us - sent_steady_us,
            round_trip_us,
        )
        if self.samples and abs(sample.wall_ahead_us - self.samples[-1].wall_ahead_us) > STEP_US:
            # Our wall clock was set: what older samples say is about another clock.
            self.samples.clear()
        self.samples.append(sample)

    def at(self, steady_us: float) -> Offset | None:
        """The estimate at a steady time; None before the first sample.

        The newest samples are believed: one that contradicts them, and all before it, are forgotten
        (the exchange's clock was set, or drifts more than allowed).
        """
        low, high = float("-inf"), float("inf")
        for index in range(len(self.samples) - 1, -1, -1):
            sample = self.samples[index]
            drift_us = self._drift * max(0.0, steady_us - sample.steady_us)
            new_low, new_high = max(low, sample.low_us - drift_us), min(high, sample.high_us + drift_us)
            if new_low > new_high:
                for _ in range(index + 1):
                    self.samples.popleft()
                break
            low, high = new_low, new_high
        return Offset((low + high) / 2, (high - low) / 2) if self.samples else None


class ClockOffset:
    """Keeps the estimate fresh: a few round trips at start, a few more every `exchange.clock_interval`.

    `ask` is REST's `time` (us, cut to ms). `receive_lag` is the raw histogram of exchange -> receive that
    the health shows next to its corrected value.
    """

    name = "clock"

    def __init__(
        self,
        ask: Callable[[], Awaitable[int]],
        config: ExchangeConfig,
        clock: Clock,
        log: Log,
        receive_lag: Histogram | None = None,
    ) -> None:
        self._ask, self._clock, self._log, self._lag = ask, clock, log, receive_lag
        self._interval_s = config.clock_interval_s
        self._apart_us = config.clock_apart_s * 1e6
        self.estimate = OffsetEstimate()
        self.failures = 0
        self._since_ns = clock.wall_ns()
        self._sampled_ns: int | None = None
        self._is_apart = False
        self._last_error: str | None = None

    async def run(self) -> None:
        """Measure for ever. Ends by cancellation."""
        count = SAMPLES_FIRST
        while True:
            wait_s = await self._measure(count)
            count = SAMPLES_EACH
            self._judge()
            await asyncio.sleep(wait_s)

    def now(self) -> Offset | None:
        """The estimate at this moment."""
        return self.estimate.at(self._clock.steady_ns() / 1e3)

    async def _measure(self, count: int) -> float:
        """Take samples; returns how long to wait for the next ones."""
        for _ in range(count):
            wall_ns, begin_ns = self._clock.wall_ns(), self._clock.steady_ns()
            try:
                exchange_us = await self._ask()
            except RateLimited as error:
                self.failures += 1
                self._last_error = str(error)
                return max(error.retry_after_s, self._interval_s)
            except ExchangeError as error:
                self.failures += 1
                self._last_error = str(error)
                return self._interval_s
            round_trip_ns = self._clock.steady_ns() - begin_ns
            self.estimate.add(wall_ns / 1e3, exchange_us, begin_ns / 1e3, round_trip_ns / 1e3)
            self._sampled_ns, self._last_error = begin_ns, None
            await asyncio.sleep(min(SAMPLE_PAUSE_S, self._interval_s / (2 * count)))
        return self._interval_s

    def _judge(self) -> None:
        """Say when the clocks are apart for sure, and when they are together again."""
        offset = self.now()
        is_apart = offset is not None and abs(offset.offset_us) > self._apart_us + offset.error_us
        if is_apart != self._is_apart and offset is not None:
            self._is_apart, self._since_ns = is_apart, self._clock.wall_ns()
            shown = {
                "offset_ms": round(offset.offset_us / 1e3, 3),
                "error_ms": round(offset.error_us / 1e3, 3),
            }
            if is_apart:
                self._log.warning("this machine's clock and the exchange's are apart: set it by NTP", **shown)
            else:
                self._log.info("this machine's clock and the exchange's agree again", **shown)

    # What operators see.

    def health(self) -> ComponentHealth:
        """starting before the first sample, else ok: clocks that are apart cost no data. `last_error` says
        when they are, and when the exchange does not answer."""
        offset = self.now()
        error = self._last_error
        if self._is_apart and offset is not None:
            error = f"the clocks are {offset.offset_us / 1e3:.1f} ms apart, +- {offset.error_us / 1e3:.1f} ms"
        state: State = "ok" if offset is not None else "starting"
        return ComponentHealth(self.name, state, self._since_ns, error, details=self._details(offset))

    def _details(self, offset: Offset | None) -> dict[str, Any]:
        age_s = None
        if self._sampled_ns is not None:
            age_s = (self._clock.steady_ns() - self._sampled_ns) / 1e9
        found: dict[str, Any] = {
            "offset_ms": None if offset is None else round(offset.offset_us / 1e3, 3),
            "error_ms": None if offset is None else round(offset.error_us / 1e3, 3),
            "is_apart": self._is_apart,
            "is_old": age_s is not None and age_s > OLD_INTERVALS * self._interval_s,
            "age_s": None if age_s is None else round(age_s, 1),
            "samples": len(self.estimate.samples),
            "round_trip_ms_min": self._round_trip_ms(),
            "failures": self.failures,
        }
        if self._lag is not None:
            found["receive_latency"] = {
                name: corrected(self._lag, share, offset) for name, share in (("p50", 0.5), ("p99", 0.99))
            }
        return found

    def _round_trip_ms(self) -> float | None:
        trips = [sample.round_trip_us for sample in self.estimate.samples]
        return round(min(trips) / 1e3, 3) if trips else None

    def collect(self) -> Iterator[Family]:
        """The estimate as gauges; absent before the first sample."""
        offset = self.now()
        if offset is not None:
            yield Family(
                "tradeback_clock_offset_seconds",
                "gauge",
                "The exchange's clock minus this machine's, estimated.",
            ).add(offset.offset_us / 1e6)
            yield Family(
                "tradeback_clock_error_seconds", "gauge", "The estimate's error is at most this."
            ).add(offset.error_us / 1e6)
        yield Family("tradeback_clock_apart", "gauge", "1: the clocks are apart by more than allowed.").add(
            float(self._is_apart)
        )
        yield Family("tradeback_clock_failures", "counter", "Round trips that failed.").add(self.failures)


def corrected(lag: Histogram, share: float, offset: Offset | None) -> dict[str, float | None]:
    """A quantile of exchange -> receive: raw, as the two stamps say, and corrected by the offset.

    The corrected value is None without an estimate, and where the raw one is not known because that many
    messages came before they were sent by our clock; those count as 0 in the histogram. In ms.
    """
    raw_us = lag.quantile_us(share)
    hidden = int(lag.sums[1]) >= share * max(lag.total, 1)
    known = offset is not None and lag.total > 0 and not hidden
    return {
        "raw_ms": raw_us / 1e3 if lag.total else None,
        "corrected_ms": round((raw_us + offset.offset_us) / 1e3, 3) if known and offset else None,
        "error_ms": round(offset.error_us / 1e3, 3) if known and offset else None,
    }
