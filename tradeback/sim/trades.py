"""Trades and aggregate trades of one symbol as they were sent, for REST. Pure, bounded.

Kept as packed int64 rows in `array('q')`: 32 and 48 bytes a row, one fast append each. When twice the
bound is reached, the older half goes.
"""

from array import array
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

TRADES_KEPT = 100_000
"""Trades (and aggregate trades) kept per symbol."""


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


Row = TypeVar("Row", bound=Trade | AggTrade)


class Store(Generic[Row]):
    """The newest rows of one symbol. Ids rise by one; a hole starts the store anew.

    A row is kept as `width` int64: the fields of `Row` behind its id.
    """

    def __init__(self, make: Callable[[int, Sequence[int]], Row], width: int, kept: int) -> None:
        self._make, self._width = make, width
        self._data = array("q")
        self._bound = 2 * kept * width
        self.first_id = 1
        """The oldest id kept."""
        self.extend = self._data.extend
        """extend(row without its id): the next one. Call trim() now and then."""

    def __len__(self) -> int:
        return len(self._data) // self._width

    @property
    def next_id(self) -> int:
        """The id the next row will get."""
        return self.first_id + len(self)

    def trim(self) -> None:
        """Drop the older half when the bound is reached."""
        if len(self._data) >= self._bound:
            half = self._bound // 2
            del self._data[:half]
            self.first_id += half // self._width

    def begin(self, first_id: int) -> None:
        """Forget everything; the next row is `first_id`."""
        del self._data[:]
        self.first_id = first_id

    def first_at(self, time_us: int) -> int:
        """Id of the first row whose time (column 0) is >= time_us; `next_id` if none."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self._data[middle * self._width] < time_us:
                low = middle + 1
            else:
                high = middle
        return self.first_id + low

    def read(self, first_id: int, count: int) -> list[Row]:
        """Up to `count` rows from `first_id` (or the oldest kept) on."""
        data, width, oldest = self._data, self._width, self.first_id
        first_id = max(first_id, oldest)
        return [
            self._make(number, data[(at := (number - oldest) * width) : at + width])
            for number in range(first_id, min(first_id + count, self.next_id))
        ]

    def newest(self, count: int) -> list[Row]:
        """The last `count` rows, oldest first."""
        return self.read(self.next_id - count, count)


class TradeStore(Store[Trade]):
    """The newest trades of one symbol; extend((time_us, price, quantity, is_buyer_maker))."""

    def __init__(self, kept: int = TRADES_KEPT) -> None:
        super().__init__(_trade, 4, kept)


class AggStore(Store[AggTrade]):
    """Its newest aggregates; extend((time_us, price, quantity, is_buyer_maker, first_id, last_id))."""

    def __init__(self, kept: int = TRADES_KEPT) -> None:
        super().__init__(_agg_trade, 6, kept)


def _trade(number: int, values: Sequence[int]) -> Trade:
    time_us, price, quantity, maker = values
    return Trade(number, time_us, price, quantity, bool(maker))


def _agg_trade(number: int, values: Sequence[int]) -> AggTrade:
    time_us, price, quantity, maker, first_id, last_id = values
    return AggTrade(number, time_us, price, quantity, bool(maker), first_id, last_id)
