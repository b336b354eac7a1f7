"""Trades and aggregate trades of one symbol as they were sent, for REST. Pure, bounded.

Kept as packed int64 rows in `array('q')`: 32 and 48 bytes a row, one fast append each. When twice the
bound is reached, the older half goes.
"""

from array import array
from typing import NamedTuple

TRADES_KEPT = 100_000
"""Trades (and aggregate trades) kept per symbol."""
_TRADE = 4
_AGG = 6


class Trade(NamedTuple):
    """One fill. Times in us; price and quantity in units of 1e-8."""

    id: int
    time_us: int
    price: int
    quantity: int
    is_buyer_maker: bool


class AggTrade(NamedTuple):
    """Fills of one taker at one price. Times in us; price and quantity in units of 1e-8."""

    id: int
    time_us: int
    price: int
    quantity: int
    is_buyer_maker: bool
    first_id: int
    last_id: int


class _Rows:
    """Rows of `width` int64, the first of which has id `first`; ids are contiguous."""

    def __init__(self, width: int, kept: int) -> None:
        self.data = array("q")
        self.first = 1
        self._width = width
        self._bound = 2 * kept * width

    def __len__(self) -> int:
        return len(self.data) // self._width

    @property
    def next(self) -> int:
        """The id that follows the last row's."""
        return self.first + len(self)

    def trim(self) -> None:
        """Drop the older half when the bound is reached."""
        if len(self.data) >= self._bound:
            half = self._bound // 2
            del self.data[:half]
            self.first += half // self._width

    def first_at(self, time_us: int) -> int:
        """Id of the first row whose time (column 0) is >= time_us; `next` if none."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self.data[middle * self._width] < time_us:
                low = middle + 1
            else:
                high = middle
        return self.first + low


class TradeStore:
    """The newest trades of one symbol. Ids rise by one; a hole starts the store anew."""

    def __init__(self, kept: int = TRADES_KEPT) -> None:
        self._rows = _Rows(_TRADE, kept)
        self.extend = self._rows.data.extend
        """extend((time_us, price, quantity, is_buyer_maker)): the next trade. Call trim() now and then."""
        self.trim = self._rows.trim

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def next_id(self) -> int:
        """The id the next trade will get."""
        return self._rows.next

    @property
    def first_id(self) -> int:
        """The oldest id kept."""
        return self._rows.first

    def begin(self, first_id: int) -> None:
        """Forget everything; the next trade is `first_id`."""
        del self._rows.data[:]
        self._rows.first = first_id

    def read(self, first_id: int, count: int) -> list[Trade]:
        """Up to `count` trades from `first_id` (or the oldest kept) on."""
        rows, found = self._rows, []
        first_id = max(first_id, rows.first)
        for number in range(first_id, min(first_id + count, rows.next)):
            time_us, price, quantity, maker = rows.data[(at := (number - rows.first) * _TRADE) : at + _TRADE]
            found.append(Trade(number, time_us, price, quantity, bool(maker)))
        return found

    def newest(self, count: int) -> list[Trade]:
        """The last `count` trades, oldest first."""
        return self.read(self.next_id - count, count)


class AggStore:
    """The newest aggregate trades of one symbol."""

    def __init__(self, kept: int = TRADES_KEPT) -> None:
        self._rows = _Rows(_AGG, kept)
        self.extend = self._rows.data.extend
        """extend((time_us, price, quantity, is_buyer_maker, first_id, last_id))."""
        self.trim = self._rows.trim

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def next_id(self) -> int:
        """The id the next aggregate will get."""
        return self._rows.next

    def begin(self, first_id: int) -> None:
        """Forget everything; the next aggregate is `first_id`."""
        del self._rows.data[:]
        self._rows.first = first_id

    def first_at(self, time_us: int) -> int:
        """Id of the first aggregate at or after `time_us`."""
        return self._rows.first_at(time_us)

    def read(self, first_id: int, count: int) -> list[AggTrade]:
        """Up to `count` aggregates from `first_id` (or the oldest kept) on."""
        rows, found = self._rows, []
        first_id = max(first_id, rows.first)
        for number in range(first_id, min(first_id + count, rows.next)):
            at = (number - rows.first) * _AGG
            time_us, price, quantity, maker, first, last = rows.data[at : at + _AGG]
            found.append(AggTrade(number, time_us, price, quantity, bool(maker), first, last))
        return found

    def newest(self, count: int) -> list[AggTrade]:
        """The last `count` aggregates, oldest first."""
        return self.read(self.next_id - count, count)
