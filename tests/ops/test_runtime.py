import asyncio
import threading

from tradeback.ops.metrics import Family
from tradeback.ops.runtime import Runtime


def value(families: list[Family], name: str) -> float:
    (family,) = (held for held in families if held.name == name)
    ((labels, found),) = family.samples
    assert labels == {"process": "engine"}
    assert isinstance(found, int | float)
    return float(found)


async def test_tasks_and_threads_are_counted_while_they_live() -> None:
    runtime, end = Runtime("engine"), threading.Event()
    before = list(runtime.collect())
    task = asyncio.create_task(asyncio.Event().wait())
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        during = list(runtime.collect())
    finally:
        end.set()
        thread.join()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    after = list(runtime.collect())
    for name in ("tradeback_tasks", "tradeback_threads"):
        assert value(during, name) == value(before, name) + 1
        assert value(after, name) == value(before, name)
