"""Kernels for one trade: into its seven bars, the levels and the latest price. Rules in `row_kernel`."""

from typing import Any

from tradeback.derive.bar_kernel import (
    BOUNDARY,
    FLAGS,
    OWNER,
    SLOT,
    add_trade,
    clear_bar,
    copy_bar,
    write_out,
)
from tradeback.derive.context import (
    ANCHOR,
    ATH,
    ATL,
    EDGE,
    LATE_COUNT,
    LOTS_MAX,
    NEWEST,
    OFF_GRID,
    PRICE,
    PRICE_MAX,
    QUANTITY,
    RECV,
    REJECTED,
    RING,
    RING_COUNT,
    SCALE,
    SECOND,
    SECOND_US,
    SINCE,
    SIZES,
    TIME,
    TIME_MAX,
    TRADE_COUNT,
    TRADE_ID,
    bump,
    mark,
)
from tradeback.derive.layout import (
    BAR_BYTES,
    DIRTY_CURRENT,
    DIRTY_OTHER,
    DIRTY_STATE,
    EMPTY_SLOT,
    LATE,
    PARTIAL,
    RESOLUTION_COUNT,
    SEEDED,
)
from tradeback.kernel import row as tick
from tradeback.kernel.jit import helper
from tradeback.kernel.memory import load_8, load_f64, load_i64, store_8, store_64, store_f64
from tradeback.model.record import BUYER_MAKER, STAND_IN

_SERIES = 0xFF00FFFFFF
"""The bits of a bar's last word that say whose it is: symbol, resolution, lot digits, and not the flags."""
_ROUND = float(3 << 51)
"""Adding and subtracting it rounds to the nearest integer, ties to even, below 2^51."""
_ROUND_MAX = float(1 << 51)
_GRID_ERROR = 2.0**-51
"""Relative error that a decimal on the grid can show after two roundings (nearest float, product)."""


@helper
def to_lots(scaled: Any) -> Any:
    """`scaled` rounded to the nearest integer, ties to even; 0 <= scaled < 2^62.

    Exact for a decimal on the grid below 2^51 lots a trade (22 million BTC): the float nearest to it and
    the product are off by less than half a lot then.
    """
    if scaled < _ROUND_MAX:
        return int((scaled + _ROUND) - _ROUND)
    whole = int(scaled)
    rest = scaled - float(whole)  # exact: spacing is 0.5 or more here
    if rest > 0.5 or (rest == 0.5 and whole & 1):
        return whole + 1
    return whole


@helper
def emit(ctx: Any, bar: Any, before: Any, state: Any) -> None:
    """Append the finished bar to the output ring; the caller has made sure of room."""
    count = load_i64(ctx + RING_COUNT)
    target = load_i64(ctx + RING) + count * BAR_BYTES
    written = write_out(target, bar, before, load_i64(state + ANCHOR), load_i64(state + SINCE))
    store_64(ctx + RING_COUNT, count + written)


@helper
def roll(ctx: Any, current: Any, others: Any, state: Any, slot: Any) -> None:
    """Begin a new slot: the previous bar leaves, the current becomes the previous one."""
    before = others + BAR_BYTES
    held = load_i64(others + SLOT)
    if held != EMPTY_SLOT:
        emit(ctx, others, before, state)
        if load_i64(before + SLOT) == held:
            clear_bar(before, EMPTY_SLOT)
    copy_bar(others, current)
    clear_bar(current, slot)
    mark(state, DIRTY_CURRENT | DIRTY_OTHER)


@helper
def is_covered(bar: Any, time: Any) -> Any:
    """True when the bar's seed already contains a trade of this time."""
    return load_8(bar + FLAGS) & SEEDED != 0 and time < load_i64(bar + BOUNDARY)


@helper
def is_late_of(bar: Any, owner: Any, slot: Any, second: Any) -> Any:
    """True when `bar` holds late trades of this series, slot and second; `owner` is a bar's last word."""
    return (
        load_8(bar + FLAGS) & LATE != 0
        and load_i64(bar + SLOT) == slot
        and load_i64(bar + BOUNDARY) == second
        and (load_i64(bar + OWNER) ^ owner) & _SERIES == 0
    )


@helper
def emit_late(
    ctx: Any, state: Any, owner: Any, slot: Any, time: Any,
    price: Any, lots: Any, taker: Any, count: Any, first: Any, last: Any, stands_in: Any,
) -> None:  # fmt: skip
    """Append a bar of this one trade, to be merged into the bar that has already left memory.

    Repair brings thousands in order of id, so trades of one second go into one such bar: a boundary is a
    whole second, all of them lie on the same side of it.
    """
    at = load_i64(ctx + RING_COUNT)
    ring = load_i64(ctx + RING)
    second = time - time % SECOND_US
    for back in range(1, min(at, RESOLUTION_COUNT) + 1):
        bar = ring + (at - back) * BAR_BYTES
        if is_late_of(bar, owner, slot, second):
            add_trade(bar, price, lots, taker, count, first, last, stands_in)
            bump(ctx, LATE_COUNT)
            return
    bar = ring + at * BAR_BYTES
    store_64(bar + OWNER, owner)
    clear_bar(bar, slot)
    add_trade(bar, price, lots, taker, count, first, last, stands_in)
    flags = load_8(bar + FLAGS) | LATE
    if slot <= load_i64(state + SINCE):
        flags |= PARTIAL
    store_8(bar + FLAGS, flags)
    store_64(bar + BOUNDARY, second)
    store_64(ctx + RING_COUNT, at + 1)
    bump(ctx, LATE_COUNT)


