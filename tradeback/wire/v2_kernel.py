"""The feed's encoder for version 2: tape rows in, finished WebSocket frames for every interest group out.

One call per batch, driven like version 1's (`wire.v1_kernel`) and with the same results. Pass one
gives every group that wants a row a list of its rows; pass two writes the groups' frames one group
after the other, because what an entry costs depends on what the frame said before. A frame's header is
written last, to the left of its entries, when its length is known. Layout: `wire.v2_layout`.
"""

from typing import Any

from tradeback.kernel.crc32 import crc32
from tradeback.kernel.jit import helper, kernel
from tradeback.kernel.memory import (
    load_8,
    load_16,
    load_32,
    load_i64,
    store_8,
    store_32,
    store_64,
)
from tradeback.kernel.row import KIND, RECV_NS, ROW_BYTES, SYMBOL_ID
from tradeback.model.record import GAP, QUOTE, TRADE
from tradeback.wire import v2_layout as at
from tradeback.wire.frames import LENGTH_7_MAX
from tradeback.wire.v2_entries import put_gap, put_quote, put_trade
from tradeback.wire.v2_values import put_varint, sane_time

_HEADS, _POOL, _GROUPS, _TOUCHED = 8 * at.HEADS, 8 * at.POOL, 8 * at.GROUPS, 8 * at.TOUCHED
_OUT, _OUT_BYTES, _CRC_TABLES = 8 * at.OUT, 8 * at.OUT_BYTES, 8 * at.CRC_TABLES
_TOUCHED_COUNT, _ENTRIES, _FRAMES = 8 * at.TOUCHED_COUNT, 8 * at.ENTRIES, 8 * at.FRAMES
_STATES, _NODES, _EPOCH, _SEQUENCE = 8 * at.STATES, 8 * at.NODES, 8 * at.EPOCH, 8 * at.SEQUENCE
_PUBLISH_NS, _FRAME_FLAGS, _CONFLATE = 8 * at.PUBLISH_NS, 8 * at.FRAME_FLAGS, 8 * at.CONFLATE
_LAST_SYMBOL, _LAST_TIME = 8 * at.LAST_SYMBOL, 8 * at.LAST_TIME
_OPEN_RUN, _RECV_US, _DELAY_US = 8 * at.OPEN_RUN, 8 * at.RECV_US, 8 * at.DELAY_US
_STATE_BYTES, _QUOTES_LEFT, _SKIPPED = 8 * at.STATE_WORDS, 8 * at.STATE_QUOTES_LEFT, 8 * at.STATE_SKIPPED
_COUNT, _FIRST, _LAST = 8 * at.GROUP_COUNT, 8 * at.GROUP_FIRST, 8 * at.GROUP_LAST
_GROUP_BYTES, _TOUCHED_BYTES = 8 * at.GROUP_WORDS, 8 * at.TOUCHED_WORDS
_BODY_FULL = at.FRAME_BYTES_MAX - at.HEADER_BYTES_MAX - at.ENTRY_BYTES_MAX
_BINARY_FINAL = 0x82
_LOW = 0xFFFFFFFF


@helper
def _channel_of(kind: Any) -> Any:
    """First subject of the channel that carries records of this kind; -1 when version 2 carries none."""
    if kind == TRADE:
        return at.CHANNEL_TRADES * at.SYMBOL_IDS
    if kind == QUOTE:
        return at.CHANNEL_QUOTES * at.SYMBOL_IDS
    if kind == GAP:
        return at.CHANNEL_GAPS * at.SYMBOL_IDS
    return -1


@helper
def _list_row(context: Any, subject: Any, index: Any, node: Any, touched: Any) -> Any:
    """Append row `index` to the list of every group of a subject. Returns (bytes at most, node, touched)."""
    head = load_i64(context + _HEADS) + 8 * subject
    member = load_i64(context + _POOL) + 4 * load_32(head)
    groups = load_i64(context + _GROUPS)
    lines = load_i64(context + _TOUCHED)
    nodes = load_i64(context + _NODES)
    cost = 0
    for _ in range(load_32(head + 4)):
        number = load_32(member)
        member += 4
        group = groups + _GROUP_BYTES * number
        count = load_i64(group + _COUNT)
        if count == 0:
            store_64(lines + _TOUCHED_BYTES * touched, number)
            touched += 1
            store_64(group + _FIRST, node)
        else:
            store_32(nodes + 8 * load_i64(group + _LAST) + 4, node)
        store_32(nodes + 8 * node, index)
        store_64(group + _LAST, node)
        store_64(group + _COUNT, count + 1)
        node += 1
        cost += at.ENTRY_BYTES_MAX
        if count % at.FRAME_ENTRIES_SAFE == 0:
            cost += at.HEADER_BYTES_MAX
    return cost, node, touched


