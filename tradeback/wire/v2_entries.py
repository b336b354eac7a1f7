"""Wire v2, tape rows to entries, for kernels. Layout of the tables: `wire.v2_layout`.

Everything here appends at `cursor` and returns the address behind what it wrote. What the frame said
before lives in the context (the entry before) and in a line per symbol (its last values); both begin
anew with each frame, so that every frame can be read alone.
"""

from typing import Any

from tradeback.kernel.jit import helper
from tradeback.kernel.memory import load_8, load_f64, load_i64, store_8, store_64
from tradeback.kernel.row import ASK, ASK_QUANTITY, EXCHANGE_US, FLAGS, ID, PRICE, QUANTITY, RECV_NS
from tradeback.wire import v2_layout as at
from tradeback.wire.v2_values import (
    put_escape,
    put_signed,
    put_time,
    put_varint,
    sane_time,
    units_of,
    whole,
)

_STATES, _POWERS = 8 * at.STATES, 8 * at.POWERS
_CONFLATE, _ENTRY_FLAGS = 8 * at.CONFLATE, 8 * at.ENTRY_FLAGS
_LAST_SYMBOL, _LAST_TIME, _OPEN_RUN = 8 * at.LAST_SYMBOL, 8 * at.LAST_TIME, 8 * at.OPEN_RUN
_RECV_US = 8 * at.RECV_US
_STATE_BYTES = 8 * at.STATE_WORDS
_PRICE_SCALE, _QUANTITY_SCALE = 8 * at.STATE_PRICE_SCALE, 8 * at.STATE_QUANTITY_SCALE
_SKIPPED, _BID, _BID_QUANTITY = 8 * at.STATE_SKIPPED, 8 * at.STATE_BID, 8 * at.STATE_BID_QUANTITY
_ASK, _ASK_QUANTITY = 8 * at.STATE_ASK, 8 * at.STATE_ASK_QUANTITY
_ID, _TIME, _FLAGS = 8 * at.STATE_ID, 8 * at.STATE_TIME, 8 * at.STATE_FLAGS
_TRADE_FLAGS = at.BUYER_MAKER | at.REPAIRED | at.STAND_IN | at.LATE
_QUOTE_FLAGS = at.REPAIRED | at.LATE


@helper
def state_of(context: Any, symbol: Any) -> Any:
    """Address of the symbol's line, as empty as at the frame's start when this is its first entry."""
    states = load_i64(context + _STATES)
    state = states + _STATE_BYTES * symbol
    serial = load_i64(states)
    if load_i64(state) != serial:
        store_64(state, serial)
        for offset in (_BID, _BID_QUANTITY, _ASK, _ASK_QUANTITY, _ID):
            store_64(state + offset, 0)
        store_64(state + _TIME, -1)
    return state


@helper
def _put_tag(context: Any, cursor: Any, tag: Any, symbol: Any) -> Any:
    store_64(context + _OPEN_RUN, 0)
    if load_i64(context + _LAST_SYMBOL) == symbol:
        store_8(cursor, tag | at.SAME_SYMBOL)
        return cursor + 1
    store_64(context + _LAST_SYMBOL, symbol)
    store_8(cursor, tag)
    return put_varint(cursor + 1, symbol)


@helper
def _put_item(context: Any, cursor: Any, state: Any, maker: Any, price: Any, quantity: Any) -> Any:
    """Price against the side that it was traded at; the quantity's lowest bit says that the run goes on."""
    bid = load_i64(state + _BID)
    ask = load_i64(state + _ASK)
    cursor = put_signed(cursor, price - (bid if maker else ask))
    store_64(context + _OPEN_RUN, cursor)
    if maker:
        bid = price
        if ask <= price:
            ask = price + 1
    else:
        ask = price
        if bid >= price or bid == 0:
            bid = price - 1
    store_64(state + _BID, bid)
    store_64(state + _ASK, ask)
    return put_varint(cursor, quantity << 1)


@helper
def put_trade(context: Any, cursor: Any, row: Any, symbol: Any) -> Any:
    """A trade: one more item of the run before it, or an entry of its own."""
    state = state_of(context, symbol)
    flags = load_8(row + FLAGS) & _TRADE_FLAGS | load_i64(context + _ENTRY_FLAGS)
    price = units_of(load_f64(row + PRICE), load_f64(state + _PRICE_SCALE))
    quantity = units_of(load_f64(row + QUANTITY), load_f64(state + _QUANTITY_SCALE))
    on_grid = price >= 0 and quantity >= 0
    number = load_i64(row + ID)
    time_us = sane_time(load_i64(row + EXCHANGE_US))
    step = number - load_i64(state + _ID) - 1
    continues = (
        step == 0
        and load_i64(state + _TIME) == time_us
        and load_i64(state + _FLAGS) == flags
        and flags & at.STAND_IN == 0
    )
    run = load_i64(context + _OPEN_RUN)
    if continues and on_grid and run != 0 and load_i64(context + _LAST_SYMBOL) == symbol:
        store_8(run, load_8(run) | 1)
    else:
        extra = flags & at.TRADE_EXTRAS | (0 if on_grid else at.OFF_GRID)
        tag = at.TAG_TRADE | (at.TRADE_MAKER if flags & at.BUYER_MAKER else 0)
        tag |= (at.TRADE_CONTINUES if continues else 0) | (at.TRADE_EXTRA if extra else 0)
        cursor = _put_tag(context, cursor, tag, symbol)
        if extra != 0:
            store_8(cursor, extra)
            cursor += 1
        if not continues:
            cursor = put_signed(cursor, step)
            cursor = put_time(cursor, load_i64(context + _LAST_TIME), time_us)
            store_64(context + _LAST_TIME, time_us)
        if flags & at.STAND_IN:
            cursor = put_varint(cursor, whole(load_f64(row + ASK_QUANTITY)))
            cursor = put_signed(cursor, number - whole(load_f64(row + ASK)))
    store_64(state + _ID, number)
    store_64(state + _TIME, time_us)
    store_64(state + _FLAGS, flags)
    if on_grid:
        return _put_item(context, cursor, state, flags & at.BUYER_MAKER, price, quantity)
    powers = load_i64(context + _POWERS)
    cursor = put_escape(cursor, load_f64(row + PRICE), powers)
    return put_escape(cursor, load_f64(row + QUANTITY), powers)


