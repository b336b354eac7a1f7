"""Who was first: dedup by id per symbol and kind.

Trades and aggregates: for the newest SEEN_WINDOW_IDS (AGG_WINDOW_IDS) ids of a symbol it is known one
by one whether they were seen, so a second line may fill what the first one lost, in any order, and
nothing enters twice. Ids older than the window are dropped, because they may have been seen. Quotes:
the update id must rise; a lower one is an older state of the book and worth nothing.

Ids rise by exactly one per symbol on Binance Spot for `t` and `a`; `u` jumps (binance.md section 5).
"""

from typing import Any

from numba import uint64

from tradeback.ingest.context import (
    ACCEPTED,
    AGG_TILED_TO,
    AGG_WINDOW_BYTES,
    AGG_WINDOW_IDS,
    AGG_WINDOWS,
    DUPLICATES,
    FROM_AGG,
    FROM_TRADE,
    LAST_AGG,
    LAST_QUOTE,
    LAST_TRADE,
    LATE_FILLS,
    MESSAGES,
    MISSING_AGGS,
    MISSING_TRADES,
    SKIPPED_IDS,
    STALE,
    STATE_BYTES,
    STATES,
    TRADE_WINDOW_BYTES,
    TRADE_WINDOWS,
)
from tradeback.kernel.jit import helper, kernel
from tradeback.kernel.memory import (
    as_signed,
    as_unsigned,
    load_8,
    load_16,
    load_f64,
    load_i64,
    load_u64,
    store_8,
    store_64,
)
from tradeback.kernel.row import ASK, ASK_QUANTITY, FLAGS, ID, KIND, ROW_BYTES, SYMBOL_ID
from tradeback.model.limits import SEEN_WINDOW_IDS
from tradeback.model.record import AGG, LATE, QUOTE, STAND_IN, TRADE

DROP = 0
NEW = 1
FILL = 2
"""Accepted, and lower than one that was accepted before."""
OLD = 3

_ONE = uint64(1)
_SIX = uint64(6)
_LOW_SIX = uint64(63)


@helper
def bump(context: Any, word: Any, kind: Any, amount: Any) -> None:
    """Add to a counter."""
    address = context + 8 * (word + kind)
    store_64(address, load_i64(address) + amount)


@helper
def _bit_of(window: Any, identifier: Any, size: Any) -> Any:
    """(address of the word, mask) of an id's bit in a ring of `size` bits, a power of two."""
    place = as_unsigned(identifier & (size - 1))
    return window + 8 * as_signed(place >> _SIX), _ONE << (place & _LOW_SIX)


@helper
def is_seen(window: Any, identifier: Any, size: Any) -> Any:
    """True when the id's bit is set; only meaningful within `size` ids below the highest."""
    word, mask = _bit_of(window, identifier, size)
    return (load_u64(word) & mask) != uint64(0)


@helper
def mark_seen(window: Any, identifier: Any, size: Any) -> None:
    """Set the id's bit."""
    word, mask = _bit_of(window, identifier, size)
    store_64(word, as_signed(load_u64(word) | mask))


@helper
def _clear(window: Any, size: Any) -> None:
    """Forget all ids."""
    for index in range(size >> 6):
        store_64(window + 8 * index, 0)


@helper
def _advance(window: Any, last: Any, identifier: Any, size: Any) -> None:
    """Move the window's end from `last` up to `identifier`: ids between are unseen."""
    if identifier - last >= size:
        _clear(window, size)
    else:
        for skipped in range(last + 1, identifier):
            word, mask = _bit_of(window, skipped, size)
            store_64(word, as_signed(load_u64(word) & ~mask))
    mark_seen(window, identifier, size)


@helper
def take_id(
    window: Any, last_address: Any, missing_address: Any, from_address: Any, identifier: Any, size: Any
) -> Any:
    """Arbitrate one id. Returns (DROP, NEW, FILL or OLD; ids that were jumped over)."""
    last = load_i64(last_address)
    lowest = load_i64(from_address) - 1
    if lowest < 0:
        _clear(window, size)
        mark_seen(window, identifier, size)
        store_64(last_address, identifier)
        store_64(from_address, identifier + 1)
        return NEW, 0
    if identifier > last:
        skipped = identifier - last - 1
        _advance(window, last, identifier, size)
        store_64(last_address, identifier)
        if skipped > 0:
            store_64(missing_address, load_i64(missing_address) + skipped)
        return NEW, skipped
    if identifier <= last - size:
        return OLD, 0
    if is_seen(window, identifier, size):
        return DROP, 0
    mark_seen(window, identifier, size)
    if identifier < lowest:
        store_64(from_address, identifier + 1)
        store_64(missing_address, load_i64(missing_address) + lowest - identifier - 1)
    else:
        store_64(missing_address, load_i64(missing_address) - 1)
    return FILL, 0


