"""Wire v2, the entries of a frame decoded by a kernel: what clients with numba use. See `wire.v2_decode`.

An error is a negative cursor (see `wire.v2_read`). The context is an int64 array whose words are named here.
"""

from typing import Any, Final

from tradeback.kernel.jit import helper, kernel
from tradeback.kernel.memory import (
    load_8,
    load_f64,
    load_i64,
    store_8,
    store_16,
    store_32,
    store_64,
    store_f64,
)
from tradeback.wire import v2_layout as at
from tradeback.wire.v2_frame import (
    COUNT,
    CUT,
    ENIGMA,
    GAPS,
    NO_SYMBOL,
    NO_TRADE,
    QUOTES,
    RANGE,
    RESERVED,
    TRADES,
    UNKNOWN_SYMBOL,
)
from tradeback.wire.v2_read import read_byte, read_escape, read_signed, read_time, read_varint

END: Final = 0
"""Address behind the frame's last byte."""
LIMIT: Final = 1
"""Most entries that there may be; the output arrays have room for as many."""
RECV_US: Final = 2
TRADES_OUT: Final = 3
"""Address of TRADES; then the other arrays."""
QUOTES_OUT: Final = 4
GAPS_OUT: Final = 5
ENIGMA_OUT: Final = 6
STATES: Final = 7
"""Address of int64[65536][STATE_WORDS]."""
POWERS: Final = 8
SERIAL: Final = 9
"""Number of the frame, 1 up."""
TRADE_COUNT: Final = 10
"""Results: entries of each kind."""
QUOTE_COUNT: Final = 11
GAP_COUNT: Final = 12
ENIGMA_COUNT: Final = 13
PLACE: Final = 14
"""Result: entries of all kinds."""
SYMBOL: Final = 15
TIME_US: Final = 16
CONTEXT_WORDS: Final = 17

STATE_SERIAL: Final = 0
STATE_PRICE_DIGITS: Final = 1
STATE_QUANTITY_DIGITS: Final = 2
STATE_KNOWN: Final = 3
"""1: the symbol has a grid."""
STATE_VALUES: Final = 4
"""Bid, its quantity, ask, its quantity."""
STATE_ID: Final = 8
STATE_TIME: Final = 9
STATE_TRADE: Final = 10
"""Index of the symbol's last trade in the frame."""
STATE_WORDS: Final = 11

_STATE_BYTES = 8 * STATE_WORDS


def _offsets(dtype: Any) -> tuple[int, ...]:
    return tuple(int(dtype.fields[name][1]) for name in dtype.names)


(_T_ID, _T_TIME, _T_PRICE, _T_QUANTITY, _T_PRICE_UNITS, _T_QUANTITY_UNITS, _T_FIRST, _T_STANDS,
 _T_SYMBOL, _T_PLACE, _T_FLAGS, _T_PRICE_DIGITS, _T_QUANTITY_DIGITS) = _offsets(TRADES)  # fmt: skip
(_Q_BID, _, _, _, _Q_UNITS, _, _, _, _Q_SKIPPED, _Q_SYMBOL, _Q_PLACE, _Q_FLAGS, _Q_DIGITS,
 _, _, _) = _offsets(QUOTES)  # fmt: skip
(_G_FIRST, _G_LAST, _G_MISSING, _G_TIME, _G_NOTED, _G_SYMBOL, _G_PLACE, _G_STREAM, _G_STATE,
 _G_FLAGS) = _offsets(GAPS)  # fmt: skip
(_E_LEVEL, _, _, _, _E_ID, _E_TIME, _E_SYMBOL, _E_PLACE, _E_FLAGS) = _offsets(ENIGMA)
_TRADE_BYTES, _QUOTE_BYTES, _GAP_BYTES = TRADES.itemsize, QUOTES.itemsize, GAPS.itemsize
_ENIGMA_BYTES = ENIGMA.itemsize


@helper
def _state(context: Any, cursor: Any, end: Any, tag: Any) -> Any:
    """The line of the entry's symbol; a negative cursor when it has none."""
    symbol = load_i64(context + 8 * SYMBOL)
    if tag & at.SAME_SYMBOL:
        if symbol == 0:
            cursor = -NO_SYMBOL
    else:
        symbol, cursor = read_varint(cursor, end)
    if cursor < 0:
        return 0, cursor
    if not 0 < symbol < at.SYMBOL_IDS:
        return 0, -UNKNOWN_SYMBOL
    state = load_i64(context + 8 * STATES) + _STATE_BYTES * symbol
    if load_i64(state + 8 * STATE_KNOWN) == 0:
        return 0, -UNKNOWN_SYMBOL
    store_64(context + 8 * SYMBOL, symbol)
    serial = load_i64(context + 8 * SERIAL)
    if load_i64(state) != serial:
        store_64(state, serial)
        for word in range(STATE_VALUES, STATE_TIME):
            store_64(state + 8 * word, 0)
        store_64(state + 8 * STATE_TIME, -1)
    return state, cursor


