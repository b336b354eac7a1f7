"""The memory of a version 2 encoder: groups by subject, every symbol's grid, scratch. Pure.

Several tables (the live one, one for each replay at work) share the large scratch: one encodes at a time.
"""

import numpy as np
from numpy.typing import NDArray

from tradeback.feed.interest import ARENA_BYTES_FIRST, GroupTable, address_of
from tradeback.model.symbols import Symbol
from tradeback.wire import v2_layout as at


class V2Scratch:
    """What tables have in common: symbols' grids and states, powers of ten."""

    def __init__(self) -> None:
        self.states: NDArray[np.int64] = np.zeros((at.SYMBOL_IDS, at.STATE_WORDS), np.int64)
        self.powers: NDArray[np.float64] = np.array([float(10**k) for k in range(at.DIGITS_MAX + 1)])

    def learn(self, symbol: Symbol) -> None:
        """Send this symbol's prices and quantities as integers on its grid from now on."""
        scales = self.states[symbol.id].view(np.float64)
        scales[at.STATE_PRICE_SCALE] = 10.0**symbol.price_precision
        scales[at.STATE_QUANTITY_SCALE] = 10.0**symbol.quantity_precision


class V2Table(GroupTable):
    """Version 2: keys are sets of subjects (see `feed.subjects`)."""

    def __init__(self, scratch: V2Scratch) -> None:
        super().__init__(at.SUBJECTS, at.CONTEXT_WORDS, at.GROUP_WORDS)
        self.scratch = scratch
        self.context[at.STATES] = address_of(scratch.states)
        self.context[at.POWERS] = address_of(scratch.powers)
        self.grow_arena(ARENA_BYTES_FIRST)

    def grow_arena(self, size: int) -> None:
        """Replace the arena and the lists of rows that go with it."""
        super().grow_arena(size)
        self._nodes: NDArray[np.int64] = np.zeros(size // at.ENTRY_BYTES_MAX + 1, np.int64)
        self.context[at.NODES] = address_of(self._nodes)
