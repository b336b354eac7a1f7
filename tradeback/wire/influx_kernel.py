"""Trades as InfluxDB's line protocol, straight from the tape's records into the body of a request.

A number is written as the shortest decimal with up to eight places that reads back as the same float64:
whatever came from a decimal string as exchanges send it. Others are left to Python, see `encode_trades`.
"""

import math
from typing import Any

from tradeback.kernel.jit import helper, kernel
from tradeback.kernel.memory import (
    load_8,
    load_16,
    load_f64,
    load_i64,
    store_8,
    store_16,
    store_64,
    store_f64,
)
from tradeback.kernel.row import ASK as ROW_ASK
from tradeback.kernel.row import EXCHANGE_US, ID, KIND, PRICE, QUANTITY, ROW_BYTES, SYMBOL_ID
from tradeback.model.record import QUOTE, TRADE
from tradeback.wire import influx_layout as at

_DIGITS_MAX = 1e15
"""Up to fifteen digits no two decimals are the same float64, and scaling one rounds to its own digits."""
_TRADE, _QUOTE = int(TRADE), int(QUOTE)
_STATE_BYTES = 8 * at.STATE_WORDS
_TEXT_BYTES = 8 * at.TEXT_WORDS
_BID, _ASK, _QUOTE_SEQUENCE = 8 * at.BID, 8 * at.ASK, 8 * at.QUOTE_SEQUENCE
_RUN_US, _RUN_FIRST, _RUN_SET = 8 * at.RUN_US, 8 * at.RUN_FIRST, 8 * at.RUN_SET
_HEAD, _HEAD_BYTES = 8 * at.HEAD, 8 * at.HEAD_BYTES
_STATES, _PAIRS, _OUT, _WRITTEN = 8 * at.STATES, 8 * at.PAIRS, 8 * at.OUT, 8 * at.WRITTEN
_ENDS, _TEXTS, _TEXTS_ROW = 8 * at.ENDS, 8 * at.TEXTS, 8 * at.TEXTS_ROW
_BID_NAME = int.from_bytes(b",bid=", "little")
_ASK_NAME = int.from_bytes(b",ask=", "little")
_VOLUME_NAME = int.from_bytes(b",volume=", "little")
_SEQUENCE_NAME, _SEQUENCE_REST = int.from_bytes(b",sequenc", "little"), int.from_bytes(b"e=", "little")
_ID_NAME = int.from_bytes(b"i,id=", "little")
_TIME_MARK = int.from_bytes(b"i ", "little")
_MINUS, _DOT, _ZERO, _NEWLINE = 45, 46, 48, 10


@helper
def copy(source: Any, count: Any, out: Any) -> Any:
    """`count` bytes, in steps of 8: reads and writes up to 7 bytes too far. Returns the address behind."""
    for offset in range(0, count, 8):
        store_64(out + offset, load_i64(source + offset))
    return out + count


@helper
def put_digits(value: Any, count: Any, out: Any, pairs: Any) -> Any:
    """The last `count` digits of a whole number that is not negative. Returns the address behind."""
    place = out + count
    while place - out >= 2:
        rest = value // 100
        place -= 2
        store_16(place, load_16(pairs + 2 * (value - 100 * rest)))
        value = rest
    if place > out:
        store_8(out, _ZERO + value % 10)
    return out + count


@helper
def put_whole(value: Any, out: Any, pairs: Any) -> Any:
    """A whole number as Python writes it. Returns the address behind."""
    if value < 0:
        store_8(out, _MINUS)
        out += 1
        value = -value
    count, limit = 1, 10
    while count < 19 and value >= limit:
        count += 1
        limit *= 10
    return put_digits(value, count, out, pairs)


@helper
def put_decimal(value: Any, out: Any, pairs: Any) -> Any:
    """A finite number as the shortest decimal that reads back the same. Returns the address behind, or 0:
    it has more than fifteen digits; or more places than eight, from ten million on five, then two."""
    if value < 0.0:
        store_8(out, _MINUS)
        out += 1
        value = -value
    places, scale, unit = 8, 1e8, 100_000_000
    if not value * scale < _DIGITS_MAX:
        places, scale, unit = 5, 1e5, 100_000
    if not value * scale < _DIGITS_MAX:
        places, scale, unit = 2, 1e2, 100
    scaled = value * scale
    if not scaled < _DIGITS_MAX:
        return 0
    mantissa = int(scaled + 0.5)
    if mantissa / scale != value:
        return 0
    whole = mantissa // unit
    fraction = mantissa - whole * unit
    out = put_whole(whole, out, pairs)
    if fraction > 0:
        store_8(out, _DOT)
        out = put_digits(fraction, places, out + 1, pairs)
        while load_8(out - 1) == _ZERO:
            out -= 1
    return out


