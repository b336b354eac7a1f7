"""Wire v2 in numbers: header, tags, flags, bounds; and the memory of the encode kernel.

docs/wire.md is the specification. No numba here: the decoders of a client import it too.
"""

from typing import Final

from tradeback.wire import v1_layout as shared

VERSION: Final = 2

# Header: fixed part, then three varints (sequence, count, delay).
HEADER_FIXED_BYTES: Final = 18
"""u32 crc32, u8 version, u8 flags, u32 epoch, u64 recv_us."""
HEADER_BYTES_MAX: Final = 48
"""WebSocket header (4), fixed part, and three varints of at most 10, 3 (it counts entries) and 10 bytes."""
FRAME_BYTES_MAX: Final = 16_384
"""Longest frame, without its WebSocket header."""
ENTRY_BYTES_MAX: Final = 64
"""Longest entry that an encoder writes, or item of a run."""
FRAME_ENTRIES_SAFE: Final = (FRAME_BYTES_MAX - HEADER_BYTES_MAX) // ENTRY_BYTES_MAX
"""So many entries fit a frame, whatever they are."""

# Flags of a frame.
FRAME_SNAPSHOT: Final = 1
"""The state at `sequence`: nothing in it happened now."""
FRAME_REPLAY: Final = 2
"""Made from the tape for one client (resume, catching up): its delay says nothing about the engine."""

# Tags. Bit 1 makes a long entry: the tag is its kind, a varint says its length.
TAG_TRADE: Final = 0
TAG_QUOTE: Final = 1
TAG_LONG: Final = 2
TAG_KIND: Final = 3
"""The bits that tell trade, quote and long entry (2 or 3) apart."""
TAG_GAP: Final = 0x02
TAG_ENIGMA: Final = 0x06
SAME_SYMBOL: Final = 4
TRADE_MAKER: Final = 8
TRADE_CONTINUES: Final = 16
TRADE_EXTRA: Final = 32
TRADE_RESERVED: Final = 192
QUOTE_BID: Final = 8
QUOTE_BID_QUANTITY: Final = 16
QUOTE_ASK: Final = 32
QUOTE_ASK_QUANTITY: Final = 64
QUOTE_VALUES: Final = 120
QUOTE_EXTRA: Final = 128

# Flags of an entry; 1 to 8 are the tape's own.
BUYER_MAKER: Final = 1
REPAIRED: Final = 2
STAND_IN: Final = 4
LATE: Final = 8
SNAPSHOT: Final = 16
CONFLATED: Final = 32
OFF_GRID: Final = 64
LAST: Final = 128
"""Never sent: the decoder sees that no further trade of the same exchange event follows in the frame."""
TRADE_EXTRAS: Final = REPAIRED | STAND_IN | LATE | SNAPSHOT | OFF_GRID
QUOTE_EXTRAS: Final = REPAIRED | LATE | SNAPSHOT | CONFLATED | OFF_GRID

# Numbers.
UNITS_LIMIT: Final = 1 << 52
"""Values on the grid are below it, so that JavaScript's numbers hold even their zigzag differences."""
EXACT_LIMIT: Final = 1 << 53
"""Integers of escapes, times in us and what a float64 counts exactly are below it."""
DIGITS_MAX: Final = 22
"""10^22 is the greatest power of ten that a float64 holds exactly."""
DIGITS_BITS: Final = 255
"""In place of an escape's digits: the bits of a float64 follow."""

# Channels of an interest. A list of groups belongs to a subject: channel * 65,536 + symbol id.
CHANNEL_TRADES: Final = 0
CHANNEL_QUOTES: Final = 1
CHANNEL_GAPS: Final = 2
CHANNELS: Final = 3
SYMBOL_IDS: Final = 65_536
SUBJECTS: Final = CHANNELS * SYMBOL_IDS

