"""From the exchange's klines to tape records, so that bars and levels start from history. Pure.

How the engine seeds a symbol:
1. Once its trade line delivers, it puts `boundary_row` on the tape. The kernel sets the boundary: a whole
   second after every trade counted so far (`Derived.boundary_us`). Trades at or after it count from the
   tape; what is before comes from klines, whenever they arrive.
2. When the exchange has passed the boundary by a second or two, it asks for the klines of `seed_ranges`
   and puts `bar_rows` on the tape, all records in one append. A seed replaces the part of the open bar
   before the boundary, so that a second one, or one after a restart, does no harm.
3. `levels_row` with the highest and lowest price of the monthly klines, at any time.
Bars that had closed before are not the tape's: `history_bars` makes them for the store.

Klines come as BAR rows (klines.py), one for each; one without trades counts nowhere.

A seed takes two records (model/record.py has the kinds), both with exchange_us = start of the slot in us
and id = index of the resolution:

| field        | SEED_BAR | SEED_BAR_MORE                          |
|--------------|----------|----------------------------------------|
| price        | open     | volume in lots (10^-lot_digits)        |
| quantity     | high     | volume bought by takers, in lots       |
| ask          | low      | number of trades                       |
| ask_quantity | close    | boundary, us since 1970                |

Both carry lot_digits in the low six bits of flags.
Lots and not base units, because the sum of a day may need more digits than a float of base units keeps.
A SEED_BAR with id ANNOUNCE (-1) is no bar: it announces a boundary, exchange_us.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from tradeback.derive.bars import Bar
from tradeback.derive.layout import (
    ANNOUNCE,
    NO_FIRST_ID,
    NO_ID,
    RESOLUTION_COUNT,
    RESOLUTION_US,
    Bars,
    resolution_index,
)
from tradeback.model.record import (
    LINE_LOCAL,
    LINE_REST,
    LINE_SHIFT,
    SEED_BAR,
    SEED_BAR_MORE,
    SEED_LEVELS,
    Rows,
    empty_rows,
)
from tradeback.model.symbols import Symbol

_SECOND_US: Final = 1_000_000
_DAY_US: Final = 86_400 * _SECOND_US
_INTERVALS: Final = ("1h", "1m", "1s")
"""What a day is composed of: whole hours, whole minutes of the running hour, seconds of the minute."""


@dataclass(frozen=True, slots=True)
class SeedRange:
    """Klines to ask for: all of `interval` with start_ms <= open time <= end_ms."""

    interval: str
    start_ms: int
    end_ms: int
    limit: int
    """How many there can be, at most 60: one request answers them all."""


def seed_ranges(boundary_us: int) -> tuple[SeedRange, ...]:
    """The closed klines from which every open bar's part before the boundary can be composed."""
    ranges = []
    for interval, start, end in _pieces(boundary_us):
        size = RESOLUTION_US[resolution_index(interval)]
        if start < end:
            ranges.append(SeedRange(interval, start // 1_000, end // 1_000 - 1, (end - start) // size))
    return tuple(ranges)


def _pieces(boundary_us: int) -> list[tuple[str, int, int]]:
    """(interval, start, end) in us: hours of the day, minutes of the hour, seconds of the minute."""
    pieces, start = [], boundary_us - boundary_us % _DAY_US
    for interval in _INTERVALS:
        end = boundary_us - boundary_us % RESOLUTION_US[resolution_index(interval)]
        pieces.append((interval, start, end))
        start = end
    return pieces


def boundary_row(symbol_id: int, wanted_us: int, recv_ns: int = 0) -> Rows:
    """One record that announces a boundary at `wanted_us`, or as soon after it as can be."""
    rows = empty_rows(1)
    rows["symbol_id"], rows["kind"], rows["id"] = symbol_id, SEED_BAR, ANNOUNCE
    rows["exchange_us"], rows["recv_ns"] = wanted_us, recv_ns
    rows["flags"] = LINE_LOCAL << LINE_SHIFT
    return rows


def levels_row(symbol_id: int, highest: float, lowest: float, recv_ns: int = 0) -> Rows:
    """One record with the highest and the lowest trade price of the history before the tape."""
    rows = empty_rows(1)
    rows["symbol_id"], rows["kind"], rows["recv_ns"] = symbol_id, SEED_LEVELS, recv_ns
    rows["price"], rows["quantity"] = highest, lowest
    rows["flags"] = LINE_REST << LINE_SHIFT
    return rows


def levels_of(klines: Bars) -> tuple[float, float] | None:
    """Highest and lowest price over klines (monthly ones, as a rule); None when none of them traded."""
    traded = klines[klines["trade_count"] > 0]
    if not len(traded):
        return None
    return float(traded["high"].max()), float(traded["low"].min())


def compose(symbol: Symbol, klines: Bars) -> Bar | None:
    """One bar out of ascending klines that do not overlap; None when none of them traded."""
    traded = klines[klines["trade_count"] > 0]
    if not len(traded):
        return None
    # Sums of Python's integers: nothing an exchange answers can overflow them.
    count = sum(traded["trade_count"].tolist())
    return Bar(
        slot_us=0,
        open=float(traded["open"][0]),
        close=float(traded["close"][-1]),
        high=float(traded["high"].max()),
        low=float(traded["low"].min()),
        volume=sum(traded["volume"].tolist()),
        taker_volume=sum(traded["taker_volume"].tolist()),
        trade_count=count,
        first_id=NO_FIRST_ID,
        last_id=NO_ID,
        seed_count=count,
        boundary_us=0,
        symbol_id=symbol.id,
        resolution=0,
        flags=0,
        lot_digits=symbol.lot_digits,
    )


def bar_rows(symbol: Symbol, boundary_us: int, klines: Mapping[str, Bars], recv_ns: int = 0) -> Rows:
    """The records that seed a symbol's open bars: two for every resolution that needs a seed.

    `klines` holds the answers for `seed_ranges(boundary_us)` by interval; klines outside those ranges
    (a running one) are left out. A resolution whose klines were not asked for gets no seed. One whose slot
    begins at the boundary needs none, so 1s never does. Volumes are in the symbol's lots. ValueError unless
    the boundary is a whole second.
    """
    if boundary_us <= 0 or boundary_us % _SECOND_US:
        raise ValueError(f"boundary {boundary_us} us is not a whole second")
    rows = empty_rows(2 * RESOLUTION_COUNT)
    count = 0
    ascending = {interval: _ascending(bars) for interval, bars in klines.items()}
    for index, size in enumerate(RESOLUTION_US):
        slot = boundary_us - boundary_us % size
        needed = [piece for piece in _pieces(boundary_us) if max(piece[1], slot) < piece[2]]
        if not needed or any(interval not in klines for interval, _, _ in needed):
            continue
        inside = [_between(ascending[interval], max(start, slot), end) for interval, start, end in needed]
        _fill_pair(rows[count : count + 2], compose(symbol, np.concatenate(inside)), slot, boundary_us)
        rows["id"][count : count + 2] = index
        count += 2
    rows["symbol_id"], rows["recv_ns"] = symbol.id, recv_ns
    rows["flags"] = LINE_REST << LINE_SHIFT | symbol.lot_digits
    return rows[:count]


def _ascending(bars: Bars) -> Bars:
    found: Bars = bars[np.argsort(bars["slot_us"], kind="stable")]
    return found


def _between(ascending: Bars, from_us: int, to_us: int) -> Bars:
    """The bars that begin at `from_us` or later and before `to_us`."""
    first, behind = np.searchsorted(ascending["slot_us"], (from_us, to_us))
    found: Bars = ascending[first:behind]
    return found


def _fill_pair(pair: Rows, bar: Bar | None, slot_us: int, boundary_us: int) -> None:
    """Write both records; without a bar they say: no trade before the boundary."""
    pair["kind"] = SEED_BAR, SEED_BAR_MORE
    pair["exchange_us"] = slot_us
    pair["ask_quantity"][1] = boundary_us
    if bar is not None:
        pair["price"] = bar.open, bar.volume
        pair["quantity"] = bar.high, bar.taker_volume
        pair["ask"] = bar.low, bar.trade_count
        pair["ask_quantity"][0] = bar.close


def history_bars(symbol: Symbol, resolution: str, klines: Bars, closed_before_ms: int) -> Bars:
    """Closed klines as EXCHANGE bars for `SeriesStore.put_history`; running and empty ones are left out."""
    index = resolution_index(resolution)
    closed = klines["slot_us"] + RESOLUTION_US[index] <= closed_before_ms * 1_000
    bars = _ascending(klines[closed & (klines["trade_count"] > 0)])
    bars["symbol_id"], bars["resolution"] = symbol.id, index
    return bars