@helper
def put_number(value: Any, out: Any, pairs: Any, text: Any) -> Any:
    """The number, or what Python wrote of it at `text` (0: nothing). Returns the address behind, or 0."""
    if text != 0:
        return copy(text + 8, load_i64(text), out)
    return put_decimal(value, out, pairs)


@helper
def put_time(us: Any, trade_id: Any, run_first: Any, out: Any, pairs: Any) -> Any:
    """`stores.influx_lines.trade_ns`, also where the ns are more than an int64 holds."""
    if trade_id - run_first >= at.SLOTS:
        us += (trade_id - run_first) // at.SLOTS
    if us <= 0:
        return put_whole(us * at.SLOTS + trade_id % at.SLOTS, out, pairs)
    return put_digits(trade_id % at.SLOTS, 3, put_whole(us, out, pairs), pairs)


@helper
def put_line(row: Any, state: Any, sequence: Any, out: Any, pairs: Any, texts: Any) -> Any:
    """The line of a trade that can have one. Returns the address behind, or 0: a number is for Python."""
    step = _TEXT_BYTES if texts != 0 else 0
    out = copy(load_i64(state + _HEAD), load_i64(state + _HEAD_BYTES), out)
    out = put_number(load_f64(row + PRICE), out, pairs, texts + at.PRICE_TEXT * step)
    if out == 0:
        return 0
    bid, ask, quoted = load_f64(state + _BID), load_f64(state + _ASK), load_i64(state + _QUOTE_SEQUENCE)
    if quoted > 0 and sequence - quoted <= at.QUOTE_BACK_ROWS and math.isfinite(bid + ask):
        store_64(out, _BID_NAME)
        out = put_number(bid, out + 5, pairs, texts + at.BID_TEXT * step)
        if out == 0:
            return 0
        store_64(out, _ASK_NAME)
        out = put_number(ask, out + 5, pairs, texts + at.ASK_TEXT * step)
        if out == 0:
            return 0
    store_64(out, _VOLUME_NAME)
    out = put_number(load_f64(row + QUANTITY), out + 8, pairs, texts + at.QUANTITY_TEXT * step)
    if out == 0:
        return 0
    store_64(out, _SEQUENCE_NAME)
    store_16(out + 8, _SEQUENCE_REST)
    out = put_whole(sequence, out + 10, pairs)
    store_64(out, _ID_NAME)
    out = put_whole(load_i64(row + ID), out + 5, pairs)
    store_16(out, _TIME_MARK)
    us, first = load_i64(row + EXCHANGE_US), load_i64(state + _RUN_FIRST)
    out = put_time(us, load_i64(row + ID), first, out + 2, pairs)
    store_8(out, _NEWLINE)
    return out + 1


@kernel("int64(int64,int64,int64,int64,int64)")
def encode_trades(context: Any, rows: Any, start: Any, count: Any, first_sequence: Any) -> Any:
    """The lines of records `start` up to `count`; `rows` is the address of record 0, at `first_sequence`.

    Returns `count`, or the record at which it stopped because one of its trade's four numbers is for Python
    to write: it wants them as texts, and to be called again from there. What is no trade, or has no name or
    no finite price and quantity, has an empty line.
    """
    states, pairs = load_i64(context + _STATES), load_i64(context + _PAIRS)
    base, ends = load_i64(context + _OUT), load_i64(context + _ENDS)
    texts, texts_row = load_i64(context + _TEXTS), load_i64(context + _TEXTS_ROW)
    out = base + load_i64(context + _WRITTEN)
    for index in range(start, count):
        row, sequence = rows + ROW_BYTES * index, first_sequence + index
        kind, state = load_8(row + KIND), states + _STATE_BYTES * load_16(row + SYMBOL_ID)
        if kind == _QUOTE:
            store_f64(state + _BID, load_f64(row + PRICE))
            store_f64(state + _ASK, load_f64(row + ROW_ASK))
            store_64(state + _QUOTE_SEQUENCE, sequence)
        elif kind == _TRADE:
            us = load_i64(row + EXCHANGE_US)
            if load_i64(state + _RUN_SET) == 0 or load_i64(state + _RUN_US) != us:
                store_64(state + _RUN_SET, 1)
                store_64(state + _RUN_US, us)
                store_64(state + _RUN_FIRST, load_i64(row + ID))
            numbers = load_f64(row + PRICE), load_f64(row + QUANTITY)
            if load_i64(state + _HEAD) and math.isfinite(numbers[0]) and math.isfinite(numbers[1]):
                end = put_line(row, state, sequence, out, pairs, texts if index == texts_row else 0)
                if end == 0:
                    store_64(context + _WRITTEN, out - base)
                    return index
                out = end
        store_64(ends + 8 * (index + 1), out - base)
    store_64(context + _WRITTEN, out - base)
    return count
