"""Where a symbol's trades lie in time and id, piece by piece of the tape.

So a page of trades reads the pieces it is made of instead of all in its range: ids rise along the tape, but
a repaired trade stands late on it, so only who has read a piece knows which ids are in it. Pure.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tradeback.model.record import QUOTE, TRADE, Rows

ID_MAX: Final = (1 << 63) - 1
Bounds = NDArray[np.int64]
"""Lowest time (us), highest time, lowest id, highest id of trades; lowest > highest when there are none."""


class Wanted(NamedTuple):
    """Trades in [from_us, to_us) with ids in [from_id, id_max]; None: no bound."""

    from_us: int | None
    to_us: int | None
    from_id: int | None
    id_max: int

    def may_be_in(self, bounds: Bounds) -> bool:
        """Whether a piece with these bounds, shape (4,), has to be read."""
        first_us, last_us, first_id, last_id = bounds.tolist()
        return bool(
            (self.from_us is None or last_us >= self.from_us)
            and (self.to_us is None or first_us < self.to_us)
            and (self.from_id is None or last_id >= self.from_id)
            and first_id <= min(self.id_max, last_id)
        )


def times_us(rows: Rows) -> NDArray[np.int64]:
    """The time by which each record is found: the exchange's, or of receipt for quotes and where it is 0."""
    by_receipt = (rows["kind"] == QUOTE) | (rows["exchange_us"] == 0)
    times: NDArray[np.int64] = np.where(by_receipt, rows["recv_ns"] // 1_000, rows["exchange_us"])
    return times


def bounds_of(rows: Rows, starts: NDArray[np.integer]) -> Bounds:
    """Bounds of the trades in rows[starts[k]:starts[k + 1]], the last up to the end; shape (len(starts), 4).

    `starts` rises, is not empty and stays below len(rows).
    """
    trades = rows["kind"] == TRADE
    bounds = np.empty((len(starts), 4), np.int64)
    for place, values in ((0, times_us(rows)), (2, rows["id"])):
        bounds[:, place] = np.minimum.reduceat(np.where(trades, values, ID_MAX), starts)
        bounds[:, place + 1] = np.maximum.reduceat(np.where(trades, values, -ID_MAX), starts)
    return bounds


class Spans:
    """The pieces of one symbol in a segment, as far as they were read. Thread safe: all learn the same."""

    __slots__ = ("_bounds", "_known")

    def __init__(self, pieces: int) -> None:
        self._bounds: Bounds = np.empty((pieces, 4), np.int64)
        self._known: NDArray[np.bool_] = np.zeros(pieces, np.bool_)

    def learn(self, piece: int, rows: Rows) -> None:
        """Take in all of the symbol's records in this piece, of whatever kind."""
        if not self._known[piece]:
            self._bounds[piece] = bounds_of(rows, np.zeros(1, np.intp))[0]
            self._known[piece] = True

    def may_hold(self, piece: int, wanted: Wanted) -> bool:
        """Whether the piece has to be read."""
        return not self._known[piece] or wanted.may_be_in(self._bounds[piece])
