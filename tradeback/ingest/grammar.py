"""One market-data frame of Binance Spot: JSON bytes -> the fields of one tape record.

Two readers of one strict grammar. `read_event` takes the keys in any order, knows old shapes and skips
plain extra keys. `ingest.templates` expects the documented order and falls back to it. Both accept a
frame only if a JSON parser would accept it with the same values; everything else is for the slow path
(`exchange.fallback`: orjson and float), which decides.

Source of the shapes: Binance's documentation of the trade, aggTrade and bookTicker streams.
"""

from typing import Any

from tradeback.ingest.decimals import EXACT, INEXACT, MALFORMED, parse_decimal
from tradeback.ingest.names import TOO_LONG, UNKNOWN, find_name
from tradeback.ingest.scan import parse_integer, string_end
from tradeback.kernel.jit import helper
from tradeback.kernel.memory import load_8, load_32, load_i64, store_8, store_16, store_64, store_f64
from tradeback.kernel.row import (
    ASK,
    ASK_QUANTITY,
    EXCHANGE_US,
    FLAGS,
    ID,
    KIND,
    PRICE,
    QUANTITY,
    RECV_NS,
    SYMBOL_ID,
)
from tradeback.model.record import AGG, BUYER_MAKER, QUOTE, TRADE

OK = 0
NOT_EXACT = INEXACT
"""A decimal beyond the exact path: the slow path redoes the frame with float()."""
NOT_MINE = MALFORMED
"""Not this grammar: another event, another shape, or not JSON."""
NOT_KNOWN = 3
"""A symbol that is not in the name table."""

EVENT_US = 0
"""Offset in the scratch area: the event time E in us, 0 if there was none."""
STREAM_START, STREAM_END = 8, 16
"""Offsets in the scratch area: where the stream name of a combined frame stands; 0 for raw frames."""

_MICROSECONDS_FROM = 100_000_000_000_000
"""Times below are milliseconds (13 digits), from here on microseconds (16)."""

_STREAM_KEY = int.from_bytes(b'{"stream', "little")
_DATA_KEY = int.from_bytes(b',"data":', "little")
_EVENT_TRADE = int.from_bytes(b'trade"', "little")
_EVENT_TRADE_MASK = (1 << 48) - 1
_EVENT_AGG = int.from_bytes(b"aggTrade", "little")
_KEY_MASK = 0xFFFF00FF
_KEY_SHAPE = 0x3A220022  # "?":
_TRUE = int.from_bytes(b"true", "little")
_FALS = int.from_bytes(b"fals", "little")
_NULL = int.from_bytes(b"null", "little")
_COLON_QUOTE = 0x223A22  # ":"
_QUOTE_BYTE, _COMMA, _OPEN, _CLOSE = 34, 44, 123, 125

# Which keys were seen with the type of value that means something.
_E, _S, _P, _Q, _BID, _BID_QUANTITY, _ASK, _ASK_QUANTITY, _T, _EVENT_TIME, _ID_T, _ID_A, _ID_U, _F, _L, _M = (
    1 << bit for bit in range(16)
)
_TRADE_KEYS = _E | _S | _P | _Q | _T | _ID_T | _M
_AGG_KEYS = _E | _S | _P | _Q | _T | _ID_A | _F | _L | _M
_QUOTE_KEYS = _S | _BID | _BID_QUANTITY | _ASK | _ASK_QUANTITY | _ID_U
_NO_TRADE_KEYS = _BID | _BID_QUANTITY | _ASK | _ASK_QUANTITY | _ID_U
_FIRST_LETTER = 64
_NO_QUOTE_LETTERS = sum(1 << (letter - _FIRST_LETTER) for letter in b"epqTtm")
"""Keys that a quote never has, whatever their type, as bits above _FIRST_LETTER."""


@helper
def to_us(time: Any) -> Any:
    """An exchange time in ms or us, as us."""
    if time < _MICROSECONDS_FROM:
        return time * 1000
    return time


