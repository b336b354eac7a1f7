"""A core that never sleeps, for the ends of a latency.

To wake a core that its system has put to sleep takes some us on one virtual machine and 25 to 50 on another,
at random. Exchange and subscriber stand for machines of their own: how theirs wake is not what is measured,
but was in three of four slow trades. The core of what is measured sleeps as it likes.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from benchmarks.harness.native import address, library


@contextmanager
def awake(core: int) -> Iterator[None]:
    """Keep a core busy with what gives way to everything else (SCHED_IDLE)."""
    stop = np.zeros(1, np.int64)

    def spin() -> None:
        os.sched_setaffinity(0, {core})
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        library().spin_until(address(stop))

    spinner = threading.Thread(target=spin)
    spinner.start()
    try:
        yield
    finally:
        stop[0] = 1
        spinner.join()