@helper
def place(
    ctx: Any, state: Any, current: Any, others: Any, size: Any, time: Any,
    price: Any, lots: Any, taker: Any, count: Any, first: Any, last: Any, stands_in: Any,
) -> Any:  # fmt: skip
    """Put a trade into the current bar, a new one, the previous one or the ring; 1 if it is the current."""
    held = load_i64(current + SLOT)
    offset = time - held
    if 0 <= offset < size:
        if not is_covered(current, time):
            add_trade(current, price, lots, taker, count, first, last, stands_in)
        return 1
    slot = time - time % size
    if slot > held:
        roll(ctx, current, others, state, slot)
        add_trade(current, price, lots, taker, count, first, last, stands_in)
        return 1
    if load_i64(others + SLOT) == slot:
        if not is_covered(others, time):
            add_trade(others, price, lots, taker, count, first, last, stands_in)
            mark(state, DIRTY_OTHER)
        return 0
    emit_late(
        ctx, state, load_i64(current + OWNER), slot, time, price, lots, taker, count, first, last, stands_in
    )
    return 0


@helper
def update_levels(state: Any, row: Any, time: Any, price: Any, last: Any) -> None:
    """Latest trade by id, highest and lowest price, span of times."""
    if last > load_i64(state + TRADE_ID):
        store_64(state + TRADE_ID, last)
        store_f64(state + PRICE, price)
        store_f64(state + QUANTITY, load_f64(row + tick.QUANTITY))
        store_64(state + TIME, time)
        store_64(state + RECV, load_i64(row + tick.RECV_NS))
    if price > load_f64(state + ATH):
        store_f64(state + ATH, price)
    if price < load_f64(state + ATL):
        store_f64(state + ATL, price)
    if time > load_i64(state + NEWEST):
        store_64(state + NEWEST, time)
    if time < load_i64(state + SINCE):
        store_64(state + SINCE, time)


@helper
def place_before(
    ctx: Any, state: Any, currents: Any, others: Any, time: Any,
    price: Any, lots: Any, taker: Any, count: Any, first: Any, last: Any, stands_in: Any,
) -> None:  # fmt: skip
    """A trade from before the boundary: into the part before it, unless the seed has it already."""
    if last > load_i64(state + ANCHOR):
        store_64(state + ANCHOR, last)
    mark(state, DIRTY_OTHER)
    for index in range(RESOLUTION_COUNT):
        pair = others + index * 2 * BAR_BYTES
        before = pair + BAR_BYTES
        size = load_i64(ctx + SIZES + 8 * index)
        if 0 <= time - load_i64(before + SLOT) < size:
            if not is_covered(before, time):
                add_trade(before, price, lots, taker, count, first, last, stands_in)
        else:
            place(
                ctx, state, currents + index * BAR_BYTES, pair, size,
                time, price, lots, taker, count, first, last, stands_in,
            )  # fmt: skip


@helper
def apply_trade(ctx: Any, row: Any, state: Any, currents: Any, others: Any) -> None:
    """One trade or stand-in. What cannot be a trade (price, quantity, time, ids) is refused and counted."""
    time, last = load_i64(row + tick.EXCHANGE_US), load_i64(row + tick.ID)
    price, quantity = load_f64(row + tick.PRICE), load_f64(row + tick.QUANTITY)
    scaled = quantity * load_f64(state + SCALE)
    flags = load_8(row + tick.FLAGS)
    stands_in = flags & STAND_IN
    first, count = last, 1
    if stands_in:
        if not (
            0.0 <= load_f64(row + tick.ASK) < LOTS_MAX and 1.0 <= load_f64(row + tick.ASK_QUANTITY) < LOTS_MAX
        ):
            bump(ctx, REJECTED)
            return
        first, count = int(load_f64(row + tick.ASK)), int(load_f64(row + tick.ASK_QUANTITY))
    good = 0 < time < TIME_MAX and 0.0 < price < PRICE_MAX and 0.0 <= scaled < LOTS_MAX
    if not good or not (0 <= first <= last and count <= last - first + 1):
        bump(ctx, REJECTED)
        return
    lots = to_lots(scaled)
    if abs(scaled - float(lots)) > scaled * _GRID_ERROR:
        store_64(state + OFF_GRID, load_i64(state + OFF_GRID) + 1)
    taker = 0 if flags & BUYER_MAKER else lots
    update_levels(state, row, time, price, last)
    mark(state, DIRTY_STATE | DIRTY_CURRENT)
    bump(ctx, TRADE_COUNT)
    if time < load_i64(state + EDGE):
        place_before(ctx, state, currents, others, time, price, lots, taker, count, first, last, stands_in)
    elif 0 <= time - load_i64(state + SECOND) < SECOND_US:
        for index in range(RESOLUTION_COUNT):
            add_trade(currents + index * BAR_BYTES, price, lots, taker, count, first, last, stands_in)
    else:
        fitting = 0
        for index in range(RESOLUTION_COUNT):
            fitting += place(
                ctx, state, currents + index * BAR_BYTES, others + index * 2 * BAR_BYTES,
                load_i64(ctx + SIZES + 8 * index), time, price, lots, taker, count, first, last, stands_in,
            )  # fmt: skip
        if fitting == RESOLUTION_COUNT:
            store_64(state + SECOND, time - time % SECOND_US)