@helper
def skip_wrapper(address: Any, end: Any, scratch: Any) -> Any:
    """Step over `{"stream":"...","data":` of a combined frame. Returns the payload's address, or 0.

    A raw frame is returned as it is.
    """
    if load_i64(address) != _STREAM_KEY:
        store_64(scratch + STREAM_START, 0)
        return address
    if (load_32(address + 8) & 0xFFFFFF) != _COLON_QUOTE:
        return 0
    stop = string_end(address + 11, end)
    if stop == 0 or load_i64(stop + 1) != _DATA_KEY:
        return 0
    store_64(scratch + STREAM_START, address + 11)
    store_64(scratch + STREAM_END, stop)
    return stop + 9


@helper
def closes(address: Any, end: Any, wrapped: Any) -> Any:
    """True when a frame whose payload ended at `address` ends properly at `end`."""
    if wrapped:
        return address + 1 == end and load_8(address) == _CLOSE
    return address == end


@helper
def read_flag(address: Any) -> Any:
    """A JSON boolean. Returns (1, 0 or -1 when it is none; address behind it)."""
    word = load_32(address)
    if word == _TRUE:
        return 1, address + 4
    if word == _FALS and load_8(address + 4) == 101:
        return 0, address + 5
    return -1, address


@helper
def read_kind(address: Any) -> Any:
    """The value of key `e` behind its opening quote. Returns (kind or 0, address behind the quote)."""
    word = load_i64(address)
    if (word & _EVENT_TRADE_MASK) == _EVENT_TRADE:
        return TRADE, address + 6
    if word == _EVENT_AGG and load_8(address + 8) == _QUOTE_BYTE:
        return AGG, address + 9
    return 0, address


@helper
def store_trade(
    row: Any, scratch: Any, kind: Any, symbol_id: Any, trade_id: Any, time: Any, event: Any
) -> None:
    """The integer fields of a trade or aggregate; `time` and `event` in ms or us."""
    store_64(row + EXCHANGE_US, to_us(time))
    store_64(row + ID, trade_id)
    store_16(row + SYMBOL_ID, symbol_id)
    store_8(row + KIND, kind)
    store_64(scratch + EVENT_US, to_us(event))


@helper
def _decimal_slot(key: Any) -> Any:
    """(bit, record offset) of a key whose value is a decimal string; bit 0 for any other key."""
    if key == 112:  # p
        return _P, PRICE
    if key == 113:  # q
        return _Q, QUANTITY
    if key == 98:  # b
        return _BID, PRICE
    if key == 66:  # B
        return _BID_QUANTITY, QUANTITY
    if key == 97:  # a
        return _ASK, ASK
    if key == 65:  # A
        return _ASK_QUANTITY, ASK_QUANTITY
    return 0, 0


@helper
def _integer_bit(key: Any) -> Any:
    """Bit of a key whose value is an integer of interest; 0 for any other key."""
    if key == 69:  # E
        return _EVENT_TIME
    if key == 84:  # T
        return _T
    if key == 116:  # t
        return _ID_T
    if key == 97:  # a
        return _ID_A
    if key == 117:  # u
        return _ID_U
    if key == 102:  # f
        return _F
    if key == 108:  # l
        return _L
    return 0


