"""A tape that ends earlier than it does: for drains that also read what is derived from it."""

from collections.abc import Callable

from tradeback.model.record import Rows
from tradeback.sinks.drain_ports import Source


class Until:
    """`source`, as if its newest record were the one before `end()`."""

    def __init__(self, source: Source, end: Callable[[], int]) -> None:
        self._source, self._end = source, end

    @property
    def oldest_sequence(self) -> int:
        """See Source."""
        return self._source.oldest_sequence

    @property
    def next_sequence(self) -> int:
        """See Source."""
        return min(self._source.next_sequence, self._end())

    def read_with_epoch(self, sequence: int, rows_max: int) -> tuple[int, Rows]:
        """See Source."""
        room = self.next_sequence - sequence
        epoch, rows = self._source.read_with_epoch(sequence, max(1, min(rows_max, room)))
        return epoch, rows[: max(0, room)]

    def resume(self, epoch: int, sequence: int) -> tuple[int, int]:
        """See Source."""
        return self._source.resume(epoch, sequence)
