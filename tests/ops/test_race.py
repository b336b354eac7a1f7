"""ops.race: the first to end decides; nobody is left running."""

import asyncio

import pytest

from tradeback.ops.race import race


class Runner:
    """Waits until it is cancelled, and tells."""

    def __init__(self) -> None:
        self.ended = False

    async def run(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True


async def nothing() -> None:
    await asyncio.sleep(0)


async def failing() -> None:
    await asyncio.sleep(0)
    raise LookupError("lost")


async def test_the_first_to_end_is_named() -> None:
    runner = Runner()
    assert await race(runner.run(), nothing()) == 1
    assert runner.ended


async def test_its_error_is_raised() -> None:
    runner = Runner()
    with pytest.raises(LookupError, match="lost"):
        await race(runner.run(), failing())
    assert runner.ended


async def test_a_cancelled_race_cancels_all() -> None:
    runners = [Runner(), Runner()]
    task = asyncio.ensure_future(race(*(runner.run() for runner in runners)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(runner.ended for runner in runners)
