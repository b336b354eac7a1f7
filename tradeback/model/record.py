"""The tape record: 64 bytes, little endian, the one shape in which market data lives here.

| field        | dtype | unit, meaning                                                              |
|--------------|-------|----------------------------------------------------------------------------|
| exchange_us  | i8    | us since 1970: the match time T of a trade; 0 where the exchange sends none |
| recv_ns      | i8    | ns since 1970: when the socket read that brought it returned               |
| id           | i8    | trade id t, aggregate id a, or order-book update id u                      |
| price        | f8    | trade price; best bid of a quote                                           |
| quantity     | f8    | base quantity; best bid quantity of a quote                                |
| ask          | f8    | best ask of a quote; aggTrade: first trade id; stand-in: first missing id  |
| ask_quantity | f8    | best ask quantity; aggTrade: last trade id; stand-in: trades it stands for |
| symbol_id    | u2    | the wire id                                                                |
| kind         | u1    | TRADE, QUOTE, AGG, ...                                                     |
| flags        | u1    | BUYER_MAKER ... in the low six bits, the line in the upper two             |
| checksum     | u4    | over all of the above, the sequence and the epoch                          |

A record's position on the tape is its sequence; it is not stored but mixed into the checksum, so a
stale or misplaced record does not pass for a good one. float64 is exact for decimals of up to 15
digits and for ids below 2^53.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

TICK: Final = np.dtype(
    [
        ("exchange_us", "<i8"),
        ("recv_ns", "<i8"),
        ("id", "<i8"),
        ("price", "<f8"),
        ("quantity", "<f8"),
        ("ask", "<f8"),
        ("ask_quantity", "<f8"),
        ("symbol_id", "<u2"),
        ("kind", "u1"),
        ("flags", "u1"),
        ("checksum", "<u4"),
    ]
)
ROW_BYTES: Final = TICK.itemsize

TRADE: Final = 1
QUOTE: Final = 2
AGG: Final = 3
"""aggTrade: certifies the trades of its id range; counts nowhere as volume."""
GAP: Final = 4
"""Reserved for the gap life cycle: id = first missing, ask = last missing, quantity = state."""
SEED_LEVELS: Final = 5
"""History known before the tape began: price = highest, quantity = lowest trade price (Enigma)."""
SEED_BAR: Final = 6
"""First half of an open bar taken from the exchange's klines; see derive.seeds."""
SEED_BAR_MORE: Final = 7
"""Second half of the same."""
UNWATCHED: Final = 8
"""Nobody asked for this symbol since its last record: ids that went by meanwhile are not missing."""

KIND_NAMES: Final = {
    TRADE: "trade",
    QUOTE: "quote",
    AGG: "aggTrade",
    GAP: "gap",
    SEED_LEVELS: "seed_levels",
    SEED_BAR: "seed_bar",
    SEED_BAR_MORE: "seed_bar_more",
    UNWATCHED: "unwatched",
}

BUYER_MAKER: Final = 1
"""The buyer was the maker, so the taker sold."""
REPAIRED: Final = 2
"""Came by REST after the fact, with its own exchange time."""
STAND_IN: Final = 4
"""Made from an aggTrade whose trades never came; ask_quantity says for how many it stands."""
LATE: Final = 8
"""Came after a trade with a higher id of the same symbol."""
LINE_SHIFT: Final = 6
LINE_MASK: Final = 3 << LINE_SHIFT
LINE_A, LINE_B, LINE_REST, LINE_LOCAL = 0, 1, 2, 3
"""Who brought the record: exchange line A or B, a REST page, or this engine itself."""

MIX_SEED: Final = 0x9E3779B97F4A7C15
MIX_MULTIPLIER: Final = 0xD6E8FEB86659FD93
MIX_SHIFT: Final = 32

Rows = NDArray[np.void]
"""A structured array of dtype TICK."""


def empty_rows(count: int) -> Rows:
    """`count` zeroed records."""
    return np.zeros(count, TICK)


def checksums(rows: Rows, first_sequence: int, epoch: int) -> NDArray[np.uint32]:
    """The checksum each record should carry, `rows[0]` standing at `first_sequence` of `epoch`."""
    words = np.ascontiguousarray(rows).view("<u8").reshape(-1, ROW_BYTES // 8)
    sequences = np.arange(first_sequence, first_sequence + len(words), dtype=np.uint64)
    multiplier = np.uint64(MIX_MULTIPLIER)
    mixed = (sequences ^ np.uint64(epoch << 32)) * np.uint64(MIX_SEED)
    for column in range(7):
        mixed = (mixed ^ words[:, column]) * multiplier
        mixed ^= mixed >> np.uint64(MIX_SHIFT)
    mixed = (mixed ^ (words[:, 7] & np.uint64(0xFFFFFFFF))) * multiplier
    return (mixed >> np.uint64(32)).astype(np.uint32)


def seal(rows: Rows, first_sequence: int, epoch: int) -> None:
    """Write every record's checksum in place."""
    rows["checksum"] = checksums(rows, first_sequence, epoch)


def count_intact(rows: Rows, first_sequence: int, epoch: int) -> int:
    """How many records from the start are intact, up to the first bad one."""
    bad = np.flatnonzero(rows["checksum"] != checksums(rows, first_sequence, epoch))
    return int(bad[0]) if len(bad) else len(rows)
