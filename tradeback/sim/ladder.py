"""The order book behind a synthetic touch. Pure.

Only the touch lives. Every price on a coarse grid behind it carries a standing quantity that depends on
nothing but the symbol and the price, so a book of any depth is made when asked for, and a diff stream
needs only the range of prices that the touch has visited since the last message.
"""

from typing import Any

from tradeback.sim.instrument import Instrument

LEVELS_MAX = 5_000
_Change = tuple[int, int]


class Ladder:
    """Standing levels of one symbol; prices in ticks inside, units of 1e-8 outside."""

    def __init__(self, instrument: Instrument) -> None:
        self._tick, self._step = instrument.tick, instrument.step
        self._lots = max(1, instrument.lot * 60 // instrument.step)
        self.grid = max(1, instrument.price // instrument.tick // 20_000)
        """Ticks between standing levels."""

    def standing(self, ticks: int) -> int:
        """Quantity in units of 1e-8 that always stands at this price; 0 off the grid."""
        if ticks % self.grid or ticks <= 0:
            return 0
        mixed = (ticks * 0x9E3779B97F4A7C15 + self._lots) & 0xFFFFFFFFFFFFFFFF
        return (1 + ((mixed >> 24) % (2 * self._lots))) * self._step

    def levels(self, book: Any, limit: int) -> tuple[list[_Change], list[_Change]]:
        """Bids and asks, best first; `book` gives bid, ask and their quantities in units."""
        bids = [(book.bid, book.bid_quantity)]
        asks = [(book.ask, book.ask_quantity)]
        ticks = (book.bid // self._tick - 1) // self.grid * self.grid
        while ticks > 0 and len(bids) < limit:
            bids.append((ticks * self._tick, self.standing(ticks)))
            ticks -= self.grid
        ticks = (book.ask // self._tick // self.grid + 1) * self.grid
        while len(asks) < limit:
            asks.append((ticks * self._tick, self.standing(ticks)))
            ticks += self.grid
        return bids[:limit], asks[:limit]

    def changes(self, book: Any, watch: "Watch") -> tuple[list[_Change], list[_Change]]:
        """Every level that may have changed since `watch` was last reset, with its quantity now."""
        bid, ask = book.bid // self._tick, book.ask // self._tick
        bids, asks = [], []
        for ticks in sorted(self._visited(watch.bids, bid), reverse=True):
            quantity = book.bid_quantity if ticks == bid else self.standing(ticks) if ticks < bid else 0
            bids.append((ticks * self._tick, quantity))
        for ticks in sorted(self._visited(watch.asks, ask)):
            quantity = book.ask_quantity if ticks == ask else self.standing(ticks) if ticks > ask else 0
            asks.append((ticks * self._tick, quantity))
        return bids, asks

    def _visited(self, touched: set[int], now: int) -> set[int]:
        """Prices touched, and all standing ones between the outermost of them."""
        touched = touched | {now}
        low, high = min(touched), max(touched)
        first = -(-low // self.grid) * self.grid
        return touched | set(range(first, high + 1, self.grid))


class Watch:
    """Which prices the touch has visited since the last message of one diff stream. In ticks."""

    __slots__ = ("asks", "bids", "update_id")

    def __init__(self, update_id: int, bid: int, ask: int) -> None:
        self.update_id = update_id
        self.bids, self.asks = {bid}, {ask}

    def touch(self, bid: int, ask: int) -> None:
        """The touch is here now."""
        self.bids.add(bid)
        self.asks.add(ask)

    def reset(self, update_id: int, bid: int, ask: int) -> None:
        """A message has been sent."""
        self.update_id = update_id
        self.bids, self.asks = {bid}, {ask}