@helper
def _extra(cursor: Any, end: Any, wanted: Any, known: Any) -> Any:
    if wanted == 0:
        return 0, cursor
    extra, cursor = read_byte(cursor, end)
    if cursor >= 0 and extra & ~known != 0:
        return 0, -RESERVED
    return extra, cursor


@helper
def _add_trade(context: Any, state: Any, flags: Any, first: Any, stands_for: Any) -> Any:
    """Begin a trade's row; its values are still to be written. Returns its address, or -COUNT."""
    place = load_i64(context + 8 * PLACE)
    if place >= load_i64(context + 8 * LIMIT):
        return -COUNT
    index = load_i64(context + 8 * TRADE_COUNT)
    row = load_i64(context + 8 * TRADES_OUT) + _TRADE_BYTES * index
    store_64(row + _T_ID, load_i64(state + 8 * STATE_ID))
    store_64(row + _T_TIME, load_i64(state + 8 * STATE_TIME))
    store_64(row + _T_FIRST, first)
    store_32(row + _T_STANDS, stands_for)
    store_16(row + _T_SYMBOL, load_i64(context + 8 * SYMBOL))
    store_16(row + _T_PLACE, place)
    store_8(row + _T_FLAGS, flags)
    store_8(row + _T_PRICE_DIGITS, load_i64(state + 8 * STATE_PRICE_DIGITS))
    store_8(row + _T_QUANTITY_DIGITS, load_i64(state + 8 * STATE_QUANTITY_DIGITS))
    store_64(state + 8 * STATE_TRADE, index)
    store_64(context + 8 * TRADE_COUNT, index + 1)
    store_64(context + 8 * PLACE, place + 1)
    return row


@helper
def _items(context: Any, cursor: Any, state: Any, flags: Any, first: Any, stands_for: Any) -> Any:
    """The trades of one run. Returns the cursor behind it."""
    end = load_i64(context + 8 * END)
    powers = load_i64(context + 8 * POWERS)
    price_power = load_f64(powers + 8 * load_i64(state + 8 * STATE_PRICE_DIGITS))
    quantity_power = load_f64(powers + 8 * load_i64(state + 8 * STATE_QUANTITY_DIGITS))
    bid = load_i64(state + 8 * STATE_VALUES)
    ask = load_i64(state + 8 * STATE_VALUES + 16)
    more = 1
    while more != 0:
        step, cursor = read_signed(cursor, end)
        maker = flags & at.BUYER_MAKER
        units = (bid if maker else ask) + step
        if cursor >= 0 and not 0 <= units < at.UNITS_LIMIT:
            return -RANGE
        if maker:
            bid = units
            if ask <= units:
                ask = units + 1
        else:
            ask = units
            if bid >= units or bid == 0:
                bid = units - 1
        packed, cursor = read_varint(cursor, end)
        more = packed & 1
        quantity = (packed >> 1) & 0x7FFFFFFFFFFFFFFF
        if cursor < 0:
            return cursor
        if quantity >= at.UNITS_LIMIT:
            return -RANGE
        row = _add_trade(context, state, flags if more else flags | at.LAST, first, stands_for)
        if row < 0:
            return row
        store_64(row + _T_PRICE_UNITS, units)
        store_f64(row + _T_PRICE, units / price_power)
        store_64(row + _T_QUANTITY_UNITS, quantity)
        store_f64(row + _T_QUANTITY, quantity / quantity_power)
        if more:
            first = load_i64(state + 8 * STATE_ID) + 1
            store_64(state + 8 * STATE_ID, first)
            stands_for = 1
    store_64(state + 8 * STATE_VALUES, bid)
    store_64(state + 8 * STATE_VALUES + 16, ask)
    return cursor


