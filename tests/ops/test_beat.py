"""ops.beat: what sleeps by the same beat wakes together, once a period."""

import asyncio
import random
from itertools import pairwise

import pytest

from tests.worlds.passing import PassingLoop
from tradeback.ops.beat import beat, until_beat


def beats(first_s: float, period_s: float, count: int, held_s: float = 0.0) -> list[float]:
    """When a task that starts then, and holds up the loop for so long each time, is woken."""
    loop = PassingLoop()
    found: list[float] = []

    async def keep() -> None:
        await asyncio.sleep(first_s)
        for _ in range(count):
            await beat(period_s)
            found.append(loop.time())
            loop._passing.now_s += held_s

    try:
        loop.run_until_complete(keep())
    finally:
        loop.close()
    return found


@pytest.mark.parametrize("seed", range(20))
def test_tasks_wake_together_whenever_they_began(seed: int) -> None:
    made = random.Random(seed)
    period_s = made.choice([0.001, 0.25, 1.0, 5.0])
    woken = [beats(made.uniform(0, 9), period_s, 30) for _ in range(2)]
    for times in woken:
        places = [time_s / period_s for time_s in times]
        assert places == pytest.approx([round(place) for place in places], abs=1e-3)
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert gaps == pytest.approx([period_s] * 29, rel=1e-3), "no beat is left out, none comes twice"


def test_half_a_period_is_a_beat_of_the_whole_one() -> None:
    quick, slow = beats(0.3, 0.5, 20), beats(0.7, 1.0, 8)
    assert {round(time_s, 6) for time_s in slow} < {round(time_s, 6) for time_s in quick}


@pytest.mark.parametrize("held_s", [0.1, 0.5, 0.7, 3.3])
def test_a_loop_that_is_held_up_goes_on_by_the_beat(held_s: float) -> None:
    times = beats(0.0, 1.0, 10, held_s)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert all(abs(time_s - round(time_s)) < 1e-6 for time_s in times)
    assert all(held_s + 0.5 - 1e-6 <= gap <= held_s + 1.5 for gap in gaps)


async def test_a_wait_is_between_half_and_one_and_a_half() -> None:
    for period_s in (0.003, 0.25, 7.0):
        assert period_s / 2 <= until_beat(period_s) <= 1.5 * period_s
