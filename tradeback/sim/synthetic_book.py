"""One symbol of the synthetic market: its touch moves, takers hit it, frames come out. Pure."""

import random
from typing import NamedTuple

from tradeback.sim.book import Book, Level
from tradeback.sim.channels import Hub
from tradeback.sim.instrument import Instrument
from tradeback.sim.ladder import Ladder, Watch
from tradeback.sim.text import decimal8
from tradeback.sim.trades import TRADES_KEPT

POOL = 512
"""Different quantities a symbol draws from; a power of two."""
_MASK = POOL - 1
PRICE_TEXTS = 20_000
JUMP = 1.5e-6
"""Typical price move as a share of the price."""
FILLS_MAX = 179
PULL = 4.0
"""How strongly prices are drawn back to where they began: at 12 % away the next move is sure to return."""


class Pools(NamedTuple):
    """Quantities as (units of 1e-8, text): of single fills, and of resting orders at the touch."""

    fills: list[tuple[int, bytes]]
    resting: list[tuple[int, bytes]]


def pools(instrument: Instrument) -> Pools:
    """The quantities of one symbol; always the same ones."""
    rng = random.Random(f"quantities {instrument.symbol}")
    step = instrument.step

    def draw(median: float, spread: float) -> list[tuple[int, bytes]]:
        units = [max(1, round(median * rng.lognormvariate(0.0, spread) / step)) * step for _ in range(POOL)]
        return [(unit, decimal8(unit).encode()) for unit in units]

    return Pools(draw(instrument.lot, 1.4), draw(instrument.lot * 40, 1.2))