@helper
def _trade(context: Any, cursor: Any, tag: Any) -> Any:
    if tag & at.TRADE_RESERVED:
        return -RESERVED
    end = load_i64(context + 8 * END)
    state, cursor = _state(context, cursor, end, tag)
    flags, cursor = _extra(cursor, end, tag & at.TRADE_EXTRA, at.TRADE_EXTRAS)
    if cursor < 0:
        return cursor
    flags |= at.BUYER_MAKER if tag & at.TRADE_MAKER else 0
    number = load_i64(state + 8 * STATE_ID) + 1
    if tag & at.TRADE_CONTINUES:
        if load_i64(state + 8 * STATE_TIME) < 0:
            return -NO_TRADE
        before = load_i64(context + 8 * TRADES_OUT) + _TRADE_BYTES * load_i64(state + 8 * STATE_TRADE)
        store_8(before + _T_FLAGS, load_8(before + _T_FLAGS) & ~at.LAST)
    else:
        step, cursor = read_signed(cursor, end)
        number += step
        time_us, cursor = read_time(cursor, end, load_i64(context + 8 * TIME_US))
        store_64(state + 8 * STATE_TIME, time_us)
        store_64(context + 8 * TIME_US, time_us)
    store_64(state + 8 * STATE_ID, number)
    first = number
    stands_for = 1
    if flags & at.STAND_IN:
        stands_for, cursor = read_varint(cursor, end)
        step, cursor = read_signed(cursor, end)
        first = number - step
    if cursor < 0:
        return cursor
    if flags & at.OFF_GRID == 0:
        return _items(context, cursor, state, flags, first, stands_for)
    row = _add_trade(context, state, flags | at.LAST, first, stands_for)
    if row < 0:
        return row
    powers = load_i64(context + 8 * POWERS)
    cursor = read_escape(cursor, end, powers, row + _T_PRICE, row + _T_PRICE_UNITS, row + _T_PRICE_DIGITS)
    if cursor < 0:
        return cursor
    return read_escape(
        cursor, end, powers, row + _T_QUANTITY, row + _T_QUANTITY_UNITS, row + _T_QUANTITY_DIGITS
    )


@helper
def _quote_values(context: Any, cursor: Any, tag: Any, state: Any, row: Any) -> Any:
    end = load_i64(context + 8 * END)
    powers = load_i64(context + 8 * POWERS)
    values = state + 8 * STATE_VALUES
    for place in range(4):
        if place == 2 and load_i64(values + 16) <= load_i64(values):
            store_64(values + 16, load_i64(values) + 1)
        units = load_i64(values + 8 * place)
        if tag & (at.QUOTE_BID << place):
            step, cursor = read_signed(cursor, end)
            units += step
        if cursor < 0:
            return cursor
        if not 0 <= units < at.UNITS_LIMIT:
            return -RANGE
        digits = load_i64(state + 8 * STATE_PRICE_DIGITS + 8 * (place & 1))
        store_64(values + 8 * place, units)
        store_64(row + _Q_UNITS + 8 * place, units)
        store_f64(row + _Q_BID + 8 * place, units / load_f64(powers + 8 * digits))
        store_8(row + _Q_DIGITS + place, digits)
    return cursor


@helper
def _quote(context: Any, cursor: Any, tag: Any) -> Any:
    end = load_i64(context + 8 * END)
    state, cursor = _state(context, cursor, end, tag)
    flags, cursor = _extra(cursor, end, tag & at.QUOTE_EXTRA, at.QUOTE_EXTRAS)
    skipped = 0
    if flags & at.CONFLATED:
        skipped, cursor = read_varint(cursor, end)
    if cursor < 0:
        return cursor
    place = load_i64(context + 8 * PLACE)
    if place >= load_i64(context + 8 * LIMIT):
        return -COUNT
    index = load_i64(context + 8 * QUOTE_COUNT)
    row = load_i64(context + 8 * QUOTES_OUT) + _QUOTE_BYTES * index
    store_64(context + 8 * QUOTE_COUNT, index + 1)
    store_64(context + 8 * PLACE, place + 1)
    store_32(row + _Q_SKIPPED, skipped)
    store_16(row + _Q_SYMBOL, load_i64(context + 8 * SYMBOL))
    store_16(row + _Q_PLACE, place)
    store_8(row + _Q_FLAGS, flags)
    if flags & at.OFF_GRID == 0:
        return _quote_values(context, cursor, tag, state, row)
    if tag & at.QUOTE_VALUES != at.QUOTE_VALUES:
        return -RESERVED
    powers = load_i64(context + 8 * POWERS)
    for value in range(4):
        if cursor >= 0:
            cursor = read_escape(
                cursor,
                end,
                powers,
                row + _Q_BID + 8 * value,
                row + _Q_UNITS + 8 * value,
                row + _Q_DIGITS + value,
            )
    return cursor


