"""Records of one symbol within bounds of time and id: by index where a segment has one, else by scan.

What a query reads of a segment tells later ones which pieces they need not read (`tape.spans`).
"""

import mmap
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tradeback.model.errors import TapeError
from tradeback.model.record import TICK, TRADE, Rows, count_intact, empty_rows
from tradeback.tape.growing import Growing
from tradeback.tape.index import Index, read_index
from tradeback.tape.segment import CHECK_ROWS, HEADER_BYTES, Segment
from tradeback.tape.spans import ID_MAX, Spans, Wanted, times_us

INDEXES_MAX: Final = 64
"""Indexes kept mapped; the pages they share with the page cache are all they cost."""
GROWING_MAX: Final = 2
"""Segments without an index that are kept in mind: the one being written and the one before; 3 MB each."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is wanted; see TapeReader.symbol_rows."""

    symbol_id: int | None
    """None: every symbol, by scan."""
    kinds: Collection[int] | None = None
    from_us: int | None = None
    to_us: int | None = None
    from_id: int | None = None

    def mask(self, rows: Rows) -> NDArray[np.bool_]:
        """Which of `rows` satisfy every condition."""
        wanted = np.ones(len(rows), np.bool_)
        if self.symbol_id is not None:
            wanted &= rows["symbol_id"] == self.symbol_id
        if self.kinds is not None:
            wanted &= np.isin(rows["kind"], np.fromiter(self.kinds, np.uint8))
        if self.from_id is not None:
            wanted &= rows["id"] >= self.from_id
        if self.from_us is not None or self.to_us is not None:
            times = times_us(rows)
            if self.from_us is not None:
                wanted &= times >= self.from_us
            if self.to_us is not None:
                wanted &= times < self.to_us
        return wanted


class Enough:
    """What a page still needs: `id_max` comes down as better matches are found."""

    __slots__ = ("id_max",)

    def __init__(self) -> None:
        self.id_max = ID_MAX


class Found(NamedTuple):
    """Matching records of one segment, in tape order."""

    segment: Segment
    sequences: NDArray[np.int64]
    rows: Rows


@dataclass(frozen=True, slots=True)
class _Indexed:
    """An index, and what has been read by it: spans by symbol."""

    index: Index
    spans: dict[int, Spans]


class IndexCache:
    """The indexes last used, mapped and verified once, and what was learnt of segments. Thread safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[Segment, _Indexed] = OrderedDict()
        self._growing: OrderedDict[Segment, Growing] = OrderedDict()

    def find(self, segment: Segment) -> Index | None:
        """The segment's index, or None when there is no good one on the disk."""
        with self._lock:
            held = self._held.get(segment)
            if held is not None:
                self._held.move_to_end(segment)
                return held.index
        index = read_index(segment)
        if index is not None:
            with self._lock:
                self._held[segment] = _Indexed(index, {})
                self._growing.pop(segment, None)
                while len(self._held) > INDEXES_MAX:
                    self._held.popitem(last=False)
        return index

    def spans(self, segment: Segment, symbol_id: int, pieces: int) -> Spans:
        """What is known of the symbol's `pieces` in a segment whose index was found."""
        with self._lock:
            held = self._held.get(segment)
            return Spans(pieces) if held is None else held.spans.setdefault(symbol_id, Spans(pieces))

    def growing(self, segment: Segment) -> Growing:
        """What is known of a segment without an index."""
        with self._lock:
            known = self._growing.setdefault(segment, Growing(segment))
            self._growing.move_to_end(segment)
            while len(self._growing) > GROWING_MAX:
                self._growing.popitem(last=False)
            return known

    def keep_only(self, segments: Sequence[Segment]) -> None:
        """Let go of segments that retention has removed, so that their disk space is freed."""
        with self._lock:
            for held in (self._held, self._growing):
                for segment in held.keys() - set(segments):
                    del held[segment]


def find(
    segments: Sequence[Segment], query: Query, indexes: IndexCache, enough: Enough | None = None
) -> Iterator[Found]:
    """All matches in tape order, in pieces of bounded size. Segments that retire meanwhile are left out.

    `enough`: ids above its `id_max`, as it stands when a piece is read, are left out, too. Raises TapeError
    for a damaged record in a sealed segment that has to be scanned.
    """
    indexes.keep_only(segments)
    for place, segment in enumerate(segments):
        newest = place == len(segments) - 1
        try:
            for numbers, rows in _candidates(segment, query, indexes, enough, newest=newest):
                mask = query.mask(rows)
                if enough is not None and enough.id_max != ID_MAX:
                    mask &= rows["id"] <= enough.id_max
                if mask.any():
                    yield Found(segment, segment.first + numbers[mask].astype(np.int64), rows[mask])
        except FileNotFoundError:
            continue


