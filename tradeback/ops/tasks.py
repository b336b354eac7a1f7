"""The end of tasks that run code of others.

A cancellation can be swallowed: in Python 3.11 `asyncio.wait_for` does so when what it waits for comes in
the same moment, and client libraries wait for every answer with it. Who cancels once then waits for ever.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

AGAIN_S = 2.0
"""How long a task that was cancelled may take to close what it holds before it is told again."""


async def end(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Cancel tasks until all have ended, however they end. Their errors are those of who watches them."""
    all_of_them = list(tasks)
    left = {task for task in all_of_them if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_S)
    for task in all_of_them:
        if not task.cancelled():
            task.exception()  # seen: nobody needs a warning


async def finish(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """As `end`; then raises the error of the first that ended with one, for tasks that nobody watches."""
    all_of_them = list(tasks)
    await end(all_of_them)
    for task in all_of_them:
        if not task.cancelled():
            task.result()