@helper
def _gap(context: Any, cursor: Any, end: Any, row: Any, place: Any) -> Any:
    recv_us = load_i64(context + 8 * RECV_US)
    symbol, cursor = read_varint(cursor, end)
    flags, cursor = read_byte(cursor, end)
    stream, cursor = read_byte(cursor, end)
    state, cursor = read_byte(cursor, end)
    first, cursor = read_varint(cursor, end)
    length, cursor = read_signed(cursor, end)
    missing, cursor = read_varint(cursor, end)
    time_us, cursor = read_time(cursor, end, recv_us)
    noted_us, cursor = read_time(cursor, end, recv_us)
    if cursor < 0:
        return cursor
    if not 0 < symbol < at.SYMBOL_IDS:
        return -UNKNOWN_SYMBOL
    store_64(row + _G_FIRST, first)
    store_64(row + _G_LAST, first + length)
    store_64(row + _G_MISSING, missing)
    store_64(row + _G_TIME, time_us)
    store_64(row + _G_NOTED, noted_us)
    store_16(row + _G_SYMBOL, symbol)
    store_16(row + _G_PLACE, place)
    store_8(row + _G_STREAM, stream)
    store_8(row + _G_STATE, state)
    store_8(row + _G_FLAGS, flags)
    return cursor


@helper
def _enigma(context: Any, cursor: Any, end: Any, row: Any, place: Any) -> Any:
    symbol, cursor = read_varint(cursor, end)
    flags, cursor = read_byte(cursor, end)
    if cursor >= 0 and cursor + 32 > end:
        cursor = -CUT
    if cursor < 0:
        return cursor
    for word in range(4):
        store_64(row + _E_LEVEL + 8 * word, load_i64(cursor + 8 * word))
    number, cursor = read_varint(cursor + 32, end)
    time_us, cursor = read_time(cursor, end, load_i64(context + 8 * RECV_US))
    if cursor < 0:
        return cursor
    if not 0 < symbol < at.SYMBOL_IDS:
        return -UNKNOWN_SYMBOL
    store_64(row + _E_ID, number)
    store_64(row + _E_TIME, time_us)
    store_16(row + _E_SYMBOL, symbol)
    store_16(row + _E_PLACE, place)
    store_8(row + _E_FLAGS, flags)
    return cursor


@helper
def _long(context: Any, cursor: Any, tag: Any) -> Any:
    """A gap, an Enigma, or something to skip. Returns the cursor behind the entry's length."""
    end = load_i64(context + 8 * END)
    size, cursor = read_varint(cursor, end)
    if cursor < 0:
        return cursor
    if not 0 <= size <= end - cursor:
        return -CUT
    place = load_i64(context + 8 * PLACE)
    if place >= load_i64(context + 8 * LIMIT):
        return -COUNT
    store_64(context + 8 * PLACE, place + 1)
    read = cursor
    if tag == at.TAG_GAP:
        count = load_i64(context + 8 * GAP_COUNT)
        row = load_i64(context + 8 * GAPS_OUT) + _GAP_BYTES * count
        read = _gap(context, cursor, cursor + size, row, place)
        store_64(context + 8 * GAP_COUNT, count + 1)
    elif tag == at.TAG_ENIGMA:
        count = load_i64(context + 8 * ENIGMA_COUNT)
        row = load_i64(context + 8 * ENIGMA_OUT) + _ENIGMA_BYTES * count
        read = _enigma(context, cursor, cursor + size, row, place)
        store_64(context + 8 * ENIGMA_COUNT, count + 1)
    return read if read < 0 else cursor + size


@kernel("int64(int64,int64)")
def decode_entries_kernel(context: Any, cursor: Any) -> Any:
    """Decode the entries from address `cursor` to END. Returns 0, or one of v2_frame's reasons."""
    for word in range(TRADE_COUNT, SYMBOL + 1):
        store_64(context + 8 * word, 0)
    store_64(context + 8 * SERIAL, load_i64(context + 8 * SERIAL) + 1)
    store_64(context + 8 * TIME_US, load_i64(context + 8 * RECV_US))
    end = load_i64(context + 8 * END)
    while 0 <= cursor < end:
        tag = load_8(cursor)
        if tag & at.TAG_LONG:
            cursor = _long(context, cursor + 1, tag)
        elif tag & at.TAG_QUOTE:
            cursor = _quote(context, cursor + 1, tag)
        else:
            cursor = _trade(context, cursor + 1, tag)
    if cursor < 0:
        return -cursor
    return 0 if load_i64(context + 8 * PLACE) == load_i64(context + 8 * LIMIT) else COUNT