@helper
def read_event(address: Any, end: Any, row: Any, slots: Any, mask: Any, powers: Any, scratch: Any) -> Any:
    """Decode the payload object at `address`, keys in any order, into the record at `row`.

    Returns (status, address behind the object). Times, ids and flags go to the record; E to the scratch
    area. Receive time, line and checksum are the caller's.
    """
    seen = 0
    letters = 0
    kind = 0
    symbol_id = UNKNOWN
    price = quantity = ask = ask_quantity = 0.0
    event = time = trade_id = agg_id = update_id = first = last = 0
    maker = 0
    status = EXACT
    if load_8(address) != _OPEN:
        return NOT_MINE, address
    address += 1
    while True:
        word = load_32(address)
        if (word & _KEY_MASK) != _KEY_SHAPE:
            return NOT_MINE, address
        key = (word >> 8) & 0xFF
        if key < 32 or key == _QUOTE_BYTE or key == 92 or key > 126:
            return NOT_MINE, address
        if key >= _FIRST_LETTER:
            # In JSON the last of repeated keys wins, whatever its type: not here.
            letter = 1 << (key - _FIRST_LETTER)
            if letters & letter:
                return NOT_MINE, address
            letters |= letter
        address += 4
        byte = load_8(address)
        bit = 0
        if byte == _QUOTE_BYTE:
            address += 1
            bit, offset = _decimal_slot(key)
            if bit != 0:
                value, address, part = parse_decimal(address, powers)
                if part == MALFORMED:
                    return NOT_MINE, address
                status |= part
                if offset == PRICE:
                    price = value
                elif offset == QUANTITY:
                    quantity = value
                elif offset == ASK:
                    ask = value
                else:
                    ask_quantity = value
            elif key == 115:  # s
                bit = _S
                symbol_id, address = find_name(address, slots, mask)
                if symbol_id == TOO_LONG:
                    return NOT_MINE, address
                address += 1
            elif key == 101:  # e
                bit = _E
                kind, address = read_kind(address)
                if kind == 0:
                    return NOT_MINE, address
            else:
                address = string_end(address, end)
                if address == 0:
                    return NOT_MINE, address
                address += 1
        elif 48 <= byte <= 57:
            value_int, address = parse_integer(address)
            if value_int < 0:
                return NOT_MINE, address
            bit = _integer_bit(key)
            if bit == _EVENT_TIME:
                event = value_int
            elif bit == _T:
                time = value_int
            elif bit == _ID_T:
                trade_id = value_int
            elif bit == _ID_A:
                agg_id = value_int
            elif bit == _ID_U:
                update_id = value_int
            elif bit == _F:
                first = value_int
            elif bit == _L:
                last = value_int
        elif byte == 110:  # null
            if load_32(address) != _NULL:
                return NOT_MINE, address
            address += 4
        else:
            flag, address = read_flag(address)
            if flag < 0:
                return NOT_MINE, address
            if key == 109:  # m
                bit = _M
                maker = flag
        seen |= bit
        byte = load_8(address)
        address += 1
        if byte == _CLOSE:
            break
        if byte != _COMMA or address >= end:
            return NOT_MINE, address
    if kind == 0:
        # A quote has neither an event name nor a time.
        if (seen & _QUOTE_KEYS) != _QUOTE_KEYS or letters & _NO_QUOTE_LETTERS:
            return NOT_MINE, address
        store_64(row + EXCHANGE_US, 0)
        store_64(row + ID, update_id)
        store_16(row + SYMBOL_ID, symbol_id)
        store_8(row + KIND, QUOTE)
        store_64(scratch + EVENT_US, 0)
    elif kind == TRADE:
        # Until June 2024 trades carried the order ids b and a, which are integers here.
        if (seen & _TRADE_KEYS) != _TRADE_KEYS or seen & _NO_TRADE_KEYS:
            return NOT_MINE, address
        store_trade(row, scratch, TRADE, symbol_id, trade_id, time, event)
        ask = 0.0
        ask_quantity = 0.0
    else:
        if (seen & _AGG_KEYS) != _AGG_KEYS or seen & _NO_TRADE_KEYS:
            return NOT_MINE, address
        if last < first:
            return NOT_MINE, address
        store_trade(row, scratch, AGG, symbol_id, agg_id, time, event)
        ask = float(first)
        ask_quantity = float(last)
    store_f64(row + PRICE, price)
    store_f64(row + QUANTITY, quantity)
    store_f64(row + ASK, ask)
    store_f64(row + ASK_QUANTITY, ask_quantity)
    store_8(row + FLAGS, BUYER_MAKER * maker)
    store_64(row + RECV_NS, 0)
    if status != EXACT:
        return NOT_EXACT, address
    if symbol_id < 0:
        return NOT_KNOWN, address
    return OK, address
