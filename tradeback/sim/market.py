"""A seeded market: prices, quantities and ids of any number of symbols, as frames. Pure.

An action is one change of the touch, or one taker order with its fills, its aggregate trades and the
touch it leaves. The mix is that of a busy session: 69 % bookTicker, 20 % trade, 11 % aggTrade.
"""

from itertools import islice

import numpy as np

from tradeback.sim.book import Book
from tradeback.sim.channels import Hub
from tradeback.sim.history import DAYS, History
from tradeback.sim.instrument import Instrument, catalogue
from tradeback.sim.rhythm import SLOT_US, Rhythm
from tradeback.sim.synthetic_book import SyntheticBook, pools
from tradeback.sim.trades import TRADES_KEPT

FRAMES_PER_ACTION = 1.44
"""Mean frames of the three kinds that one action makes."""
TAKER_SHARE = 0.1334
MOVE_SHARE = 0.075
"""Share of the other actions that move a price; the rest change a quantity."""
FIRST_DAY_TRADES_MAX = 2_000_000
TRADES_SHARE = 0.2
TRADES_KEPT_ALL = 2_000_000
"""Trades kept for REST over all symbols together; at worst 120 bytes each, with their aggregates."""
TRADES_KEPT_MIN = 5_000
DAY_S = 86_400

_Action = tuple[int, int, float, float, float, float, int]


class Synthetic:
    """Source with `symbols` instruments and a mean of `rate` events/s (all frames of the trio together).

    The same seed and start time give the same frames. `bursts` 0 makes an even stream.
    """

    silence_max_us: int | None = None

    def __init__(
        self,
        symbols: int = 50,
        rate: float = 1_000.0,
        seed: int = 1,
        *,
        bursts: float = 1.0,
        unicode_names: bool = False,
        instruments: list[Instrument] | None = None,
    ) -> None:
        if rate < 0:
            raise ValueError(f"the rate must be 0 or more events/s, not {rate}")
        listed = instruments if instruments is not None else catalogue(symbols, unicode_names)
        self._seed, self._rate = seed, rate
        self._rhythm = Rhythm(seed, len(listed), rate / FRAMES_PER_ACTION, bursts)
        self._rng = np.random.default_rng([seed, 2])
        kept = min(TRADES_KEPT, max(TRADES_KEPT_MIN, TRADES_KEPT_ALL // len(listed)))
        self._list = [SyntheticBook(instrument, pools(instrument), kept) for instrument in listed]
        self._books: dict[str, Book] = {book.instrument.symbol: book for book in self._list}
        self._slot_us = 0
        self._actions: list[_Action] = []
        self._at = 0

    @property
    def books(self) -> dict[str, Book]:
        """State per symbol, most active first."""
        return self._books

    def attach(self, hub: Hub) -> None:
        """Publish into `hub` from now on."""
        for book in self._list:
            book.attach(hub)

    def owns(self, stream: str) -> bool:
        """No: beyond the trio all streams are made from the books."""
        return False

    def begin(self, wall_us: int) -> int:
        """Begin now: the live market joins the made-up past at the start of this second."""
        start_s = wall_us // 1_000_000
        for index, book in enumerate(self._list):
            per_day = self._rate * TRADES_SHARE * self._rhythm.share(index) * DAY_S
            per_day = min(per_day, FIRST_DAY_TRADES_MAX)
            next_id = int(per_day * DAYS * 1.5) + 1_000
            book.begin(next_id, wall_us)
            book.chart.history = History(
                self._seed,
                book.instrument,
                anchor_s=start_s,
                anchor_price=book.instrument.price,
                next_id=next_id,
                trades_per_day=per_day,
            )
            book.chart.last_price = book.instrument.price
        self._slot_us = wall_us
        return wall_us

    def skip_to(self, market_us: int) -> None:
        """Nothing happens before `market_us`."""
        self._slot_us = market_us

    def next_us(self) -> int | None:
        """Market time of the next action; None only for a market without any rate."""
        if self._rate <= 0:
            return None
        while self._at >= len(self._actions):
            self._fill()
        return self._actions[self._at][0]

    def _fill(self) -> None:
        """Draw the next 100 ms."""
        slot = self._rhythm.slot()
        rng, count = self._rng, len(slot.times_us)
        kinds, sides, moves = rng.random((3, count)).tolist()
        latency = np.exp(rng.normal(6.42, 0.9, count)).astype(np.int64) + 80
        pick = rng.integers(0, 1 << 30, count).tolist()
        times = slot.times_us + self._slot_us
        self._actions[:] = zip(
            times.tolist(), slot.symbols.tolist(), kinds, sides, moves, latency.tolist(), pick, strict=True
        )
        # Clusters may reach beyond their slot; time must not step back at the seam.
        self._slot_us = max(self._slot_us + SLOT_US, int(times[-1]) if count else 0)
        self._at = 0

    def advance(self, until_us: int, frames_max: int) -> int:
        """Let everything due up to `until_us` happen, about `frames_max` frames at most."""
        done = 0
        books = self._list
        while done < frames_max:
            due = self.next_us()
            if due is None or due > until_us:
                break
            used = 0
            for now_us, symbol, kind, side, move, latency, pick in islice(self._actions, self._at, None):
                if now_us > until_us or done >= frames_max:
                    break
                used += 1
                if kind < TAKER_SHARE:
                    done += books[symbol].take(now_us, int(latency), side, move, pick)
                else:
                    books[symbol].quote(side, move < MOVE_SHARE, pick)
                    done += 1
            self._at += used
        return done
