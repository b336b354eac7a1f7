"""What a lagging client missed, folded into one entry per symbol: last price, summed volume.

Read from the tape's hot ring when the client's socket has drained, so that a client that does not
read costs a cursor and nothing else. Volumes are summed in whole lots, so they still add up exactly.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tradeback.feed.interest import SYMBOL_IDS, Interest, address_of
from tradeback.model.record import ROW_BYTES
from tradeback.model.symbols import SymbolTable
from tradeback.path.path import HotTape
from tradeback.wire import v1_layout as at
from tradeback.wire.v1 import ENTRY, Entries


class CatchUp:
    """Scratch tables and the kernel that folds. One per feed; the clients take turns."""

    def __init__(self, tape: HotTape, symbols: SymbolTable) -> None:
        self._tape = tape
        self._symbols = symbols
        self._wanted: NDArray[np.uint8] = np.zeros(SYMBOL_IDS, np.uint8)
        self._scales: NDArray[np.float64] = np.zeros(SYMBOL_IDS, np.float64)
        self._lots: NDArray[np.int64] = np.zeros(SYMBOL_IDS, np.int64)
        self._extras: NDArray[np.float64] = np.zeros(SYMBOL_IDS, np.float64)
        self._prices: NDArray[np.float64] = np.zeros(SYMBOL_IDS, np.float64)
        self._order: NDArray[np.int64] = np.zeros(SYMBOL_IDS, np.int64)
        self._scratch: NDArray[np.int64] = np.zeros(at.CONFLATE_WORDS, np.int64)
        self._scratch[at.WANTED] = address_of(self._wanted)
        self._scratch[at.SCALES] = address_of(self._scales)
        self._scratch[at.LOTS] = address_of(self._lots)
        self._scratch[at.EXTRAS] = address_of(self._extras)
        self._scratch[at.PRICES] = address_of(self._prices)
        self._scratch[at.ORDER] = address_of(self._order)
        self._conflate: Callable[[int, int, int, int], int] | None = None

    def attach(self) -> None:
        """Take the kernel, which a thread should have imported before."""
        from tradeback.kernel.jit import entry
        from tradeback.wire.conflate_kernel import conflate

        self._conflate = entry(conflate)

    def entries(self, interest: Interest, first: int, end: int) -> Entries:
        """One entry per symbol of `interest` that traded in the records `first` to `end` (exclusive).

        The caller has made sure that the hot ring still holds `first`.
        """
        if self._conflate is None or first >= end:
            return np.zeros(0, ENTRY)
        ids = np.fromiter(interest, np.int64, len(interest))
        self._wanted[ids] = 1
        touched = 0
        try:
            for address, count in self._pieces(first, end):
                touched = self._conflate(int(self._scratch.ctypes.data), address, count, touched)
        finally:
            self._wanted[ids] = 0
        return self._take(touched)

    def _pieces(self, first: int, end: int) -> list[tuple[int, int]]:
        """The records as contiguous pieces of the ring: (address, count)."""
        ring = self._tape.hot_rows
        place = first & (ring - 1)
        head = min(end - first, ring - place)
        pieces = [(self._tape.rows_address + ROW_BYTES * place, head)]
        if end - first > head:
            pieces.append((self._tape.rows_address, end - first - head))
        return pieces

    def _take(self, touched: int) -> Entries:
        """The touched symbols as entries; leaves the scratch clean."""
        ids = self._order[:touched]
        made = np.zeros(touched, ENTRY)
        made["symbol_id"] = ids
        made["price"] = self._prices[ids]
        scales = self._scales[ids]
        made["volume"] = self._lots[ids] / np.where(scales == 0.0, 1e8, scales) + self._extras[ids]
        self._prices[ids] = 0.0
        self._lots[ids] = 0
        self._extras[ids] = 0.0
        return made

    def learn(self, interest: Interest) -> None:
        """Note on which grid the quantities of these symbols lie."""
        symbols = self._symbols
        everything = 0 in interest
        for symbol in symbols if everything else (symbols.by_id(symbol_id) for symbol_id in interest):
            if symbol is not None:
                self._scales[symbol.id] = 10.0**symbol.lot_digits
