"""Several things at once, until the first of them ends; and what is said meanwhile."""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Any

PROGRESS_PREFIX = "... "
"""Begins lines about a start that takes its time, and sets them off from errors and the log."""


def show_progress(line: str) -> None:
    """Say how far a start is."""
    sys.stderr.write(f"{PROGRESS_PREFIX}{line}\n")
    sys.stderr.flush()


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


def stop_signals() -> asyncio.Event:
    """An event that SIGINT and SIGTERM set from now on, on the running loop."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    return stopping
