"""Bars as the text of answers, made once: chunks of closed bars keep what they were written as.

A window is a row of pieces of chunks and the running bars behind them. REST wants one object for each bar,
UDF one array for each column; both are lists of parts that a comma joins, so the text of a window is that
of its pieces, joined. Of 5,000 bars only the two outermost pieces and the running bars are written anew.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import orjson
from numpy.typing import NDArray

from tradeback.api.shapes import bars_json
from tradeback.derive.bars import volumes
from tradeback.derive.layout import NO_ID, Bars

CHUNK_BARS = 512
COLUMNS = ("t", "o", "h", "l", "c", "v")
"""Of UDF, and the times of bars that are not complete behind them."""
Flags = NDArray[np.bool_]
Texts = tuple[bytes, ...]
"""Bytes between the brackets of an array, one for each column."""


def columns_text(rows: Bars, complete: Flags) -> Texts:
    """UDF's columns and the times of bars that are not complete, without brackets; bars have trades."""
    times = np.ascontiguousarray(rows["slot_us"] // 1_000_000)
    prices = [np.ascontiguousarray(rows[name]) for name in ("open", "high", "low", "close")]
    columns = [times, *prices, volumes(rows), np.ascontiguousarray(times[~complete])]
    return tuple(orjson.dumps(column, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1] for column in columns)


def objects_text(rows: Bars, complete: Flags) -> Texts:
    """REST's objects without the brackets around them; one text."""
    return (orjson.dumps(bars_json(rows, complete))[1:-1],)


Columns = list[list[bytes]]
"""Of each column the texts that a comma joins."""
Form = Callable[[Bars, Flags], Texts]


@dataclass(slots=True, eq=False)
class Chunk:
    """Up to CHUNK_BARS bars of one series, all with trades, ascending; never changed."""

    rows: Bars
    complete: Flags
    size: int
    last_us: int
    """When its last bar began."""
    whole: bool
    """All bars are complete."""
    _written: dict[tuple[Form, int, int], Texts] = field(default_factory=dict)

    def text(self, form: Form, begin: int, end: int) -> Texts:
        """Bars begin..end written in a form. The whole chunk is kept, and one cut from either side."""
        key = form, begin, end
        found = self._written.get(key)
        if found is None:
            found = form(self.rows[begin:end], self.complete[begin:end])
            if len(self._written) >= KEPT_TEXTS:
                self._written.pop(next(iter(self._written)), None)
            self._written[key] = found
        return found

    def is_written(self, form: Form, begin: int, end: int) -> bool:
        """Whether `text` costs nothing."""
        return (form, begin, end) in self._written


KEPT_TEXTS = 4
Piece = tuple[Chunk, int, int]
"""Bars begin..end of a chunk."""


def chunks_of(rows: Bars, complete: Flags) -> list[Chunk]:
    """Bars in chunks; those without trades are left out, for they have no prices."""
    traded = rows["trade_count"] > 0
    if not traded.all():
        rows, complete = rows[traded], complete[traded]
    return [
        chunk_of(rows[at : at + CHUNK_BARS], complete[at : at + CHUNK_BARS])
        for at in range(0, len(rows), CHUNK_BARS)
    ]


def chunk_of(rows: Bars, complete: Flags) -> Chunk:
    """Some bars, all with trades, as a chunk."""
    return Chunk(rows, complete, len(rows), int(rows["slot_us"][-1]), bool(complete.all()))


@dataclass(slots=True)
class Window:
    """The bars of one answer: pieces of closed bars, then the running ones, as of one moment."""

    pieces: list[Piece]
    running: Bars
    running_complete: Flags
    serial: int
    """Names the closed bars: within one serial those of equal times are equal."""
    settled: bool = True
    """False: the exchange may have bars of this span which are not here yet."""
    following: Bars | None = None
    """The bar behind the window, where one is known."""
    previous_s: int | None = None
    """When the newest bar before the window began; None when there is none."""

    @property
    def count(self) -> int:
        """How many bars."""
        return sum(end - begin for _, begin, end in self.pieces) + len(self.running)

    @property
    def first_s(self) -> int:
        """When its first bar began; far in the future without any."""
        for chunk, begin, _ in self.pieces[:1]:
            return int(chunk.rows["slot_us"][begin]) // 1_000_000
        return int(self.running["slot_us"][0]) // 1_000_000 if len(self.running) else 1 << 42

    @property
    def last_id(self) -> int:
        """Highest trade id in its last bar; NO_ID when no trade of it is on the tape."""
        for bar in self.running[::-1]:
            if bar["trade_count"]:
                return int(bar["last_id"])
        for chunk, _, end in self.pieces[-1:]:
            return int(chunk.rows["last_id"][end - 1])
        return NO_ID

    def cost(self, form: Form) -> int:
        """How many bars `text` would have to write."""
        fresh = (e - b for chunk, b, e in self.pieces if not chunk.is_written(form, b, e))
        return sum(fresh) + len(self.running)

    def text(self, form: Form) -> Columns:
        """The whole window in a form: of each column the parts that a comma joins."""
        parts = [chunk.text(form, begin, end) for chunk, begin, end in self.pieces]
        if len(self.running) or not parts:
            parts.append(form(self.running, self.running_complete))
        return [[part for part in column if part] for column in zip(*parts, strict=True)]

    def rows(self) -> Bars:
        """All bars as one array."""
        return np.concatenate([*(chunk.rows[b:e] for chunk, b, e in self.pieces), self.running])

    def complete(self) -> Flags:
        """Of each bar whether it is complete."""
        parts = [chunk.complete[b:e] for chunk, b, e in self.pieces]
        return np.concatenate([*parts, self.running_complete])

    @property
    def is_final(self) -> bool:
        """Nothing can change it any more: every bar is closed and complete."""
        whole = all(chunk.whole or bool(chunk.complete[b:e].all()) for chunk, b, e in self.pieces)
        return whole and self.settled and not len(self.running)

    def tag(self) -> str:
        """Differs from that of every other answer for the same address, whichever process makes it."""
        ends = (self.pieces[0], self.pieces[-1]) if self.pieces else ()
        places = [int(c.rows["slot_us"][b if n == 0 else e - 1]) for n, (c, b, e) in enumerate(ends)]
        moving = [
            int(bar[name])
            for bar in self.running
            for name in ("slot_us", "trade_count", "last_id", "volume", "seed_count")
        ]
        flags = self.running_complete.tolist()
        return f"{self.serial:x}-{self.count:x}-{hash((*places, *moving, *flags)) & 0xFFFFFFFFFFFFFFFF:x}"


def cut(chunks: Sequence[Chunk], begin: int, end: int) -> list[Piece]:
    """Bars begin..end of chunks that follow each other."""
    pieces, at = [], 0
    for chunk in chunks:
        size = chunk.size
        first, last = max(begin - at, 0), min(end - at, size)
        if first < last:
            pieces.append((chunk, first, last))
        at += size
    return pieces
