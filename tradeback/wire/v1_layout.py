"""Memory shared by the encode kernel and whoever fills its tables: word offsets, no numba.

The context is an int64 array; word k holds an address, a size, or a result. The interest table is an
adjacency list: `heads[symbol_id]` = (start, count), two int32, points into `pool`, an int32 array of
group indexes. Symbol id 0 is no symbol: its list holds the groups that want every symbol.
"""

from typing import Final

HEADS: Final = 0
"""Address of int32[65536][2]: start and count of each symbol's list."""
POOL: Final = 1
"""Address of int32[...]: the lists."""
GROUPS: Final = 2
"""Address of int64[groups][GROUP_WORDS]: the kernel's scratch; all zero between calls."""
TOUCHED: Final = 3
"""Address of int64[groups][TOUCHED_WORDS]: result, one line per group with new entries."""
OUT: Final = 4
"""Address of the arena for encoded bytes."""
OUT_BYTES: Final = 5
"""Its size."""
CRC_TABLES: Final = 6
"""kernel.crc32.TABLES_ADDRESS."""
LAST_PRICE: Final = 7
"""Address of float64[65536]: last trade price by symbol id, 0.0 while there is none."""
TRADES_SEEN: Final = 8
"""Address of int64[65536]: trades by symbol id since the start."""
TOUCHED_COUNT: Final = 9
"""Result: lines in TOUCHED."""
TRADES: Final = 10
"""Result: trade rows among those consumed."""
RECV_NS: Final = 11
"""Result: recv_ns of the first of them."""
ENTRIES: Final = 12
"""Result: entries written, all groups together."""
FRAMES: Final = 13
"""Result: frames written, all groups together."""
CONTEXT_WORDS: Final = 14

GROUP_LEFT: Final = 0
"""Entries of this call that are not yet assigned to a frame."""
GROUP_CURSOR: Final = 1
"""Address where the next byte goes."""
GROUP_IN_FRAME: Final = 2
"""Entries that the current frame still lacks."""
GROUP_BODY: Final = 3
"""Address of the current frame's body (its CRC)."""
GROUP_WORDS: Final = 4

TOUCHED_GROUP: Final = 0
TOUCHED_OFFSET: Final = 1
"""Where the group's bytes begin in the arena."""
TOUCHED_BYTES: Final = 2
TOUCHED_FRAMES: Final = 3
TOUCHED_WORDS: Final = 4

FRAME_OVERHEAD_MAX: Final = 10
"""WebSocket header (2 or 4), CRC and count of one frame."""

# Conflation: scratch of `conflate`, int64 words.
WANTED: Final = 0
"""Address of uint8[65536]: 1 for the symbols asked for; wanted[0] = 1 asks for all."""
SCALES: Final = 1
"""Address of float64[65536]: lots per unit of quantity (10^lot digits); 0.0 counts as 10^8."""
LOTS: Final = 2
"""Address of int64[65536]: sum in lots."""
EXTRAS: Final = 3
"""Address of float64[65536]: sum of quantities off the grid of lots."""
PRICES: Final = 4
"""Address of float64[65536]: last price; 0.0 while the symbol is untouched."""
ORDER: Final = 5
"""Address of int64[65536]: touched symbol ids in the order of their first trade."""
CONFLATE_WORDS: Final = 6