@helper
def _put_quote_head(context: Any, cursor: Any, tag: Any, symbol: Any, extra: Any, skipped: Any) -> Any:
    cursor = _put_tag(context, cursor, tag | (at.QUOTE_EXTRA if extra else 0), symbol)
    if extra != 0:
        store_8(cursor, extra)
        cursor += 1
    if skipped != 0:
        cursor = put_varint(cursor, skipped)
    return cursor


@helper
def put_quote(context: Any, cursor: Any, row: Any, symbol: Any) -> Any:
    """Best bid and ask: those of the four values that differ from what the frame has led to expect."""
    state = state_of(context, symbol)
    skipped = load_i64(state + _SKIPPED) if load_i64(context + _CONFLATE) != 0 else 0
    extra = load_8(row + FLAGS) & _QUOTE_FLAGS | load_i64(context + _ENTRY_FLAGS)
    if skipped != 0:
        extra |= at.CONFLATED
    price_scale = load_f64(state + _PRICE_SCALE)
    quantity_scale = load_f64(state + _QUANTITY_SCALE)
    bid = units_of(load_f64(row + PRICE), price_scale)
    bid_quantity = units_of(load_f64(row + QUANTITY), quantity_scale)
    ask = units_of(load_f64(row + ASK), price_scale)
    ask_quantity = units_of(load_f64(row + ASK_QUANTITY), quantity_scale)
    if bid | bid_quantity | ask | ask_quantity < 0:
        tag = at.TAG_QUOTE | at.QUOTE_VALUES
        cursor = _put_quote_head(context, cursor, tag, symbol, extra | at.OFF_GRID, skipped)
        powers = load_i64(context + _POWERS)
        for offset in (PRICE, QUANTITY, ASK, ASK_QUANTITY):
            cursor = put_escape(cursor, load_f64(row + offset), powers)
        return cursor
    bid_step = bid - load_i64(state + _BID)
    bid_quantity_step = bid_quantity - load_i64(state + _BID_QUANTITY)
    ask_before = load_i64(state + _ASK)
    ask_step = ask - (ask_before if ask_before > bid else bid + 1)
    ask_quantity_step = ask_quantity - load_i64(state + _ASK_QUANTITY)
    tag = at.TAG_QUOTE
    tag |= at.QUOTE_BID if bid_step != 0 else 0
    tag |= at.QUOTE_BID_QUANTITY if bid_quantity_step != 0 else 0
    tag |= at.QUOTE_ASK if ask_step != 0 else 0
    tag |= at.QUOTE_ASK_QUANTITY if ask_quantity_step != 0 else 0
    cursor = _put_quote_head(context, cursor, tag, symbol, extra, skipped)
    if bid_step != 0:
        cursor = put_signed(cursor, bid_step)
    if bid_quantity_step != 0:
        cursor = put_signed(cursor, bid_quantity_step)
    if ask_step != 0:
        cursor = put_signed(cursor, ask_step)
    if ask_quantity_step != 0:
        cursor = put_signed(cursor, ask_quantity_step)
    store_64(state + _BID, bid)
    store_64(state + _BID_QUANTITY, bid_quantity)
    store_64(state + _ASK, ask)
    store_64(state + _ASK_QUANTITY, ask_quantity)
    return cursor


@helper
def put_gap(context: Any, cursor: Any, row: Any, symbol: Any) -> Any:
    """A change in a gap's life. A long entry; touches nothing that other entries refer to."""
    store_64(context + _OPEN_RUN, 0)
    store_8(cursor, at.TAG_GAP)
    first = load_i64(row + ID)
    recv_us = load_i64(context + _RECV_US)
    body = put_varint(cursor + 2, symbol)
    store_8(body, load_i64(context + _ENTRY_FLAGS))
    store_8(body + 1, whole(load_f64(row + ASK_QUANTITY)))
    store_8(body + 2, whole(load_f64(row + QUANTITY)))
    body = put_varint(body + 3, first)
    body = put_signed(body, whole(load_f64(row + ASK)) - first)
    body = put_varint(body, whole(load_f64(row + PRICE)))
    body = put_time(body, recv_us, sane_time(load_i64(row + EXCHANGE_US)))
    body = put_time(body, recv_us, sane_time(load_i64(row + RECV_NS) // 1000))
    store_8(cursor + 1, body - cursor - 2)
    return body
