"""One socket read, one call: WebSocket frames -> decoded, arbitrated, sealed records on the tape's ring.

The kernel stops early when the ring's stretch is full, when a frame needs Python (a control frame, a
fragment, a shape the grammar refuses), or when the stream is broken; the caller deals with it and calls
again from POSITION. Stopping at such a frame, instead of setting it aside, keeps the order.

Frame layout: RFC 6455 section 5.2. Frames of a server are never masked.
"""

from typing import Any

from tradeback.ingest.arbiter import DROP, take_row
from tradeback.ingest.context import (
    ALL_TO_SIDE,
    LAG_BOUNDS,
    LAG_BUCKETS,
    LAG_COUNTS,
    LAG_SUMS,
    NAME_MASK,
    NAME_SLOTS,
    NEEDED_BYTES,
    POSITION,
    POWERS,
    PROTOCOL_ERROR,
    SCRATCH,
    SIDE_ADDRESS,
    SIDE_FOUND,
    SIDE_LENGTH,
    SIDE_OPCODE,
    SIDE_STATUS,
)
from tradeback.ingest.grammar import EVENT_US, NOT_MINE, OK
from tradeback.ingest.lines import note_line
from tradeback.ingest.templates import decode_frame
from tradeback.kernel.jit import helper, kernel
from tradeback.kernel.memory import load_8, load_i64, store_8, store_64
from tradeback.kernel.row import FLAGS, RECV_NS, ROW_BYTES, seal_row
from tradeback.model.limits import READ_BUFFER_BYTES_MAX
from tradeback.model.record import LINE_SHIFT, REPAIRED, STAND_IN

CLOSE_PROTOCOL_ERROR = 1002
CLOSE_TOO_BIG = 1009
_FINAL_TEXT = 0x81
_RESERVED_BITS = 0x70
_MASKED = 0x80


@helper
def note_lag(context: Any, event_us: Any, recv_ns: Any) -> None:
    """Count exchange send time -> receive in the histogram; clocks that are apart show as negative."""
    lag = recv_ns // 1000 - event_us
    sums = load_i64(context + 8 * LAG_SUMS)
    if lag < 0:
        store_64(sums + 8, load_i64(sums + 8) + 1)
        lag = 0
    store_64(sums, load_i64(sums) + lag)
    bounds = load_i64(context + 8 * LAG_BOUNDS)
    low = 0
    high = load_i64(context + 8 * LAG_BUCKETS)
    while low < high:
        middle = (low + high) >> 1
        if load_i64(bounds + 8 * middle) < lag:
            low = middle + 1
        else:
            high = middle
    count = load_i64(context + 8 * LAG_COUNTS) + 8 * low
    store_64(count, load_i64(count) + 1)


@helper
def _frame_length(address: Any, available: Any) -> Any:
    """(header bytes, payload bytes) of the frame at `address`; header 0 when more bytes are needed."""
    length = load_8(address + 1) & 127
    if length < 126:
        return 2, length
    if length == 126:
        if available < 4:
            return 0, 0
        return 4, (load_8(address + 2) << 8) | load_8(address + 3)
    if available < 10:
        return 0, 0
    length = 0
    for index in range(8):
        length = (length << 8) | load_8(address + 2 + index)
    return 10, length


@kernel("int64(int64,int64,int64,int64,int64,int64,int64,int64,int64)", by_address=True)
def read_frames(
    context: Any,
    address: Any,
    end: Any,
    recv_ns: Any,
    line: Any,
    row: Any,
    rows_max: Any,
    sequence: Any,
    epoch: Any,
) -> Any:
    """Walk the frames in [address, end) and write accepted records to `row`, `row` + 64, ...

    `line` is 0 to 3, `sequence` the one the first record gets. Returns the number of records written, at
    most `rows_max`; POSITION, SIDE_* and PROTOCOL_ERROR say why it stopped before `end`.
    """
    slots = load_i64(context + 8 * NAME_SLOTS)
    mask = load_i64(context + 8 * NAME_MASK)
    powers = load_i64(context + 8 * POWERS)
    scratch = load_i64(context + 8 * SCRATCH)
    all_to_side = load_i64(context + 8 * ALL_TO_SIDE)
    store_64(context + 8 * SIDE_OPCODE, 0)
    store_64(context + 8 * PROTOCOL_ERROR, 0)
    store_64(context + 8 * NEEDED_BYTES, 0)
    line_bits = line << LINE_SHIFT
    written = 0
    while end - address >= 2 and written < rows_max:
        first = load_8(address)
        if first & _RESERVED_BITS or load_8(address + 1) & _MASKED:
            store_64(context + 8 * PROTOCOL_ERROR, CLOSE_PROTOCOL_ERROR)
            break
        header, length = _frame_length(address, end - address)
        if header == 0:
            break
        if length < 0 or length > READ_BUFFER_BYTES_MAX:
            store_64(context + 8 * PROTOCOL_ERROR, CLOSE_TOO_BIG)
            break
        if end - address < header + length:
            store_64(context + 8 * NEEDED_BYTES, header + length)
            break
        payload = address + header
        address = payload + length
        status = NOT_MINE
        if first == _FINAL_TEXT and all_to_side == 0:
            status = decode_frame(payload, address, row, slots, mask, powers, scratch)
        if status != OK:
            store_64(context + 8 * SIDE_OPCODE, first | SIDE_FOUND)
            store_64(context + 8 * SIDE_ADDRESS, payload)
            store_64(context + 8 * SIDE_LENGTH, length)
            store_64(context + 8 * SIDE_STATUS, status)
            break
        event_us = load_i64(scratch + EVENT_US)
        if event_us != 0:
            note_lag(context, event_us, recv_ns)
        verdict = take_row(context, row)
        note_line(context, row, line, recv_ns, verdict)
        if verdict != DROP:
            store_64(row + RECV_NS, recv_ns)
            store_8(row + FLAGS, load_8(row + FLAGS) | line_bits)
            seal_row(row, sequence + written, epoch)
            written += 1
            row += ROW_BYTES
    store_64(context + 8 * POSITION, address)
    return written


@kernel("int64(int64,int64,int64,int64,int64,int64)")
def admit_rows(context: Any, rows: Any, count: Any, row: Any, sequence: Any, epoch: Any) -> Any:
    """Arbitrate `count` complete records that did not come through the kernel (slow path, REST, stand-ins).

    Accepted ones are copied to `row`, `row` + 64, ... and sealed. Returns their number.
    """
    written = 0
    for index in range(count):
        source = rows + ROW_BYTES * index
        verdict = take_row(context, source)
        flags = load_8(source + FLAGS)
        if flags & (STAND_IN | REPAIRED) == 0:
            note_line(context, source, flags >> LINE_SHIFT, load_i64(source + RECV_NS), verdict)
        if verdict != DROP:
            for offset in range(0, ROW_BYTES, 8):
                store_64(row + offset, load_i64(source + offset))
            seal_row(row, sequence + written, epoch)
            written += 1
            row += ROW_BYTES
    return written
