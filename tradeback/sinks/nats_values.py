"""Prices, levels and bars on NATS: JSON, conflated per symbol. Shapes are those of the REST routes."""

import asyncio
import math
from typing import Any

import numpy as np
import orjson

from tradeback.derive.bars import volumes
from tradeback.derive.enigma import Enigma
from tradeback.derive.layout import RESOLUTION_S, RESOLUTIONS, Bars
from tradeback.model.record import SEED_BAR, SEED_BAR_MORE, TRADE, Rows
from tradeback.sinks.drain_ports import Batch, Source, Written
from tradeback.sinks.influx import SeriesRead
from tradeback.sinks.nats import Levels, Session, Symbols
from tradeback.stores.ports import Position

LOOK_BACK_BARS = 1_000
"""So far back the bar is looked for that was open when this process began."""
EXCHANGE_US, RECV_NS, _, PRICE, QUANTITY, ASK, _, SYMBOL_ID, KIND = range(9)
"""Fields of a record as a tuple."""


class _Values:
    """What both have in common: names."""

    def __init__(self, session: Session, symbols: Symbols) -> None:
        self._session, self._symbols = session, symbols
        self._names: dict[int, str] = {}

    async def close(self) -> None:
        """See Target."""
        await self._session.leave()

    def _name(self, symbol_id: int) -> str | None:
        if symbol_id not in self._names:
            self._names = {symbol.id: symbol.symbol for symbol in self._symbols()}
        return self._names.get(symbol_id)

    async def _send(self, subject: str, value: dict[str, Any]) -> None:
        await self._session.bus.send(subject, orjson.dumps(value))

    async def _sent(self, denials: int, *subjects: str) -> None:
        """Until the server has all; StoreError when it permits none of them. `denials`: before they went."""
        await self._session.bus.flush()
        self._session.bus.check_permitted(denials, *subjects)


class PricesTarget(_Values):
    """The newest price of each symbol, and its level."""

    def __init__(self, session: Session, symbols: Symbols, levels: Levels | None) -> None:
        super().__init__(session, symbols)
        self._levels = levels
        self._prices: dict[int, dict[str, Any]] = {}

    async def open(self) -> Position | None:
        """See Target: a price cache needs no position."""
        await self._session.enter()
        return None

    async def save(self, position: Position) -> None:
        """See Target."""

    async def write(self, batch: Batch) -> Written:
        """See Target."""
        changed: dict[int, bool] = {}
        before = self._session.bus.denials.count
        for row in batch.rows.tolist():
            symbol_id, is_trade = row[SYMBOL_ID], row[KIND] == TRADE
            name = self._name(symbol_id)
            if name is not None:
                note_price(self._prices.setdefault(symbol_id, empty_price(name)), row)
                changed[symbol_id] = is_trade or changed.get(symbol_id, False)
        for symbol_id, traded in changed.items():
            name = self._names[symbol_id]
            await self._send(f"tradeback.price.{name}", self._prices[symbol_id])
            level = self._levels(symbol_id) if self._levels is not None and traded else None
            if level is not None:
                await self._send(f"tradeback.enigma.{name}", enigma_value(name, level))
        await self._sent(before, "tradeback.price.", "tradeback.enigma.")
        return Written()