@helper
def _list_rows(context: Any, rows: Any, n: Any) -> Any:
    """Pass one. Returns how many rows fit the arena; they stand in the lists of their groups."""
    room = load_i64(context + _OUT_BYTES)
    heads = load_i64(context + _HEADS)
    conflate = load_i64(context + _CONFLATE)
    touched = 0
    node = 0
    consumed = n
    for index in range(n):
        row = rows + ROW_BYTES * index
        channel = _channel_of(load_8(row + KIND))
        symbol = load_16(row + SYMBOL_ID)
        if channel < 0 or symbol == 0:
            continue
        if conflate != 0 and channel == at.CHANNEL_QUOTES * at.SYMBOL_IDS:
            left = load_i64(context + _STATES) + _STATE_BYTES * symbol + _QUOTES_LEFT
            store_64(left, load_i64(left) - 1)
            if load_i64(left) > 0:
                continue
        groups = load_32(heads + 8 * (channel + symbol) + 4) + load_32(heads + 8 * channel + 4)
        if groups * (at.ENTRY_BYTES_MAX + at.HEADER_BYTES_MAX) > room:
            consumed = index
            break
        own, node, touched = _list_row(context, channel + symbol, index, node, touched)
        every, node, touched = _list_row(context, channel, index, node, touched)
        room -= own + every
    store_64(context + _TOUCHED_COUNT, touched)
    return consumed


@helper
def _count_quotes(context: Any, rows: Any, n: Any) -> None:
    """For conflation: how many quotes of each symbol there are."""
    states = load_i64(context + _STATES)
    for index in range(n):
        row = rows + ROW_BYTES * index
        if load_8(row + KIND) == QUOTE:
            state = states + _STATE_BYTES * load_16(row + SYMBOL_ID)
            count = load_i64(state + _QUOTES_LEFT)
            store_64(state + _QUOTES_LEFT, count + 1)
            store_64(state + _SKIPPED, count)


@helper
def _forget(context: Any, rows: Any, n: Any) -> None:
    """Take back what pass one noted."""
    states = load_i64(context + _STATES)
    for index in range(n):
        store_64(states + _STATE_BYTES * load_16(rows + ROW_BYTES * index + SYMBOL_ID) + _QUOTES_LEFT, 0)
    groups = load_i64(context + _GROUPS)
    line = load_i64(context + _TOUCHED)
    for _ in range(load_i64(context + _TOUCHED_COUNT)):
        store_64(groups + _GROUP_BYTES * load_i64(line) + _COUNT, 0)
        line += _TOUCHED_BYTES
    store_64(context + _TOUCHED_COUNT, 0)


