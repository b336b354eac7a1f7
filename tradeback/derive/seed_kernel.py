"""Kernels for the records of history: the boundary, seeds of open bars, highest and lowest price."""

from typing import Any

from tradeback.derive.bar_kernel import (
    BOUNDARY,
    CLOSE,
    DIGITS,
    FLAGS,
    HIGH,
    LOW,
    OPEN,
    OWNER,
    SEEDS,
    SLOT,
    TAKER,
    TRADES,
    VOLUME,
    clear_bar,
    copy_bar,
    merge_before,
)
from tradeback.derive.context import (
    ANCHOR,
    ATH,
    ATL,
    EDGE,
    HALF_BAR,
    LOTS_MAX,
    LOW_FLAGS,
    NEWEST,
    PRICE_MAX,
    SECOND,
    SECOND_US,
    SEED_COUNT,
    SEED_REFUSED,
    SIZES,
    TIME_MAX,
    TRADE_ID,
    bump,
    mark,
)
from tradeback.derive.layout import (
    ANNOUNCE,
    BAR_BYTES,
    DIRTY_CURRENT,
    DIRTY_OTHER,
    DIRTY_STATE,
    EMPTY_SLOT,
    RESOLUTION_COUNT,
    SEEDED,
)
from tradeback.derive.trade_kernel import roll
from tradeback.kernel import row as tick
from tradeback.kernel.jit import helper
from tradeback.kernel.memory import (
    load_8,
    load_16,
    load_f64,
    load_i64,
    store_8,
    store_16,
    store_64,
    store_f64,
)
from tradeback.model.record import SEED_BAR, SEED_LEVELS


@helper
def announce(ctx: Any, state: Any, currents: Any, others: Any, wanted: Any) -> None:
    """Set the boundary to `wanted` (us), or later: to a whole second after every trade counted so far.

    One that is not later than the boundary in force changes nothing.
    """
    if not load_i64(state + EDGE) < wanted < TIME_MAX:
        return
    newest = load_i64(state + NEWEST)
    edge = wanted + (SECOND_US - wanted % SECOND_US) % SECOND_US
    if newest >= edge:
        edge = newest - newest % SECOND_US + SECOND_US
    for index in range(RESOLUTION_COUNT):
        current, previous = currents + index * BAR_BYTES, others + index * 2 * BAR_BYTES
        before = previous + BAR_BYTES
        held = load_i64(before + SLOT)
        if held != EMPTY_SLOT:
            owner = current if load_i64(current + SLOT) == held else previous
            merge_before(owner, before, load_i64(state + ANCHOR))
            clear_bar(before, EMPTY_SLOT)
        slot = edge - edge % load_i64(ctx + SIZES + 8 * index)
        if slot < edge:
            if load_i64(current + SLOT) < slot:
                roll(ctx, current, previous, state, slot)
            copy_bar(before, current)
            clear_bar(current, slot)
    store_64(state + EDGE, edge)
    store_64(state + ANCHOR, load_i64(state + TRADE_ID))
    store_64(state + SECOND, EMPTY_SLOT)
    mark(state, DIRTY_STATE | DIRTY_CURRENT | DIRTY_OTHER)


@helper
def hold_half(ctx: Any, row: Any) -> None:
    """The first record of a seed: slot and prices wait in the context for the second."""
    half = load_i64(ctx + HALF_BAR)
    clear_bar(half, load_i64(row + tick.EXCHANGE_US))
    store_16(half + OWNER, load_16(row + tick.SYMBOL_ID))
    store_8(half + OWNER + 2, load_i64(row + tick.ID))
    store_f64(half + OPEN, load_f64(row + tick.PRICE))
    store_f64(half + HIGH, load_f64(row + tick.QUANTITY))
    store_f64(half + LOW, load_f64(row + tick.ASK))
    store_f64(half + CLOSE, load_f64(row + tick.ASK_QUANTITY))


