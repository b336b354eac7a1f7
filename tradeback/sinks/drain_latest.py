"""What a price cache wants of many records: the newest trade and the newest quote of each symbol."""

import numpy as np
from numpy.typing import NDArray

from tradeback.model.record import LATE, QUOTE, TRADE, Rows, empty_rows
from tradeback.model.symbols import SYMBOL_IDS_MAX


class Newest:
    """Folds records in tape order, any number of times, and gives out what is newest since the last time.

    A trade is newer when its id is higher: a repaired one that came late never takes the place of a price
    after it, also not one that was given out before. A quote is newer when it stands later on the tape.
    """

    def __init__(self) -> None:
        self._highest: NDArray[np.int64] = np.full(SYMBOL_IDS_MAX + 1, -1, np.int64)
        self._kept = empty_rows(0)

    def fold(self, rows: Rows) -> None:
        """Take further records; they are copied."""
        kind = rows["kind"]
        trades = rows[(kind == TRADE) & (rows["flags"] & LATE == 0)]
        trades = trades[trades["id"] > self._highest[trades["symbol_id"]]]
        np.maximum.at(self._highest, trades["symbol_id"], trades["id"])
        trades = trades[trades["id"] == self._highest[trades["symbol_id"]]]
        self._kept = _last_of_each(np.concatenate((self._kept, trades, rows[kind == QUOTE])))

    def again(self) -> None:
        """The records are folded anew: what is newest of them is given out once more."""
        self._highest[self._highest >= 0] -= 1
        self._kept = empty_rows(0)

    def take(self) -> Rows:
        """The newest since the last `take`, at most two per symbol, in tape order of last change."""
        kept, self._kept = self._kept, empty_rows(0)
        return kept


def _last_of_each(rows: Rows) -> Rows:
    """The last row of each (symbol, kind), in the order of the rows."""
    keys = rows["symbol_id"].astype(np.int64) << 8 | rows["kind"]
    _, places = np.unique(keys[::-1], return_index=True)
    return rows[np.sort(len(rows) - 1 - places)]
