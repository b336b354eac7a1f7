"""Closed bars of the series that are asked for, in memory and ready to be sent.

A closed bar that is proved complete never changes, so what is held stays right by itself. What may change
is read anew: once late trades were counted, a hole was filled, seeds came or klines were stored, a series
is dropped in which a bar is incomplete, or two bars with empty slots between them are not linked by trade
ids; one with incomplete bars also after DOUBT_S. The running bars are never held: they are read with every
answer.
"""

import asyncio
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from tradeback.api.bar_text import CHUNK_BARS, Chunk, Flags, chunks_of
from tradeback.derive.lacking import linked
from tradeback.derive.layout import RESOLUTION_S, Bars, empty_bars

SERIES_BARS_MAX = 25_000
CACHE_BARS_MAX = 200_000
"""22 MB of bars, and 11 MB (UDF) or 22 MB (REST) of their text."""
DOUBT_S = 2.0
NEVER_S = 1 << 42
"""Later than any bar, and in us still an int64."""

Version = tuple[int, ...]
_serials = count(secrets.randbits(56))
"""From anywhere: tags of answers are made of them, and neither the process beside this one nor the one after
it may give the same tag to other bars."""


@dataclass(slots=True, eq=False)
class Held:
    """Closed bars of one series: all there are with lo_s <= slot < edge_s."""

    resolution: int
    lo_s: int = NEVER_S
    edge_s: int = NEVER_S
    chunks: list[Chunk] = field(default_factory=list)
    version: Version = ()
    serial: int = field(default_factory=lambda: next(_serials))
    solid: bool = True
    """All bars are complete, and nothing can lie between them."""
    whole: bool = True
    """All bars are complete."""
    born_s: float = field(default_factory=time.monotonic)
    settled_s: int = NEVER_S
    """From here on it was looked whether the exchange knows more."""
    look_again_s: float = 0.0
    """When to look again for what was found to be lacking."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def count(self) -> int:
        """How many bars."""
        return sum(chunk.size for chunk in self.chunks)

    @property
    def last(self) -> Bars:
        """The newest bar, or none."""
        return self.chunks[-1].rows[-1:] if self.chunks else empty_bars(0)

    def place(self, time_s: int) -> int:
        """The number of the first bar at or after a time."""
        before, wanted = 0, time_s * 1_000_000
        for chunk in self.chunks:
            if chunk.last_us >= wanted:
                return before + int(np.searchsorted(chunk.rows["slot_us"], wanted))
            before += chunk.size
        return before

    def row(self, number: int) -> Bars:
        """The bar with this number, as an array of one."""
        for chunk in self.chunks:
            if number < chunk.size:
                found: Bars = chunk.rows[number : number + 1]
                return found
            number -= chunk.size
        raise IndexError("there are not so many bars")

    def slot_s(self, number: int) -> int:
        """When the bar with this number began."""
        return int(self.row(number)["slot_us"][0]) // 1_000_000

    def reset(self) -> None:
        """Hold nothing."""
        self.chunks.clear()
        self.lo_s = self.edge_s = self.settled_s = NEVER_S
        self.solid = self.whole = True
        self.serial, self.born_s = next(_serials), time.monotonic()

    def trim(self, bars_max: int) -> None:
        """Let go of the oldest beyond so many."""
        while self.count > bars_max:
            gone = self.chunks.pop(0)
            self.lo_s = gone.last_us // 1_000_000 + RESOLUTION_S[self.resolution]

    def prepend(self, rows: Bars, complete: Flags, lo_s: int) -> None:
        """Bars before those held, and from where on they are all there are."""
        new = chunks_of(rows, complete)
        self._judge([*new, *self.chunks[:1]])
        self.chunks[:0] = new
        self.lo_s = lo_s

    def append(self, rows: Bars, complete: Flags, edge_s: int) -> None:
        """Bars behind those held. The last chunk is filled up."""
        new = chunks_of(rows, complete)
        self._judge([*self.chunks[-1:], *new])
        if new and self.chunks and self.chunks[-1].size < CHUNK_BARS:
            short = self.chunks.pop()
            joined = np.concatenate([short.rows, *(chunk.rows for chunk in new)])
            flags = np.concatenate([short.complete, *(chunk.complete for chunk in new)])
            new = chunks_of(joined, flags)
        self.chunks += new
        self.edge_s = edge_s

    def _judge(self, chunks: list[Chunk]) -> None:
        if not chunks:
            return
        rows = np.concatenate([chunk.rows for chunk in chunks])
        whole = all(chunk.whole for chunk in chunks)
        slot_us = RESOLUTION_S[self.resolution] * 1_000_000
        touching = np.diff(rows["slot_us"]) == slot_us
        self.whole = self.whole and whole
        self.solid = self.solid and whole and bool((touching | linked(rows)).all())

    def is_right(self, version: Version) -> bool:
        """Whether what is held is still true. The first number of a version tells of klines: they may stand
        in for any bar; the others tell of late trades."""
        if version == self.version:
            return self.whole or time.monotonic() - self.born_s < DOUBT_S
        return self.solid and self.version[:1] == version[:1]


class BarCache:
    """What is held of every series, the least recently used dropped first."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[int, int], Held] = OrderedDict()
        self.drops = 0

    def of(self, symbol_id: int, resolution: int) -> Held:
        """What is held of a series; begun when nothing is."""
        key = symbol_id, resolution
        held = self._held.get(key)
        if held is None:
            held = self._held[key] = Held(resolution)
        self._held.move_to_end(key)
        return held

    def trim(self) -> None:
        """Keep to the bound."""
        total = sum(held.count for held in self._held.values())
        while total > CACHE_BARS_MAX and len(self._held) > 1:
            _, gone = self._held.popitem(last=False)
            total -= gone.count
            self.drops += 1

    @property
    def bars(self) -> int:
        """How many are held."""
        return sum(held.count for held in self._held.values())
