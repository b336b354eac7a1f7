"""ops.tasks: tasks that run code of others end, also when a cancellation is swallowed."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import pytest

from tradeback.ops import tasks

Ending = Callable[[Iterable["asyncio.Task[None]"]], Awaitable[None]]


class Stubborn:
    """Swallows cancellations, as client libraries do now and then."""

    def __init__(self, times: int) -> None:
        self.left = times

    async def run(self) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if not self.left:
                    raise
                self.left -= 1


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "AGAIN_S", 0.01)


async def begun(*works: Stubborn) -> list["asyncio.Task[None]"]:
    made = [asyncio.create_task(work.run()) for work in works]
    await asyncio.sleep(0)
    return made


@pytest.mark.parametrize("ending", [tasks.end, tasks.finish])
async def test_who_swallows_a_cancellation_is_told_again(ending: Ending) -> None:
    made = await begun(Stubborn(0), Stubborn(1), Stubborn(3))
    async with asyncio.timeout(30) as limit:
        await ending(made)
    assert not limit.expired()
    assert all(task.cancelled() for task in made)


async def test_errors_are_raised_for_tasks_that_nobody_watches() -> None:
    async def fails() -> None:
        raise ValueError("a bug")

    made = [asyncio.create_task(fails()), *await begun(Stubborn(1))]
    await tasks.end(made)
    with pytest.raises(ValueError, match="a bug"):
        await tasks.finish(made)


async def test_nothing_to_end() -> None:
    await tasks.end([])
    await tasks.finish([])