# The kernel's context: int64 words. The first fourteen mean what they mean in v1_layout, but that HEADS has
# SUBJECTS lines, LAST_PRICE and TRADES_SEEN are not used, and TRADES and RECV_NS are not written.
HEADS: Final = shared.HEADS
POOL: Final = shared.POOL
GROUPS: Final = shared.GROUPS
TOUCHED: Final = shared.TOUCHED
OUT: Final = shared.OUT
OUT_BYTES: Final = shared.OUT_BYTES
CRC_TABLES: Final = shared.CRC_TABLES
TOUCHED_COUNT: Final = shared.TOUCHED_COUNT
ENTRIES: Final = shared.ENTRIES
"""Result: events written, all groups together."""
FRAMES: Final = shared.FRAMES
STATES: Final = shared.CONTEXT_WORDS
"""Address of int64[65536][STATE_WORDS]: grids, and what the frame at hand said last of each symbol. Several
contexts may share it, as long as one encodes at a time: the number of the frame at hand is in it too."""
NODES: Final = STATES + 1
"""Address of int64[OUT_BYTES / ENTRY_BYTES_MAX]: lists of rows, one per group; scratch."""
POWERS: Final = STATES + 2
"""Address of float64[DIGITS_MAX + 1]: powers of ten."""
EPOCH: Final = STATES + 3
SEQUENCE: Final = STATES + 4
"""Sequence of the first row of the next call; every call adds what it consumed."""
PUBLISH_NS: Final = STATES + 5
"""The caller's clock (ns since 1970) when it calls, for the publish delay; 0: no delay is told."""
FRAME_FLAGS: Final = STATES + 6
"""Flags of every frame: 0 for live ones."""
ENTRY_FLAGS: Final = STATES + 7
"""SNAPSHOT or 0: a flag that all trades, quotes and gaps get."""
CONFLATE: Final = STATES + 8
"""1: only the last quote of each symbol is kept, with the number of those left out; all rows or none."""
LAST_SYMBOL: Final = STATES + 9
"""Scratch: symbol of the trade or quote before; -1 at a frame's start."""
LAST_TIME: Final = STATES + 10
"""Scratch: us from which the next trade's time is counted."""
OPEN_RUN: Final = STATES + 11
"""Scratch: address of the byte that says whether the run goes on; 0 when the entry before is no run."""
RECV_US: Final = STATES + 12
"""Scratch: recv_us of the frames of this call."""
DELAY_US: Final = STATES + 13
"""Scratch: publish delay of the frames of this call."""
CONTEXT_WORDS: Final = STATES + 14

GROUP_COUNT: Final = 0
"""Rows in the group's list."""
GROUP_FIRST: Final = 1
"""Node of the first."""
GROUP_LAST: Final = 2
GROUP_WORDS: Final = 3

TOUCHED_GROUP: Final = shared.TOUCHED_GROUP
TOUCHED_OFFSET: Final = shared.TOUCHED_OFFSET
TOUCHED_BYTES: Final = shared.TOUCHED_BYTES
TOUCHED_FRAMES: Final = shared.TOUCHED_FRAMES
TOUCHED_WORDS: Final = shared.TOUCHED_WORDS

# One symbol's state.
STATE_SERIAL: Final = 0
"""Number of the frame that the values belong to; in the line of symbol 0, which is none, the latest one."""
STATE_PRICE_SCALE: Final = 1
"""float64: price units per 1 (10^price digits); 0.0 while the symbol has no grid."""
STATE_QUANTITY_SCALE: Final = 2
STATE_QUOTES_LEFT: Final = 3
"""Conflation: quotes of the symbol that the call has not come to yet."""
STATE_SKIPPED: Final = 4
"""Conflation: quotes that the kept one stands for, besides itself."""
STATE_BID: Final = 5
STATE_BID_QUANTITY: Final = 6
STATE_ASK: Final = 7
STATE_ASK_QUANTITY: Final = 8
STATE_ID: Final = 9
STATE_TIME: Final = 10
"""us; -1 while the frame has no trade of the symbol."""
STATE_FLAGS: Final = 11
STATE_WORDS: Final = 12

assert HEADER_BYTES_MAX + ENTRY_BYTES_MAX * FRAME_ENTRIES_SAFE <= FRAME_BYTES_MAX
