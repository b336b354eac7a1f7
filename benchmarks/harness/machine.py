"""The machine: cores, CPU time and memory of a process, limits, and what was measured on."""

import os
import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

LIBRARIES = ("uvloop", "picows", "orjson", "numpy", "numba", "aiohttp", "websockets")


def cores() -> tuple[int, int]:
    """(core of what is measured, core of both ends); the same one twice on a machine with one core."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[-1]


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Run this thread on one core for a while."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def urgent() -> Iterator[None]:
    """Let this thread run as soon as it is woken, whoever has its core, as far as the system allows (root).

    For both ends of a latency: on a machine of their own nobody would be in their way.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@contextmanager
def giving_way() -> Iterator[None]:
    """Let this thread have only what others leave of its core; every other thread interrupts it at once."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def cpu_ns(pid: int) -> int:
    """CPU time that a process has used with all its threads, in ns (CPUCLOCK_SCHED of that process)."""
    return time.clock_gettime_ns((~pid << 3) | 2)


def stand_back(pid: int, core: int) -> None:
    """Put a process with all its threads on a core, where they take what others leave."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})
        os.sched_setscheduler(int(task.name), os.SCHED_IDLE, os.sched_param(0))


def held_up_ns(pid: int) -> int:
    """How long the process' main thread was ready to run while its core ran others, in ns; 0 if unknown."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1])
    except (OSError, IndexError):
        return 0


def rss_mb(pid: int) -> float:
    """Resident memory of a process in MB (2^20 bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(f"process {pid} has no memory any more")


def pss_mb(pid: int) -> float:
    """Memory of a process in MB, of pages that it shares with others only its share."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(f"process {pid} has no memory any more")


def raise_open_files(wanted: int) -> int:
    """Lift the limit of open files to `wanted` if the hard limit allows; the limit that now holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
        return target
    return soft if soft != resource.RLIM_INFINITY else wanted


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "-"


def description() -> dict[str, str]:
    """What a reader needs to judge the figures: processor, kernel, Python and library versions."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "libraries": ", ".join(f"{name} {_version(name)}" for name in LIBRARIES),
    }
