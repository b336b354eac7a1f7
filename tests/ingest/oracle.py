"""What a frame means and who was first, in plain Python: orjson, float, sets. Shares only the record's dtype.

`event_of` is strict about what a frame must hold and lenient about everything else, as the tape is.
"""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import orjson

from tradeback.model.record import AGG, BUYER_MAKER, LATE, QUOTE, STAND_IN, TRADE, Rows, empty_rows

DECIMAL = re.compile(r"[0-9]+(\.[0-9]+)?")
TRADE_WINDOW, AGG_WINDOW = 4_096, 1_024


class Event(NamedTuple):
    """The meaning of one frame. `event_us` is E; it goes to the lag histogram, not to the tape."""

    kind: int
    symbol: str
    id: int
    exchange_us: int
    price: float
    quantity: float
    ask: float
    ask_quantity: float
    flags: int
    event_us: int


def to_us(time: int) -> int:
    """Times of up to 14 digits are ms."""
    return time * 1_000 if time < 10**14 else time


def _integer(event: Mapping[str, Any], key: str) -> int:
    value = event[key]
    if type(value) is not int or value < 0:
        raise TypeError(key)
    return value


def _decimal(event: Mapping[str, Any], key: str) -> float:
    value = event[key]
    if type(value) is not str or not DECIMAL.fullmatch(value):
        raise TypeError(key)
    return float(value)


def _quote(event: Mapping[str, Any], symbol: str) -> Event:
    bid, bid_quantity, ask, ask_quantity = (_decimal(event, key) for key in "bBaA")
    return Event(QUOTE, symbol, _integer(event, "u"), 0, bid, bid_quantity, ask, ask_quantity, 0, 0)


def _fill(event: Mapping[str, Any], symbol: str) -> Event:
    kind = {"trade": TRADE, "aggTrade": AGG}[event["e"]]
    first = last = 0
    if kind == AGG:
        first, last = _integer(event, "f"), _integer(event, "l")
        if last < first:
            raise TypeError("l")
    if type(event["m"]) is not bool:
        raise TypeError("m")
    return Event(
        kind,
        symbol,
        _integer(event, "t" if kind == TRADE else "a"),
        to_us(_integer(event, "T")),
        _decimal(event, "p"),
        _decimal(event, "q"),
        float(first),
        float(last),
        BUYER_MAKER if event["m"] else 0,
        to_us(event["E"]) if type(event.get("E")) is int else 0,
    )


def event_of(frame: bytes) -> Event | None:
    """What the frame means; None when it is no JSON or no trade, aggTrade or bookTicker."""
    try:
        event = orjson.loads(frame)
        if "stream" in event:
            if type(event["stream"]) is not str or event.keys() != {"stream", "data"}:
                return None
            event = event["data"]
        symbol = event["s"]
        if type(symbol) is not str:
            return None
        if "e" in event:
            return _fill(event, symbol)
        if event.keys() & set("pqTtm"):
            return None
        return _quote(event, symbol)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None


def row_of(event: Event, ids: Mapping[str, int]) -> Rows:
    """The record of an event as the decoder leaves it: without receive time, line and checksum."""
    rows = empty_rows(1)
    for name in ("kind", "id", "exchange_us", "price", "quantity", "ask", "ask_quantity", "flags"):
        rows[name] = getattr(event, name)
    rows["symbol_id"] = ids[event.symbol]
    return rows


def is_plain(decimal: str) -> bool:
    """True when the exact path must take this decimal: few digits, and a mantissa that float64 holds."""
    whole, _, fraction = decimal.partition(".")
    digits = whole + fraction.rstrip("0")
    return len(whole + fraction) <= 64 and len(digits) <= 18 and int(digits) <= 2**53


