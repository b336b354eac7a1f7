"""The rules of bars in plain Python: merging, completeness, volumes. The kernels follow the same rules.

Works on BAR rows (layout.py) or on `Bar`, the same as a tuple. No numba here: stores and the API use it.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tradeback.derive.layout import (
    ANCHORED,
    BAR,
    EMPTY_SLOT,
    EXCHANGE,
    LATE,
    NO_FIRST_ID,
    NO_ID,
    PARTIAL,
    SEEDED,
    Bars,
    empty_bars,
)

_FLOAT_EXACT = 1 << 53


class Bar(NamedTuple):
    """One bar; fields and units as in layout.BAR."""

    slot_us: int
    open: float
    close: float
    high: float
    low: float
    volume: int
    taker_volume: int
    trade_count: int
    first_id: int
    last_id: int
    seed_count: int
    boundary_us: int
    symbol_id: int
    resolution: int
    flags: int
    lot_digits: int


_FIELDS = len(Bar._fields)
assert Bar._fields == (BAR.names or ())[:_FIELDS], "Bar and BAR are one shape"


def from_rows(rows: Bars) -> list[Bar]:
    """BAR rows as tuples."""
    return [Bar._make(row[:_FIELDS]) for row in rows.tolist()]


def to_rows(bars: Sequence[Bar]) -> Bars:
    """Tuples as BAR rows."""
    rows: Bars = np.zeros(len(bars), BAR)
    for index, bar in enumerate(bars):
        rows[index] = (*bar, (0, 0, 0))
    return rows


def merge_bars(one: Bar, other: Bar) -> Bar:
    """Both parts of one bar as one. Commutative, and associative over parts that hold different trades.

    - Open is that of the seed, else of the lowest trade id; close that of the highest trade id. Equal ids
      (the arbiter lets none through) go to the lower open, the higher close.
    - Volumes and counts add up; they are integers, so no order of adding shows.
    - A bar of the exchange's (EXCHANGE) keeps its values; only the ids seen on the tape widen.
    - A LATE trade from before the boundary of a SEEDED bar is in the seed already and changes nothing.
    """
    if one.lot_digits != other.lot_digits:
        one, other = _on_one_grid(one, other)
    if one.flags & EXCHANGE or other.flags & EXCHANGE:
        return _merge_exchange(one, other)
    for late, held in ((one, other), (other, one)):
        if late.flags & LATE and held.flags & SEEDED and late.boundary_us < held.boundary_us:
            return held._replace(flags=held.flags & ~LATE)
    flags = (one.flags | other.flags) & ~LATE
    if flags & SEEDED:
        flags &= ~PARTIAL
    boundary_us = max((bar.boundary_us for bar in (one, other) if bar.flags & SEEDED), default=0)
    filled = [bar for bar in (one, other) if bar.trade_count]
    if len(filled) < 2:
        return (filled or [one])[0]._replace(flags=flags, boundary_us=boundary_us)
    opening = min(filled, key=lambda bar: (bar.seed_count == 0, bar.first_id, bar.open))
    closing = max(filled, key=lambda bar: (bar.last_id, bar.close))
    return one._replace(
        open=opening.open,
        close=closing.close,
        high=max(one.high, other.high),
        low=min(one.low, other.low),
        volume=one.volume + other.volume,
        taker_volume=one.taker_volume + other.taker_volume,
        trade_count=one.trade_count + other.trade_count,
        first_id=min(one.first_id, other.first_id),
        last_id=max(one.last_id, other.last_id),
        seed_count=one.seed_count + other.seed_count,
        boundary_us=boundary_us,
        flags=flags,
    )


def _merge_exchange(one: Bar, other: Bar) -> Bar:
    """At least one is the exchange's: of two the one that knows more trades."""
    best = max(one, other, key=lambda bar: (bar.flags & EXCHANGE, bar.trade_count))
    return best._replace(
        first_id=min(one.first_id, other.first_id),
        last_id=max(one.last_id, other.last_id),
        flags=EXCHANGE,
        boundary_us=0,
    )


def _on_one_grid(one: Bar, other: Bar) -> tuple[Bar, Bar]:
    """Both in the finer of their lots (a symbol's step may have changed); exact."""
    digits = max(one.lot_digits, other.lot_digits)
    return _refine(one, digits), _refine(other, digits)


def _refine(bar: Bar, digits: int) -> Bar:
    factor = 10 ** (digits - bar.lot_digits)
    if factor == 1:
        return bar
    return bar._replace(volume=bar.volume * factor, taker_volume=bar.taker_volume * factor, lot_digits=digits)


def settle(bar: Bar) -> Bar:
    """A bar as it is stored: a late trade that found no bar becomes an ordinary one."""
    return bar._replace(flags=bar.flags & ~LATE, boundary_us=0) if bar.flags & LATE else bar


