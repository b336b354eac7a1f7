"""The slow path: frames that the kernel refuses, decoded by orjson and float.

It is also the oracle: a sample of live frames is decoded both ways and compared. Accepts the same events
in any JSON spelling; refuses what is not a decimal number as the kernel knows them or an id in range.
"""

from typing import Any

import orjson

from tradeback.model.decimal_text import decimal_float
from tradeback.model.errors import DecodeError
from tradeback.model.record import AGG, BUYER_MAKER, QUOTE, TRADE, Rows, empty_rows
from tradeback.model.symbols import SymbolTable

_ID_MAX = 1 << 53
_MICROSECONDS_FROM = 100_000_000_000_000
_FIELDS = ("exchange_us", "id", "price", "quantity", "ask", "ask_quantity", "symbol_id", "kind", "flags")


def parse(payload: bytes) -> dict[str, Any]:
    """The JSON object in a text frame; DecodeError when it is none."""
    try:
        parsed = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise DecodeError(f"not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise DecodeError(f"not an object but {type(parsed).__name__}")
    return parsed


def event_of(message: dict[str, Any]) -> dict[str, Any]:
    """The event of a combined or raw message."""
    data = message.get("data", message) if "stream" in message else message
    if not isinstance(data, dict):
        raise DecodeError("data is not an object")
    return data


def decode_event(event: dict[str, Any], symbols: SymbolTable) -> tuple[Rows, int]:
    """One market-data event as one record, and its event time E in us (0 when it has none).

    Receive time, line and checksum are the caller's. DecodeError says what is wrong with the event.
    """
    rows = empty_rows(1)
    kind = event.get("e")
    if kind is None:
        return _decode_quote(event, symbols, rows), 0
    if kind not in ("trade", "aggTrade"):
        raise DecodeError(f"event {str(kind)[:40]!r} is none that was subscribed")
    rows["symbol_id"] = _symbol_id(event, symbols)
    rows["price"], rows["quantity"] = _number(event, "p"), _number(event, "q")
    rows["exchange_us"] = _time_us(event, "T")
    rows["flags"] = BUYER_MAKER * _flag(event, "m")
    if kind == "trade":
        rows["kind"], rows["id"] = TRADE, _identifier(event, "t")
    else:
        rows["kind"], rows["id"] = AGG, _identifier(event, "a")
        first, last = _identifier(event, "f"), _identifier(event, "l")
        if last < first:
            raise DecodeError(f"aggTrade from trade {first} to {last}")
        rows["ask"], rows["ask_quantity"] = float(first), float(last)
    return rows, _time_us(event, "E") if "E" in event else 0


def _decode_quote(event: dict[str, Any], symbols: SymbolTable, rows: Rows) -> Rows:
    rows["kind"], rows["id"] = QUOTE, _identifier(event, "u")
    rows["symbol_id"] = _symbol_id(event, symbols)
    rows["price"], rows["quantity"] = _number(event, "b"), _number(event, "B")
    rows["ask"], rows["ask_quantity"] = _number(event, "a"), _number(event, "A")
    return rows


def same(kernel: Rows, slow: Rows) -> bool:
    """Do two records of one row each say the same, stamps and checksum aside?"""
    return all(kernel[name][0] == slow[name][0] for name in _FIELDS)


def _symbol_id(event: dict[str, Any], symbols: SymbolTable) -> int:
    name = event.get("s")
    symbol = symbols.find(name) if isinstance(name, str) else None
    if symbol is None or symbol.symbol != name:  # the table finds any case, for users; the exchange has one
        raise DecodeError(f"symbol {str(name)[:40]!r} was not subscribed")
    return symbol.id


def _number(event: dict[str, Any], key: str) -> float:
    text = event.get(key)
    if not isinstance(text, str):
        raise DecodeError(f"{key} is not a decimal string")
    try:
        return decimal_float(text)
    except ValueError as error:
        raise DecodeError(f"{key}: {error}") from error


def _identifier(event: dict[str, Any], key: str) -> int:
    value = event.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _ID_MAX:
        raise DecodeError(f"{key} is {str(value)[:40]!r}, not an id")
    return value


def _time_us(event: dict[str, Any], key: str) -> int:
    value = event.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _ID_MAX:
        raise DecodeError(f"{key} is {str(value)[:40]!r}, not a time")
    return value * 1000 if value < _MICROSECONDS_FROM else value


def _flag(event: dict[str, Any], key: str) -> bool:
    value = event.get(key)
    if not isinstance(value, bool):
        raise DecodeError(f"{key} is not true or false")
    return value
