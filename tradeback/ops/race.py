"""Several things at once, until the first of them ends."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def race(*works: Coroutine[Any, Any, Any]) -> int:
    """Run all; when one ends, cancel the others and wait for them. Index of the one that ended first.

    Its error, if it ended with one, is raised.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    index = next(index for index, task in enumerate(tasks) if task in done)
    tasks[index].result()
    return index
