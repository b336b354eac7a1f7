"""The feed's encoder: tape rows in, finished WebSocket frames for every interest group out.

One call per batch. Pass one counts the entries of each group that a row touches (groups without a new
trade cost nothing), then every group gets its place in the arena, then pass two writes entries where
they belong and closes each frame with its CRC. All frames of one group lie one behind the other, so
that one write per client is enough. Layout of the tables: `wire.v1_layout`.
"""

from typing import Any

from tradeback.kernel.crc32 import crc32
from tradeback.kernel.jit import helper, kernel
from tradeback.kernel.memory import (
    load_8,
    load_16,
    load_32,
    load_f64,
    load_i64,
    store_8,
    store_16,
    store_32,
    store_64,
    store_f64,
)
from tradeback.kernel.row import FLAGS, KIND, PRICE, QUANTITY, RECV_NS, ROW_BYTES, SYMBOL_ID
from tradeback.model.limits import V1_ENTRIES_MAX
from tradeback.model.record import LATE, TRADE
from tradeback.wire import v1_layout as at
from tradeback.wire.frames import LENGTH_7_MAX
from tradeback.wire.v1 import ENTRY_BYTES, HEAD_BYTES

_HEADS, _POOL, _GROUPS, _TOUCHED = 8 * at.HEADS, 8 * at.POOL, 8 * at.GROUPS, 8 * at.TOUCHED
_OUT, _OUT_BYTES, _CRC_TABLES = 8 * at.OUT, 8 * at.OUT_BYTES, 8 * at.CRC_TABLES
_LAST_PRICE, _TRADES_SEEN = 8 * at.LAST_PRICE, 8 * at.TRADES_SEEN
_TOUCHED_COUNT, _TRADES, _RECV_NS = 8 * at.TOUCHED_COUNT, 8 * at.TRADES, 8 * at.RECV_NS
_ENTRIES, _FRAMES = 8 * at.ENTRIES, 8 * at.FRAMES
_LEFT, _CURSOR, _IN_FRAME, _BODY = (
    8 * at.GROUP_LEFT,
    8 * at.GROUP_CURSOR,
    8 * at.GROUP_IN_FRAME,
    8 * at.GROUP_BODY,
)
_GROUP_BYTES, _TOUCHED_BYTES = 8 * at.GROUP_WORDS, 8 * at.TOUCHED_WORDS
_OVERHEAD = at.FRAME_OVERHEAD_MAX
_BINARY_FINAL = 0x82
_FRAME_BYTES_FULL = 4 + HEAD_BYTES + ENTRY_BYTES * V1_ENTRIES_MAX


@helper
def _count_list(context: Any, symbol: Any, touched: Any) -> Any:
    """One more entry for every group in a symbol's list. Returns (bytes it takes at most, touched)."""
    head = load_i64(context + _HEADS) + 8 * symbol
    member = load_i64(context + _POOL) + 4 * load_32(head)
    groups = load_i64(context + _GROUPS)
    lines = load_i64(context + _TOUCHED)
    cost = 0
    for _ in range(load_32(head + 4)):
        index = load_32(member)
        group = groups + _GROUP_BYTES * index
        count = load_i64(group + _LEFT)
        if count == 0:
            store_64(lines + _TOUCHED_BYTES * touched, index)
            touched += 1
        cost += ENTRY_BYTES
        if count % V1_ENTRIES_MAX == 0:
            cost += _OVERHEAD
        store_64(group + _LEFT, count + 1)
        member += 4
    return cost, touched


@helper
def _uncount_list(context: Any, symbol: Any) -> None:
    """Take back what `_count_list` added."""
    head = load_i64(context + _HEADS) + 8 * symbol
    member = load_i64(context + _POOL) + 4 * load_32(head)
    groups = load_i64(context + _GROUPS)
    for _ in range(load_32(head + 4)):
        group = groups + _GROUP_BYTES * load_32(member)
        store_64(group + _LEFT, load_i64(group + _LEFT) - 1)
        member += 4


@helper
def _count(context: Any, rows: Any, n: Any) -> Any:
    """Pass one. Returns how many rows fit the arena; their entries are counted per group."""
    room = load_i64(context + _OUT_BYTES)
    touched = 0
    consumed = n
    for index in range(n):
        row = rows + ROW_BYTES * index
        if load_8(row + KIND) != TRADE:
            continue
        symbol = load_16(row + SYMBOL_ID)
        before = touched
        own, touched = _count_list(context, symbol, touched)
        everything, touched = _count_list(context, 0, touched)
        room -= own + everything
        if room < 0:
            _uncount_list(context, symbol)
            _uncount_list(context, 0)
            touched = before
            consumed = index
            break
    store_64(context + _TOUCHED_COUNT, touched)
    return consumed


