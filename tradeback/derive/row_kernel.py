"""The kernel that folds tape records into bars, levels and latest prices. Shapes in `layout`.

One call takes a batch. Per trade it touches the symbol's state and its seven current bars; everything
else (a new slot, a late trade, a seed) is the rare path. Nothing is allocated. Floating point is plain
IEEE in source order: no fastmath, so no contraction and the same bits on every replay.

The boundary of a symbol: a whole second such that the exchange's klines cover what is before it and the
tape what is not. It is announced by a record (`seeds.boundary_row`) before the klines are asked for;
from then on the bar of that slot is kept in two parts, so that the seed, whenever it comes, replaces
exactly the part before the boundary.
"""

from typing import Any

from tradeback.derive.bar_kernel import write_out
from tradeback.derive.context import (
    ANCHOR,
    BID,
    CURRENTS,
    INDEX,
    OTHERS,
    QUOTE_RECV,
    RING_COUNT,
    RING_MAX,
    SINCE,
    STATES,
    UNKNOWN,
    bump,
    mark,
)
from tradeback.derive.layout import BAR_BYTES, DIRTY_STATE, RESOLUTION_COUNT, STATE_BYTES
from tradeback.derive.seed_kernel import apply_history
from tradeback.derive.trade_kernel import apply_trade
from tradeback.kernel import row as tick
from tradeback.kernel.jit import helper, kernel
from tradeback.kernel.memory import load_8, load_16, load_i64, store_64
from tradeback.model.record import QUOTE, SEED_BAR_MORE, SEED_LEVELS, TRADE


@helper
def apply_quote(row: Any, state: Any) -> None:
    """The newest quote on the tape is the quote; the arbiter has dropped older update ids."""
    for offset in range(0, 32, 8):
        store_64(state + BID + offset, load_i64(row + tick.PRICE + offset))
    store_64(state + QUOTE_RECV, load_i64(row + tick.RECV_NS))
    mark(state, DIRTY_STATE)


@kernel("int64(int64,int64,int64)", by_address=True)
def apply_rows(ctx: Any, rows: Any, count: Any) -> Any:
    """Fold `count` records from address `rows` on into the state at `ctx`.

    Returns how many were taken: fewer than `count` when the output ring may not hold what the next one
    throws out (the caller empties it and goes on from there).
    """
    table, states = load_i64(ctx + INDEX), load_i64(ctx + STATES)
    all_currents, all_others = load_i64(ctx + CURRENTS), load_i64(ctx + OTHERS)
    ring_max = load_i64(ctx + RING_MAX) - RESOLUTION_COUNT
    for number in range(count):
        row = rows + number * tick.ROW_BYTES
        kind = load_8(row + tick.KIND)
        if kind != TRADE and kind != QUOTE and not SEED_LEVELS <= kind <= SEED_BAR_MORE:
            continue
        at = load_16(table + 2 * load_16(row + tick.SYMBOL_ID))
        if at == 0:
            bump(ctx, UNKNOWN)
            continue
        state = states + at * STATE_BYTES
        if kind == QUOTE:
            apply_quote(row, state)
            continue
        if load_i64(ctx + RING_COUNT) > ring_max:
            return number
        currents = all_currents + at * (RESOLUTION_COUNT * BAR_BYTES)
        others = all_others + at * (RESOLUTION_COUNT * 2 * BAR_BYTES)
        if kind == TRADE:
            apply_trade(ctx, row, state, currents, others)
        else:
            apply_history(ctx, row, kind, state, currents, others)
    return count


@kernel("int64(int64,int64,int64,int64)")
def read_open(ctx: Any, at: Any, index: Any, target: Any) -> Any:
    """Write the previous and the current bar of one series to `target` (room for two), finished.

    `at` is the symbol's place in the state, `index` the resolution. Returns how many hold trades.
    """
    state = load_i64(ctx + STATES) + at * STATE_BYTES
    current = load_i64(ctx + CURRENTS) + (at * RESOLUTION_COUNT + index) * BAR_BYTES
    others = load_i64(ctx + OTHERS) + (at * RESOLUTION_COUNT + index) * (2 * BAR_BYTES)
    before = others + BAR_BYTES
    anchor, since = load_i64(state + ANCHOR), load_i64(state + SINCE)
    written = write_out(target, others, before, anchor, since)
    return written + write_out(target + written * BAR_BYTES, current, before, anchor, since)
