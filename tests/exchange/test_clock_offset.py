"""exchange.clock_offset: the truth never leaves the bound; what operators see; the exchange that is away."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.exchange.harness import Logbook, until
from tradeback.exchange import clock_offset
from tradeback.exchange.clock_offset import ClockOffset, Offset, OffsetEstimate, corrected
from tradeback.exchange.rest import Rest
from tradeback.model.config import ExchangeConfig
from tradeback.model.errors import ExchangeError, RateLimited
from tradeback.ops.clock import SystemClock
from tradeback.ops.metrics import Histogram
from tradeback.sim.config import SimConfig
from tradeback.sim.market import Synthetic
from tradeback.sim.server import SimServer

START_US = 1_781_000_000_000_000.0

trips = st.lists(
    st.tuples(
        st.floats(0, 600e6),  # pause before it, us
        st.floats(50, 400_000),  # there
        st.floats(50, 400_000),  # back
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(trips, st.floats(-5e6, 5e6), st.floats(-99, 99), st.floats(0, 1))
def test_the_truth_stays_within_the_bound(
    sent: list[tuple[float, float, float]], offset_us: float, drift_ppm: float, phase: float
) -> None:
    """Any delays there and back, a clock that drifts within the allowance, times cut to milliseconds."""
    estimate = OffsetEstimate()
    steady_us = phase * 1e6

    def theirs(at_us: float) -> float:
        return START_US + at_us + offset_us + drift_ppm / 1e6 * at_us

    for pause_us, there_us, back_us in sent:
        steady_us += pause_us
        read = theirs(steady_us + there_us) // 1_000 * 1_000
        estimate.add(START_US + steady_us, read, steady_us, there_us + back_us)
        steady_us += there_us + back_us
        for later_us in (0.0, 60e6):
            found = estimate.at(steady_us + later_us)
            assert found is not None
            truth = theirs(steady_us + later_us) - (START_US + steady_us + later_us)
            assert abs(truth - found.offset_us) <= found.error_us + 1.0  # floats of 2^50 have quarters
        assert len(estimate.samples) <= clock_offset.SAMPLES_MAX
    shortest = min(there + back for _, there, back in sent[-1:])
    last = estimate.at(steady_us)
    assert last is not None
    assert last.error_us <= (shortest + 1_000) / 2 + 1


def test_the_shortest_trip_decides() -> None:
    rng, estimate = random.Random(5), OffsetEstimate()
    for number in range(20):
        steady_us = number * 200_000.0
        there, back = rng.uniform(500, 40_000), rng.uniform(500, 40_000)
        if number == 7:
            there, back = 300.0, 200.0
        estimate.add(START_US + steady_us, START_US + steady_us + there + 1_234.0, steady_us, there + back, 0)
    found = estimate.at(4_000_000.0)
    assert found is not None
    drifted = clock_offset.DRIFT_PPM / 1e6 * (4_000_000.0 - 1_400_500.0)
    assert found.error_us <= 251 + drifted
    assert found.offset_us == pytest.approx(1_234, abs=250 + drifted)


def test_an_old_estimate_grows_wider() -> None:
    estimate = OffsetEstimate()
    assert estimate.at(0.0) is None
    estimate.add(START_US, START_US + 500.0, 0.0, 1_000.0, 0)
    assert estimate.at(1_000.0) == Offset(0.0, 500.0)
    assert estimate.at(1_000.0 + 3_600e6) == Offset(0.0, 500.0 + 360_000.0)


def test_a_clock_that_was_set_is_believed_at_once() -> None:
    estimate = OffsetEstimate()
    for number in range(10):
        estimate.add(START_US + number * 1e6, START_US + number * 1e6 + 500, number * 1e6, 1_000.0, 0)
    # Ours is set back by 5 s: the steady one is not.
    estimate.add(START_US + 11e6 - 5e6, START_US + 11e6 + 500, 11e6, 1_000.0, 0)
    found = estimate.at(11e6 + 1_000)
    assert found is not None
    assert found.offset_us == pytest.approx(5e6)
    assert len(estimate.samples) == 1
    # Theirs is set: no step of ours, but the newest contradicts the others.
    estimate.add(START_US + 12e6 - 5e6, START_US + 12e6 + 9e6, 12e6, 1_000.0, 0)
    found = estimate.at(12e6 + 1_000)
    assert found is not None
    assert found.offset_us == pytest.approx(14e6 - 500)
    assert len(estimate.samples) == 1


class FakeClock:
    """Moves when told; the wall clock is `ahead_ns` of the steady one."""

    def __init__(self) -> None:
        self.steady, self.ahead_ns = 0, int(START_US * 1e3)

    def steady_ns(self) -> int:
        return self.steady

    def wall_ns(self) -> int:
        return self.steady + self.ahead_ns


@asynccontextmanager
async def measuring(
    ask: Callable[[], Awaitable[int]], clock: FakeClock, log: Logbook, lag: Histogram | None = None
) -> AsyncIterator[ClockOffset]:
    config = ExchangeConfig(clock_interval_s=0.01, clock_apart_s=0.5)
    made = ClockOffset(ask, config, clock, log, lag)
    task = asyncio.create_task(made.run())
    try:
        yield made
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_clocks_that_are_apart_are_said_once_and_shown() -> None:
    clock, log, lag = FakeClock(), Logbook(), Histogram()
    offset_us = 900_000
    lag.observe(30_000, 99)

    async def ask() -> int:
        clock.steady += 2_000_000
        answer = (clock.wall_ns() // 1_000 + offset_us) // 1_000 * 1_000
        clock.steady += 2_000_000
        return answer

    async with measuring(ask, clock, log, lag) as made:
        assert made.health().state == "starting"
        await until(lambda: log.of("are apart"))
        health = made.health()
        details = health.details or {}
        assert health.state == "ok"
        assert "900" in (health.last_error or "") or "899" in (health.last_error or "")
        assert details["offset_ms"] == pytest.approx(900, abs=details["error_ms"])
        assert 0 < details["error_ms"] <= 2.5 + 0.1
        assert details["round_trip_ms_min"] == 4.0
        shown = details["receive_latency"]["p50"]
        assert shown["raw_ms"] == 50.0
        assert shown["corrected_ms"] == pytest.approx(50.0 + details["offset_ms"], abs=0.1)
        assert shown["error_ms"] == details["error_ms"]
        gauges = {family.name: family.samples[0][1] for family in made.collect()}
        assert gauges["tradeback_clock_offset_seconds"] == pytest.approx(0.9, abs=0.0026)
        assert gauges["tradeback_clock_apart"] == 1
        await until(lambda: len(made.estimate.samples) > 12)
        assert len(log.of("are apart")) == 1
        offset_us = 0
        clock.ahead_ns += 10_000_000  # makes the old samples void
        await until(lambda: log.of("agree again"))
        assert made.health().last_error is None


async def test_an_exchange_that_is_away_costs_nothing_but_the_estimate() -> None:
    clock, log, calls = FakeClock(), Logbook(), 0

    async def ask() -> int:
        nonlocal calls
        calls += 1
        if calls <= 3:
            raise ExchangeError("it is away")
        if calls == 8:
            raise RateLimited("the exchange asks to wait", status=429, retry_after_s=60.0)
        clock.steady += 1_000_000
        return int(clock.wall_ns() // 1_000)

    async with measuring(ask, clock, log) as made:
        await until(lambda: made.failures == 3)
        assert made.health().state == "starting"
        assert made.health().last_error == "it is away"
        await until(lambda: made.failures == 4)
        await asyncio.sleep(0.05)  # several intervals
        assert calls == 8, "it waits as it was told"
        assert made.health().state == "ok"
        clock.steady += 1_000_000_000
        assert (made.health().details or {})["is_old"] is True


def test_a_latency_is_corrected_only_where_it_is_known() -> None:
    lag = Histogram()
    nothing = {"raw_ms": None, "corrected_ms": None, "error_ms": None}
    assert corrected(lag, 0.5, Offset(1.0, 1.0)) == nothing
    lag.observe(1_000, 60)
    assert corrected(lag, 0.5, None) == {"raw_ms": 1.0, "corrected_ms": None, "error_ms": None}
    assert corrected(lag, 0.5, Offset(-250.0, 100.0)) == {
        "raw_ms": 1.0, "corrected_ms": 0.75, "error_ms": 0.1,
    }  # fmt: skip
    lag.observe(-4_000, 100)  # more than half came before they were sent, by our clock
    assert corrected(lag, 0.5, Offset(5_000.0, 100.0))["corrected_ms"] is None
    assert corrected(lag, 0.99, Offset(5_000.0, 100.0))["corrected_ms"] == 6.0


async def test_against_the_simulated_exchange() -> None:
    server = await SimServer.start(Synthetic(2, 100.0), SimConfig(start_after_streams=0))
    rest = Rest(server.rest_url, SystemClock())
    try:
        made = ClockOffset(rest.time_us, ExchangeConfig(), SystemClock(), Logbook())
        await made._measure(3)
        found = made.now()
        assert found is not None
        assert server.player is not None
        truth_us = server.player.now_us() - SystemClock().wall_ns() / 1e3
        assert abs(found.offset_us - truth_us) <= found.error_us + 1_000
        assert found.error_us < 50_000
    finally:
        await rest.close()
        await server.stop()