@helper
def _place(context: Any) -> None:
    """Give every touched group its place in the arena."""
    out = load_i64(context + _OUT)
    groups = load_i64(context + _GROUPS)
    line = load_i64(context + _TOUCHED)
    offset = 0
    for _ in range(load_i64(context + _TOUCHED_COUNT)):
        group = groups + _GROUP_BYTES * load_i64(line)
        count = load_i64(group + _LEFT)
        rest = count % V1_ENTRIES_MAX
        frames = count // V1_ENTRIES_MAX
        size = frames * _FRAME_BYTES_FULL
        if rest > 0:
            frames += 1
            body = HEAD_BYTES + ENTRY_BYTES * rest
            size += body + (2 if body <= LENGTH_7_MAX else 4)
        store_64(group + _CURSOR, out + offset)
        store_64(line + 8, offset)
        store_64(line + 16, size)
        store_64(line + 24, frames)
        offset += size
        line += _TOUCHED_BYTES


@helper
def _open_frame(group: Any) -> Any:
    """Write the headers of the group's next frame. Returns the number of its entries."""
    left = load_i64(group + _LEFT)
    count = left if left < V1_ENTRIES_MAX else V1_ENTRIES_MAX
    store_64(group + _LEFT, left - count)
    at_byte = load_i64(group + _CURSOR)
    size = HEAD_BYTES + ENTRY_BYTES * count
    store_8(at_byte, _BINARY_FINAL)
    if size <= LENGTH_7_MAX:
        store_8(at_byte + 1, size)
        body = at_byte + 2
    else:
        store_8(at_byte + 1, 126)
        store_8(at_byte + 2, size >> 8)
        store_8(at_byte + 3, size & 255)
        body = at_byte + 4
    store_16(body + 4, count)
    store_64(group + _BODY, body)
    store_64(group + _CURSOR, body + HEAD_BYTES)
    return count


@helper
def _write_list(context: Any, row: Any, symbol: Any, list_of: Any) -> Any:
    """Write one entry to every group in a list. Returns entries and frames begun."""
    head = load_i64(context + _HEADS) + 8 * list_of
    member = load_i64(context + _POOL) + 4 * load_32(head)
    groups = load_i64(context + _GROUPS)
    count = load_32(head + 4)
    frames = 0
    for _ in range(count):
        group = groups + _GROUP_BYTES * load_32(member)
        member += 4
        lacking = load_i64(group + _IN_FRAME)
        if lacking == 0:
            lacking = _open_frame(group)
            frames += 1
        cursor = load_i64(group + _CURSOR)
        store_16(cursor, symbol)
        store_64(cursor + 2, load_i64(row + PRICE))
        store_64(cursor + 10, load_i64(row + QUANTITY))
        cursor += ENTRY_BYTES
        store_64(group + _CURSOR, cursor)
        lacking -= 1
        store_64(group + _IN_FRAME, lacking)
        if lacking == 0:
            body = load_i64(group + _BODY)
            store_32(body, crc32(load_i64(context + _CRC_TABLES), body + 4, cursor - body - 4))
    return count, frames


@helper
def _note(context: Any, row: Any, symbol: Any) -> None:
    """Keep the symbol's last price and count its trade. A late trade is no last price, not even the first."""
    if load_8(row + FLAGS) & LATE == 0:
        store_f64(load_i64(context + _LAST_PRICE) + 8 * symbol, load_f64(row + PRICE))
    seen = load_i64(context + _TRADES_SEEN) + 8 * symbol
    store_64(seen, load_i64(seen) + 1)


@kernel("int64(int64,int64,int64)", by_address=True)
def encode_groups(context: Any, rows: Any, n: Any) -> Any:
    """Encode the trades among `n` tape rows from address `rows` on, for every group that wants them.

    Returns how many rows were consumed: fewer than `n` when the arena was too small for all (the
    caller sends what there is and calls again with the rest), 0 when it is too small for a single row.
    Results in the context: TOUCHED with TOUCHED_COUNT lines, TRADES, RECV_NS, ENTRIES, FRAMES.
    """
    consumed = _count(context, rows, n)
    _place(context)
    trades = 0
    entries = 0
    frames = 0
    for index in range(consumed):
        row = rows + ROW_BYTES * index
        if load_8(row + KIND) != TRADE:
            continue
        if trades == 0:
            store_64(context + _RECV_NS, load_i64(row + RECV_NS))
        trades += 1
        symbol = load_16(row + SYMBOL_ID)
        _note(context, row, symbol)
        some, begun = _write_list(context, row, symbol, symbol)
        entries += some
        frames += begun
        some, begun = _write_list(context, row, symbol, 0)
        entries += some
        frames += begun
    store_64(context + _TRADES, trades)
    store_64(context + _ENTRIES, entries)
    store_64(context + _FRAMES, frames)
    return consumed
