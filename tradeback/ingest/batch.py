"""Many texts in one call: what tests and benchmarks drive the decoder with. The engine never loads it."""

from typing import Any

from tradeback.ingest.context import NAME_MASK, NAME_SLOTS, POWERS, SCRATCH
from tradeback.ingest.decimals import EXACT, parse_decimal
from tradeback.ingest.grammar import OK
from tradeback.ingest.templates import decode_frame
from tradeback.kernel.jit import kernel
from tradeback.kernel.memory import load_8, load_i64, store_8, store_f64
from tradeback.kernel.row import FLAGS, ROW_BYTES
from tradeback.model.record import LINE_MASK


@kernel("int64(int64,int64,int64,int64)")
def decode_one(context: Any, address: Any, end: Any, row: Any) -> Any:
    """Decode one frame payload into the record at `row`, without arbitration. Returns the grammar's status.

    Line, receive time and checksum stay zero.
    """
    status = decode_frame(
        address,
        end,
        row,
        load_i64(context + 8 * NAME_SLOTS),
        load_i64(context + 8 * NAME_MASK),
        load_i64(context + 8 * POWERS),
        load_i64(context + 8 * SCRATCH),
    )
    store_8(row + FLAGS, load_8(row + FLAGS) & ~LINE_MASK)
    return status


@kernel("int64(int64,int64,int64,int64,int64,int64)")
def decode_many(context: Any, texts: Any, offsets: Any, count: Any, rows: Any, statuses: Any) -> Any:
    """For tests and benchmarks: decode `count` payloads texts + offsets[i] .. offsets[i + 1] (int64).

    Records go to `rows`, statuses to bytes at `statuses`. Returns how many were not OK.
    """
    slots = load_i64(context + 8 * NAME_SLOTS)
    mask = load_i64(context + 8 * NAME_MASK)
    powers = load_i64(context + 8 * POWERS)
    scratch = load_i64(context + 8 * SCRATCH)
    odd = 0
    for index in range(count):
        start = texts + load_i64(offsets + 8 * index)
        stop = texts + load_i64(offsets + 8 * index + 8)
        # As read_frames does it; a call of the kernel decode_one would not be inlined.
        status = decode_frame(start, stop, rows + ROW_BYTES * index, slots, mask, powers, scratch)
        store_8(statuses + index, status)
        if status != OK:
            odd += 1
    return odd


@kernel("int64(int64,int64,int64,int64,int64)")
def parse_decimals(powers: Any, texts: Any, offsets: Any, count: Any, out: Any) -> Any:
    """For tests and benchmarks: `count` strings, each ending in a quote, at texts + offsets[i] (int64).

    Values go to float64 out[2i], statuses to out[2i + 1]. Returns how many were not EXACT.
    """
    odd = 0
    for index in range(count):
        value, _, status = parse_decimal(texts + load_i64(offsets + 8 * index), powers)
        store_f64(out + 16 * index, value)
        store_f64(out + 16 * index + 8, float(status))
        if status != EXACT:
            odd += 1
    return odd
