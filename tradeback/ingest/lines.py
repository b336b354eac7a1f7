"""Which line was first, and by how much: the statistics of two redundant lines, written per message.

Per symbol and kind there is a block of STREAM_BYTES: how many messages each line brought and the last id,
which is all a watchdog needs; and two rings in which the winner of an id left its receive time and its
line. The fine ring knows the newest 64 ids; of older ones the coarse ring knows every 64th, so that the
lag of a line far behind is still measured, by samples of that weight.
"""

from typing import Any

from tradeback.ingest.arbiter import DROP, FILL
from tradeback.ingest.context import (
    LAG_FINITE,
    LAG_SLOT_BYTES,
    LINE_FILLS,
    LINE_LAGS,
    LINE_LOSSES,
    LINE_REPEATS,
    RING_COARSE,
    RING_FINE,
    RING_IDS,
    SEEN_LINE_BYTES,
    STREAM_BYTES,
    STREAMS,
)
from tradeback.kernel.jit import helper
from tradeback.kernel.memory import as_signed, bits_of, load_8, load_16, load_i64, store_64
from tradeback.kernel.row import ID, KIND, SYMBOL_ID
from tradeback.model.record import LINE_B

_TICK_SHIFT = 10
"""Receive times are kept in units of 1,024 ns."""
_TIME_SHIFT = 20
_LINE_BITS = 3
_PLACE_MASK = RING_IDS - 1
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
def _note_loss(context: Any, stream: Any, identifier: Any, which: Any, line: Any, time: Any) -> None:
    """A message was dropped: look up who had brought its id, and how much earlier."""
    weight = 1
    winner = load_i64(stream + RING_FINE + 8 * (identifier & _PLACE_MASK))
    tag = ((identifier >> 6) & _TAG_MASK) << 2
    if winner == 0 or (winner ^ tag) & (_TAG_MASK << 2):
        # An empty place has the tag of the very first ids.
        weight = 0
        if identifier & _PLACE_MASK == 0:
            winner = load_i64(stream + RING_COARSE + 8 * ((identifier >> 6) & _PLACE_MASK))
            tag = ((identifier >> 12) & _TAG_MASK) << 2
            if winner != 0 and (winner ^ tag) & (_TAG_MASK << 2) == 0:
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


@helper
def note_line(context: Any, row: Any, line: Any, recv_ns: Any, verdict: Any) -> None:
    """The record at `row` came on `line` (0 or 1; others are nobody's), and won or lost: see `take_row`.

    Wins are not counted: they are the messages that neither lost nor were repeated. Short, so that the
    compiler puts it into the reading loop: a call would cost as much as its body.
    """
    if line > LINE_B:
        return
    kind = load_8(row + KIND)
    identifier = load_i64(row + ID)
    stream = load_i64(context + 8 * STREAMS) + STREAM_BYTES * (3 * load_16(row + SYMBOL_ID) + kind - 1)
    seen = stream + SEEN_LINE_BYTES * line
    store_64(seen, identifier)
    _count(seen + 8, 1)
    time = (recv_ns >> _TICK_SHIFT) << _TIME_SHIFT
    if verdict == DROP:
        _note_loss(context, stream, identifier, 4 * line + kind, line, time)
        return
    tag = ((identifier >> 6) & _TAG_MASK) << 2
    store_64(stream + RING_FINE + 8 * (identifier & _PLACE_MASK), time | tag | line)
    if identifier & _PLACE_MASK == 0:
        place = stream + RING_COARSE + 8 * ((identifier >> 6) & _PLACE_MASK)
        store_64(place, time | (((identifier >> 12) & _TAG_MASK) << 2) | line)
    if verdict == FILL:
        _count(context + 8 * (LINE_FILLS + 4 * line + kind), 1)