class BarsTarget(_Values):
    """Every bar when it has closed, and when it has changed afterwards. The series store has them."""

    SINK = "nats:bars"

    def __init__(self, session: Session, source: Source, store: SeriesRead, symbols: Symbols) -> None:
        """`source`: the tape as far as the store has it."""
        super().__init__(session, symbols)
        self._source, self._store = source, store
        self._open: dict[tuple[int, int], int] = {}
        """Start (s) of the bar of a series that was the newest when it was last looked at."""

    async def open(self) -> Position | None:
        """See Target. Who knows no position begins at the tape's end."""
        await self._session.enter()
        held = await asyncio.to_thread(self._session.connection.positions.load, self.SINK)
        if held is not None:
            return held
        following = self._source.next_sequence
        return Position(self._source.resume(0, following)[0], following - 1)

    async def save(self, position: Position) -> None:
        """See Target."""
        await asyncio.to_thread(self._session.connection.positions.save, self.SINK, position)

    async def write(self, batch: Batch) -> Written:
        """See Target."""
        before = self._session.bus.denials.count
        for subject, value in await asyncio.to_thread(self._changed, batch.rows):
            await self._send(subject, value)
        await self._sent(before, "tradeback.bars.")
        return Written()

    def _changed(self, rows: Rows) -> list[tuple[str, dict[str, Any]]]:
        """In a thread."""
        kinds = rows["kind"]
        touched = rows[(kinds == TRADE) | (kinds == SEED_BAR) | (kinds == SEED_BAR_MORE)]
        touched = touched[touched["exchange_us"] > 0]
        found: list[tuple[str, dict[str, Any]]] = []
        for symbol_id in np.unique(touched["symbol_id"]).tolist():
            name = self._name(symbol_id)
            if name is None:
                continue
            times_s = touched["exchange_us"][touched["symbol_id"] == symbol_id] // 1_000_000
            for place, resolution in enumerate(RESOLUTIONS):
                slots = np.unique(times_s // RESOLUTION_S[place] * RESOLUTION_S[place])
                for bar in self._closed(symbol_id, place, slots.tolist()):
                    value = {"symbol": name, "resolution": resolution, **bar}
                    found.append((f"tradeback.bars.{resolution}.{name}", value))
        return found

    def _closed(self, symbol_id: int, resolution: int, slots: list[int]) -> list[dict[str, Any]]:
        """Of the bars that begin at `slots`, and the one that was open before, those that are closed now."""
        key = symbol_id, resolution
        before = self._open.get(key)
        newest = max(slots[-1], before or 0)
        self._open[key] = newest
        if before is None:
            begin = slots[0] - LOOK_BACK_BARS * RESOLUTION_S[resolution]
            held = self._store.range(symbol_id, resolution, begin, slots[0], LOOK_BACK_BARS)
            before = int(held["slot_us"][-1]) // 1_000_000 if len(held) else slots[0]
        bars: list[dict[str, Any]] = []
        for slot in sorted({slot for slot in (before, *slots) if slot < newest}):
            bars += bar_values(self._store.range(symbol_id, resolution, slot, slot + 1, 1))
        return bars


def empty_price(name: str) -> dict[str, Any]:
    """A price of which nothing is known yet."""
    return {"symbol": name, "price": None, "bid": None, "ask": None, "volume": None, "timestamp": 0}


def note_price(price: dict[str, Any], row: tuple[Any, ...]) -> None:
    """Put a trade or quote (a TICK as a tuple) into a price; see `GET /symbols/{symbol}/price`."""
    if row[KIND] == TRADE:
        price["price"], price["volume"] = _finite(row[PRICE]), _finite(row[QUANTITY])
        price["timestamp"] = row[EXCHANGE_US] // 1_000
    else:
        price["bid"], price["ask"] = _finite(row[PRICE]), _finite(row[ASK])
        if price["price"] is None:
            price["timestamp"] = row[RECV_NS] // 1_000_000


def enigma_value(name: str, enigma: Enigma) -> dict[str, Any]:
    """As `GET /symbols/{symbol}/enigma` answers."""
    return {
        "symbol": name,
        "level": _finite(enigma.level),
        "ath": _finite(enigma.ath),
        "atl": _finite(enigma.atl),
        "current_price": _finite(enigma.price),
        "fib_levels": {key: _finite(value) for key, value in enigma.fib_levels().items()},
        "trade_id": enigma.trade_id,
        "timestamp": enigma.exchange_us // 1_000,
    }


def bar_values(rows: Bars) -> list[dict[str, Any]]:
    """As in `GET /symbols/{symbol}/bars`, without `complete`, which needs the bar behind it."""
    columns = (
        (rows["slot_us"] // 1_000_000).tolist(),
        rows["open"].tolist(),
        rows["high"].tolist(),
        rows["low"].tolist(),
        rows["close"].tolist(),
        volumes(rows).tolist(),
        rows["trade_count"].tolist(),
    )
    names = ("time", "open", "high", "low", "close", "volume", "trade_count")
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