class SyntheticBook(Book):
    """State in ticks beside the units that `Book` shows."""

    def __init__(self, instrument: Instrument, quantities: Pools, kept: int = TRADES_KEPT) -> None:
        super().__init__(instrument, kept)
        self._tick = instrument.tick
        self._bid_ticks = instrument.price // instrument.tick
        self._ask_ticks = self._bid_ticks + 1
        self._home = self._bid_ticks
        self._jump = max(1.0, self._bid_ticks * JUMP)
        self._fills, self._resting = quantities
        self._bid_quantity, self._ask_quantity = self._resting[0], self._resting[1]
        self._texts: dict[int, bytes] = {}
        self.ladder = Ladder(instrument)
        self.watches: list[Watch] = []
        self._make_formats(instrument.symbol.encode())
        self.refresh()

    def _make_formats(self, symbol: bytes) -> None:
        self._quote_format = b'{"u":%d,"s":"' + symbol + b'","b":"%b","B":"%b","a":"%b","A":"%b"}'
        self._trade_format = (
            b'{"e":"trade","E":%d,"s":"' + symbol + b'","t":%d,"p":"%b","q":"%b","T":%d,"m":%b,"M":true}'
        )
        self._agg_format = (
            b'{"e":"aggTrade","E":%d,"s":"' + symbol + b'","a":%d,"p":"%b","q":"%b",%b"T":%d,"m":%b,"M":true}'
        )

    def attach(self, hub: Hub) -> None:
        """Publish into `hub`."""
        stream = self.instrument.stream
        self._on_trade = hub.channel(f"{stream}@trade")
        self._on_agg = hub.channel(f"{stream}@aggTrade")
        self._on_quote = hub.channel(f"{stream}@bookTicker")

    def begin(self, next_id: int, now_us: int) -> None:
        """The first trade will be `next_id`."""
        self.trades.begin(next_id)
        self.aggs.begin(next_id * 11 // 20)
        self.update_id = next_id * 8
        self.last_us = now_us // 1_000_000 * 1_000_000

    def refresh(self) -> None:
        """Bring the units up to the ticks."""
        self.bid, self.ask = self._bid_ticks * self._tick, self._ask_ticks * self._tick
        self.bid_quantity, self.ask_quantity = self._bid_quantity[0], self._ask_quantity[0]

    def depth(self, limit: int) -> tuple[list[Level], list[Level]]:
        """Bids and asks, best first, at most `limit` each."""
        self.refresh()
        return self.ladder.levels(self, limit)

    def _text(self, ticks: int) -> bytes:
        text = self._texts.get(ticks)
        if text is None:
            if len(self._texts) >= PRICE_TEXTS:
                self._texts.clear()
            text = self._texts[ticks] = decimal8(ticks * self._tick).encode()
        return text

    def quote(self, side: float, moves: bool, pick: int) -> None:
        """Change the touch: a price of it, or mostly only a quantity."""
        self.update_id += 1 if pick & 3 == 0 else 1 + (pick >> 2) % (9 if pick & 28 else 60)
        if moves:
            self._move(side, pick)
        elif side < 0.5:
            self._bid_quantity = self._other(self._bid_quantity, pick)
        else:
            self._ask_quantity = self._other(self._ask_quantity, pick)
        self._send_quote()

    def _other(self, held: tuple[int, bytes], pick: int) -> tuple[int, bytes]:
        """Some resting quantity that is not the one held."""
        found = self._resting[pick & _MASK]
        while found[0] == held[0]:
            pick += 1
            found = self._resting[pick & _MASK]
        return found

    def _move(self, side: float, pick: int) -> None:
        """One price of the touch changes: the gap widens by a jump, or closes."""
        upward = side < 0.5 - PULL * (self._bid_ticks - self._home) / self._home
        jump = 1 + int(self._jump * ((pick >> 9) & 7) / 4)
        if self._ask_ticks - self._bid_ticks > 1:
            if upward:
                self._bid_ticks = self._ask_ticks - 1
            else:
                self._ask_ticks = self._bid_ticks + 1
        elif upward or self._bid_ticks <= jump:
            self._ask_ticks += jump
        else:
            self._bid_ticks -= jump
        if upward:
            self._bid_quantity = self._resting[(pick >> 12) & _MASK]
        else:
            self._ask_quantity = self._resting[(pick >> 12) & _MASK]
        for watch in self.watches:
            watch.touch(self._bid_ticks, self._ask_ticks)

    def _send_quote(self) -> None:
        channel = self._on_quote
        if channel.listeners:
            payload = self._quote_format % (
                self.update_id,
                self._text(self._bid_ticks),
                self._bid_quantity[1],
                self._text(self._ask_ticks),
                self._ask_quantity[1],
            )
            if channel.ms:
                channel.send(channel.ms, payload)
            if channel.us:
                channel.send(channel.us, payload)

    def take(self, now_us: int, latency_us: int, side: float, move: float, pick: int) -> int:
        """A taker order: fills at one or more prices, and the touch it leaves. Returns the frames."""
        match_us = max(self.last_us, now_us - latency_us)
        self.last_us = match_us
        sells = side < 0.5 + PULL * (self._bid_ticks - self._home) / self._home
        levels = 1 if move < 0.87 else 2 + (pick >> 20) % 2
        quote_first = levels == 1 and pick & 1
        if quote_first:
            self._after(sells, levels, pick)
        frames = 1
        ticks = self._bid_ticks if sells else self._ask_ticks
        for level in range(levels):
            # P(fills >= k) = k^-1.9: median 1, mean 1.8, and 179 at the very most.
            chance = ((pick >> (level + 3)) % 10_000 + 1) / 10_000
            fills = min(FILLS_MAX, int(chance**-0.526))
            frames += self._fill(now_us, match_us, ticks, sells, fills, pick + level)
            ticks = max(1, ticks - 1) if sells else ticks + 1
        if not quote_first:
            self._after(sells, levels, pick)
        return frames

    def _after(self, sells: bool, levels: int, pick: int) -> None:
        """The touch after a taker order that went through `levels` prices."""
        self.update_id += 1 + pick % 3
        if sells:
            self._bid_ticks = max(1, self._bid_ticks - (levels - 1))
            self._bid_quantity = self._other(self._bid_quantity, pick >> 5)
        else:
            self._ask_ticks += levels - 1
            self._ask_quantity = self._other(self._ask_quantity, pick >> 5)
        if levels > 1:
            for watch in self.watches:
                watch.touch(self._bid_ticks, self._ask_ticks)
        self._send_quote()

    def _fill(self, now_us: int, match_us: int, ticks: int, maker: bool, fills: int, pick: int) -> int:
        """One price's fills: trades, then their aggregate. `maker`: the buyer was the maker."""
        trades, price = self.trades, ticks * self._tick
        first_id = trades.next_id
        text, flag = self._text(ticks), b"true" if maker else b"false"
        total, channel = 0, self._on_trade
        heard = bool(channel.listeners)
        for number in range(fills):
            units, quantity = self._fills[(pick >> 4) + number * 7 & _MASK]
            total += units
            trades.extend((match_us, price, units, maker))
            if heard:
                values = (first_id + number, text, quantity)
                if channel.ms:
                    in_ms = (now_us // 1_000, *values, match_us // 1_000, flag)
                    channel.send(channel.ms, self._trade_format % in_ms)
                if channel.us:
                    channel.send(channel.us, self._trade_format % (now_us, *values, match_us, flag))
        trades.trim()
        self.last_quantity = units
        self.chart.add(match_us, price, total, maker, first_id, fills)
        aggs, channel = self.aggs, self._on_agg
        agg_id, last_id = aggs.next_id, first_id + fills - 1
        aggs.extend((match_us, price, total, maker, first_id, last_id))
        aggs.trim()
        if channel.listeners:
            quantity = quantity if fills == 1 else decimal8(total).encode()
            ids = b'"f":%d,"l":%d,' % (first_id, last_id)
            known = (agg_id, text, quantity, ids)
            if channel.ms:
                ms = (now_us // 1_000, *known, match_us // 1_000, flag)
                channel.send(channel.ms, self._agg_format % ms)
            if channel.us:
                channel.send(channel.us, self._agg_format % (now_us, *known, match_us, flag))
        return fills + 1