@helper
def take_row(context: Any, row: Any) -> Any:
    """Arbitrate the record at `row`: NEW or FILL when it belongs on the tape, else DROP, which is 0.

    Sets LATE, bumps the counters.
    """
    kind = load_8(row + KIND)
    identifier = load_i64(row + ID)
    symbol_id = load_16(row + SYMBOL_ID)
    state = load_i64(context + 8 * STATES) + STATE_BYTES * symbol_id
    bump(context, MESSAGES, kind, 1)
    if kind == QUOTE:
        if identifier <= load_i64(state + LAST_QUOTE):
            bump(context, DUPLICATES, kind, 1)
            return DROP
        store_64(state + LAST_QUOTE, identifier)
        bump(context, ACCEPTED, kind, 1)
        return NEW
    if kind == TRADE:
        window = load_i64(context + 8 * TRADE_WINDOWS) + TRADE_WINDOW_BYTES * symbol_id
        if load_8(row + FLAGS) & STAND_IN:
            _cover(context, window, state, row)
            bump(context, ACCEPTED, kind, 1)
            return NEW
        verdict, skipped = take_id(
            window,
            state + LAST_TRADE,
            state + MISSING_TRADES,
            state + FROM_TRADE,
            identifier,
            SEEN_WINDOW_IDS,
        )
    else:
        window = load_i64(context + 8 * AGG_WINDOWS) + AGG_WINDOW_BYTES * symbol_id
        verdict, skipped = take_id(
            window, state + LAST_AGG, state + MISSING_AGGS, state + FROM_AGG, identifier, AGG_WINDOW_IDS
        )
        if verdict == NEW:
            store_64(state + AGG_TILED_TO, int(load_f64(row + ASK_QUANTITY)))
    if verdict == DROP:
        bump(context, DUPLICATES, kind, 1)
        return DROP
    if verdict == OLD:
        bump(context, STALE, kind, 1)
        return DROP
    if verdict == FILL:
        store_8(row + FLAGS, load_8(row + FLAGS) | LATE)
        bump(context, LATE_FILLS, kind, 1)
    if skipped > 0:
        bump(context, SKIPPED_IDS, kind, skipped)
    bump(context, ACCEPTED, kind, 1)
    return verdict


@helper
def _cover(context: Any, window: Any, state: Any, row: Any) -> None:
    """A stand-in: every unseen id from its first missing one up to its own counts as seen from now on.

    Ids that have left the window keep their place in the count of missing ones.
    """
    last = load_i64(state + LAST_TRADE)
    lowest = load_i64(state + FROM_TRADE) - 1
    top = load_i64(row + ID)
    first = int(load_f64(row + ASK))
    if lowest < 0:
        _clear(window, SEEN_WINDOW_IDS)
        lowest = first
        last = first - 1
        store_64(state + FROM_TRADE, first + 1)
    missing = load_i64(state + MISSING_TRADES)
    if top > last:
        _advance(window, last, top, SEEN_WINDOW_IDS)
        store_64(state + LAST_TRADE, top)
        if first > last + 1:
            missing += first - last - 1
            bump(context, SKIPPED_IDS, TRADE, first - last - 1)
    else:
        store_8(row + FLAGS, load_8(row + FLAGS) | LATE)
    for identifier in range(max(first, max(last, top) - SEEN_WINDOW_IDS + 1), top + 1):
        if not is_seen(window, identifier, SEEN_WINDOW_IDS):
            mark_seen(window, identifier, SEEN_WINDOW_IDS)
            if lowest <= identifier <= last:
                missing -= 1
    if first < lowest:
        store_64(state + FROM_TRADE, first + 1)
        missing += max(0, lowest - top - 1)
    store_64(state + MISSING_TRADES, missing)


@kernel("int64(int64,int64,int64)")
def restore_rows(context: Any, rows: Any, count: Any) -> Any:
    """Replay `count` tape records into the arbiter's state, oldest first. Returns how many it would refuse.

    Counters are those of this process, so they are set back afterwards by the caller.
    """
    refused = 0
    for index in range(count):
        row = rows + ROW_BYTES * index
        kind = load_8(row + KIND)
        if kind in (TRADE, AGG, QUOTE) and not take_row(context, row):
            refused += 1
    return refused


@kernel("int64(int64,int64,int64,int64)")
def find_uncertified(context: Any, rows: Any, count: Any, found: Any) -> Any:
    """Which aggregates among `count` tape records name trades that were never seen.

    Writes their indexes to int64 `found` and returns their number. Ids that have left the window cannot
    be judged and count as seen, and so do ids below the lowest trade ever seen: they came before us.
    """
    number = 0
    for index in range(count):
        row = rows + ROW_BYTES * index
        if load_8(row + KIND) != AGG:
            continue
        symbol_id = load_16(row + SYMBOL_ID)
        state = load_i64(context + 8 * STATES) + STATE_BYTES * symbol_id
        window = load_i64(context + 8 * TRADE_WINDOWS) + TRADE_WINDOW_BYTES * symbol_id
        last = load_i64(state + LAST_TRADE)
        lowest = load_i64(state + FROM_TRADE) - 1
        if lowest < 0:
            last = -1
        first_id = max(int(load_f64(row + ASK)), lowest, last - SEEN_WINDOW_IDS + 1)
        for identifier in range(first_id, int(load_f64(row + ASK_QUANTITY)) + 1):
            if identifier > last or not is_seen(window, identifier, SEEN_WINDOW_IDS):
                store_64(found + 8 * number, index)
                number += 1
                break
    return number
