"""Shapes of the derived state: dtypes, byte offsets for kernels, resolutions, flags. No numba here.

A bar is a commutative merge of trades: whatever the order in which its trades, its seed and its late
repairs arrive, the same bits come out. So volumes are integer lots (10^-lot_digits of the base currency),
and open and close go by trade id, not by arrival.

| BAR field    | dtype | unit, meaning                                                                 |
|--------------|-------|-------------------------------------------------------------------------------|
| slot_us      | i8    | start of the slot, us since 1970 UTC; EMPTY_SLOT in kernel state when unused  |
| open         | f8    | price of the lowest trade id; of the seed where there is one                  |
| close        | f8    | price of the highest trade id; of the seed while no trade has come            |
| high, low    | f8    | highest, lowest price                                                         |
| volume       | i8    | lots traded                                                                   |
| taker_volume | i8    | lots in which the taker bought                                                |
| trade_count  | i8    | trades in the bar, those of the seed included                                 |
| first_id     | i8    | lowest trade id seen on the tape; NO_FIRST_ID when none                       |
| last_id      | i8    | highest trade id seen on the tape; NO_ID when none                            |
| seed_count   | i8    | trades of the seed; trade_count - seed_count came from the tape               |
| boundary_us  | i8    | SEEDED: the seed covers what is before; LATE: second of the trades; else 0     |
| symbol_id    | u2    | the wire id                                                                   |
| resolution   | u1    | index into RESOLUTIONS                                                        |
| flags        | u1    | PARTIAL ...                                                                   |
| lot_digits   | u1    | decimal digits of a lot                                                       |
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

RESOLUTIONS: Final = ("1s", "1m", "5m", "15m", "1h", "4h", "1d")
RESOLUTION_S: Final = (1, 60, 300, 900, 3_600, 14_400, 86_400)
RESOLUTION_US: Final = tuple(seconds * 1_000_000 for seconds in RESOLUTION_S)
RESOLUTION_COUNT: Final = len(RESOLUTIONS)

PARTIAL: Final = 1
"""The tape knew no trade before this slot when the bar was written: its start may be missing."""
SEEDED: Final = 2
"""What lies before boundary_us comes from the exchange's klines."""
ANCHORED: Final = 4
"""SEEDED, and the tape holds the trade just before the first one counted: no trade fell between them."""
EXCHANGE: Final = 8
"""The whole bar is the exchange's own closed kline."""
STANDS_IN: Final = 16
"""Holds a stand-in, whose trades share one price."""
LATE: Final = 32
"""Trades of one second that came after their bar had left memory; to be merged. Never on a stored bar."""

I64_MAX: Final = (1 << 63) - 1
EMPTY_SLOT: Final = -(1 << 62)
NO_FIRST_ID: Final = I64_MAX
NO_ID: Final = -1

BAR: Final = np.dtype(
    [
        ("slot_us", "<i8"),
        ("open", "<f8"),
        ("close", "<f8"),
        ("high", "<f8"),
        ("low", "<f8"),
        ("volume", "<i8"),
        ("taker_volume", "<i8"),
        ("trade_count", "<i8"),
        ("first_id", "<i8"),
        ("last_id", "<i8"),
        ("seed_count", "<i8"),
        ("boundary_us", "<i8"),
        ("symbol_id", "<u2"),
        ("resolution", "u1"),
        ("flags", "u1"),
        ("lot_digits", "u1"),
        ("unused", "u1", 3),
    ]
)
BAR_BYTES: Final = BAR.itemsize

