"""`python -m tradeback.warm`: compile every kernel into the cache, so that the first start is a warm one.

An image runs this while it is built. NUMBA_CPU_NAME=generic (and NUMBA_CPU_FEATURES empty) make a cache
that any machine of the architecture may load; a cache made for one CPU is compiled anew on another.
"""

import importlib
import pkgutil
import sys
import time
from collections.abc import Iterator

from tradeback.kernel_cache import KERNEL_ROOMS


def kernel_modules() -> Iterator[str]:
    """Names of all modules in the rooms that hold kernels."""
    for room in KERNEL_ROOMS:
        package = importlib.import_module(f"tradeback.{room}")
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            yield module.name


def warm() -> int:
    """Import every kernel module, which compiles its kernels or loads them. Returns how many modules."""
    names = list(kernel_modules())
    for name in names:
        importlib.import_module(name)
    return len(names)


if __name__ == "__main__":
    begin = time.monotonic()
    count = warm()
    sys.stdout.write(f"{count} kernel modules ready in {time.monotonic() - begin:.1f} s\n")
