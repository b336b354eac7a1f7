"""`python -m tradeback.warm`: compile kernels into the cache, so that the next start is warm.

An image runs this while it is built. NUMBA_CPU_NAME=generic (and NUMBA_CPU_FEATURES empty) make a cache
that any machine of the architecture may load; a cache made for one CPU is compiled anew on another.
"""

import importlib
import pkgutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from tradeback import kernel_cache
from tradeback.kernel_cache import KERNEL_ROOMS, OTHER_KERNELS

BESIDE = ("derive", "wire", "feed")
"""Rooms that a cold start compiles in a second process, about half of the work."""
BESIDE_FLAG = "--beside"
NOT_AT_START = ("tradeback.ingest.batch", "tradeback.wire.v2_decode_kernel")
"""Kernels of tests and benchmarks, and of clients."""
WHEN_CONFIGURED = ("tradeback.wire.influx_kernel",)
"""Kernels that sinks load when their server is configured; compiled beforehand with the others."""


def kernel_modules() -> Iterator[str]:
    """Names of all modules that hold kernels which an engine uses."""
    for room in KERNEL_ROOMS:
        package = importlib.import_module(f"tradeback.{room}")
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            if module.name not in (*NOT_AT_START, *WHEN_CONFIGURED):
                yield module.name
    for path in OTHER_KERNELS:
        yield "tradeback." + path.removesuffix(".py").replace("/", ".")


def is_beside(module: str) -> bool:
    """True for a module of BESIDE."""
    return any(module.startswith(f"tradeback.{part}") for part in BESIDE)


def warm(wanted: Callable[[str], bool] = lambda module: True) -> int:
    """Import every wanted kernel module: compiles its kernels or loads them. Returns how many modules."""
    names = [name for name in kernel_modules() if wanted(name)]
    for name in names:
        importlib.import_module(name)
    return len(names)


def load() -> int:
    """Load all kernels; with an empty cache two processes compile, each one half. Takes a thread's time.

    Should the other process fail, this one compiles everything itself. Returns how many modules.
    """
    importlib.import_module("numpy.ma")  # else the first np.unique does, for 7 ms, on somebody's loop
    if kernel_cache.is_warm():
        return warm()
    command = [sys.executable, "-m", "tradeback.warm", BESIDE_FLAG]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as beside:  # noqa: S603
        warm(lambda module: not is_beside(module))
        beside.wait()
    return warm()


def load_for_servers() -> int:
    """Load the kernels of WHEN_CONFIGURED. Returns how many modules."""
    for name in WHEN_CONFIGURED:
        importlib.import_module(name)
    return len(WHEN_CONFIGURED)


if __name__ == "__main__":
    begin = time.monotonic()
    count = warm(is_beside) if BESIDE_FLAG in sys.argv[1:] else load() + load_for_servers()
    sys.stdout.write(f"{count} kernel modules ready in {time.monotonic() - begin:.1f} s\n")
