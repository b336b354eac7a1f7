"""`python -m tradeback.warm [ROOM ...]`: compile kernels into the cache, so that the next start is warm.

An image runs this while it is built. NUMBA_CPU_NAME=generic (and NUMBA_CPU_FEATURES empty) make a cache
that any machine of the architecture may load; a cache made for one CPU is compiled anew on another.
"""

import importlib
import pkgutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from tradeback import kernel_cache
from tradeback.kernel_cache import KERNEL_ROOMS, OTHER_KERNELS

BESIDE = ("derive", "wire", "feed")
"""Rooms that a cold start compiles in a second process, about half of the work."""


def kernel_modules(rooms: Sequence[str] = ()) -> Iterator[str]:
    """Names of all modules that hold kernels, or of those in `rooms`."""
    for room in KERNEL_ROOMS:
        if not rooms or room in rooms:
            package = importlib.import_module(f"tradeback.{room}")
            for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
                yield module.name
    for path in OTHER_KERNELS:
        if not rooms or path.split("/")[0] in rooms:
            yield "tradeback." + path.removesuffix(".py").replace("/", ".")


def warm(rooms: Sequence[str] = ()) -> int:
    """Import every kernel module, which compiles its kernels or loads them. Returns how many modules."""
    names = list(kernel_modules(rooms))
    for name in names:
        importlib.import_module(name)
    return len(names)


def load() -> None:
    """Load all kernels; with an empty cache two processes compile, each one half. Takes a thread's time.

    Should the other process fail, this one compiles everything itself.
    """
    if kernel_cache.is_warm():
        warm()
        return
    command = [sys.executable, "-m", "tradeback.warm", *BESIDE]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as beside:  # noqa: S603
        warm([room for room in KERNEL_ROOMS if room not in BESIDE])
        beside.wait()
    warm()


if __name__ == "__main__":
    begin = time.monotonic()
    count = warm(sys.argv[1:])
    sys.stdout.write(f"{count} kernel modules ready in {time.monotonic() - begin:.1f} s\n")
