"""The operating system's limits: how many files a process may hold open."""

import resource

OPEN_FILES_SPARE = 512
"""Descriptors besides clients: exchange lines, segments, the loop's own."""


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
