"""cli.race: what ends a command from outside."""

import asyncio
import os
import signal
from types import SimpleNamespace

import pytest

from tradeback.cli import race as module
from tradeback.cli.race import stop_signals


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
