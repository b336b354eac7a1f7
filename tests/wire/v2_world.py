"""Random tape rows and a table for the v2 encoders, for tests."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from tradeback.feed.interest import ARENA_BYTES_FIRST, GroupTable, Interest
from tradeback.kernel.crc32 import TABLES_ADDRESS
from tradeback.model.record import AGG, GAP, LATE, QUOTE, REPAIRED, STAND_IN, TRADE, Rows, empty_rows
from tradeback.wire import v2_layout as at

EPOCH = 0x9F3C21AA
GRIDS: Mapping[int, tuple[int, int]] = {1: (2, 5), 2: (2, 4), 3: (8, 0), 500: (0, 8), 65_535: (5, 5)}
UNLEARNED = 7
"""A symbol whose grid the encoder does not know, so that all of its values travel as escapes."""
DECODED: Mapping[int, tuple[int, int]] = {**GRIDS, UNLEARNED: (3, 3)}
SYMBOLS = (*GRIDS, UNLEARNED)
RECV_NS = 1_723_161_254_087_896_568
CHANNELS = {TRADE: at.CHANNEL_TRADES, QUOTE: at.CHANNEL_QUOTES, GAP: at.CHANNEL_GAPS}


class Table(GroupTable):
    """What the kernel works on."""

    def __init__(
        self, keys: Iterable[Interest], *, sequence: int = 1, arena: int = ARENA_BYTES_FIRST
    ) -> None:
        super().__init__(at.SUBJECTS, at.CONTEXT_WORDS, at.GROUP_WORDS)
        self._states: NDArray[np.int64] = np.zeros((at.SYMBOL_IDS, at.STATE_WORDS), np.int64)
        self._powers: NDArray[np.float64] = np.array([10.0**digits for digits in range(at.DIGITS_MAX + 1)])
        for symbol_id, (price, quantity) in GRIDS.items():
            scales = self._states[symbol_id].view(np.float64)
            scales[at.STATE_PRICE_SCALE], scales[at.STATE_QUANTITY_SCALE] = 10.0**price, 10.0**quantity
        self.context[at.STATES] = self._states.ctypes.data
        self.context[at.POWERS] = self._powers.ctypes.data
        self.context[at.CRC_TABLES] = TABLES_ADDRESS
        self.context[at.EPOCH] = EPOCH
        self.context[at.SEQUENCE] = sequence
        self.grow_arena(arena)
        for key in keys:
            self.join(key)

    def grow_arena(self, size: int) -> None:
        """Arena and lists of rows."""
        super().grow_arena(size)
        self._nodes: NDArray[np.int64] = np.zeros(size // at.ENTRY_BYTES_MAX + 1, np.int64)
        self.context[at.NODES] = self._nodes.ctypes.data


def subject(kind: int, symbol_id: int) -> int:
    """What a key names: a channel of a symbol, or of all of them (0)."""
    return CHANNELS[kind] * at.SYMBOL_IDS + symbol_id


def wants(key: Interest, kind: int, symbol_id: int) -> bool:
    """Whether a group of this key gets a record."""
    return subject(kind, symbol_id) in key or subject(kind, 0) in key


EVERYTHING: Interest = frozenset(subject(kind, 0) for kind in CHANNELS)


@st.composite
def keys(draw: st.DrawFn) -> Interest:
    """A key: per channel nothing, some symbols, or all of them."""
    parts = [
        draw(st.one_of(st.just(frozenset({0})), st.frozensets(st.sampled_from(SYMBOLS)))) for _ in CHANNELS
    ]
    return frozenset(
        subject(kind, symbol_id) for kind, part in zip(CHANNELS, parts, strict=True) for symbol_id in part
    )


prices = st.one_of(
    st.integers(0, 1 << 53).map(float),
    st.floats(),
    st.sampled_from([0.0, -0.0, -1.5, 0.1 + 0.2, 1e-9, 1e22, 1e300, 2.0**52, 2.0**52 - 1, 2.0**53 + 2]),
)
ids = st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(0, 1 << 40))
times = st.one_of(st.just(0), st.integers(-(1 << 63), (1 << 63) - 1), st.integers(10**15, 2 * 10**15))


def market(random: np.random.Generator, count: int) -> Rows:
    """Rows as an exchange might send them: runs of trades, quotes around them, all values on the grids."""
    rows = empty_rows(count)
    level = dict.fromkeys(SYMBOLS, 6_100_000)
    number = dict.fromkeys(SYMBOLS, 3_735_683_259)
    time_us, maker, symbol_id = RECV_NS // 1000 - 5_000, 0, 1
    for row in rows:
        if random.random() < 0.4:
            symbol_id = int(random.choice(SYMBOLS))
        if random.random() < 0.3:
            time_us += int(random.choice([0, 1_000, 1_003, -7_000]))
            maker = int(random.integers(2))
        digits = DECODED[symbol_id]
        level[symbol_id] += int(random.integers(-2, 3)) if random.random() < 0.3 else 0
        row["symbol_id"], row["recv_ns"] = symbol_id, RECV_NS
        row["price"] = level[symbol_id] / 10 ** digits[0]
        row["quantity"] = int(random.integers(0, 10**6)) / 10 ** digits[1]
        row["kind"] = int(random.choice([TRADE, TRADE, TRADE, QUOTE, QUOTE, AGG]))
        if row["kind"] == TRADE:
            number[symbol_id] += 1 if random.random() < 0.9 else int(random.integers(-5, 50))
            row["id"], row["exchange_us"] = number[symbol_id], time_us
            row["flags"] = maker | (64 if random.random() < 0.5 else 0)
        else:
            row["ask"] = (level[symbol_id] + int(random.choice([1, 1, 1, 3, -1]))) / 10 ** digits[0]
            row["ask_quantity"] = int(random.integers(0, 10**6)) / 10 ** digits[1]
    return rows


@st.composite
def wild_rows(draw: st.DrawFn) -> Rows:
    """Rows with any values, gaps and stand-ins among them."""
    rows = empty_rows(draw(st.integers(0, 12)))
    for row in rows:
        row["kind"] = draw(st.sampled_from([TRADE, TRADE, QUOTE, GAP, AGG]))
        row["symbol_id"] = draw(st.sampled_from(SYMBOLS))
        row["flags"] = draw(st.sampled_from([0, 0, 1, REPAIRED | LATE, STAND_IN | LATE, 255]))
        row["id"], row["exchange_us"] = draw(ids), draw(times)
        row["recv_ns"] = draw(st.one_of(st.just(RECV_NS), times))
        for name in ("price", "quantity", "ask", "ask_quantity"):
            row[name] = draw(prices)
    return rows


@st.composite
def batches(draw: st.DrawFn) -> Rows:
    """A market with some wild rows strewn in."""
    rows = market(np.random.default_rng(draw(st.integers(0, 2**32 - 1))), draw(st.integers(0, 60)))
    wild = draw(wild_rows())
    places = draw(st.lists(st.integers(0, len(rows)), min_size=len(wild), max_size=len(wild)))
    mixed: Any = np.insert(rows, places, wild) if len(wild) else rows
    found: Rows = np.ascontiguousarray(mixed)
    return found
