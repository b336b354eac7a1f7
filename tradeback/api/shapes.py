"""What the engine knows, as the JSON of the API. Pure functions, no numba. Never NaN or Infinity."""

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tradeback.derive.bars import volumes
from tradeback.derive.completeness_gap import STATE_NAMES, STREAM_KINDS, Gap
from tradeback.derive.enigma import Enigma
from tradeback.derive.layout import Bars, States
from tradeback.model.record import BUYER_MAKER, KIND_NAMES, REPAIRED, Rows
from tradeback.model.symbols import Symbol, SymbolTable

Json = dict[str, Any]


class DerivedSeries(Protocol):
    """What the API asks of `derive.state.Derived`; loop thread only."""

    def latest(self, symbol_id: int) -> np.void | None: ...

    def latest_all(self) -> States: ...

    def enigma(self, symbol_id: int) -> Enigma | None: ...

    def bars_open(self, symbol_id: int, resolution: int) -> Bars: ...

    def newest_us(self) -> int: ...

    @property
    def counters(self) -> dict[str, int]: ...


def symbol_json(symbol: Symbol) -> Json:
    """One instrument; steps and minima as the exchange's decimal strings."""
    return {
        "id": symbol.id,
        "symbol": symbol.symbol,
        "name": symbol.name,
        "base_currency": symbol.base_currency,
        "quote_currency": symbol.quote_currency,
        "is_active": symbol.is_active,
        "price_precision": symbol.price_precision,
        "quantity_precision": symbol.quantity_precision,
        "tick_size": symbol.tick_size,
        "step_size": symbol.step_size,
        "min_notional": symbol.min_notional,
    }


def price_json(symbol: Symbol, state: np.void) -> Json | None:
    """Latest price; None when nothing is known yet.

    `volume` is the quantity of the last trade, `timestamp` its exchange time in unix ms. Before the
    first trade both and `price` are null and `timestamp` is that of the quote; bid and ask are null before
    the first quote.
    """
    traded, quoted = int(state["trade_id"]) >= 0, int(state["quote_recv_ns"]) > 0
    if not traded and not quoted:
        return None
    timestamp = int(state["exchange_us"]) // 1_000 if traded else int(state["quote_recv_ns"]) // 1_000_000
    return {
        "symbol": symbol.symbol,
        "price": _finite(state["price"]) if traded else None,
        "bid": _finite(state["bid"]) if quoted else None,
        "ask": _finite(state["ask"]) if quoted else None,
        "volume": _finite(state["quantity"]) if traded else None,
        "timestamp": timestamp,
    }


def price_at_json(symbol: Symbol, trade: np.void, complete: bool) -> Json:
    """A trade of the tape as the price at a time. Past quotes are not looked up: bid and ask are null.

    `complete`: it is proved that no later trade up to that time is missing.
    """
    return {
        "symbol": symbol.symbol,
        "price": _finite(trade["price"]),
        "bid": None,
        "ask": None,
        "volume": _finite(trade["quantity"]),
        "timestamp": int(trade["exchange_us"]) // 1_000,
        "trade_id": int(trade["id"]),
        "complete": complete,
    }


def enigma_json(symbol: Symbol, enigma: Enigma) -> Json:
    """Enigma and its levels; `timestamp` is the exchange time of the trade in unix ms."""
    return {
        "symbol": symbol.symbol,
        "level": _finite(enigma.level),
        "ath": _finite(enigma.ath),
        "atl": _finite(enigma.atl),
        "current_price": _finite(enigma.price),
        "fib_levels": {name: _finite(value) for name, value in enigma.fib_levels().items()},
        "trade_id": enigma.trade_id,
        "timestamp": enigma.exchange_us // 1_000,
    }


def gap_json(symbol: str, gap: Gap) -> Json:
    """One gap. Times in unix ms: when it was noted and closed (null while open), and the exchange's times
    of the last record before it and the first behind it (null when unknown)."""
    return {
        "symbol": symbol,
        "stream": KIND_NAMES[STREAM_KINDS[gap.stream]],
        "state": STATE_NAMES[gap.state],
        "from_id": gap.first_id,
        "to_id": gap.last_id,
        "missing": gap.missing,
        "opened_at": gap.opened_ns // 1_000_000,
        "closed_at": gap.closed_ns // 1_000_000 or None,
        "from_time": gap.before_us // 1_000 or None,
        "to_time": gap.after_us // 1_000 or None,
    }


def enigma_source(symbols: SymbolTable, derived: DerivedSeries, symbol_id: int) -> Json | None:
    """The Enigma of a symbol id for the feed's channel; None before the first trade."""
    symbol, enigma = symbols.by_id(symbol_id), derived.enigma(symbol_id)
    return enigma_json(symbol, enigma) if symbol is not None and enigma is not None else None


def bars_json(rows: Bars, complete: NDArray[np.bool_]) -> list[Json]:
    """Bars and of each whether it is complete. Bars without trades are left out: they have no prices."""
    traded = rows["trade_count"] > 0
    rows, complete = rows[traded], complete[traded]
    columns = (
        (rows["slot_us"] // 1_000_000).tolist(),
        rows["open"].tolist(),
        rows["high"].tolist(),
        rows["low"].tolist(),
        rows["close"].tolist(),
        volumes(rows).tolist(),
        rows["trade_count"].tolist(),
        complete.tolist(),
    )
    names = ("time", "open", "high", "low", "close", "volume", "trade_count", "complete")
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def ticks_json(rows: Rows) -> list[Json]:
    """Trades; `side` is the taker's, `time` the exchange's in unix ms."""
    columns = (
        rows["id"].tolist(),
        rows["price"].tolist(),
        rows["quantity"].tolist(),
        rows["flags"].tolist(),
        (rows["exchange_us"] // 1_000).tolist(),
    )
    return [
        {
            "id": trade_id,
            "price": price,
            "quantity": quantity,
            "side": "sell" if flags & BUYER_MAKER else "buy",
            "time": time_ms,
            "repaired": bool(flags & REPAIRED),
        }
        for trade_id, price, quantity, flags, time_ms in zip(*columns, strict=True)
    ]


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
