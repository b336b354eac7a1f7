"""The three documented frames read straight through: literal, value, literal, value.

Half the time of reading keys one by one. A template that meets anything unexpected gives up and the
general reader takes the frame from its beginning; a template never accepts what that one would refuse.
"""

from typing import Any

from tradeback.ingest.decimals import EXACT, parse_decimal
from tradeback.ingest.grammar import (
    EVENT_US,
    NOT_MINE,
    OK,
    closes,
    read_event,
    read_flag,
    skip_wrapper,
    store_trade,
)
from tradeback.ingest.names import find_name
from tradeback.ingest.scan import parse_integer
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


def _literal(text: bytes) -> int:
    return int.from_bytes(text, "little")


_M4, _M5, _M6 = 0xFFFFFFFF, 0xFFFFFFFFFF, 0xFFFFFFFFFFFF
_U_KEY = _literal(b'{"u":')
_S_KEY = _literal(b',"s":"')
_BID_KEY = _literal(b',"b":"')
_BID_QUANTITY_KEY = _literal(b',"B":"')
_ASK_KEY = _literal(b',"a":"')
_ASK_QUANTITY_KEY = _literal(b',"A":"')
_TRADE_HEAD_1 = _literal(b'{"e":"tr')
_TRADE_HEAD_2 = _literal(b'ade","E"')
_AGG_HEAD_1 = _literal(b'{"e":"ag')
_AGG_HEAD_2 = _literal(b'gTrade",')
_AGG_HEAD_3 = _literal(b'"E":')
_ID_T_KEY = _literal(b',"t":')
_ID_A_KEY = _literal(b',"a":')
_P_KEY = _literal(b',"p":"')
_Q_KEY = _literal(b',"q":"')
_T_KEY = _literal(b',"T":')
_F_KEY = _literal(b',"f":')
_L_KEY = _literal(b',"l":')
_MAKER_KEY = _literal(b',"m":')
_IGNORE_KEY = _literal(b',"M":')
_COLON, _CLOSE = 58, 125


@helper
def _read_quote(address: Any, row: Any, slots: Any, mask: Any, powers: Any, scratch: Any) -> Any:
    """bookTicker. Returns the address behind the object, or 0 to give up."""
    update_id, address = parse_integer(address + 5)
    if update_id < 0 or (load_i64(address) & _M6) != _S_KEY:
        return 0
    symbol_id, address = find_name(address + 6, slots, mask)
    if symbol_id < 0 or (load_i64(address + 1) & _M6) != _BID_KEY:
        return 0
    bid, address, odd = parse_decimal(address + 7, powers)
    if (load_i64(address) & _M6) != _BID_QUANTITY_KEY:
        return 0
    bid_quantity, address, odd_2 = parse_decimal(address + 6, powers)
    if (load_i64(address) & _M6) != _ASK_KEY:
        return 0
    ask, address, odd_3 = parse_decimal(address + 6, powers)
    if (load_i64(address) & _M6) != _ASK_QUANTITY_KEY:
        return 0
    ask_quantity, address, odd_4 = parse_decimal(address + 6, powers)
    if (odd | odd_2 | odd_3 | odd_4) != EXACT or load_8(address) != _CLOSE:
        return 0
    store_64(row + EXCHANGE_US, 0)
    store_64(row + RECV_NS, 0)
    store_64(row + ID, update_id)
    store_f64(row + PRICE, bid)
    store_f64(row + QUANTITY, bid_quantity)
    store_f64(row + ASK, ask)
    store_f64(row + ASK_QUANTITY, ask_quantity)
    store_16(row + SYMBOL_ID, symbol_id)
    store_8(row + KIND, QUOTE)
    store_8(row + FLAGS, 0)
    store_64(scratch + EVENT_US, 0)
    return address + 1


@helper
def _read_tail(address: Any, row: Any) -> Any:
    """`,"T":..,"m":..,"M":..}` of a trade or aggregate. Returns (T, address behind the object or 0)."""
    if (load_i64(address) & _M5) != _T_KEY:
        return 0, 0
    time, address = parse_integer(address + 5)
    if time < 0 or (load_i64(address) & _M5) != _MAKER_KEY:
        return 0, 0
    maker, address = read_flag(address + 5)
    if maker < 0 or (load_i64(address) & _M5) != _IGNORE_KEY:
        return 0, 0
    ignored, address = read_flag(address + 5)
    if ignored < 0 or load_8(address) != _CLOSE:
        return 0, 0
    store_8(row + FLAGS, BUYER_MAKER * maker)
    return time, address + 1


