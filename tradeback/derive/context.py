"""The context every derive kernel gets: its words, the offsets of a symbol's state, two small helpers.

The context is an array of int64 words at an address: where the arrays are, how full the output ring is,
counters, slot sizes.
"""

from typing import Any

from tradeback.derive.layout import RESOLUTION_COUNT, STATE, offsets
from tradeback.kernel.jit import helper
from tradeback.kernel.memory import load_8, load_i64, store_8, store_64
from tradeback.model.record import LINE_SHIFT

# Byte offsets of the words.
(
    INDEX, STATES, CURRENTS, OTHERS, RING, RING_COUNT, RING_MAX, HALF_BAR,
    TRADE_COUNT, UNKNOWN, REJECTED, LATE_COUNT, SEED_COUNT, SEED_REFUSED,
) = range(0, 14 * 8, 8)  # fmt: skip
SIZES = 16 * 8
"""RESOLUTION_COUNT words: the slot sizes in us."""
CONTEXT_WORDS = 16 + RESOLUTION_COUNT

PRICE, QUANTITY, TRADE_ID, TIME, RECV = offsets(
    STATE, "price", "quantity", "trade_id", "exchange_us", "recv_ns"
)
BID, QUOTE_RECV, ATH, ATL, SCALE = offsets(STATE, "bid", "quote_recv_ns", "ath", "atl", "scale")
NEWEST, SINCE, EDGE, ANCHOR = offsets(STATE, "newest_us", "since_us", "boundary_us", "anchor_id")
SECOND, OFF_GRID, DIRTY = offsets(STATE, "second_us", "off_grid", "dirty")

LOW_FLAGS = (1 << LINE_SHIFT) - 1
"""The flags of a record without the line that brought it."""
SECOND_US = 1_000_000
TIME_MAX = 1 << 61
"""Exchange times at or above are refused; below, slot arithmetic cannot overflow."""
LOTS_MAX = float(1 << 62)
PRICE_MAX = float("inf")


@helper
def bump(ctx: Any, counter: Any) -> None:
    """Add one to a counter of the context."""
    store_64(ctx + counter, load_i64(ctx + counter) + 1)


@helper
def mark(state: Any, bits: Any) -> None:
    """Set dirty bits of a symbol."""
    store_8(state + DIRTY, load_8(state + DIRTY) | bits)
