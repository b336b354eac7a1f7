"""The exchange's klines as BAR rows. Pure; numba is imported by the first `read`.

A kline is the exchange's array: [open time ms, open, high, low, close, volume, close time ms, quote
volume, trades, taker base volume, taker quote volume, "0"], prices and volumes as decimal strings. One
without trades repeats the last price, which is no trade of its time, so it counts nowhere.
"""

import json
from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final

import numpy as np

from tradeback.derive.layout import EXCHANGE, I64_MAX, NO_FIRST_ID, NO_ID, Bars, empty_bars
from tradeback.model.decimal_text import decimal_floats

Kline = Sequence[Any]
"""One element of the exchange's klines answer; see above."""
FIELDS: Final = 12
_INTEGERS: Final = (0, 6, 8)
_DECIMALS: Final = (1, 2, 3, 4, 5, 7, 9, 10)


def read(body: bytes, lot_digits: int) -> Bars:
    """A klines answer as one EXCHANGE bar for each, in its order, those without trades included.

    Volumes in lots of 10^-lot_digits; symbol and resolution are for the caller to say. Takes a fraction
    of a millisecond without the interpreter's lock when the answer is written as the exchange writes.
    ValueError when it is no list of klines.
    """
    from tradeback.derive.kline_kernel import REFUSED, read_klines

    bars = empty_bars(max(body.count(b"[") - 1, 0))
    address = np.frombuffer(body + b"\0", np.uint8).ctypes.data
    count = read_klines(address, len(body), bars.ctypes.data, len(bars), lot_digits)
    if count == REFUSED:
        return read_slowly(body, lot_digits)
    return _marked(bars[:count], lot_digits)


def read_slowly(body: bytes, lot_digits: int) -> Bars:
    """As `read`, by way of Python's own JSON and decimals."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON: {error}") from error
    if not isinstance(answer, list) or not all(map(is_kline, answer)):
        raise ValueError("no list of klines")
    return bars_of(answer, lot_digits)


def is_kline(entry: Any) -> bool:
    """Twelve fields: times and count integers, prices and volumes finite decimal strings."""
    if not isinstance(entry, list) or len(entry) < FIELDS:
        return False
    if not all(type(entry[index]) is int and 0 <= entry[index] <= I64_MAX // 1_000 for index in _INTEGERS):
        return False
    try:
        decimal_floats([entry[index] for index in _DECIMALS])
    except (ValueError, TypeError):
        return False
    return True


def bars_of(klines: Sequence[Kline], lot_digits: int) -> Bars:
    """Klines as Python objects (all `is_kline`) as BAR rows. ValueError when a volume is no int64 of lots."""
    bars = empty_bars(len(klines))
    for bar, kline in zip(bars, klines, strict=True):
        bar["slot_us"] = kline[0] * 1_000
        bar["open"], bar["high"], bar["low"], bar["close"] = map(float, kline[1:5])
        bar["volume"] = to_lots(kline[5], lot_digits)
        bar["taker_volume"] = to_lots(kline[9], lot_digits)
        bar["trade_count"] = bar["seed_count"] = kline[8]
    return _marked(bars, lot_digits)


def to_lots(volume: str, lot_digits: int) -> int:
    """A volume in whole lots, exact from the decimal string; what is finer than a lot rounds half even."""
    lots = int(Decimal(volume).scaleb(lot_digits).to_integral_value(ROUND_HALF_EVEN))
    if lots > I64_MAX:
        raise ValueError(f"a volume of {volume} is beyond all markets")
    return lots


def _marked(bars: Bars, lot_digits: int) -> Bars:
    bars["first_id"], bars["last_id"] = NO_FIRST_ID, NO_ID
    bars["flags"], bars["lot_digits"] = EXCHANGE, lot_digits
    return bars