def ws_frame(
    payload: bytes,
    opcode: int = 1,
    *,
    final: bool = True,
    reserved: int = 0,
    masked: bool = False,
    form: int = 0,
) -> bytes:
    """One WebSocket frame. `form` 126 or 127 makes the length longer than it need be."""
    size = len(payload)
    form = max(form, 127 if size > 0xFFFF else 126 if size > 125 else 0)
    head = bytes([(0x80 if final else 0) | reserved << 4 | opcode, (0x80 if masked else 0) | (form or size)])
    if form:
        head += struct.pack(">H" if form == 126 else ">Q", size)
    if masked:
        head += b"\0\0\0\0"
    return head + payload


@dataclass
class Ids:
    """What is known of one symbol and kind."""

    seen: set[int] = field(default_factory=set)
    low: int = -1
    high: int = -1

    @property
    def missing(self) -> int:
        """Ids between the lowest and the highest that were neither seen nor stood in for."""
        return self.high - self.low + 1 - len(self.seen) if self.seen else 0


class PlainArbiter:
    """Sets of ids, and the rule of the window."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, int], Ids] = {}
        self.counts: dict[str, int] = dict.fromkeys(
            ("messages", "accepted", "duplicates", "stale", "late", "skipped"), 0
        )

    def of(self, symbol_id: int, kind: int) -> Ids:
        """The ids of one symbol and kind."""
        return self.known.setdefault((symbol_id, kind), Ids())

    def take(self, rows: Rows) -> Rows:
        """The rows that belong on the tape, in order, with LATE set."""
        taken = [row for row in rows.copy() if self._take(row)]
        return np.array(taken, rows.dtype)

    def _take(self, row: Any) -> bool:
        self.counts["messages"] += 1
        kind, identifier = int(row["kind"]), int(row["id"])
        ids = self.of(int(row["symbol_id"]), kind)
        if kind == QUOTE:
            return self._verdict(identifier > max(ids.high, 0), ids, identifier)
        if kind == TRADE and row["flags"] & STAND_IN:
            return self._cover(ids, row)
        if ids.seen and identifier <= ids.high - (TRADE_WINDOW if kind == TRADE else AGG_WINDOW):
            self.counts["stale"] += 1
            return False
        if identifier not in ids.seen and ids.seen:
            self.counts["skipped"] += max(0, identifier - ids.high - 1)
            if identifier < ids.high:
                self.counts["late"] += 1
                row["flags"] |= LATE
        return self._verdict(identifier not in ids.seen, ids, identifier)

    def _verdict(self, is_new: bool, ids: Ids, identifier: int) -> bool:
        self.counts["accepted" if is_new else "duplicates"] += 1
        if is_new:
            ids.low = min(ids.low, identifier) if ids.seen else identifier
            ids.high = max(ids.high, identifier)
            ids.seen.add(identifier)
        return is_new

    def _cover(self, ids: Ids, row: Any) -> bool:
        """A stand-in covers its range, but for ids that have left the window while they were missing."""
        self.counts["accepted"] += 1
        first, top = int(row["ask"]), int(row["id"])
        if not ids.seen:
            ids.low, ids.high = first, first - 1
        low, high = ids.low, ids.high
        self.counts["skipped"] += max(0, first - high - 1)
        if top <= high:
            row["flags"] |= LATE
        window = max(top, high) - TRADE_WINDOW
        for identifier in range(first, top + 1):
            if not (low <= identifier <= high and identifier <= window):
                ids.seen.add(identifier)
        ids.low, ids.high = min(low, first), max(high, top)
        return True

    def is_certified(self, agg: Any) -> bool:
        """True when every trade of the aggregate was seen, is older than the window, or came before us."""
        ids = self.of(int(agg["symbol_id"]), TRADE)
        wanted = range(int(agg["ask"]), int(agg["ask_quantity"]) + 1)
        if not ids.seen:
            return False
        return all(
            identifier in ids.seen or identifier < ids.low or identifier <= ids.high - TRADE_WINDOW
            for identifier in wanted
        )
