"""One frame decoded beside the stream: for the shadow check of live frames."""

from typing import Any

from tradeback.ingest.context import NAME_MASK, NAME_SLOTS, POWERS, SCRATCH
from tradeback.ingest.templates import decode_frame
from tradeback.kernel.jit import kernel
from tradeback.kernel.memory import load_8, load_i64, store_8
from tradeback.kernel.row import FLAGS
from tradeback.model.record import LINE_MASK


@kernel("int64(int64,int64,int64,int64)")
def decode_one(context: Any, address: Any, end: Any, row: Any) -> Any:
    """Decode one frame payload into the record at `row`, without arbitration. Returns the grammar's status.

    For the shadow check of live frames, and for tests. Line, receive time and checksum stay zero.
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
