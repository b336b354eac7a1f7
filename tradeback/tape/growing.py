"""A segment without an index, as far as a reader knows it: the one being written, and one sealed just now.

Its whole pieces are verified and sorted by symbol once, when they are first asked for; a query reads of them
what it needs, and scans only what has come since.
"""

import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tradeback.model.errors import TapeError
from tradeback.model.record import Rows, count_intact
from tradeback.tape.segment import CHECK_ROWS, Segment
from tradeback.tape.spans import Bounds, Wanted, bounds_of


class _Piece(NamedTuple):
    """CHECK_ROWS intact records by symbol; row numbers count from the piece's first."""

    symbol_ids: NDArray[np.uint16]
    offsets: NDArray[np.intp]
    row_numbers: NDArray[np.uint16]
    bounds: Bounds

    @classmethod
    def of(cls, rows: Rows) -> "_Piece":
        symbols = rows["symbol_id"]
        order = np.argsort(symbols, kind="stable")
        symbol_ids, starts = np.unique(symbols[order], return_index=True)
        bounds = bounds_of(rows[order], starts)
        return cls(symbol_ids, np.append(starts, len(rows)), order.astype(np.uint16), bounds)

    def rows_of(self, symbol_id: int, wanted: Wanted | None) -> NDArray[np.uint16]:
        """Row numbers of a symbol; none when no trade that is `wanted` can be among them."""
        place = int(np.searchsorted(self.symbol_ids, symbol_id))
        if place == len(self.symbol_ids) or self.symbol_ids[place] != symbol_id:
            return self.row_numbers[:0]
        if wanted is not None and not wanted.may_be_in(self.bounds[place]):
            return self.row_numbers[:0]
        return self.row_numbers[self.offsets[place] : self.offsets[place + 1]]


class Growing:
    """What is known of one segment. Thread safe."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._lock = threading.Lock()
        self._pieces: list[_Piece] = []

    def pieces(self) -> list[_Piece]:
        """The whole pieces from the segment's begin on, up to its end or to a damaged record."""
        segment, pieces = self._segment, self._pieces
        with self._lock:
            whole = segment.row_count() // CHECK_ROWS
            while len(pieces) < whole:
                row = len(pieces) * CHECK_ROWS
                rows = segment.load(row, CHECK_ROWS)
                if count_intact(rows, segment.first + row, segment.epoch) < CHECK_ROWS:
                    break
                pieces.append(_Piece.of(rows))
            return pieces[:whole]

    def gather(
        self, pieces: list[_Piece], symbol_id: int, wanted: Callable[[], Wanted | None]
    ) -> Iterator[tuple[NDArray[np.int64], Rows]]:
        """Row numbers and records of a symbol in `pieces`, in tape order; `wanted` is asked before each.

        Raises TapeError when the file has become shorter than it was.
        """
        for place, piece in enumerate(pieces):
            numbers = piece.rows_of(symbol_id, wanted()).astype(np.int64)
            if not len(numbers):
                continue
            low, first = int(numbers[0]), place * CHECK_ROWS
            rows = self._segment.load(first + low, int(numbers[-1]) - low + 1)
            if len(rows) <= numbers[-1] - low:
                raise TapeError(f"records of {self._segment.path} that were good are gone from it")
            yield first + numbers, rows[numbers - low]
