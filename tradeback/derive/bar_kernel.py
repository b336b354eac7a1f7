"""Kernels over one bar at an address: add a trade, merge two parts, hand one out. Layout in `layout.BAR`."""

from typing import Any

from tradeback.derive.layout import (
    ANCHORED,
    BAR,
    BAR_BYTES,
    EMPTY_SLOT,
    NO_FIRST_ID,
    NO_ID,
    PARTIAL,
    SEEDED,
    STANDS_IN,
    offsets,
)
from tradeback.kernel.jit import helper
from tradeback.kernel.memory import load_8, load_f64, load_i64, store_8, store_64, store_f64

SLOT, OPEN, CLOSE, HIGH, LOW = offsets(BAR, "slot_us", "open", "close", "high", "low")
VOLUME, TAKER, TRADES, SEEDS = offsets(BAR, "volume", "taker_volume", "trade_count", "seed_count")
FIRST, LAST, BOUNDARY = offsets(BAR, "first_id", "last_id", "boundary_us")
OWNER, FLAGS, DIGITS = offsets(BAR, "symbol_id", "flags", "lot_digits")

_HIGHEST = float("inf")
_LOWEST = float("-inf")


@helper
def clear_bar(bar: Any, slot: Any) -> None:
    """An empty bar at `slot`; whose bar it is stays."""
    store_64(bar + SLOT, slot)
    store_f64(bar + OPEN, 0.0)
    store_f64(bar + CLOSE, 0.0)
    store_f64(bar + HIGH, _LOWEST)
    store_f64(bar + LOW, _HIGHEST)
    store_64(bar + VOLUME, 0)
    store_64(bar + TAKER, 0)
    store_64(bar + TRADES, 0)
    store_64(bar + FIRST, NO_FIRST_ID)
    store_64(bar + LAST, NO_ID)
    store_64(bar + SEEDS, 0)
    store_64(bar + BOUNDARY, 0)
    store_8(bar + FLAGS, 0)


@helper
def copy_bar(target: Any, source: Any) -> None:
    """Copy all fields, whose bar it is included."""
    for offset in range(0, BAR_BYTES, 8):
        store_64(target + offset, load_i64(source + offset))


@helper
def add_trade(
    bar: Any, price: Any, lots: Any, taker_lots: Any, count: Any, first: Any, last: Any, stands_in: Any
) -> None:
    """Merge one trade, or a stand-in for `count` trades with ids from `first` to `last`.

    Ties of ids (which the arbiter excludes) go to the lower open and the higher close, so that even they
    leave no trace of the order of arrival.
    """
    held = load_i64(bar + FIRST)
    if first < held or (first == held and price < load_f64(bar + OPEN)):
        store_64(bar + FIRST, first)
        store_f64(bar + OPEN, price)
    held = load_i64(bar + LAST)
    if last > held or (last == held and price > load_f64(bar + CLOSE)):
        store_64(bar + LAST, last)
        store_f64(bar + CLOSE, price)
    if price > load_f64(bar + HIGH):
        store_f64(bar + HIGH, price)
    if price < load_f64(bar + LOW):
        store_f64(bar + LOW, price)
    store_64(bar + VOLUME, load_i64(bar + VOLUME) + lots)
    store_64(bar + TAKER, load_i64(bar + TAKER) + taker_lots)
    store_64(bar + TRADES, load_i64(bar + TRADES) + count)
    if stands_in:
        store_8(bar + FLAGS, load_8(bar + FLAGS) | STANDS_IN)


@helper
def merge_before(bar: Any, before: Any, anchor: Any) -> None:
    """Merge into `bar` (trades since the boundary) the part `before` the boundary: the seed, or trades.

    `anchor` is the highest trade id before the boundary; it proves that nothing fell between.
    """
    flags = load_8(bar + FLAGS) | load_8(before + FLAGS)
    first = load_i64(bar + FIRST)
    if (
        load_8(before + FLAGS) & SEEDED != 0
        and load_i64(before + FIRST) == NO_FIRST_ID
        and first == anchor + 1
    ):
        flags |= ANCHORED
    store_8(bar + FLAGS, flags)
    if load_i64(before + BOUNDARY) > load_i64(bar + BOUNDARY):
        store_64(bar + BOUNDARY, load_i64(before + BOUNDARY))
    if load_i64(before + TRADES) == 0:
        return
    if load_i64(before + SEEDS) > 0 or load_i64(before + FIRST) < first:
        store_f64(bar + OPEN, load_f64(before + OPEN))
    if load_i64(bar + TRADES) == 0 or load_i64(before + LAST) > load_i64(bar + LAST):
        store_f64(bar + CLOSE, load_f64(before + CLOSE))
    store_64(bar + FIRST, min(first, load_i64(before + FIRST)))
    store_64(bar + LAST, max(load_i64(bar + LAST), load_i64(before + LAST)))
    store_f64(bar + HIGH, max(load_f64(bar + HIGH), load_f64(before + HIGH)))
    store_f64(bar + LOW, min(load_f64(bar + LOW), load_f64(before + LOW)))
    for offset in (VOLUME, TAKER, TRADES, SEEDS):
        store_64(bar + offset, load_i64(bar + offset) + load_i64(before + offset))


@helper
def write_out(target: Any, bar: Any, before: Any, anchor: Any, since_us: Any) -> Any:
    """Write the finished view of `bar` with its part before the boundary to `target`.

    Returns 1, or 0 when the bar holds no trade (what stands at `target` then means nothing).
    """
    copy_bar(target, bar)
    slot = load_i64(bar + SLOT)
    if slot != EMPTY_SLOT and load_i64(before + SLOT) == slot:
        merge_before(target, before, anchor)
    if load_i64(target + TRADES) == 0:
        return 0
    flags = load_8(target + FLAGS)
    if slot <= since_us and flags & SEEDED == 0:
        store_8(target + FLAGS, flags | PARTIAL)
    return 1