@helper
def _read_fill(address: Any, row: Any, powers: Any) -> Any:
    """`,"p":"..","q":".."`: price and quantity. Returns the address behind, or 0."""
    if (load_i64(address) & _M6) != _P_KEY:
        return 0
    price, address, odd = parse_decimal(address + 6, powers)
    if odd != EXACT or (load_i64(address) & _M6) != _Q_KEY:
        return 0
    quantity, address, odd = parse_decimal(address + 6, powers)
    if odd != EXACT:
        return 0
    store_f64(row + PRICE, price)
    store_f64(row + QUANTITY, quantity)
    store_64(row + RECV_NS, 0)
    return address


@helper
def _read_head(address: Any, id_key: Any, slots: Any, mask: Any) -> Any:
    """`<E>,"s":"..","t":<id>`. Returns (E, symbol id, id, address behind it or 0)."""
    event, address = parse_integer(address)
    if event < 0 or (load_i64(address) & _M6) != _S_KEY:
        return 0, 0, 0, 0
    symbol_id, address = find_name(address + 6, slots, mask)
    if symbol_id < 0 or (load_i64(address + 1) & _M5) != id_key:
        return 0, 0, 0, 0
    trade_id, address = parse_integer(address + 6)
    if trade_id < 0:
        return 0, 0, 0, 0
    return event, symbol_id, trade_id, address


@helper
def _read_trade(address: Any, row: Any, slots: Any, mask: Any, powers: Any, scratch: Any) -> Any:
    """trade. Returns the address behind the object, or 0 to give up."""
    event, symbol_id, trade_id, address = _read_head(address + 17, _ID_T_KEY, slots, mask)
    if address == 0:
        return 0
    address = _read_fill(address, row, powers)
    if address == 0:
        return 0
    time, address = _read_tail(address, row)
    if address == 0:
        return 0
    store_f64(row + ASK, 0.0)
    store_f64(row + ASK_QUANTITY, 0.0)
    store_trade(row, scratch, TRADE, symbol_id, trade_id, time, event)
    return address


@helper
def _read_agg(address: Any, row: Any, slots: Any, mask: Any, powers: Any, scratch: Any) -> Any:
    """aggTrade. Returns the address behind the object, or 0 to give up."""
    event, symbol_id, agg_id, address = _read_head(address + 20, _ID_A_KEY, slots, mask)
    if address == 0:
        return 0
    address = _read_fill(address, row, powers)
    if address == 0 or (load_i64(address) & _M5) != _F_KEY:
        return 0
    first, address = parse_integer(address + 5)
    if first < 0 or (load_i64(address) & _M5) != _L_KEY:
        return 0
    last, address = parse_integer(address + 5)
    if last < first:
        return 0
    time, address = _read_tail(address, row)
    if address == 0:
        return 0
    store_f64(row + ASK, float(first))
    store_f64(row + ASK_QUANTITY, float(last))
    store_trade(row, scratch, AGG, symbol_id, agg_id, time, event)
    return address


@helper
def decode_frame(address: Any, end: Any, row: Any, slots: Any, mask: Any, powers: Any, scratch: Any) -> Any:
    """Decode the frame payload [address, end), combined or raw, into the record at `row`. Returns a status.

    OK: all fields but receive time, line and checksum are written. Otherwise the record's bytes are
    undefined and the slow path has the word. Up to 32 bytes behind `end` must be readable.
    """
    payload = skip_wrapper(address, end, scratch)
    if payload == 0:
        return NOT_MINE
    wrapped = payload != address
    stop = 0
    head = load_i64(payload)
    if (head & _M5) == _U_KEY:
        stop = _read_quote(payload, row, slots, mask, powers, scratch)
    elif head == _TRADE_HEAD_1:
        if load_i64(payload + 8) == _TRADE_HEAD_2 and load_8(payload + 16) == _COLON:
            stop = _read_trade(payload, row, slots, mask, powers, scratch)
    elif (
        head == _AGG_HEAD_1 and load_i64(payload + 8) == _AGG_HEAD_2 and load_32(payload + 16) == _AGG_HEAD_3
    ):
        stop = _read_agg(payload, row, slots, mask, powers, scratch)
    if stop != 0 and closes(stop, end, wrapped):
        return OK
    status, stop = read_event(payload, end, row, slots, mask, powers, scratch)
    if status != NOT_MINE and not closes(stop, end, wrapped):
        return NOT_MINE
    return status
