"""Where and how eagerly what is measured runs: a core each, and before other work if this user may.

Not as real-time tasks: Linux gives others up to 50 ms in between, and that would be the p99.
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
    """One core."""

    core: int

    def take(self) -> None:
        """For a process before it begins: children inherit it."""
        os.sched_setaffinity(0, {self.core})


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
    if not AUTOGROUP.exists():
        yield
        return
    before = AUTOGROUP.read_text().split()[-1]  # /autogroup-12 nice 0
    AUTOGROUP.write_text(str(NICE))
    try:
        yield
    finally:
        AUTOGROUP.write_text(before)
