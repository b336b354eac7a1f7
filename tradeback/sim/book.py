"""What a source knows about one symbol: the state that REST and the periodic streams are made from. Pure."""

from typing import Protocol

from tradeback.sim.channels import Hub
from tradeback.sim.chart import Chart
from tradeback.sim.instrument import Instrument
from tradeback.sim.trades import TRADES_KEPT, AggStore, TradeStore

Level = tuple[int, int]
"""Price and quantity in units of 1e-8."""


class Book:
    """One symbol's trades, bars and touch. Prices and quantities in units of 1e-8, times in us."""

    __slots__ = (
        "aggs", "ask", "ask_quantity", "bid", "bid_quantity", "chart", "instrument", "last_quantity",
        "last_us", "trades", "update_id",
    )  # fmt: skip

    def __init__(self, instrument: Instrument, kept: int = TRADES_KEPT) -> None:
        self.instrument = instrument
        self.trades = TradeStore(kept)
        self.aggs = AggStore(kept)
        self.chart = Chart()
        self.update_id = 0
        self.bid = self.bid_quantity = self.ask = self.ask_quantity = 0
        self.last_quantity = 0
        self.last_us = 0
        """Match time of the last trade."""

    def depth(self, limit: int) -> tuple[list[Level], list[Level]]:
        """Bids and asks, best first, at most `limit` each; here only the touch."""
        bids = [(self.bid, self.bid_quantity)] if self.bid else []
        asks = [(self.ask, self.ask_quantity)] if self.ask else []
        return bids[:limit], asks[:limit]

    def refresh(self) -> None:
        """Bring the touch up to date where the source keeps it in another form."""


class Source(Protocol):
    """Where the market's frames come from. Times are market times in us since 1970."""

    silence_max_us: int | None
    """A longer silence is leapt over by the market's clock; None never leaps."""

    @property
    def books(self) -> dict[str, Book]:
        """State per symbol, in listing order."""

    def attach(self, hub: Hub) -> None:
        """Publish into `hub` from now on."""

    def owns(self, stream: str) -> bool:
        """True when the source itself brings the frames of a stream that is else made from the books."""

    def begin(self, wall_us: int) -> int:
        """Make ready, `wall_us` being the time of day; returns the market time at which it starts.
        Called once, when the server starts."""

    def skip_to(self, market_us: int) -> None:
        """The market begins later than `begin` was told: nothing happened until `market_us`.
        Only called when `silence_max_us` is None."""

    def next_us(self) -> int | None:
        """Market time of the next frame; None when there will be no more."""

    def advance(self, until_us: int, frames_max: int) -> int:
        """Publish what is due up to `until_us`, at most about
        `frames_max` frames; returns how many."""
