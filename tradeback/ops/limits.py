"""Limits of the operating system and the interpreter that a command sets for its process."""

import resource
import sys

OPEN_FILES_SPARE = 512
"""Descriptors besides clients: exchange lines, segments, the loop's own."""

SWITCH_INTERVAL_S = 0.0002
"""How long a thread in Python (klines of the history, a large answer) may keep the loop from the
interpreter lock. Python's own 5 ms were seen as a p99 of 10 ms while the history loaded."""


def favour_loop() -> None:
    """Let the loop's thread have the interpreter lock back soon."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def open_files() -> tuple[int, int]:
    """The soft and hard limit of open files; RLIM_INFINITY is given as 2**63 - 1."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unbounded = 2**63 - 1
    return (
        unbounded if soft == resource.RLIM_INFINITY else soft,
        unbounded if hard == resource.RLIM_INFINITY else hard,
    )


def raise_open_files(wanted: int) -> int:
    """Raise the soft limit towards `wanted`, never above the hard one. Returns what it is now."""
    soft, hard = open_files()
    target = min(wanted, hard)
    if target <= soft:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    except (OSError, ValueError):
        return soft
    return target
