"""A reader's own position on the tape: what a durable reader stores with what it wrote."""

from typing import Protocol

from tradeback.model.record import Rows, empty_rows


class Source(Protocol):
    """What a cursor reads: `Tape` in the writing process, `TapeReader` anywhere."""

    @property
    def oldest_sequence(self) -> int:
        """Sequence of the oldest record that is still held."""

    def read_with_epoch(self, sequence: int, rows_max: int) -> tuple[int, Rows]:
        """Records from `sequence` on, all of one epoch, and that epoch."""

    def resume(self, epoch: int, sequence: int) -> tuple[int, int]:
        """Where a reader goes on that has seen everything before `sequence` of `epoch`."""


class Cursor:
    """Reads records in order, each once. `sequence` and `epoch` name the next record.

    Store both with what was written, and give them back to a new cursor after a restart. When a new
    epoch begins, `epoch` changes, and `sequence` may step back: records of the old epoch from there on
    were lost by a crash of the machine after this reader had seen them.
    """

    def __init__(self, source: Source, sequence: int, epoch: int = 0) -> None:
        """`epoch` 0: not known, take the one in which `sequence` stands."""
        self._source = source
        self.epoch, self.sequence = source.resume(epoch, sequence)

    def next(self, rows_max: int) -> Rows:
        """Up to `rows_max` further records, all of one epoch; empty when there are none yet.

        Raises RecordsGone when retention was faster (`skip_gone` goes on behind the hole), TapeError
        when the records are damaged.
        """
        found, rows = self._source.read_with_epoch(self.sequence, rows_max)
        if found != self.epoch:
            self.epoch, self.sequence = self._source.resume(self.epoch, self.sequence)
            found, rows = self._source.read_with_epoch(self.sequence, rows_max)
            if found != self.epoch and len(rows):
                if self.epoch != 0:
                    return empty_rows(0)
                self.epoch = found
        self.sequence += len(rows)
        return rows

    def skip_gone(self) -> int:
        """Step over records that retention has removed; returns how many there were."""
        oldest = self._source.oldest_sequence
        gone = max(0, oldest - self.sequence)
        if gone:
            self.sequence = oldest
            self.epoch, self.sequence = self._source.resume(0, oldest)
        return gone
