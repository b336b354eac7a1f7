"""Newest values as the JSON that other programs read (docs/stores.md). Pure.

`trade_id` and `quote_us` stand first: the script in `latest_redis` finds what is newer by them.
"""

import math
from collections.abc import Iterable
from typing import Any, Final

import orjson

from tradeback.stores.ports import Levels, Price, SharedSession, StreamSymbol

NO_TRADE: Final = -1
PRICES_CHANNEL: Final = "prices"
ENDED_CHANNEL: Final = "session:ended"


def price_bytes(price: Price) -> bytes:
    """As it is kept under `price:{symbol}`."""
    _, value, bid, ask, volume, timestamp, trade_id, quote_us = price
    return orjson.dumps(
        {
            "trade_id": trade_id,
            "quote_us": quote_us,
            "price": value,
            "volume": volume,
            "timestamp": timestamp,
            "bid": bid,
            "ask": ask,
        }
    )


def price_of(symbol: str, data: bytes) -> Price | None:
    """What `price_bytes` made; None for anything else."""
    try:
        held = orjson.loads(data)
        price, bid, ask, volume = (held[name] for name in ("price", "bid", "ask", "volume"))
        timestamp, trade_id, quote_us = (int(held[name]) for name in ("timestamp", "trade_id", "quote_us"))
        return Price(symbol, price, bid, ask, volume, timestamp, trade_id, quote_us)
    except (ValueError, KeyError, TypeError):
        return None


def levels_bytes(levels: Levels) -> bytes:
    """As they are kept under `enigma:{symbol}`."""
    return orjson.dumps(
        {
            "trade_id": levels.trade_id,
            "level": levels.level,
            "ath": levels.ath,
            "atl": levels.atl,
            "fib_levels": levels.fib_levels,
        }
    )


def levels_of(symbol: str, data: bytes) -> Levels | None:
    """What `levels_bytes` made; None for anything else."""
    try:
        held = orjson.loads(data)
        return Levels(
            symbol, held["level"], held["ath"], held["atl"], held["fib_levels"], int(held["trade_id"])
        )
    except (ValueError, KeyError, TypeError):
        return None


def message_of(prices: Iterable[tuple[str, bytes]]) -> bytes:
    """Kept values by symbol as one message: a JSON list of objects that begin with their symbol."""
    each = (b'{"symbol":%b,%b' % (orjson.dumps(name), data[1:]) for name, data in prices)
    return b"[%b]" % b",".join(each)


def prices_of(message: bytes) -> list[Price]:
    """What `message_of` made; empty for anything else."""
    try:
        held: list[dict[str, Any]] = orjson.loads(message)
        found = [price_of(each["symbol"], orjson.dumps(each)) for each in held]
    except (ValueError, KeyError, TypeError):
        return []
    return [price for price in found if price is not None]


def session_bytes(session: SharedSession) -> bytes:
    """As it is kept under `session:{token hash}`."""
    return orjson.dumps({"user_id": session.user_id, "expires_at": session.expires_at})


def session_of(data: bytes) -> SharedSession | None:
    """What `session_bytes` made; None for anything else."""
    try:
        held = orjson.loads(data)
        user_id = held["user_id"]
        return SharedSession(None if user_id is None else int(user_id), int(held["expires_at"]))
    except (ValueError, KeyError, TypeError):
        return None


def symbol_bytes(symbol: StreamSymbol) -> bytes:
    """As it is kept in `ticks:symbols` under its id."""
    return orjson.dumps(
        {
            "symbol": symbol.symbol,
            "price_precision": symbol.price_precision,
            "quantity_precision": symbol.quantity_precision,
        }
    )


def symbol_of(symbol_id: int, data: bytes) -> StreamSymbol:
    """What `symbol_bytes` made. ValueError or KeyError for anything else."""
    held = orjson.loads(data)
    return StreamSymbol(
        symbol_id, str(held["symbol"]), int(held["price_precision"]), int(held["quantity_precision"])
    )


def newer_of(new: Price, old: Price | None) -> tuple[Price | None, bool]:
    """What to keep when `new` comes and `old` is kept, and whether that begins a new life.

    None: `old`, untouched. Parts are chosen each for itself; what is in part older prolongs nothing.
    """
    if old is None:
        return new, True
    if old.trade_id > new.trade_id:
        if old.quote_us >= new.quote_us:
            return None, False
        return old._replace(bid=new.bid, ask=new.ask, quote_us=new.quote_us), False
    if old.quote_us > new.quote_us:
        return new._replace(bid=old.bid, ask=old.ask, quote_us=old.quote_us), False
    return new, True


def number(value: Any) -> float | None:
    """A float as JSON can hold it; None for infinity and what is no number."""
    made = float(value)
    return made if math.isfinite(made) else None
