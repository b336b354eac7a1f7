"""What ends a command from outside, and what is said meanwhile."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable

APART_S = 0.5
"""A second signal that comes sooner is the first one on another way: from the terminal, and from a parent."""
PROGRESS_PREFIX = "... "
"""Begins lines about a start that takes its time, and sets them off from errors and the log."""


def show_progress(line: str) -> None:
    """Say how far a start is."""
    sys.stderr.write(f"{PROGRESS_PREFIX}{line}\n")
    sys.stderr.flush()


def stop_signals(again: Callable[[int], None] | None = None) -> asyncio.Event:
    """An event that SIGINT and SIGTERM set from now on, on the running loop.

    `again` is called with the number of a signal that comes after that: somebody does not want to wait.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    first_s = 0.0

    def stop(number: int) -> None:
        nonlocal first_s
        if not stopping.is_set():
            first_s = time.monotonic()
            stopping.set()
        elif again is not None and time.monotonic() - first_s >= APART_S:
            again(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    return stopping


def end_at_once(number: int) -> None:
    """End this process without another word to anybody: what is on the tape is safe. For `stop_signals`."""
    from tradeback.ops import log

    sys.stderr.write("tradeback: a second signal: ending at once\n")
    log.finish()
    sys.stdout.flush()
    os._exit(128 + number)
