"""The bar that simulator history, live candles and REST share. Pure.

A bar is a plain tuple, because millions are made; None stands for "no trade in this span". Prices and
volumes are integers in units of 1e-8, quote volumes in units of 1e-16, so that sums are exact.
"""

from typing import NamedTuple


class Bar(NamedTuple):
    """Trades of one span of time, which is known from the place where the bar is kept."""

    open: int
    high: int
    low: int
    close: int
    volume: int
    quote_volume: int
    trades: int
    taker_volume: int
    taker_quote_volume: int
    first_id: int
    """Trade id of the first trade; ids are contiguous, so the last is first_id + trades - 1."""

    @property
    def last_id(self) -> int:
        """Trade id of the last trade."""
        return self.first_id + self.trades - 1


def merge(left: Bar | None, right: Bar | None) -> Bar | None:
    """One bar over two spans, `right` following `left`."""
    if left is None:
        return right
    if right is None:
        return left
    return Bar(
        left.open,
        max(left.high, right.high),
        min(left.low, right.low),
        right.close,
        left.volume + right.volume,
        left.quote_volume + right.quote_volume,
        left.trades + right.trades,
        left.taker_volume + right.taker_volume,
        left.taker_quote_volume + right.taker_quote_volume,
        left.first_id,
    )


LEVELS = (86_400, 3_600, 900, 60, 1)
"""Spans in seconds at which bars are kept; every interval is put together from one of them."""
