"""Where and how eagerly what is measured runs: a core each, and before other work if this user may.

Real time where little CPU is used, so that other work is not what is measured. Not for the flood: it would
take the machine from everybody, and Linux gives others 50 ms of every second anyway.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NICE = -19
AUTOGROUP = Path("/proc/self/autogroup")
"""Linux weighs sessions against each other before it looks at nice values; this is the session's own."""


@dataclass(frozen=True)
class Place:
    """One core, and whether to run there as a real-time task."""

    core: int
    real_time: bool = False

    def take(self) -> None:
        """For a process before it begins: children inherit it."""
        os.sched_setaffinity(0, {self.core})
        if self.real_time:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))

    def give(self, pid: int) -> None:
        """Real time for a running process with all its threads."""
        for thread in os.listdir(f"/proc/{pid}/task") if self.real_time else ():
            try:
                os.sched_setscheduler(int(thread), os.SCHED_RR, os.sched_param(1))
            except ProcessLookupError:
                continue  # it has ended


@contextmanager
def eager() -> Iterator[bool]:
    """Let this process and its children go before others; whether that was granted."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    except PermissionError:
        yield False
        return
    try:
        with _session():
            yield True
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


@contextmanager
def _session() -> Iterator[None]:
    told = AUTOGROUP.read_text().split() if AUTOGROUP.exists() else []  # /autogroup-12 nice 0
    if not told:  # a container's sessions have no group of their own: the file is there and empty
        yield
        return
    before = told[-1]
    AUTOGROUP.write_text(str(NICE))
    try:
        yield
    finally:
        AUTOGROUP.write_text(before)
