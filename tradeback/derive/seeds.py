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

A kline is the exchange's array: [open time ms, open, high, low, close, volume, close time ms, quote
volume, trades, taker base volume, taker quote volume, "0"], prices and volumes as decimal strings. One
without trades repeats the last price, which is no trade of its time, so it counts nowhere.

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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final

from tradeback.derive.bars import Bar, to_rows
from tradeback.derive.layout import (
    ANNOUNCE,
    EXCHANGE,
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

Kline = Sequence[Any]
"""One element of the exchange's klines answer; see above."""

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


def levels_of(klines: Sequence[Kline]) -> tuple[float, float] | None:
    """Highest and lowest price over klines (monthly ones, as a rule); None when none of them traded."""
    traded = [kline for kline in klines if int(kline[8])]
    if not traded:
        return None
    return max(float(kline[2]) for kline in traded), min(float(kline[3]) for kline in traded)


def to_lots(volume: str, lot_digits: int) -> int:
    """A volume in whole lots, exact from the decimal string; what is finer than a lot rounds half even."""
    return int(Decimal(volume).scaleb(lot_digits).to_integral_value(ROUND_HALF_EVEN))


def compose(symbol: Symbol, klines: Sequence[Kline]) -> Bar | None:
    """One bar out of ascending klines that do not overlap; None when none of them traded."""
    traded = [kline for kline in klines if int(kline[8])]
    if not traded:
        return None
    count = sum(int(kline[8]) for kline in traded)
    return Bar(
        slot_us=0,
        open=float(traded[0][1]),
        close=float(traded[-1][4]),
        high=max(float(kline[2]) for kline in traded),
        low=min(float(kline[3]) for kline in traded),
        volume=sum(to_lots(str(kline[5]), symbol.lot_digits) for kline in traded),
        taker_volume=sum(to_lots(str(kline[9]), symbol.lot_digits) for kline in traded),
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


def bar_rows(
    symbol: Symbol, boundary_us: int, klines: Mapping[str, Sequence[Kline]], recv_ns: int = 0
) -> Rows:
    """The records that seed a symbol's open bars: two for every resolution that needs a seed.

    `klines` holds the answers for `seed_ranges(boundary_us)` by interval; klines outside those ranges
    (a running one) are left out. A resolution whose klines were not asked for gets no seed. One whose slot
    begins at the boundary needs none, so 1s never does. ValueError unless the boundary is a whole second.
    """
    if boundary_us <= 0 or boundary_us % _SECOND_US:
        raise ValueError(f"boundary {boundary_us} us is not a whole second")
    rows = empty_rows(2 * RESOLUTION_COUNT)
    count = 0
    for index, size in enumerate(RESOLUTION_US):
        slot = boundary_us - boundary_us % size
        needed = [piece for piece in _pieces(boundary_us) if max(piece[1], slot) < piece[2]]
        if not needed or any(interval not in klines for interval, _, _ in needed):
            continue
        inside = [
            kline
            for interval, start, end in needed
            for kline in sorted(klines[interval], key=_open_us)
            if max(start, slot) <= _open_us(kline) < end
        ]
        _fill_pair(rows[count : count + 2], compose(symbol, inside), slot, boundary_us)
        rows["id"][count : count + 2] = index
        count += 2
    rows["symbol_id"], rows["recv_ns"] = symbol.id, recv_ns
    rows["flags"] = LINE_REST << LINE_SHIFT | symbol.lot_digits
    return rows[:count]


def _open_us(kline: Kline) -> int:
    return int(kline[0]) * 1_000


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


def history_bars(symbol: Symbol, resolution: str, klines: Sequence[Kline], closed_before_ms: int) -> Bars:
    """Closed klines as EXCHANGE bars for `SeriesStore.put_history`; running and empty ones are left out."""
    index = resolution_index(resolution)
    size_ms = RESOLUTION_US[index] // 1_000
    bars = []
    for kline in sorted(klines, key=_open_us):
        if int(kline[0]) + size_ms > closed_before_ms:
            continue
        bar = compose(symbol, [kline])
        if bar is not None:
            bars.append(bar._replace(slot_us=_open_us(kline), resolution=index, flags=EXCHANGE))
    return to_rows(bars)
