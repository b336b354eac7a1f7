"""cli.race: the first to end decides; nobody is left running."""

import asyncio
import os
import signal
from types import SimpleNamespace

import pytest

from tradeback.cli import race as module
from tradeback.cli.race import race, stop_signals


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signals_set_the_event(number: signal.Signals) -> None:
    stopping = stop_signals()
    os.kill(os.getpid(), number)
    await asyncio.wait_for(stopping.wait(), 5)


async def test_a_second_signal_is_told_apart_from_the_same_one_on_two_ways(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s, again = [100.0], list[int]()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    stopping = stop_signals(again.append)
    loop, seen = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, seen.set)
    for pause_s, number in ((0.0, signal.SIGTERM), (0.1, signal.SIGINT), (5.0, signal.SIGTERM)):
        now_s[0] += pause_s
        seen.clear()
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGUSR1)  # signals are handled in the order in which they come
        await asyncio.wait_for(seen.wait(), 30)
        assert stopping.is_set()
    assert again == [signal.SIGTERM], "the one that came 0.1 s later was the first one, from the terminal"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        loop.remove_signal_handler(number)