@helper
def is_seed(half: Any, row: Any, size: Any) -> Any:
    """True when `row` is the second record of `half` and what both say can be."""
    slot, edge = load_i64(half + SLOT), load_f64(row + tick.ASK_QUANTITY)
    if load_16(half + OWNER) != load_16(row + tick.SYMBOL_ID) or slot != load_i64(row + tick.EXCHANGE_US):
        return False
    if slot < 0 or slot % size or not (float(slot) < edge < float(slot + size)) or int(edge) % SECOND_US:
        return False
    lots, taker, trades = load_f64(row + tick.PRICE), load_f64(row + tick.QUANTITY), load_f64(row + tick.ASK)
    if not (0.0 <= taker <= lots < LOTS_MAX and 0.0 <= trades < LOTS_MAX):
        return False
    low, high = load_f64(half + LOW), load_f64(half + HIGH)
    inside = low <= load_f64(half + OPEN) <= high and low <= load_f64(half + CLOSE) <= high
    return trades == 0.0 or (low > 0.0 and high < PRICE_MAX and inside)


@helper
def lots_factor(row: Any, bar: Any) -> Any:
    """Lots of the bar's grid in a lot of the record's; 0 when that is finer, so that lots do not fit."""
    digits = load_8(bar + DIGITS) - (load_8(row + tick.FLAGS) & LOW_FLAGS)
    if digits < 0:
        return 0
    factor = 1
    while digits > 0:
        factor *= 10
        digits -= 1
    return factor if load_f64(row + tick.PRICE) * float(factor) < LOTS_MAX else 0


@helper
def apply_seed(ctx: Any, row: Any, state: Any, currents: Any, others: Any) -> None:
    """The second record of a seed: replace what the slot of the boundary holds before it.

    Refused (and counted) when the halves do not fit, when trades at or after its boundary were counted
    before that was announced, or when the bar has already left memory.
    """
    half, index = load_i64(ctx + HALF_BAR), load_i64(row + tick.ID)
    if not (0 <= index < RESOLUTION_COUNT and load_8(half + OWNER + 2) == index):
        bump(ctx, SEED_REFUSED)
        return
    if not is_seed(half, row, load_i64(ctx + SIZES + 8 * index)):
        bump(ctx, SEED_REFUSED)
        return
    slot, edge = load_i64(half + SLOT), int(load_f64(row + tick.ASK_QUANTITY))
    if edge > load_i64(state + EDGE) and edge > load_i64(state + NEWEST):
        announce(ctx, state, currents, others, edge)
    before = others + (index * 2 + 1) * BAR_BYTES
    if edge != load_i64(state + EDGE) or load_i64(before + SLOT) != slot:
        bump(ctx, SEED_REFUSED)
        return
    factor = lots_factor(row, before)
    if factor == 0:
        bump(ctx, SEED_REFUSED)
        return
    clear_bar(before, slot)
    for offset in (OPEN, HIGH, LOW, CLOSE):
        if load_f64(row + tick.ASK) > 0.0:
            store_f64(before + offset, load_f64(half + offset))
    store_64(before + VOLUME, int(load_f64(row + tick.PRICE)) * factor)
    store_64(before + TAKER, int(load_f64(row + tick.QUANTITY)) * factor)
    store_64(before + TRADES, int(load_f64(row + tick.ASK)))
    store_64(before + SEEDS, int(load_f64(row + tick.ASK)))
    store_64(before + BOUNDARY, edge)
    store_8(before + FLAGS, SEEDED)
    clear_bar(half, EMPTY_SLOT)
    mark(state, DIRTY_OTHER)
    bump(ctx, SEED_COUNT)


@helper
def apply_history(ctx: Any, row: Any, kind: Any, state: Any, currents: Any, others: Any) -> None:
    """A seed record."""
    if kind == SEED_LEVELS:
        highest, lowest = load_f64(row + tick.PRICE), load_f64(row + tick.QUANTITY)
        if not 0.0 < lowest <= highest < PRICE_MAX:
            bump(ctx, SEED_REFUSED)
            return
        store_f64(state + ATH, max(load_f64(state + ATH), highest))
        store_f64(state + ATL, min(load_f64(state + ATL), lowest))
        mark(state, DIRTY_STATE)
    elif kind == SEED_BAR and load_i64(row + tick.ID) == ANNOUNCE:
        announce(ctx, state, currents, others, load_i64(row + tick.EXCHANGE_US))
    elif kind == SEED_BAR:
        hold_half(ctx, row)
    else:
        apply_seed(ctx, row, state, currents, others)
