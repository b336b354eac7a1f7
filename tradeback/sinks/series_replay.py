"""Bringing the derived state and its store up to date from the tape: at start, and after falling behind."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from tradeback.derive.layout import Drained
from tradeback.model.record import Rows
from tradeback.stores.ports import Position, Stored
from tradeback.tape.reader import RecordsGone

if TYPE_CHECKING:
    from tradeback.derive.state import Derived

SLICE_ROWS = 65_536
"""Records read and folded at once: 4 MiB."""
DRAIN_BARS = 16_384
"""Closed bars after which a replay writes them to the store, so that memory stays bounded."""


class TapeSource(Protocol):
    """What this module needs of `Tape` or `TapeReader`."""

    @property
    def oldest_sequence(self) -> int:
        """Sequence of the oldest record held."""

    def read_with_epoch(self, sequence: int, rows_max: int) -> tuple[int, Rows]:
        """A copy of records from `sequence` on, all of one epoch, and that epoch."""

    def resume(self, epoch: int, sequence: int) -> tuple[int, int]:
        """Where a reader goes on that has seen everything before `sequence` of `epoch`."""


class Restores(Protocol):
    """What this module needs of a `SeriesStore`."""

    def load(self) -> Stored:
        """What a restart begins with."""

    def write(self, drained: Drained, position: Position) -> None:
        """Keep what has changed up to `position`."""

    def begin_rebuild(self) -> None:
        """Forget position, open parts and states."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What `restore` found and did, for the log.

    `how`: "new" (an empty store, filled from the oldest record), "resumed" (at the store's position) or
    "rebuilt" (the position does not fit the tape; filled from the oldest record).
    """

    how: Literal["new", "resumed", "rebuilt"]
    reason: str
    """One plain sentence; "" when there is nothing to say."""
    first_sequence: int
    """The first record that was read, or would have been."""
    records: int
    """Records replayed."""
    gone: int
    """Records between the store's position and the tape's oldest, removed by retention."""


def restore(derived: "Derived", store: Restores, tape: TapeSource, next_sequence: int) -> Restored:
    """Make `derived` what it was, or would be, after every record before `next_sequence`.

    `derived` must follow all symbols already and have seen no record. Takes 20 to 60 ns a record, so run
    it in a thread before the lines start. Raises TapeError when records that are needed are damaged.
    """
    stored = store.load()
    misfit = _misfit(stored.position, tape, next_sequence)
    if misfit:
        store.begin_rebuild()
    if misfit or stored.position.sequence == 0:
        start, how = tape.oldest_sequence, "rebuilt" if misfit else "new"
    else:
        derived.restore(stored.states, stored.parts)
        start, how = stored.position.sequence + 1, "resumed"
    records, gone = replay(derived, tape, start, next_sequence, store)
    if gone:
        misfit = f"records {start} to {start + gone - 1} are gone by retention; their trades are missing"
    return Restored(how, misfit, start + gone, records, gone)  # type: ignore[arg-type]


def _misfit(position: Position, tape: TapeSource, next_sequence: int) -> str:
    """Why the store's position is none of this tape's; "" when it is, or when the store is empty."""
    if position.sequence == 0:
        return ""
    following = position.sequence + 1
    if following > next_sequence:
        return f"the store is at record {position.sequence}, ahead of the tape's {next_sequence - 1}"
    epoch, sequence = tape.resume(position.epoch, following)
    if sequence < following:
        return f"the tape has lost records {sequence} to {position.sequence}, which the store has counted"
    if epoch != position.epoch and not _stands_in(position, tape):
        return f"the store belongs to epoch {position.epoch:08x}, which this tape does not know"
    return ""


def _stands_in(position: Position, tape: TapeSource) -> bool:
    """True when the record at `position` is held, and of the same epoch: that ended just there."""
    try:
        epoch, rows = tape.read_with_epoch(position.sequence, 1)
    except RecordsGone:
        return False
    return len(rows) == 1 and epoch == position.epoch


def replay(
    derived: "Derived",
    tape: TapeSource,
    start: int,
    end: int,
    store: Restores,
    cancelled: Callable[[], bool] = bool,
) -> tuple[int, int]:
    """Fold the records `start` <= sequence < `end` into `derived`; returns (records, records gone).

    Closed bars go to the store whenever DRAIN_BARS of them have gathered, with the position they are true
    for; the rest stays to be drained. Ends early when `cancelled()`.
    """
    sequence, records, gone = start, 0, 0
    while sequence < end and not cancelled():
        try:
            epoch, rows = tape.read_with_epoch(sequence, min(SLICE_ROWS, end - sequence))
        except RecordsGone as error:
            skipped = min(error.oldest_sequence, end) - sequence
            gone, sequence = gone + skipped, sequence + skipped
            continue
        if not len(rows):
            break
        rows = np.ascontiguousarray(rows)
        derived.on_rows(int(rows.ctypes.data), len(rows))
        sequence, records = sequence + len(rows), records + len(rows)
        if derived.closed_count >= DRAIN_BARS:
            store.write(derived.drain(), Position(epoch, sequence - 1))
    return records, gone
