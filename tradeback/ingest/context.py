"""The memory that the ingest kernels share: one int64 array of named words, and per-symbol state.

Kernels get the array's address. Words before COUNTERS are addresses and settings that Python writes;
the rest is written by the kernels and read by Python (metrics, tests).
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from tradeback.ingest.names import NameTable
from tradeback.model.limits import SEEN_WINDOW_IDS
from tradeback.model.record import AGG, QUOTE, TRADE

# Settings.
NAME_SLOTS: Final = 0
NAME_MASK: Final = 1
POWERS: Final = 2
STATES: Final = 3
TRADE_WINDOWS: Final = 4
AGG_WINDOWS: Final = 5
LAG_BOUNDS: Final = 6
LAG_COUNTS: Final = 7
LAG_SUMS: Final = 8
LAG_BUCKETS: Final = 9
ALL_TO_SIDE: Final = 10
"""1: every text frame goes to the side, to be decoded in Python (the switchable fallback)."""
SCRATCH: Final = 11
"""Address of a scratch area of SCRATCH_BYTES for values that are not part of a record."""
STREAMS: Final = 12
"""Address of the blocks of STREAM_BYTES, three per symbol; see `ingest.lines`."""
LINE_LAGS: Final = 13
"""Address of the histograms of LAG_SLOT_BYTES, by line and kind."""

# Results of one call.
POSITION: Final = 16
"""Address of the first byte that was not consumed."""
SIDE_OPCODE: Final = 17
"""First byte of the frame that stopped the call (FIN bit and opcode) and SIDE_FOUND, or 0."""
SIDE_FOUND: Final = 0x100
"""Above the first byte, because that of a middle fragment is 0."""
SIDE_ADDRESS: Final = 18
SIDE_LENGTH: Final = 19
SIDE_STATUS: Final = 20
PROTOCOL_ERROR: Final = 21
"""A WebSocket close code when the stream is broken: 1002 or 1009."""
NEEDED_BYTES: Final = 22
"""Whole length of a frame that has not arrived entirely; 0 when unknown."""

# Counters, by kind (word + kind).
COUNTERS: Final = 32
MESSAGES: Final = 32
DUPLICATES: Final = 40
STALE: Final = 48
"""Older than the window in which single ids are known: dropped, for it may have been seen."""
ACCEPTED: Final = 56
LATE_FILLS: Final = 64
SKIPPED_IDS: Final = 72
"""Ids that were jumped over when a higher one came; late fills are not taken off again."""
LINE_LOSSES: Final = 80
"""Counters by line and kind (word + 4 * line + kind): dropped because the other line, or nobody remembers
who, had brought the id."""
LINE_REPEATS: Final = 88
"""Dropped because this line had brought the id itself: two of its connections overlap."""
LINE_FILLS: Final = 96
"""Accepted, with an id that had been jumped over: what the other line lost."""
WORDS: Final = 104

KINDS: Final = (TRADE, QUOTE, AGG)
LINES_MAX: Final = 2

STATE_BYTES: Final = 64
"""Per symbol: the words below, eight bytes each."""
LAST_TRADE, LAST_AGG, LAST_QUOTE, MISSING_TRADES, AGG_TILED_TO, MISSING_AGGS = 0, 8, 16, 24, 32, 40
"""Highest id of each kind, ids missing between the lowest and it, last trade id of the newest aggregate."""
FROM_TRADE, FROM_AGG = 48, 56
"""Lowest id + 1, where the tape's claim to completeness begins; 0: none yet. A new listing begins with
id 0, so the highest id alone cannot tell."""

AGG_WINDOW_IDS: Final = 1_024
TRADE_WINDOW_BYTES: Final = SEEN_WINDOW_IDS // 8
AGG_WINDOW_BYTES: Final = AGG_WINDOW_IDS // 8
SCRATCH_BYTES: Final = 256

RING_IDS: Final = 64
SEEN_LINE_BYTES: Final = 16
"""Last id of a line in this stream, and the number of its messages."""
RING_FINE: Final = 64
RING_COARSE: Final = RING_FINE + 8 * RING_IDS
STREAM_BYTES: Final = RING_COARSE + 8 * RING_IDS

LAG_FINITE: Final = 45
LAG_BOUNDS_US: Final = (1, *(step << octave for octave in range(22) for step in (2, 3)))
"""Upper bounds of a line's lag behind the other: two per octave, 1 us to 6.3 s."""
LAG_SLOT_BYTES: Final = 8 * (LAG_FINITE + 3)
"""Counts of the finite buckets, of what is beyond, sum of values, number of negative ones."""