def merge_all(chunks: Iterable[Bars]) -> Bars:
    """Bars of ONE series from several sources as one ascending array, equal slots merged.

    Only slots that stand there more than once cost Python: of thousands of bars those are a few.
    """
    rows = np.concatenate([empty_bars(0), *chunks])
    _, place, counts = np.unique(rows["slot_us"], return_inverse=True, return_counts=True)
    alone = counts[place] == 1
    merged: dict[int, Bar] = {}
    for bar in from_rows(rows[~alone]):
        held = merged.get(bar.slot_us)
        merged[bar.slot_us] = settle(bar) if held is None else merge_bars(held, bar)
    single = rows[alone]
    late = (single["flags"] & LATE) != 0
    if late.any():
        single[late] = to_rows([settle(bar) for bar in from_rows(single[late])])
    found: Bars = np.concatenate([single, to_rows(list(merged.values()))])
    return found[np.argsort(found["slot_us"])]


def finish_open(
    current: Bar | None, previous: Bar | None, before: Bar | None, anchor_id: int, since_us: int
) -> list[Bar]:
    """The open bars of one series, ascending, out of their stored parts: what `Derived.bars_open` shows.

    `anchor_id` and `since_us` are those of the symbol's STATE.
    """
    finished = []
    for bar in (previous, current):
        if bar is None or bar.slot_us == EMPTY_SLOT:
            continue
        if before is not None and before.slot_us == bar.slot_us:
            anchored = (
                before.flags & SEEDED and before.first_id == NO_FIRST_ID and bar.first_id == anchor_id + 1
            )
            bar = merge_bars(bar, before)
            bar = bar._replace(flags=bar.flags | (ANCHORED if anchored else 0))
        if bar.trade_count:
            hint = PARTIAL if bar.slot_us <= since_us and not bar.flags & SEEDED else 0
            finished.append(bar._replace(flags=bar.flags | hint))
    return finished


def is_complete(bar: Bar, previous: Bar | None, following: Bar | None) -> bool:
    """True when it is proved that no trade of the bar's time slot is missing from it.

    Trade ids of a symbol rise by one, so the tape proves it, provided all of these hold:
    - inside: as many trades from the tape as lie between its lowest and highest id;
    - start: its lowest id is the one after the highest of the bar before it (the nearest with trades,
      whether the slots touch or not). A SEEDED bar instead must be ANCHORED: the exchange's klines cover
      what is before the boundary, and the tape holds the very trade before the first one counted;
    - end: its highest id is the one before the lowest of the bar after it. So the newest bar of a series
      is never complete: its last trades may still be on their way.
    A bar that is the exchange's own closed kline is complete by itself. `previous` and `following` are the
    neighbours of the same series, None when unknown. PARTIAL is a hint and not needed for the proof.
    """
    if bar.flags & EXCHANGE:
        return True
    own = bar.trade_count - bar.seed_count
    if own <= 0 or own != bar.last_id - bar.first_id + 1:
        return False
    if bar.flags & SEEDED:
        start = bool(bar.flags & ANCHORED)
    else:
        start = previous is not None and previous.last_id != NO_ID and previous.last_id + 1 == bar.first_id
    return start and following is not None and following.first_id == bar.last_id + 1


def complete_mask(rows: Bars) -> NDArray[np.bool_]:
    """`is_complete` of every row of one ascending series, its neighbours in `rows` being its neighbours.

    So the first and the last are complete only where no neighbour is needed: read one more on each side.
    """
    first, last, flags = rows["first_id"], rows["last_id"], rows["flags"]
    inside = is_whole(rows)
    linked = (last[:-1] != NO_ID) & (last[:-1] + 1 == first[1:])
    edge = np.zeros(min(1, len(rows)), bool)
    after, before = np.concatenate([edge, linked]), np.concatenate([linked, edge])
    start = np.where(flags & SEEDED, (flags & ANCHORED) != 0, after)
    return np.asarray(((flags & EXCHANGE) != 0) | (inside & start & before), bool)


def is_whole(rows: Bars) -> NDArray[np.bool_]:
    """Of each bar: does it hold as many trades from the tape as lie between its lowest and highest id?"""
    first, last = rows["first_id"], rows["last_id"]
    own = rows["trade_count"] - rows["seed_count"]
    count = np.where(first == NO_FIRST_ID, 0, last - np.minimum(first, last) + 1)
    return np.asarray((own > 0) & (own == count), bool)


def volumes(rows: Bars, name: str = "volume") -> NDArray[np.float64]:
    """`volume` or `taker_volume` in base units: lots / 10^lot_digits, one correctly rounded division."""
    lots: Any = rows[name]
    scales = 10.0 ** rows["lot_digits"].astype(np.float64)
    if len(rows) and int(lots.max()) >= _FLOAT_EXACT:
        pairs = zip(lots.tolist(), rows["lot_digits"].tolist(), strict=True)
        return np.array([count / 10**digits for count, digits in pairs], np.float64)
    return np.asarray(lots / scales, np.float64)
