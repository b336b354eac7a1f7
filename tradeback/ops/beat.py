"""One beat for all that looks around now and then, so that trades wait once for all of it and not for each.

A task that wakes costs its own work and 0.1 ms besides: the timer, the loop's turn, cold caches. Where five
wake a second at five moments, a trade meets one of them five times as often as where all wake together.
"""

import asyncio


def until_beat(period_s: float) -> float:
    """Seconds until the running loop's time is a multiple of `period_s`; at least half a period.

    A timer may fire a little early, or late where the loop was held up: neither makes two beats of one.
    """
    rest_s = period_s - asyncio.get_running_loop().time() % period_s
    return rest_s if rest_s >= period_s / 2 else rest_s + period_s


async def beat(period_s: float) -> None:
    """Sleep until then."""
    await asyncio.sleep(until_beat(period_s))