class IngestContext:
    """Owns the arrays behind the context; grows them when symbols are added.

    `address` is what kernels take. `lag_counts` and `lag_sums` are the arrays of an
    `ops.metrics.Histogram` for exchange -> receive, bounds in us.
    """

    def __init__(
        self,
        lag_bounds_us: NDArray[np.int64],
        lag_counts: NDArray[np.int64],
        lag_sums: NDArray[np.int64],
    ) -> None:
        self.words: NDArray[np.int64] = np.zeros(WORDS, np.int64)
        self.view = self.words.data
        self.address = int(self.words.ctypes.data)
        self.names = NameTable()
        self._symbols_end = 1
        self._powers = np.array([float(10**k) for k in range(23)])
        self._scratch = np.zeros(SCRATCH_BYTES, np.uint8)
        self._lag = (lag_bounds_us, lag_counts, lag_sums)
        self.states: NDArray[np.int64] = np.zeros((0, STATE_BYTES // 8), np.int64)
        self.trade_windows: NDArray[np.uint64] = np.zeros((0, TRADE_WINDOW_BYTES // 8), np.uint64)
        self.agg_windows: NDArray[np.uint64] = np.zeros((0, AGG_WINDOW_BYTES // 8), np.uint64)
        self.streams: NDArray[np.int64] = np.zeros((0, 3, STREAM_BYTES // 8), np.int64)
        """Per symbol and kind - 1: (last id, messages) of line A, then of B, then what kernels need."""
        self._line_lags: NDArray[np.int64] = np.zeros((LINES_MAX, 4, LAG_SLOT_BYTES // 8), np.int64)
        self.words[LINE_LAGS] = self._line_lags.ctypes.data
        self.words[POWERS] = self._powers.ctypes.data
        self.words[SCRATCH] = self._scratch.ctypes.data
        self.words[LAG_BOUNDS] = lag_bounds_us.ctypes.data
        self.words[LAG_COUNTS] = lag_counts.ctypes.data
        self.words[LAG_SUMS] = lag_sums.ctypes.data
        self.words[LAG_BUCKETS] = len(lag_bounds_us)
        self._grow(1_024)

    def add_symbol(self, name: str, symbol_id: int) -> None:
        """Make a symbol known: its frames are decoded from now on. Adding it again changes nothing."""
        if symbol_id >= len(self.states):
            self._grow(max(2 * len(self.states), symbol_id + 1))
        self._symbols_end = max(self._symbols_end, symbol_id + 1)
        self.names.add(name, symbol_id)
        self._publish()

    def begin_anew(self, symbol_id: int) -> None:
        """The next trade and aggregate are the first ones: ids before them are neither missing nor jumped
        over. Highest ids stay, so that an old quote is still one."""
        if symbol_id < len(self.states):
            for word in (FROM_TRADE, FROM_AGG, MISSING_TRADES, MISSING_AGGS, AGG_TILED_TO):
                self.states[symbol_id, word // 8] = 0

    def counter(self, word: int, kind: int) -> int:
        """One of the counters, such as DUPLICATES, for one kind."""
        return int(self.words[word + kind])

    def last_id(self, symbol_id: int, kind: int) -> int:
        """Highest id seen of this symbol and kind; 0 also when none."""
        column = {TRADE: LAST_TRADE, AGG: LAST_AGG, QUOTE: LAST_QUOTE}[kind]
        return int(self.states[symbol_id, column // 8])

    def line_counter(self, word: int, line: int, kind: int) -> int:
        """One of the counters by line, such as LINE_LOSSES."""
        return int(self.words[word + 4 * line + kind])

    def line_wins(self, line: int, kind: int) -> int:
        """Messages of this line that were accepted: those that neither lost nor were repeated."""
        brought = int(self.streams[: self._symbols_end, kind - 1, 2 * line + 1].sum())
        return (
            brought - self.line_counter(LINE_LOSSES, line, kind) - self.line_counter(LINE_REPEATS, line, kind)
        )

    def line_lag(self, line: int, kind: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Views (counts, sums) of a line's lag behind the other, as an `ops.metrics.Histogram` with
        LAG_BOUNDS_US keeps them."""
        slot = self._line_lags[line, kind]
        return slot[: LAG_FINITE + 1], slot[LAG_FINITE + 1 :]

    def missing_trades(self, symbol_id: int) -> int:
        """Trade ids between the lowest and the highest that have not been seen."""
        return int(self.states[symbol_id, MISSING_TRADES // 8])

    def _grow(self, capacity: int) -> None:
        def larger(old: NDArray[np.generic]) -> NDArray[np.generic]:
            new = np.zeros((capacity, *old.shape[1:]), old.dtype)
            new[: len(old)] = old
            return new

        self.states = larger(self.states)  # type: ignore[assignment]
        self.trade_windows = larger(self.trade_windows)  # type: ignore[assignment]
        self.agg_windows = larger(self.agg_windows)  # type: ignore[assignment]
        self.streams = larger(self.streams)  # type: ignore[assignment]
        self._publish()

    def _publish(self) -> None:
        self.words[NAME_SLOTS] = self.names.address
        self.words[NAME_MASK] = self.names.mask
        self.words[STATES] = self.states.ctypes.data
        self.words[TRADE_WINDOWS] = self.trade_windows.ctypes.data
        self.words[AGG_WINDOWS] = self.agg_windows.ctypes.data
        self.words[STREAMS] = self.streams.ctypes.data
