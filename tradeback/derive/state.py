"""The derived state of all symbols and the calls that feed and read it. A pure function of tape records.

Everything here runs on one thread (the loop's). Memory for 500 symbols: 0.1 MB of latest prices and
levels, 1.2 MB of bars, 1.7 MB of output ring, 0.1 MB of look-up table.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tradeback.derive import context, row_kernel
from tradeback.derive.enigma import Enigma, enigma_rows, fib_of, level_of
from tradeback.derive.layout import (
    BAR,
    BEFORE,
    CURRENT,
    DIRTY_CURRENT,
    DIRTY_OTHER,
    DIRTY_STATE,
    EMPTY_SLOT,
    HALF,
    PART,
    PREVIOUS,
    RESOLUTION_COUNT,
    RESOLUTION_US,
    STATE,
    Bars,
    Drained,
    Parts,
    States,
    empty_bars,
    empty_states,
)
from tradeback.kernel.jit import entry
from tradeback.model.record import ROW_BYTES
from tradeback.model.symbols import SYMBOL_IDS_MAX, Symbol

RING_BARS: Final = 16_384
"""Closed bars kept between two drains before they are copied aside; a second of 500 symbols needs 500."""
PENDING_BARS_MAX: Final = 1 << 18
"""Closed bars kept at all (27 MB). Beyond that they are dropped, and `Drained.lost` says so."""

_apply_rows = entry(row_kernel.apply_rows)
_read_open = entry(row_kernel.read_open)

_COUNTERS: Final = {
    "trades": context.TRADE_COUNT,
    "unknown_symbol": context.UNKNOWN,
    "rejected": context.REJECTED,
    "late": context.LATE_COUNT,
    "seeds": context.SEED_COUNT,
    "seeds_refused": context.SEED_REFUSED,
}


@dataclass(slots=True)
class _Ring:
    bars: Bars
    aside: list[Bars] = field(default_factory=list)
    aside_count: int = 0
    lost: bool = False


class Derived:
    """Bars, Enigma levels and latest prices of up to `symbols_max` symbols; grows when more are added."""

    def __init__(self, symbols_max: int = 512) -> None:
        self._count = 0
        self._index = np.zeros(SYMBOL_IDS_MAX + 1, np.uint16)
        self._ring = _Ring(empty_bars(RING_BARS))
        self._half = empty_bars(1)
        self._context = np.zeros(context.CONTEXT_WORDS, np.int64)
        self.context_address = int(self._context.ctypes.data)
        self._context[context.SIZES // 8 :] = RESOLUTION_US
        self._two = empty_bars(2)
        self._allocate(max(1, symbols_max) + 1)

    def _allocate(self, places: int) -> None:
        """Arrays for `places` symbols; place 0 is never used, so that 0 can mean "unknown"."""
        self._states = empty_states(places)
        self._currents = empty_bars(places * RESOLUTION_COUNT).reshape(places, RESOLUTION_COUNT)
        self._others = empty_bars(places * RESOLUTION_COUNT * 2).reshape(places, RESOLUTION_COUNT, 2)
        self._point()

    def _point(self) -> None:
        def put(word: int, array: NDArray[np.generic]) -> None:
            self._context[word // 8] = array.ctypes.data

        put(context.INDEX, self._index)
        put(context.STATES, self._states)
        put(context.CURRENTS, self._currents)
        put(context.OTHERS, self._others)
        put(context.RING, self._ring.bars)
        put(context.HALF_BAR, self._half)
        self._context[context.RING_MAX // 8] = len(self._ring.bars)

    def add_symbol(self, symbol: Symbol) -> None:
        """Begin to follow a symbol; add it before its first record, or that goes by unseen.

        One that is followed already stays as it is, but for a finer lot grid: its open bars are moved to
        that, exactly. A coarser one changes nothing.
        """
        at = int(self._index[symbol.id])
        if not at:
            self._add(symbol.id, symbol.lot_digits)
        elif symbol.lot_digits > self._states["lot_digits"][at]:
            self._refine(at, symbol.lot_digits)

    def _refine(self, at: int, digits: int) -> None:
        factor = 10 ** (digits - int(self._states["lot_digits"][at]))
        for bars in (self._currents[at], self._others[at]):
            bars["volume"] *= factor
            bars["taker_volume"] *= factor
            bars["lot_digits"] = digits
        self._states["lot_digits"][at], self._states["scale"][at] = digits, float(10**digits)
        self._states["dirty"][at] |= DIRTY_STATE | DIRTY_CURRENT | DIRTY_OTHER

    def _add(self, symbol_id: int, digits: int) -> int:
        self._count += 1
        at = self._count
        if at >= len(self._states):
            held = self._states, self._currents, self._others
            self._allocate(2 * at)
            self._states[:at], self._currents[:at], self._others[:at] = held
        self._index[symbol_id] = at
        self._states["symbol_id"][at], self._states["lot_digits"][at] = symbol_id, digits
        self._states["scale"][at] = float(10**digits)
        for bars in (self._currents[at], self._others[at]):
            bars["symbol_id"], bars["lot_digits"] = symbol_id, digits
        self._currents[at]["resolution"] = np.arange(RESOLUTION_COUNT)
        self._others[at]["resolution"] = np.arange(RESOLUTION_COUNT)[:, None]
        return at

    def fresh(self) -> "Derived":
        """A new state that follows the same symbols and has seen no record."""
        other = Derived(self._count)
        for row in self._states[1 : self._count + 1]:
            other._add(int(row["symbol_id"]), int(row["lot_digits"]))
        return other

    def on_rows(self, first_row_address: int, n: int) -> None:
        """Fold `n` contiguous tape records in memory into the state. Keeps no reference to them."""
        done: int = _apply_rows(self.context_address, first_row_address, n)
        while done < n:
            self._set_aside()
            done += _apply_rows(self.context_address, first_row_address + done * ROW_BYTES, n - done)

    def _set_aside(self) -> None:
        """Empty the output ring into a list of copies, up to PENDING_BARS_MAX; beyond that, drop them all."""
        ring = self._ring
        count = int(self._context[context.RING_COUNT // 8])
        self._context[context.RING_COUNT // 8] = 0
        if ring.lost or ring.aside_count + count > PENDING_BARS_MAX:
            ring.lost = True
            ring.aside.clear()
            ring.aside_count = 0
            return
        if count:
            ring.aside.append(ring.bars[:count].copy())
            ring.aside_count += count

    @property
    def closed_count(self) -> int:
        """Bars that have left memory since the last drain."""
        return self._ring.aside_count + int(self._context[context.RING_COUNT // 8])

    def closed(self, symbol_id: int, resolution: int) -> Bars:
        """Copy of the bars of one series that have left memory since the last drain, and of late trades."""
        bars = self._closed()
        found: Bars = bars[(bars["symbol_id"] == symbol_id) & (bars["resolution"] == resolution)]
        return found

    def _closed(self) -> Bars:
        self._set_aside()
        aside = self._ring.aside
        if len(aside) != 1:
            aside[:] = [np.concatenate(aside) if aside else empty_bars(0)]
        return aside[0]

    def bars_open(self, symbol_id: int, resolution: int) -> Bars:
        """The previous and the current bar of a series (up to two BAR rows, ascending) as of now."""
        at = int(self._index[symbol_id])
        count = _read_open(self.context_address, at, resolution, int(self._two.ctypes.data)) if at else 0
        return self._two[:count].copy()

    def latest(self, symbol_id: int) -> np.void | None:
        """Copy of all that is known of a symbol (STATE: price, quantity, trade_id, exchange_us, bid, ...).

        None for a symbol that is not followed. `trade_id` is -1 before its first trade, `quote_recv_ns` 0
        before its first quote.
        """
        at = int(self._index[symbol_id])
        if not at:
            return None
        row: np.void = self._states[at].copy()
        return row

    def latest_all(self) -> States:
        """Copy of the state of every symbol."""
        return self._states[1 : self._count + 1].copy()

    def enigma(self, symbol_id: int) -> Enigma | None:
        """Enigma as of the latest trade; None before the first."""
        row = self._states[int(self._index[symbol_id])]
        if row["trade_id"] < 0:
            return None
        price, ath, atl = float(row["price"]), float(row["ath"]), float(row["atl"])
        return Enigma(
            symbol_id=symbol_id, level=level_of(price, ath, atl), ath=ath, atl=atl, price=price,
            fib=fib_of(ath, atl), trade_id=int(row["trade_id"]), exchange_us=int(row["exchange_us"]),
        )  # fmt: skip

    def enigma_all(self) -> NDArray[np.void]:
        """Enigma of every symbol that has traded: dtype ENIGMA."""
        return enigma_rows(self._states[1 : self._count + 1])

    def boundary_us(self, symbol_id: int) -> int:
        """The boundary that seeds of this symbol must name; 0 before one was announced."""
        return int(self._states["boundary_us"][int(self._index[symbol_id])])

    def newest_us(self) -> int:
        """Highest exchange time of any counted trade; 0 before the first."""
        return max(0, int(self._states["newest_us"].max()))

    @property
    def counters(self) -> dict[str, int]:
        """Trades counted, records refused and why. Since the process began, not restored."""
        counts = {name: int(self._context[word // 8]) for name, word in _COUNTERS.items()}
        counts["off_grid"] = int(self._states["off_grid"].sum())
        return counts

    def drain(self) -> Drained:
        """Take what has changed since the last drain; see Drained."""
        closed, lost = self._closed(), self._ring.lost
        self._ring.aside.clear()
        self._ring.aside_count = 0
        self._ring.lost = False
        dirty = self._states["dirty"].copy()
        self._states["dirty"] = 0
        changed = np.flatnonzero(dirty)
        return Drained(closed, self._parts(dirty), self._states[changed].copy(), lost)

    def forget_changes(self) -> None:
        """Drop what `drain` would take: in this process nobody wants it. Open bars and levels stay."""
        self._context[context.RING_COUNT // 8] = 0
        self._ring.aside.clear()
        self._ring.aside_count = 0
        self._ring.lost = False
        self._states["dirty"] = 0

    def snapshot(self) -> Drained:
        """The whole state for `restore`, without taking anything."""
        everything = np.full(len(self._states), DIRTY_CURRENT | DIRTY_OTHER, np.uint8)
        everything[0] = 0
        everything[self._count + 1 :] = 0
        states = self._states[1 : self._count + 1].copy()
        states["dirty"] = 0
        return Drained(self._closed().copy(), self._parts(everything), states, self._ring.lost)

    def _parts(self, dirty: NDArray[np.uint8]) -> Parts:
        currents = self._currents[(dirty & DIRTY_CURRENT) != 0].reshape(-1)
        others = self._others[(dirty & DIRTY_OTHER) != 0].reshape(-1, 2)
        chunks = [(currents, CURRENT), (others[:, 0], PREVIOUS), (others[:, 1], BEFORE)]
        if self._half["slot_us"][0] != EMPTY_SLOT:
            chunks.append((self._half, HALF))
        parts = np.zeros(sum(len(bars) for bars, _ in chunks), PART)
        start = 0
        for bars, part in chunks:
            parts["bar"][start : start + len(bars)] = bars
            parts["part"][start : start + len(bars)] = part
            start += len(bars)
        return parts

    def restore(self, states: States, parts: Parts) -> None:
        """Become what `snapshot` or a series of drains has stored. For a state that has seen no record.

        Closed bars are not part of it: they are in the store. Symbols that are followed already stay so,
        on the finer of the two lot grids.
        """
        wanted = self._states["lot_digits"].copy()
        if self.counters["trades"] or (self._states["dirty"] != 0).any():
            raise ValueError("restore needs a state that has seen no record")
        for row in states:
            at = int(self._index[row["symbol_id"]]) or self._add(
                int(row["symbol_id"]), int(row["lot_digits"])
            )
            self._states[at] = row
            self._states["dirty"][at] = 0
        for stored in parts:
            bar = stored["bar"]
            self._put_part(int(stored["part"]), int(self._index[bar["symbol_id"]]), bar)
        for at in range(1, len(wanted)):
            if wanted[at] > self._states["lot_digits"][at]:
                self._refine(at, int(wanted[at]))

    def _put_part(self, part: int, at: int, bar: np.void) -> None:
        if part == HALF:
            self._half[0] = bar
        elif at and part == CURRENT:
            self._currents[at, bar["resolution"]] = bar
        elif at:
            self._others[at, bar["resolution"], part - PREVIOUS] = bar


assert STATE.itemsize % 8 == 0
assert BAR.itemsize % 8 == 0