STATE: Final = np.dtype(
    [
        ("price", "<f8"),  # of the trade with the highest id
        ("quantity", "<f8"),
        ("trade_id", "<i8"),  # NO_ID before the first trade
        ("exchange_us", "<i8"),
        ("recv_ns", "<i8"),
        ("bid", "<f8"),  # of the newest quote on the tape
        ("bid_quantity", "<f8"),
        ("ask", "<f8"),
        ("ask_quantity", "<f8"),
        ("quote_recv_ns", "<i8"),  # 0 before the first quote
        ("ath", "<f8"),  # -inf until known
        ("atl", "<f8"),  # +inf until known
        ("scale", "<f8"),  # lots per base unit
        ("newest_us", "<i8"),  # highest exchange time of a counted trade
        ("since_us", "<i8"),  # lowest exchange time of a counted trade
        ("boundary_us", "<i8"),  # seeds cover what is before; 0 = none announced
        ("anchor_id", "<i8"),  # highest trade id before the boundary
        ("second_us", "<i8"),  # second for which all current bars are the right ones
        ("off_grid", "<i8"),  # trades whose quantity is no whole number of lots
        ("symbol_id", "<u2"),
        ("lot_digits", "u1"),
        ("dirty", "u1"),
        ("unused", "u1", 4),
    ]
)
"""What is known of a symbol: latest prices, levels, boundary. Internal; readers get LATEST or Enigma."""
STATE_BYTES: Final = STATE.itemsize

DIRTY_STATE: Final = 1
DIRTY_CURRENT: Final = 2
DIRTY_OTHER: Final = 4
"""A previous bar or a seed part has changed."""

CURRENT, PREVIOUS, BEFORE, HALF = range(4)
"""Parts of an open bar, as stored for a restart.

CURRENT: trades at or after the boundary. PREVIOUS: the bar before it, whole or since the boundary.
BEFORE: what the slot of the boundary holds before it: the seed, or until it comes the trades. HALF: a
SEED_BAR whose second record is still to come (one for the whole state).
"""

PART: Final = np.dtype([("bar", BAR), ("part", "u1")])
"""One stored part of an open bar; `part` is CURRENT, PREVIOUS, BEFORE or HALF."""

ANNOUNCE: Final = -1
"""The id of a SEED_BAR record that announces a boundary (exchange_us) instead of carrying a bar."""

Bars = NDArray[np.void]
"""A structured array of dtype BAR."""
States = NDArray[np.void]
"""A structured array of dtype STATE."""
Parts = NDArray[np.void]
"""A structured array of dtype PART."""


@dataclass(slots=True)
class Drained:
    """What has changed since the drain before. All arrays are copies.

    `closed` (BAR): bars that left memory, in the order they did, and late trades; each is to be merged
    into what is stored under its key. `parts` (PART): open bars as they are now, each replacing what is
    stored under its key; a HALF that is not among them is gone. `states` (STATE): symbols whose levels or
    latest prices changed. `lost`: closed bars were dropped because nobody drained; the store must be
    brought up to date from the tape.
    """

    closed: Bars
    parts: Parts
    states: States
    lost: bool = False


def offsets(dtype: np.dtype[np.void], *names: str) -> tuple[int, ...]:
    """Byte offsets of the named fields of a structured dtype."""
    fields = dtype.fields
    assert fields is not None
    return tuple(fields[name][1] for name in names)


def empty_bars(count: int) -> Bars:
    """`count` bars without a trade, neutral under merging."""
    bars = np.zeros(count, BAR)
    clear_bars(bars)
    return bars


def clear_bars(bars: Bars) -> None:
    """Make every bar of a view of dtype BAR the empty one; whose bar it is (symbol, resolution) stays."""
    bars["slot_us"] = EMPTY_SLOT
    bars["high"], bars["low"] = -np.inf, np.inf
    bars["first_id"], bars["last_id"] = NO_FIRST_ID, NO_ID
    for name in (
        "open",
        "close",
        "volume",
        "taker_volume",
        "trade_count",
        "seed_count",
        "boundary_us",
        "flags",
    ):
        bars[name] = 0


def empty_states(count: int) -> States:
    """`count` symbols of which nothing is known."""
    states = np.zeros(count, STATE)
    states["trade_id"] = states["anchor_id"] = NO_ID
    states["ath"], states["atl"] = -np.inf, np.inf
    states["newest_us"] = EMPTY_SLOT
    states["since_us"] = I64_MAX
    states["second_us"] = EMPTY_SLOT
    return states


def resolution_index(name: str) -> int:
    """The index of a resolution's name; KeyError for a name that is none."""
    try:
        return RESOLUTIONS.index(name)
    except ValueError:
        raise KeyError(name) from None