def first_rows(found: Iterator[Found], rows_max: int, enough: Enough | None = None) -> Rows:
    """The first `rows_max` matches in tape order; with the `enough` of `find`: the lowest ids, by id."""
    held = empty_rows(0)
    pending: list[Rows] = []
    count = 0
    for piece in found:
        pending.append(piece.rows)
        count += len(piece.rows)
        if count >= rows_max:
            if enough is None:
                break
            held = _lowest_ids([held, *pending], rows_max)
            enough.id_max = int(held["id"][-1])
            pending, count = [], 0
    if enough is not None:
        return _lowest_ids([held, *pending], rows_max)
    return np.concatenate([held, *pending])[:rows_max]


def _lowest_ids(parts: list[Rows], rows_max: int) -> Rows:
    rows = np.concatenate(parts)
    return rows[np.argsort(rows["id"], kind="stable")[:rows_max]]


_Numbered = tuple[NDArray[np.integer[Any]], Rows]


def _candidates(
    segment: Segment, query: Query, indexes: IndexCache, enough: Enough | None, *, newest: bool
) -> Iterator[_Numbered]:
    """Row numbers and rows of the segment among which the matches are, in tape order."""
    index = None if newest else indexes.find(segment)
    if index is not None and not index.times.overlap(query.from_us, query.to_us):
        return
    if query.symbol_id is None:
        yield from scan(segment, newest=newest)
        return

    def wanted() -> Wanted | None:
        if query.kinds is None or set(query.kinds) != {TRADE}:
            return None
        return Wanted(query.from_us, query.to_us, query.from_id, ID_MAX if enough is None else enough.id_max)

    if index is None:
        known = indexes.growing(segment)
        pieces = known.pieces()
        yield from known.gather(pieces, query.symbol_id, wanted)
        yield from scan(segment, len(pieces) * CHECK_ROWS, newest=newest)
        return
    row_numbers = index.rows_of(query.symbol_id)
    spans = indexes.spans(segment, query.symbol_id, -(-len(row_numbers) // CHECK_ROWS))
    yield from _gather(segment, row_numbers, spans, wanted)


def _gather(
    segment: Segment, row_numbers: NDArray[np.uint32], spans: Spans, wanted: Callable[[], Wanted | None]
) -> Iterator[_Numbered]:
    """The numbered rows, without pieces that `spans` knows to hold none, through a mapping that touches only
    their pages.

    Mapping is safe here: a segment that has an index is sealed and synced, and is never cut in place.
    """
    if not len(row_numbers):
        return
    with segment.path.open("rb", buffering=0) as file:
        raw = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    everything = np.frombuffer(raw, TICK, (len(raw) - HEADER_BYTES) // TICK.itemsize, HEADER_BYTES)
    for piece, start in enumerate(range(0, len(row_numbers), CHECK_ROWS)):
        asked = wanted()
        if asked is not None and not spans.may_hold(piece, asked):
            continue
        numbers = row_numbers[start : start + CHECK_ROWS]
        rows = everything[numbers]
        if asked is not None:
            spans.learn(piece, rows)
        yield numbers, rows


def scan(segment: Segment, row: int = 0, *, newest: bool) -> Iterator[_Numbered]:
    """All rows from number `row` on with their numbers, in verified slices.

    The newest segment ends before a torn tail; in others a damaged record raises TapeError.
    """
    while True:
        rows = segment.load(row, CHECK_ROWS)
        good = count_intact(rows, segment.first + row, segment.epoch)
        yield np.arange(row, row + good), rows[:good]
        if good < len(rows) and not newest:
            raise TapeError(
                f"record {segment.first + row + good} in {segment.path} is damaged: "
                "run `tradeback tape verify`"
            )
        if good < CHECK_ROWS:
            return
        row += good


def only_symbols(found: Iterator[Found], symbol_ids: Collection[int]) -> Iterator[Found]:
    """Of `found`, the records of several symbols."""
    wanted = np.fromiter(symbol_ids, np.uint16)
    for piece in found:
        mask = np.isin(piece.rows["symbol_id"], wanted)
        if mask.any():
            yield Found(piece.segment, piece.sequences[mask], piece.rows[mask])
