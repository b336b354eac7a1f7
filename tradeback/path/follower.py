"""A tape that another process writes, with a hot ring of its own: what a feed worker serves.

`pull` brings the next records from the newest segment's file into the ring. What is read is bounded by
what the writer has published, and every record is verified: a torn one, or one that a failed append left
behind, is never seen.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

from tradeback.model.limits import BATCH_ROWS_MAX
from tradeback.model.record import ROW_BYTES, Rows, empty_rows
from tradeback.tape.reader import TapeReader
from tradeback.tape.segment import HEADER_BYTES, Segment, unpack_header

PATIENCE_S = 1.0
"""How long a published record may be missing or damaged before it is passed over."""


class Follower:
    """Loop thread only, but for what `reader` does. The attributes are those of `Tape` that readers use."""

    def __init__(self, folder: Path, hot_rows: int, published: Callable[[], int]) -> None:
        """`published`: the sequence after the newest record. Begin with `begin`.

        Raises TapeError when there is no tape in `folder`.
        """
        from tradeback.kernel.jit import entry
        from tradeback.path.follow_kernel import follow

        self.hot_rows = hot_rows
        self.rows: Rows = empty_rows(hot_rows)
        self.rows_address = int(self.rows.ctypes.data)
        self.next_sequence = 1
        self.epoch = 0
        self.reader = TapeReader(folder)
        self.passed_over = 0
        """Records that were published but gone or damaged."""
        self.stepped_back = 0
        """Records that were served and then lost by the tape (it has a new epoch)."""
        self._published = published
        self._follow = entry(follow)
        self._mask = hot_rows - 1
        self._hot_from = 1
        self._segment: Segment | None = None
        self._descriptor = -1
        self._stuck_since = 0.0

    def begin(self, sequence: int) -> None:
        """Go on at `sequence`: the ring is empty, what is before it is read from the files."""
        self._close_file()
        self.epoch, self.next_sequence = self.reader.resume(0, sequence)
        self._hot_from = self.next_sequence

    def check(self) -> None:
        """A new writer has come: should it have lost records that were read here, go back."""
        epoch, sequence = self.reader.resume(self.epoch, self.next_sequence)
        sequence = min(sequence, self._published())
        if sequence < self.next_sequence:
            self.stepped_back += self.next_sequence - sequence
            self.begin(sequence)
        elif epoch != self.epoch:
            self._close_file()

    @property
    def behind(self) -> int:
        """Records that are published and not read yet."""
        return max(0, self._published() - self.next_sequence)

    def pull(self) -> int:
        """Read on; returns how many records stand in the ring now from `next_sequence` - that many on.

        They are contiguous. 0: nothing new now. Raises OSError when the files cannot be read.
        """
        first = self.next_sequence
        wanted = self._published() - first
        if wanted <= 0:
            return 0
        wanted = min(wanted, self.hot_rows - (first & self._mask), BATCH_ROWS_MAX)
        count = self._read(first, wanted)
        if not count and self._find(first):
            count = self._read(first, wanted)
        if count:
            self._stuck_since = 0.0
            self.next_sequence = first + count
            return count
        return self._pass_over(first)

    def _read(self, first: int, wanted: int) -> int:
        segment = self._segment
        if segment is None:
            return 0
        offset = HEADER_BYTES + ROW_BYTES * (first - segment.first)
        row = self.rows_address + ROW_BYTES * (first & self._mask)
        count: int = self._follow(self._descriptor, offset, row, wanted, first, segment.epoch)
        if count < 0:
            raise OSError(f"{segment.path} cannot be read")
        return count

    def _find(self, first: int) -> bool:
        """Open the segment that holds `first` now; False when that is the one that is open."""
        found = [segment for segment in self.reader.segments() if segment.first <= first]
        if not found or found[-1] == self._segment:
            return False
        segment = found[-1]
        descriptor = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
        header = unpack_header(os.pread(descriptor, HEADER_BYTES, 0))
        if header is None or (header.epoch, header.first) != (segment.epoch, segment.first):
            os.close(descriptor)
            return False
        self._close_file()
        if segment.epoch != self.epoch:
            self._hot_from = first
        self._segment, self._descriptor, self.epoch = segment, descriptor, segment.epoch
        return True

    def _pass_over(self, first: int) -> int:
        """A published record that does not come: wait a little, then go on behind it."""
        now = time.monotonic()
        if not self._stuck_since:
            self._stuck_since = now
        if now - self._stuck_since < PATIENCE_S:
            return 0
        oldest = self.reader.oldest_sequence
        if oldest > first:
            self.passed_over += oldest - first
            self.begin(oldest)
            return 0
        # The slot holds an empty record, which no reader of the ring takes for anything.
        self.rows[first & self._mask] = 0
        self.passed_over += 1
        self.next_sequence = first + 1
        return 0

    # What readers behind cursors of their own ask (version 2 of the feed: resume, replay).

    @property
    def oldest_sequence(self) -> int:
        """Sequence of the oldest record that is still held by the files."""
        return self.reader.oldest_sequence

    def read(self, sequence: int, rows_max: int) -> Rows:
        """A copy of up to `rows_max` records from `sequence` on, none beyond what has been pulled."""
        return self.read_with_epoch(sequence, rows_max)[1]

    def read_with_epoch(self, sequence: int, rows_max: int) -> tuple[int, Rows]:
        """Like `Tape.read_with_epoch`; may be called from any thread.

        Raises RecordsGone (a TapeError) when retention has removed them.
        """
        epoch, end = self.epoch, self.next_sequence
        if sequence >= end or rows_max <= 0:
            return epoch, empty_rows(0)
        count = min(rows_max, end - sequence)
        if self._is_hot(sequence):
            slot = sequence & self._mask
            found = self.rows[slot : slot + count].copy()  # what is beyond the ring's end comes with the next
            if self._is_hot(sequence):
                return epoch, found
        return self.reader.read_with_epoch(sequence, count)

    def resume(self, epoch: int, sequence: int) -> tuple[int, int]:
        """Where a reader goes on that has seen all before `sequence` of `epoch`; see TapeReader.resume."""
        if epoch == self.epoch and self._hot_from <= sequence <= self.next_sequence:
            return epoch, sequence
        return self.reader.resume(epoch, sequence)

    def close(self) -> None:
        """Close the file."""
        self._close_file()

    def in_memory(self, sequence: int) -> bool:
        """Whether a read from `sequence` on touches no file; see `Tape.in_memory`."""
        return sequence >= self.next_sequence or self._is_hot(sequence)

    def _is_hot(self, sequence: int) -> bool:
        """Whether the ring holds `sequence`, and no `pull` can be writing over it."""
        guard = min(BATCH_ROWS_MAX, self.hot_rows)
        return sequence >= self._hot_from and sequence + self.hot_rows >= self.next_sequence + guard

    def _close_file(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._segment, self._descriptor = None, -1
