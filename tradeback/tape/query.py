"""Records of one symbol within bounds of time and id: by index where a segment has one, else by scan."""

import mmap
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tradeback.model.errors import TapeError
from tradeback.model.record import QUOTE, TICK, Rows, count_intact, empty_rows
from tradeback.tape.index import Index, read_index
from tradeback.tape.segment import CHECK_ROWS, HEADER_BYTES, Segment

INDEXES_MAX: Final = 64
"""Indexes kept mapped; the pages they share with the page cache are all they cost."""


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


class Found(NamedTuple):
    """Matching records of one segment, in tape order."""

    segment: Segment
    sequences: NDArray[np.int64]
    rows: Rows


class IndexCache:
    """The indexes last used, mapped and verified once. Thread safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[Segment, Index] = OrderedDict()

    def find(self, segment: Segment) -> Index | None:
        """The segment's index, or None when there is no good one on the disk."""
        with self._lock:
            index = self._held.get(segment)
            if index is not None:
                self._held.move_to_end(segment)
                return index
        index = read_index(segment)
        if index is not None:
            with self._lock:
                self._held[segment] = index
                while len(self._held) > INDEXES_MAX:
                    self._held.popitem(last=False)
        return index

    def keep_only(self, segments: Sequence[Segment]) -> None:
        """Let go of segments that retention has removed, so that their disk space is freed."""
        with self._lock:
            for segment in self._held.keys() - set(segments):
                del self._held[segment]


def times_us(rows: Rows) -> NDArray[np.int64]:
    """The time by which each record is found: the exchange's, or of receipt for quotes and where it is 0."""
    by_receipt = (rows["kind"] == QUOTE) | (rows["exchange_us"] == 0)
    times: NDArray[np.int64] = np.where(by_receipt, rows["recv_ns"] // 1_000, rows["exchange_us"])
    return times


def find(segments: Sequence[Segment], query: Query, indexes: IndexCache) -> Iterator[Found]:
    """All matches in tape order, in pieces of bounded size. Segments that retire meanwhile are left out.

    Raises TapeError for a damaged record in a sealed segment that has to be scanned.
    """
    indexes.keep_only(segments)
    for place, segment in enumerate(segments):
        newest = place == len(segments) - 1
        try:
            for numbers, rows in _candidates(segment, query, None if newest else indexes, newest=newest):
                mask = query.mask(rows)
                if mask.any():
                    yield Found(segment, segment.first + numbers[mask].astype(np.int64), rows[mask])
        except FileNotFoundError:
            continue


def first_rows(found: Iterator[Found], rows_max: int, *, by_id: bool) -> Rows:
    """The first `rows_max` matches in tape order, or those with the lowest ids, by id."""
    held = empty_rows(0)
    pending: list[Rows] = []
    count = 0
    for piece in found:
        pending.append(piece.rows)
        count += len(piece.rows)
        if count >= rows_max:
            if not by_id:
                break
            held = _lowest_ids([held, *pending], rows_max)
            pending, count = [], 0
    if by_id:
        return _lowest_ids([held, *pending], rows_max)
    return np.concatenate([held, *pending])[:rows_max]


def _lowest_ids(parts: list[Rows], rows_max: int) -> Rows:
    rows = np.concatenate(parts)
    return rows[np.argsort(rows["id"], kind="stable")[:rows_max]]


_Numbered = tuple[NDArray[np.integer[Any]], Rows]


def _candidates(
    segment: Segment, query: Query, indexes: IndexCache | None, *, newest: bool
) -> Iterator[_Numbered]:
    """Row numbers and rows of the segment among which the matches are, in tape order."""
    index = indexes.find(segment) if indexes is not None else None
    if index is None:
        yield from scan(segment, newest=newest)
    elif not index.times.overlap(query.from_us, query.to_us):
        return
    elif query.symbol_id is None:
        yield from scan(segment, newest=False)
    else:
        yield from _gather(segment, index.rows_of(query.symbol_id))


def _gather(segment: Segment, row_numbers: NDArray[np.uint32]) -> Iterator[_Numbered]:
    """The numbered rows, through a mapping that touches only their pages.

    Mapping is safe here: a segment that has an index is sealed and synced, and is never cut in place.
    """
    if not len(row_numbers):
        return
    with segment.path.open("rb", buffering=0) as file:
        raw = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    everything = np.frombuffer(raw, TICK, (len(raw) - HEADER_BYTES) // TICK.itemsize, HEADER_BYTES)
    for start in range(0, len(row_numbers), CHECK_ROWS):
        numbers = row_numbers[start : start + CHECK_ROWS]
        yield numbers, everything[numbers]


def scan(segment: Segment, *, newest: bool) -> Iterator[_Numbered]:
    """All rows with their numbers, in verified slices.

    The newest segment ends before a torn tail; in others a damaged record raises TapeError.
    """
    row = 0
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
