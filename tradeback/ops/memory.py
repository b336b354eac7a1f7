"""Giving memory back after start-up: what only the start needed need not stay resident.

Loading kernels pulls 60 MB of LLVM into memory that nothing calls afterwards, and leaves the heap with
holes. Clean pages of a library come back from the page cache by themselves, should they be needed again.
"""

import ctypes
import gc
import sys
from collections.abc import Iterator
from pathlib import Path

LIBRARIES = ("libllvmlite",)
"""Libraries that are of no use once the kernels are loaded."""
_MADV_DONTNEED = 4
_CLEAN = ("r-xp", "r--p")
"""Mappings that hold nothing but the file's own bytes, so that dropping them loses nothing."""


def clean_mappings(maps: str, libraries: tuple[str, ...] = LIBRARIES) -> Iterator[tuple[int, int]]:
    """(address, bytes) of the read-only mappings of `libraries` in the text of /proc/self/maps.

    Read-only data that the loader has relocated shows as r--p too, but was written: it lies in the
    mapping right before the writable one, which is therefore left out.
    """
    lines = [line.split() for line in maps.splitlines()]
    for place, words in enumerate(lines):
        if len(words) < 6 or words[1] not in _CLEAN or not any(name in words[5] for name in libraries):
            continue
        following = lines[place + 1] if place + 1 < len(lines) else []
        if words[1] == "r--p" and len(following) >= 2 and "w" in following[1]:
            continue
        start, end = (int(part, 16) for part in words[0].split("-"))
        yield start, end - start


def give_back() -> None:
    """Collect garbage for the last time, freeze what lives, return free heap and unneeded library pages."""
    gc.collect()
    gc.freeze()
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for address, size in clean_mappings(Path("/proc/self/maps").read_text()):
        libc.madvise(address, size, _MADV_DONTNEED)
