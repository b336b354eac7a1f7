"""Finding the rows that make a store refuse a whole batch."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tradeback.sinks.drain_ports import Batch, BatchRefused, Rejected, Written


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch that is done with."""

    rejected: tuple[Rejected, ...] = ()
    dropped: int = 0


async def write_around_refused(
    batch: Batch, write: Callable[[Batch], Awaitable[Written]], writes_max: int
) -> Outcome:
    """Write the batch; when it is refused, its halves, and so on, in tape order, down to single rows.

    A refused part that could only be divided beyond `writes_max` writes counts as refused whole. Raises
    what `write` raises, other than BatchRefused.
    """
    rejected: list[Rejected] = []
    dropped = writes = 0
    parts = [(0, len(batch.rows))]
    while parts:
        first, end = parts.pop()
        writes += 1
        try:
            written = await write(_part(batch, first, end))
        except BatchRefused as refusal:
            if end - first > 1 and writes < writes_max:
                middle = (first + end) // 2
                parts += [(middle, end), (first, middle)]
            else:
                rejected += [Rejected(row, str(refusal)) for row in range(first, end)]
        else:
            rejected += [Rejected(first + row, reason) for row, reason in written.rejected]
            dropped += written.dropped
    return Outcome(tuple(rejected), dropped)


def _part(batch: Batch, first: int, end: int) -> Batch:
    """Rows `first` up to `end` of a batch. Of one whose rows are not adjacent, only the last part reaches
    the batch's end."""
    if first == 0 and end == len(batch.rows):
        return batch
    rows = batch.rows[first:end]
    if batch.is_contiguous:
        start = batch.first_sequence + first
        return Batch(rows, batch.epoch, start, start + len(rows) - 1)
    last = batch.last_sequence if end == len(batch.rows) else batch.first_sequence
    return Batch(rows, batch.epoch, batch.first_sequence, last)
