"""Bars of one series from the store and from memory, without a hole and without counting a trade twice.

The store is read in a thread while the engine goes on, so bars may move from memory into the store
meanwhile. Every part that is taken from memory therefore carries the tape sequence up to which it is
true, and counts only where the store's own position is behind it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tradeback.derive.bars import merge_all
from tradeback.derive.layout import LATE, Bars, empty_bars
from tradeback.stores.ports import Closed, Position, SeriesStore


class PendingBars(NamedTuple):
    """Closed bars (any series) that were taken from memory and perhaps not yet stored.

    `sequence`: the last tape record they cover; the position under which they will be stored.
    """

    rows: Bars
    sequence: int


@dataclass(frozen=True, slots=True)
class BarsInMemory:
    """What memory holds of one series, taken at one moment on the loop thread."""

    symbol_id: int
    resolution: int
    opened: Bars
    """Previous and current bar."""
    sequence: int
    """The last tape record in them."""
    pending: Sequence[PendingBars] = field(default=())


def series_of(memory: BarsInMemory, store: SeriesStore | None, from_us: int, to_us: int, limit: int) -> Bars:
    """The newest `limit` bars with from_us <= slot < to_us and their neighbours, ascending. May block."""
    stored = _read(memory, store, from_us, to_us, limit)
    rows = stored.rows
    parts = [rows]
    for pending in memory.pending:
        if pending.sequence > stored.position.sequence:
            parts.append(_relevant(pending.rows, memory, stored, from_us, to_us))
    opened = memory.opened
    if stored.position.sequence >= memory.sequence:
        # The store is newer than what was taken: a bar that has closed since is in it whole.
        opened = opened[~np.isin(opened["slot_us"], rows["slot_us"])]
    return merge_all([*parts, opened])


def _read(memory: BarsInMemory, store: SeriesStore | None, from_us: int, to_us: int, limit: int) -> Closed:
    if store is None:
        return Closed(empty_bars(0), Position(0, 0), False)
    from_s, to_s = -(-from_us // 1_000_000), -(-to_us // 1_000_000)  # slots are whole seconds
    return store.closed(memory.symbol_id, memory.resolution, from_s, to_s, limit, newest=True)


def _relevant(rows: Bars, memory: BarsInMemory, stored: Closed, from_us: int, to_us: int) -> Bars:
    """The rows of this series that belong to the answer or stand beside it.

    A late trade of a bar that was not read is no bar of its own, so it is left out.
    """
    slots = rows["slot_us"]
    wanted = (rows["symbol_id"] == memory.symbol_id) & (rows["resolution"] == memory.resolution)
    inside = (slots >= from_us) & (slots < to_us)
    known = np.isin(slots, stored.rows["slot_us"])
    wanted &= inside | known | ((rows["flags"] & LATE) == 0)
    if stored.truncated and len(stored.rows):
        wanted &= slots >= stored.rows["slot_us"][0]
    found: Bars = rows[wanted]
    return found
