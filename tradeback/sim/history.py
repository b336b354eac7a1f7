"""A past for a market that has just begun: bars at every level, made when asked for. Pure.

Days come from a seeded walk that runs backwards from the anchor, the moment and price at which the
live market begins. A day is divided into hours, an hour into quarters, a quarter into minutes, a minute
into seconds, each by a generator seeded with its place, and only when somebody looks. Every division is
exact: children add up to their parent in price range, volumes, quote volumes, counts and trade ids.
"""

import math
import random
from collections.abc import Iterator

import numpy as np

from tradeback.sim.bars import LEVELS, Bar
from tradeback.sim.divide import divide
from tradeback.sim.instrument import Instrument

DAY_S = 86_400
DAYS = 1_826
"""Five years."""
NODES_KEPT = 1_024
"""Divided spans kept in memory; older ones are made again."""
Fields = tuple[int, ...]
"""A bar as it is kept. The garbage collector leaves plain tuples of integers alone; walking through a
hundred thousand named ones would hold the market up for 100 ms."""
DAYS_PER_STEP = 64
"""Days that one step of `prepare` makes, in 0.3 ms."""
DAILY_VOLATILITY = 0.022


class History:
    """Bars of one instrument before `anchor_s` (seconds since 1970).

    `anchor_price` (units of 1e-8) is the last price of the history, `next_id` the trade id that follows
    its last trade. `trades_per_day` is cut so that ids stay positive.
    """

    def __init__(
        self,
        seed: int,
        instrument: Instrument,
        *,
        anchor_s: int,
        anchor_price: int,
        next_id: int,
        trades_per_day: float,
        days: int = DAYS,
    ) -> None:
        self._key = f"{seed}|{instrument.symbol}"
        self._tick, self._step = instrument.tick, instrument.step
        self._anchor_s = anchor_s
        self._anchor_ticks = max(1, anchor_price // instrument.tick)
        self._next_id = next_id
        self._per_day = min(trades_per_day, max(0.0, (next_id - 1) / (days * 1.5)))
        self._lots = max(1.0, instrument.lot / instrument.step)
        self._day_count = days
        self._today = anchor_s // DAY_S
        self._days: dict[int, Fields] = {}
        self._walking = self._walk()
        self._nodes: dict[tuple[int, int], tuple[Fields | None, ...]] = {}

    @property
    def first_s(self) -> int:
        """Start of the oldest day."""
        return (self._today - self._day_count) * DAY_S

    @property
    def end_s(self) -> int:
        """Where the live market begins."""
        return self._anchor_s

    def prepare(self) -> Iterator[None]:
        """Make the days in steps, for who must not be held up by all of them; `bar` makes what is left."""
        for _ in self._walking:  # not `yield from`: who gives up would end the walk for all
            yield

    def bar(self, level: int, start_s: int) -> Bar | None:
        """The bar of `level` seconds (one of LEVELS) at `start_s`, in exchange units; None if no trade."""
        found = self._bar(LEVELS.index(level), start_s)
        return None if found is None else self._scaled(found)

    def _bar(self, depth: int, start_s: int) -> Bar | None:
        if not self.first_s <= start_s < self._anchor_s:
            return None
        if depth == 0:
            for _ in self._walking:
                pass
            return _bar_of(self._days.get(start_s))
        parent_size, size = LEVELS[depth - 1], LEVELS[depth]
        parent_s = start_s - start_s % parent_size
        node = self._nodes.get((depth, parent_s))
        if node is None:
            parent = self._bar(depth - 1, parent_s)
            if parent is None:
                return None
            node = self._divide(parent, parent_s, parent_size // size, size)
            if len(self._nodes) >= NODES_KEPT:
                del self._nodes[next(iter(self._nodes))]
            self._nodes[depth, parent_s] = node
        return _bar_of(node[(start_s - parent_s) // size])

    def _divide(self, parent: Bar, start_s: int, count: int, size: int) -> tuple[Fields | None, ...]:
        rng = random.Random(f"{self._key}|{start_s}|{size}")
        weights = []
        for child in range(count):
            covered = min(1.0, max(0.0, (self._anchor_s - start_s - child * size) / size))
            weights.append(covered * (0.3 + rng.expovariate(1.0)))
        children = divide(parent, weights, rng)
        return tuple(None if child is None else tuple(child) for child in children)

    def _scaled(self, bar: Bar) -> Bar:
        tick, step = self._tick, self._step
        return Bar(
            bar.open * tick,
            bar.high * tick,
            bar.low * tick,
            bar.close * tick,
            bar.volume * step,
            bar.quote_volume * tick * step,
            bar.trades,
            bar.taker_volume * step,
            bar.taker_quote_volume * tick * step,
            bar.first_id,
        )

    def _walk(self) -> Iterator[None]:
        """Fill in all days, backwards from the anchor, in ticks and lots; DAYS_PER_STEP in each step."""
        rng = np.random.default_rng(list(self._key.encode()))
        count = self._day_count + 1
        returns = np.clip(rng.normal(0.0, DAILY_VOLATILITY, count), -0.15, 0.15).tolist()
        wicks = np.abs(rng.normal(0.0, DAILY_VOLATILITY / 2, (2, count))).tolist()
        busy = np.clip(np.exp(rng.normal(-0.06, 0.35, count)), 0.3, 1.5).tolist()
        sizes = np.exp(rng.normal(0.6, 0.2, count)).tolist()
        takers = rng.uniform(0.44, 0.56, count).tolist()
        yield
        days = self._days
        close, next_id = self._anchor_ticks, self._next_id
        base = math.log(self._anchor_ticks)
        for back in range(count):
            start_s = (self._today - back) * DAY_S
            share = 1.0 if back else (self._anchor_s - start_s) / DAY_S
            pull = 0.002 * (math.log(close) - base)
            move = math.exp(-(returns[back] + pull) * math.sqrt(share)) if share else 1.0
            opened = max(1, round(close * move))
            trades = int(self._per_day * busy[back] * share)
            if trades == 1:
                opened = close
            if trades:
                spread = math.sqrt(share)
                high = round(max(opened, close) * (1 + wicks[0][back] * spread)) if trades > 3 else 0
                low = round(min(opened, close) * (1 - wicks[1][back] * spread)) if trades > 3 else opened
                high, low = max(opened, close, high), max(1, min(opened, close, low))
                volume = max(trades, int(trades * self._lots * sizes[back]))
                quote = volume * (opened + high + low + close) // 4
                taker = int(volume * takers[back])
                next_id -= trades
                days[start_s] = (
                    opened, high, low, close, volume, quote, trades, taker, taker * quote // volume, next_id
                )  # fmt: skip
                close = opened
            if back % DAYS_PER_STEP == DAYS_PER_STEP - 1:
                yield


def _bar_of(fields: Fields | None) -> Bar | None:
    return None if fields is None else Bar._make(fields)
