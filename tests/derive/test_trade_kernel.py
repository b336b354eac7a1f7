"""derive.trade_kernel: late trades of one second share a bar, and merge to what single ones would."""

import random
from dataclasses import replace

import pytest

from tests.derive.world import NAMES, START_US, Trade, feed, rows_of, seen_slots, slots, symbol
from tradeback.derive.layout import LATE
from tradeback.derive.state import Derived


def follow() -> Derived:
    derived = Derived(1)
    derived.add_symbol(symbol())
    return derived


def run(first_id: int, count: int, begin_us: int, span_us: int, seed: int = 1) -> list[Trade]:
    rng = random.Random(seed)
    times = sorted(begin_us + rng.randrange(span_us) for _ in range(count))
    return [
        Trade(first_id + n, time, f"{rng.randrange(100, 999)}.25", f"{rng.randrange(1, 99)}.5", n % 3 == 0)
        for n, time in enumerate(times)
    ]


def test_thousands_of_repaired_trades_make_a_few_bars() -> None:
    base_us = START_US - START_US % 86_400_000_000
    old, new = run(100, 3_000, base_us, 20_000_000), run(3_100, 5, base_us + 86_400_000_000 * 3, 5_000_000)
    derived = follow()
    feed(derived, rows_of([*new, *old]))
    late = [derived.closed(1, index) for index in range(len(NAMES))]
    assert sum(len(bars[(bars["flags"] & LATE) != 0]) for bars in late) <= 20 * len(NAMES)
    assert derived.counters["late"] == 3_000 * len(NAMES)
    for index, name in enumerate(NAMES):
        assert seen_slots(derived, 1, index) == slots([*old, *new], name)


@pytest.mark.parametrize("seed", range(20))
def test_order_and_seconds_make_no_difference(seed: int) -> None:
    rng = random.Random(seed)
    base_us = START_US - START_US % 86_400_000_000
    old = run(100, 200, base_us, rng.choice((1_000_000, 3_000_000, 100_000_000)), seed)
    new = run(300, 5, base_us + 86_400_000_000 * 3, 5_000_000, seed)
    other = [replace(trade, id=trade.id, symbol_id=1) for trade in old]
    rng.shuffle(other)
    derived = follow()
    cuts = [rng.randrange(200) for _ in range(4)]
    feed(derived, rows_of([*new, *other]), cuts)
    for index, name in enumerate(NAMES):
        assert seen_slots(derived, 1, index) == slots([*old, *new], name)
