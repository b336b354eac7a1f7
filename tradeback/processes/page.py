"""A page of memory that all processes of a run share: where the tape's head is.

Written by the engine only. Each word is one aligned store, so no reader sees half of one. The records
before `published` are in the tape's files by then: the path's kernel writes the word after the append.
"""

import mmap
import os

PAGE_BYTES = mmap.PAGESIZE
PUBLISHED = 0
"""Sequence after the newest record; 0 before the first engine has opened the tape."""
GENERATION = 1
"""How often the symbol table may have grown: an engine has come up, or has taken up symbols."""


def create_page() -> int:
    """A descriptor (memfd) of a new page, all zero; not inherited unless asked for."""
    descriptor = os.memfd_create("tradeback-page")
    os.ftruncate(descriptor, PAGE_BYTES)
    return descriptor


class SharedPage:
    """The page behind a descriptor, which stays the caller's."""

    def __init__(self, descriptor: int) -> None:
        self._words = memoryview(mmap.mmap(descriptor, PAGE_BYTES)).cast("q")

    @property
    def published(self) -> int:
        """Sequence after the newest record that is in the tape's files; 0 before there is an engine."""
        return self._words[PUBLISHED]

    @property
    def generation(self) -> int:
        """Read it after `published`: what is published belongs to this generation or an earlier one."""
        return self._words[GENERATION]

    @property
    def published_address(self) -> int:
        """For `Path.announce`."""
        import numpy as np

        return int(np.frombuffer(self._words, np.int64)[PUBLISHED:].ctypes.data)

    def come_up(self, next_sequence: int) -> None:
        """A new engine is about to append at `next_sequence`; its symbols are in the registry."""
        self._words[GENERATION] += 1
        self._words[PUBLISHED] = next_sequence

    def symbols_came(self) -> None:
        """The registry holds more symbols, or describes some anew; their records are still to come."""
        self._words[GENERATION] += 1
