"""Live bars against an independent aggregation, and the bounds of every interval."""

import itertools
import random
from datetime import UTC, datetime

import pytest

from tradeback.sim.chart import INTERVALS, Chart, bucket_end, bucket_start, month_start

Trade = tuple[int, int, int, bool]


def random_trades(seed: int, count: int) -> list[Trade]:
    """(time_us, price, quantity, maker), in time order, some in the same us, some minutes apart."""
    rng = random.Random(seed)
    now, price, found = 1_781_000_000_000_000, 10**10, []
    for _ in range(count):
        now += rng.choice((0, 0, 5, 900, 300_000, 2_500_000, 70_000_000))
        price += rng.randrange(-500, 501) * 10**4
        found.append((now, price, rng.randrange(1, 10**9), rng.random() < 0.5))
    return found


def aggregate(trades: list[Trade], first_id: int) -> tuple[int, ...]:
    """The oracle: one pass per field."""
    prices = [price for _, price, _, _ in trades]
    taken = [(price, quantity) for _, price, quantity, maker in trades if not maker]
    return (
        prices[0],
        max(prices),
        min(prices),
        prices[-1],
        sum(quantity for _, _, quantity, _ in trades),
        sum(price * quantity for _, price, quantity, _ in trades),
        len(trades),
        sum(quantity for _, quantity in taken),
        sum(price * quantity for price, quantity in taken),
        first_id,
    )


@pytest.mark.parametrize("interval", ["1s", "1m", "5m", "15m", "1h", "2h", "1d", "1w", "1M"])
def test_live_bars_equal_an_independent_aggregation(interval: str) -> None:
    trades = random_trades(7, 3_000)
    chart = Chart()
    for number, (time_us, price, quantity, maker) in enumerate(trades):
        chart.add(time_us, price, quantity, maker, 100 + number)
    end_s = trades[-1][0] // 1_000_000 + 1
    begin_s = max(trades[0][0] // 1_000_000, end_s - 6_000) if interval == "1s" else trades[0][0] // 1_000_000
    groups: dict[int, list[int]] = {}
    for number, trade in enumerate(trades):
        groups.setdefault(bucket_start(interval, trade[0] // 1_000_000), []).append(number)
    rows = list(chart.rows(interval, begin_s, end_s))
    for start_s, until_s, bar in rows:
        assert until_s == bucket_end(interval, start_s)
        members = groups.get(start_s, [])
        if members:
            assert tuple(bar) == aggregate([trades[number] for number in members], 100 + members[0])
        else:
            assert bar.trades == bar.volume == 0
            assert bar.open == bar.high == bar.low == bar.close
    starts = [start_s for start_s, _, _ in rows]
    assert {start for start in groups if start >= begin_s} <= set(starts)
    assert all(bucket_end(interval, one) == two for one, two in itertools.pairwise(starts))


def test_a_chart_without_trades_has_no_rows() -> None:
    assert list(Chart().rows("1m", 1_781_000_000, 1_781_001_000)) == []


def test_weeks_start_on_monday_and_months_on_the_first() -> None:
    moment = int(datetime(2026, 2, 18, 13, 5, 9, tzinfo=UTC).timestamp())
    week = datetime.fromtimestamp(bucket_start("1w", moment), UTC)
    assert (week.weekday(), week.hour, week.day) == (0, 0, 16)
    month = bucket_start("1M", moment)
    assert datetime.fromtimestamp(month, UTC) == datetime(2026, 2, 1, tzinfo=UTC)
    assert datetime.fromtimestamp(bucket_end("1M", month), UTC) == datetime(2026, 3, 1, tzinfo=UTC)
    assert datetime.fromtimestamp(month_start(moment, -2), UTC) == datetime(2025, 12, 1, tzinfo=UTC)


def test_a_time_zone_shifts_the_bounds_of_days() -> None:
    moment = int(datetime(2026, 2, 18, 20, 0, tzinfo=UTC).timestamp())
    start = datetime.fromtimestamp(bucket_start("1d", moment, 8 * 3_600), UTC)
    assert start == datetime(2026, 2, 18, 16, 0, tzinfo=UTC)


@pytest.mark.parametrize("interval", list(INTERVALS))
def test_every_second_lies_in_its_bar(interval: str) -> None:
    for moment in (0, 86_399, 1_781_000_123, 1_772_323_199, 1_772_323_200):
        start = bucket_start(interval, moment)
        assert start <= moment < bucket_end(interval, start)