@helper
def _stamp(context: Any, row: Any) -> None:
    """The times of this call's frames, from its newest row."""
    recv_us = sane_time(load_i64(row + RECV_NS) // 1000)
    delay = load_i64(context + _PUBLISH_NS) // 1000 - recv_us
    store_64(context + _RECV_US, recv_us)
    store_64(context + _DELAY_US, delay if delay > 0 else 0)


@helper
def _varint_bytes(value: Any) -> Any:
    size = 1
    while value & -128 != 0:
        value = (value >> 7) & 0x01FFFFFFFFFFFFFF
        size += 1
    return size


@helper
def _close_frame(context: Any, body: Any, end: Any, count: Any, sequence: Any) -> Any:
    """Write the headers to the left of the entries in [body, end). Returns the message's address."""
    delay = load_i64(context + _DELAY_US)
    varints = _varint_bytes(sequence) + _varint_bytes(count) + _varint_bytes(delay)
    frame = body - varints - at.HEADER_FIXED_BYTES
    size = end - frame
    start = frame - (2 if size <= LENGTH_7_MAX else 4)
    store_8(start, _BINARY_FINAL)
    if size <= LENGTH_7_MAX:
        store_8(start + 1, size)
    else:
        store_8(start + 1, 126)
        store_8(start + 2, size >> 8)
        store_8(start + 3, size)
    store_8(frame + 4, at.VERSION)
    store_8(frame + 5, load_i64(context + _FRAME_FLAGS))
    store_32(frame + 6, load_i64(context + _EPOCH))
    store_64(frame + 10, load_i64(context + _RECV_US))
    put_varint(put_varint(put_varint(frame + 18, sequence), count), delay)
    store_32(frame, crc32(load_i64(context + _CRC_TABLES), frame + 4, size - 4))
    return start


@helper
def _move_down(target: Any, source: Any, size: Any) -> None:
    """Copy to a lower address, eight bytes at a time; up to seven behind the target's end are spoilt."""
    for offset in range(0, size, 8):
        store_64(target + offset, load_i64(source + offset))


@helper
def _put_row(context: Any, cursor: Any, row: Any) -> Any:
    symbol = load_16(row + SYMBOL_ID)
    kind = load_8(row + KIND)
    if kind == TRADE:
        return put_trade(context, cursor, row, symbol)
    if kind == QUOTE:
        return put_quote(context, cursor, row, symbol)
    return put_gap(context, cursor, row, symbol)


@helper
def _encode_group(context: Any, rows: Any, line: Any, out: Any, consumed: Any) -> Any:
    """Write all frames of one group from address `out` on. Returns the address behind them."""
    group = load_i64(context + _GROUPS) + _GROUP_BYTES * load_i64(line)
    nodes = load_i64(context + _NODES)
    states = load_i64(context + _STATES)
    sequence = load_i64(context + _SEQUENCE)
    node = load_i64(group + _FIRST)
    left = load_i64(group + _COUNT)
    start = 0
    end = out
    frames = 0
    while left > 0:
        body = end + at.HEADER_BYTES_MAX
        cursor = body
        count = 0
        store_64(states, load_i64(states) + 1)
        store_64(context + _LAST_SYMBOL, -1)
        store_64(context + _LAST_TIME, load_i64(context + _RECV_US))
        store_64(context + _OPEN_RUN, 0)
        while left > 0 and cursor - body <= _BODY_FULL:
            word = load_i64(nodes + 8 * node)
            cursor = _put_row(context, cursor, rows + ROW_BYTES * (word & _LOW))
            node = (word >> 32) & _LOW
            count += 1
            left -= 1
        reached = sequence + (consumed if left == 0 else load_32(nodes + 8 * node))
        message = _close_frame(context, body, cursor, count, reached)
        if frames == 0:
            start = message
            end = cursor
        else:
            _move_down(end, message, cursor - message)
            end += cursor - message
        frames += 1
    store_64(line + 8 * at.TOUCHED_OFFSET, start - load_i64(context + _OUT))
    store_64(line + 8 * at.TOUCHED_BYTES, end - start)
    store_64(line + 8 * at.TOUCHED_FRAMES, frames)
    store_64(context + _ENTRIES, load_i64(context + _ENTRIES) + load_i64(group + _COUNT))
    store_64(context + _FRAMES, load_i64(context + _FRAMES) + frames)
    store_64(group + _COUNT, 0)
    return end


@kernel("int64(int64,int64,int64)", by_address=True)
def encode_groups_v2(context: Any, rows: Any, n: Any) -> Any:
    """Encode the trades, quotes and gaps among `n` tape rows from address `rows` on, for every group.

    Returns how many rows were consumed: fewer than `n` when the arena was too small for all (the
    caller sends what there is and calls again with the rest), 0 when it is too small for a single row, with
    CONFLATE for all of them. Results in the context: TOUCHED with TOUCHED_COUNT lines, ENTRIES, FRAMES;
    SEQUENCE has advanced by what was consumed.
    """
    conflate = load_i64(context + _CONFLATE)
    if conflate != 0:
        _count_quotes(context, rows, n)
    consumed = _list_rows(context, rows, n)
    if conflate != 0 and consumed < n:
        _forget(context, rows, n)
        consumed = 0
    store_64(context + _ENTRIES, 0)
    store_64(context + _FRAMES, 0)
    touched = load_i64(context + _TOUCHED_COUNT)
    if touched > 0:
        _stamp(context, rows + ROW_BYTES * (consumed - 1))
    line = load_i64(context + _TOUCHED)
    end = load_i64(context + _OUT)
    for _ in range(touched):
        end = _encode_group(context, rows, line, end, consumed)
        line += _TOUCHED_BYTES
    store_64(context + _SEQUENCE, load_i64(context + _SEQUENCE) + consumed)
    return consumed
