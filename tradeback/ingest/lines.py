"""Which line was first, and by how much: the statistics of two redundant lines, written per message.

Per symbol and kind there is a block of STREAM_BYTES: how many messages each line brought and the highest
id, which is all a watchdog needs; and two rings in which the winner of an id left its receive time and its
line. The fine ring knows the newest 64 ids; of older ones the coarse ring knows every 64th, so that the
lag of a line far behind is still measured, by samples of that weight.
"""

from typing import Any

from tradeback.ingest.context import (
    LAG_FINITE,
    LAG_SLOT_BYTES,
    LINE_FILLS,
    LINE_LAGS,
    LINE_LOSSES,
    LINE_REPEATS,
    LINE_WINS,
    RING_COARSE,
    RING_FINE,
    RING_IDS,
    SEEN_LINE_BYTES,
    STREAM_BYTES,
    STREAMS,
)
from tradeback.kernel.jit import helper
from tradeback.kernel.memory import as_signed, bits_of, load_8, load_16, load_i64, store_64
from tradeback.kernel.row import FLAGS, ID, KIND, SYMBOL_ID
from tradeback.model.record import LATE, LINE_B

_TICK_SHIFT = 10
"""Receive times are kept in units of 1,024 ns."""
_TIME_SHIFT = 20
_LINE_BITS = 3
_TAG_MASK = 0x3FFFF
"""Bits of the id above the ring's place: ids that share them are 2^24 apart (fine) or more."""


@helper
def _count(address: Any, amount: Any) -> None:
    store_64(address, load_i64(address) + amount)


@helper
def _note_lag(histogram: Any, lag_us: Any, weight: Any) -> None:
    """Count a lag in the two buckets per octave of `context.LAG_BOUNDS_US`; no search, two shifts."""
    sums = histogram + 8 * (LAG_FINITE + 1)
    if lag_us < 0:
        # The clock was set back between the two.
        _count(sums + 8, weight)
        lag_us = 0
    _count(sums, lag_us * weight)
    octaves = (as_signed(bits_of(float(max(lag_us, 1)))) - 1) >> 51
    bucket = min(max(octaves - 2046, 0), LAG_FINITE)
    _count(histogram + 8 * bucket, weight)


@helper
def note_line(context: Any, row: Any, line: Any, recv_ns: Any, is_accepted: Any) -> None:
    """The record at `row` came on `line` (0 or 1; others are nobody's), and won or lost."""
    if line > LINE_B:
        return
    kind = load_8(row + KIND)
    identifier = load_i64(row + ID)
    stream = load_i64(context + 8 * STREAMS) + STREAM_BYTES * (3 * load_16(row + SYMBOL_ID) + kind - 1)
    seen = stream + SEEN_LINE_BYTES * line
    if identifier > load_i64(seen):
        store_64(seen, identifier)
    _count(seen + 8, 1)
    which = 4 * line + kind
    place = stream + RING_FINE + 8 * (identifier & (RING_IDS - 1))
    tag = ((identifier >> 6) & _TAG_MASK) << 2
    time = (recv_ns >> _TICK_SHIFT) << _TIME_SHIFT
    if is_accepted:
        store_64(place, time | tag | line)
        if identifier & (RING_IDS - 1) == 0:
            coarse = stream + RING_COARSE + 8 * ((identifier >> 6) & (RING_IDS - 1))
            store_64(coarse, time | (((identifier >> 12) & _TAG_MASK) << 2) | line)
        _count(context + 8 * (LINE_WINS + which), 1)
        if load_8(row + FLAGS) & LATE:
            _count(context + 8 * (LINE_FILLS + which), 1)
        return
    weight = 1
    winner = load_i64(place)
    if (winner ^ tag) & (_TAG_MASK << 2):
        weight = 0
        if identifier & (RING_IDS - 1) == 0:
            winner = load_i64(stream + RING_COARSE + 8 * ((identifier >> 6) & (RING_IDS - 1)))
            tag = ((identifier >> 12) & _TAG_MASK) << 2
            if (winner ^ tag) & (_TAG_MASK << 2) == 0:
                weight = RING_IDS
    if weight and winner & _LINE_BITS == line:
        _count(context + 8 * (LINE_REPEATS + which), 1)
        return
    _count(context + 8 * (LINE_LOSSES + which), 1)
    if weight:
        # Both carry the same tag, so only the times are left in the difference.
        ticks = ((time | tag) - (winner & ~_LINE_BITS)) >> _TIME_SHIFT
        histogram = load_i64(context + 8 * LINE_LAGS) + LAG_SLOT_BYTES * which
        _note_lag(histogram, (ticks << _TICK_SHIFT) // 1000, weight)
