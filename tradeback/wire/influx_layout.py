"""Where the kernel that writes trades as InfluxDB's line protocol finds its state. Words are int64."""

from typing import Final

QUOTE_BACK_ROWS: Final = 65_536
"""A trade's bid and ask are those of the newest quote at most so many records before it on the tape."""
SLOTS: Final = 1_000
"""Trades that one microsecond holds: a time in ns is the microsecond and the last three digits of the id."""

SYMBOL_IDS: Final = 65_536
BID, ASK, QUOTE_SEQUENCE, RUN_US, RUN_FIRST, RUN_SET, HEAD, HEAD_BYTES, STATE_WORDS = range(9)
"""Per symbol: its newest quote (float64) with its sequence (0: none); the microsecond of its last trade and
the first id seen in it; address and size of the text before its price (0: it has no name)."""

STATES, PAIRS, OUT, WRITTEN, ENDS, TEXTS, TEXTS_ROW, CONTEXT_WORDS = range(8)
"""Of the context: addresses of the states, of the digits 00 to 99, of the bytes to fill; how many are filled;
addresses of the lines' ends (one more than records), and of numbers as Python wrote them; of which record
those are (-1: of none)."""

PRICE_TEXT, BID_TEXT, ASK_TEXT, QUANTITY_TEXT, TEXT_COUNT = range(5)
TEXT_WORDS: Final = 5
"""A text is its size and up to 32 characters."""

LINE_BYTES_MAX: Final = 320
"""Of a line without its head: four numbers, three whole ones, the names of the fields, and what 8-byte stores
may write too far."""
