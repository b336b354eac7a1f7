"""The ledger of completeness in a process that only reads the tape: for proofs, not for repair.

It begins with what the engine has stored of it, and goes on with the records that this process reads. What
it judges itself nobody hears: gaps are the engine's business, and come to it as records.
"""

from pathlib import Path

from tradeback.derive.completeness import Completeness
from tradeback.derive.completeness_gap import Gap
from tradeback.model.record import Rows
from tradeback.stores.gaps_sqlite import GapQuery, GapsSqlite
from tradeback.tape.reader import TapeReader

SLICE_ROWS = 65_536
SWEEP_ROWS = 65_536
"""Suspicions are judged after so many records."""


class ReadLedger:
    """`api.context.GapSource` without gaps to be found. Loop thread, but for `restore`."""

    def __init__(self, gap_after_s: float) -> None:
        self.ledger = Completeness(int(gap_after_s * 1e9))
        self._unswept = 0

    def restore(self, folder: Path, reader: TapeReader, end: int) -> None:
        """What the engine knew, and the tape behind it up to `end`. What does not fit is left out: then
        nothing from before `end` is proved by ids."""
        if not (folder / "gaps.sqlite").exists():
            return
        store = GapsSqlite(folder / "gaps.sqlite")
        try:
            stored = store.load()
        finally:
            store.close()
        start = stored.position.sequence + 1
        epoch, sequence = reader.resume(stored.position.epoch, start)
        if (
            start == 1
            or (epoch, sequence) != (stored.position.epoch, start)
            or start < reader.oldest_sequence
        ):
            return
        self.ledger.restore(stored.states, stored.gaps)
        while start < end:
            rows = reader.read(start, min(SLICE_ROWS, end - start))
            if not len(rows):
                return
            self.feed(rows, start)
            start += len(rows)

    def feed(self, rows: Rows, first_sequence: int) -> None:
        """The next records of the tape."""
        self.ledger.feed(rows, first_sequence)
        self._unswept += len(rows)
        if self._unswept >= SWEEP_ROWS and len(rows):
            self._unswept = 0
            self.ledger.sweep(int(rows["recv_ns"].max()))
            self.ledger.changes()

    async def find(self, query: GapQuery) -> list[Gap]:
        """None: the engine answers for gaps."""
        return []
