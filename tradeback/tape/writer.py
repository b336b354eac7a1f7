"""The tape's one writer: the hot ring, and the append to the current segment before anybody sees a record."""

import errno
import os
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tradeback.model import tape_words as at
from tradeback.model.config import TapeConfig
from tradeback.model.errors import ConfigError, TapeError
from tradeback.model.limits import BATCH_ROWS_MAX
from tradeback.model.record import ROW_BYTES, Rows, empty_rows, seal
from tradeback.tape.keeper import Keeper, OpenSegment, Spare, TapeCounters
from tradeback.tape.reader import TapeReader
from tradeback.tape.recovery import recover
from tradeback.tape.segment import (
    HEADER_BYTES,
    Segment,
    create_segment,
    list_segments,
    offset_of,
    sync_folder,
)
from tradeback.tape.state import lock_folder, new_epoch, unwritable

_ROW_SHIFT: Final = 6
assert 1 << _ROW_SHIFT == ROW_BYTES

_write = os.write


class Tape:
    """Append-only records with rising sequences; see docs/tape.md.

    `append`, `commit` and `room` belong to one thread. `read` may be called from any. Attributes, all
    to be read at every use because they change: `epoch` (u32, non-zero; read it anew for each batch
    that is sealed), `next_sequence` (of the record to come). Fixed: `rows` (the hot ring, TICK[hot_rows]),
    `rows_address`, `hot_rows`, `folder`, `notes` (what opening found and did, for the log). The path's
    kernel, which writes in place of `commit`, finds the head in `words` (int64, see `model.tape_words`).
    """

    def __init__(self, folder: Path, config: TapeConfig, lock_descriptor: int) -> None:
        """Use `Tape.open`."""
        self.folder = folder
        self.words: NDArray[np.int64] = np.zeros(at.TAPE_WORDS, np.int64)
        self._words: Any = self.words.data
        self.hot_rows = config.hot_rows
        self.rows: Rows = empty_rows(self.hot_rows)
        self.rows.view("u1").fill(0)  # touch every page now, not at the first ticks
        self.rows_address = int(self.rows.ctypes.data)
        self._bytes = self.rows.view("u1").data
        self._mask = self.hot_rows - 1
        self._guard = min(BATCH_ROWS_MAX, self.hot_rows)
        """Slots behind the newest record that a kernel may be writing while another thread reads."""
        self._lock_descriptor = lock_descriptor
        self._rows_per_segment = max(1, (config.segment_bytes - HEADER_BYTES) // ROW_BYTES)
        opened = recover(folder, time.time_ns())
        self.notes = opened.notes
        self.epoch = opened.state.epoch
        self.next_sequence = opened.next_sequence
        self._hot_from = self.next_sequence
        self._epoch_from = opened.state.epochs[-1][1]
        self._segment = opened.segments[-1]
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
        self.descriptor = os.open(self._segment.path, flags)
        self.limit = self._segment.first + self._rows_per_segment
        self._keeper = Keeper(
            folder,
            config,
            opened.state,
            opened.segments[:-1],
            OpenSegment(self._segment, self.descriptor),
            lambda: self.next_sequence,
            self._rows_per_segment,
        )
        self.counters: TapeCounters = self._keeper.counters
        self._reader = TapeReader(folder)
        self._closed = False

    @classmethod
    def open(cls, folder: Path | str, config: TapeConfig | None = None) -> "Tape":
        """Open or create the tape in `folder` (DATA_DIR/tape) for writing.

        Raises StartupError when the folder cannot be written or has a writer already, ConfigError for
        a ring that is no power of two.
        """
        config = config or TapeConfig()
        if config.hot_rows & (config.hot_rows - 1):
            raise ConfigError(f"tape.hot_rows is {config.hot_rows}: use a power of two, such as 131072")
        folder = Path(folder)
        lock_descriptor = lock_folder(folder)
        try:
            return cls(folder, config, lock_descriptor)
        except OSError as error:
            os.close(lock_descriptor)
            raise unwritable(folder, error) from error
        except BaseException:
            os.close(lock_descriptor)
            raise

    @property
    def next_sequence(self) -> int:
        """Sequence of the record to come."""
        return int(self._words[at.NEXT_SEQUENCE])

    @next_sequence.setter
    def next_sequence(self, value: int) -> None:
        self._words[at.NEXT_SEQUENCE] = value

    @property
    def epoch(self) -> int:
        """The epoch of the record to come."""
        return int(self._words[at.EPOCH])

    @epoch.setter
    def epoch(self, value: int) -> None:
        self._words[at.EPOCH] = value

    @property
    def limit(self) -> int:
        """A batch that ends at or before this is one write; 0 while a failed write is unsettled."""
        return int(self._words[at.LIMIT])

    @limit.setter
    def limit(self, value: int) -> None:
        self._words[at.LIMIT] = value

    @property
    def descriptor(self) -> int:
        """The newest segment's file; -1 when the tape is closed."""
        return int(self._words[at.DESCRIPTOR])

    @descriptor.setter
    def descriptor(self, value: int) -> None:
        self._words[at.DESCRIPTOR] = value

    @property
    def oldest_sequence(self) -> int:
        """Sequence of the oldest record that is still held; `next_sequence` when there is none."""
        return self._keeper.oldest_sequence

    @property
    def bytes_held(self) -> int:
        """Bytes of all segment files."""
        return self.counters.segment_bytes + offset_of(max(0, self.next_sequence - self._segment.first))

    def room(self) -> int:
        """Slots from `next_sequence` to the ring's end: 1 to hot_rows."""
        return self.hot_rows - (self.next_sequence & self._mask)

    def commit(self, count: int) -> int:
        """Write the `count` records that stand sealed in the next slots; returns the first sequence.

        When it returns, the records are with the operating system: they survive a killed process.
        Raises TapeError when the disk refuses; then nothing has advanced, and the call may be repeated.
        Should other records stand in the slots by then, they are sealed anew under a new epoch, for a
        reader of the files may have seen the first ones.
        """
        first = self.next_sequence
        after = first + count
        if after <= self.limit:
            start = (first & self._mask) << _ROW_SHIFT
            size = count << _ROW_SHIFT
            try:
                if _write(self.descriptor, self._bytes[start : start + size]) == size:
                    self.next_sequence = after
                    return first
            except OSError:
                self.counters.write_errors += 1  # tried once more below, and explained there
        return self.commit_slowly(count)

    def append(self, rows: Rows) -> int:
        """Copy `rows` (TICK) in, seal and commit them; returns the first sequence.

        Raises TapeError when the disk refuses: records before `next_sequence` have been appended then.
        """
        first = self.next_sequence
        done = 0
        while done < len(rows):
            count = min(len(rows) - done, self.room(), BATCH_ROWS_MAX)
            slot = self.next_sequence & self._mask
            self.rows[slot : slot + count] = rows[done : done + count]
            seal(self.rows[slot : slot + count], self.next_sequence, self.epoch)
            self.commit(count)
            done += count
        return first

    def read(self, sequence: int, rows_max: int) -> Rows:
        """A copy of up to `rows_max` records from `sequence` on, all of one epoch; empty at the end.

        Raises RecordsGone (a TapeError) when retention has removed them.
        """
        return self.read_with_epoch(sequence, rows_max)[1]

    def read_with_epoch(self, sequence: int, rows_max: int) -> tuple[int, Rows]:
        """Like `read`, with the epoch of the records; at the end the current one."""
        epoch = self.epoch
        end = self.next_sequence
        if sequence >= end or rows_max <= 0:
            return epoch, empty_rows(0)
        count = min(rows_max, end - sequence)
        if self.in_memory(sequence):
            slot = sequence & self._mask
            head = self.rows[slot : slot + count].copy()
            if len(head) < count:
                head = _joined(head, self.rows[: count - len(head)])
            if self._is_hot(sequence):
                return epoch, head
        return self._reader.read_with_epoch(sequence, count)

    def view_with_epoch(self, sequence: int, rows_max: int) -> tuple[int, Rows]:
        """Like `read_with_epoch`, but not a copy where the ring holds the records; perhaps fewer at its end.

        For the writing thread, until it appends again: then other records stand there.
        """
        if sequence >= self.next_sequence or not self.in_memory(sequence):
            return self.read_with_epoch(sequence, rows_max)
        slot = sequence & self._mask
        return self.epoch, self.rows[slot : slot + min(rows_max, self.next_sequence - sequence)]

    def in_memory(self, sequence: int) -> bool:
        """Whether `read` finds records from `sequence` on in the hot ring; certain on the writing thread."""
        return sequence >= self._hot_from and self._is_hot(sequence)

    def resume(self, epoch: int, sequence: int) -> tuple[int, int]:
        """Where a reader goes on that has seen all before `sequence` of `epoch`; see TapeReader.resume."""
        if epoch == self.epoch and self._epoch_from <= sequence <= self.next_sequence:
            return epoch, sequence
        return self._reader.resume(epoch, sequence)

    def close(self) -> None:
        """Sync everything, note the clean end, unlock the folder. May be called twice.

        Raises TapeError when the disk refuses; the folder is unlocked anyway.
        """
        if self._closed:
            return
        self._closed = True
        self.limit = 0
        descriptor, self.descriptor = self.descriptor, -1
        try:
            self._keeper.stop(clean=descriptor >= 0)
        except OSError as error:
            raise _refusal(self.folder, error) from error
        finally:
            os.close(self._lock_descriptor)

    def __enter__(self) -> "Tape":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_hot(self, sequence: int) -> bool:
        """Whether the slot of `sequence` cannot have been reached by newer records, written or in writing."""
        return sequence + self.hot_rows >= self.next_sequence + self._guard

    def commit_slowly(self, count: int) -> int:
        """`commit` for a batch that reaches over a segment's end, or follows a failed or short write.

        First the file is brought to whole records, so that nothing is written twice.
        """
        first = self.next_sequence
        if not 0 <= count <= self.room():
            raise ValueError(f"{count} rows to commit, but the ring has room for {self.room()}")
        if self._closed or self.descriptor < 0:
            raise TapeError(f"the tape in {self.folder} is closed")
        self.limit = 0
        try:
            position = self._settle(count)
            while position < first + count:
                end = self._segment.first + self._rows_per_segment
                if position >= end:
                    self._roll(position)
                    continue
                upto = min(first + count, end)
                self._write_slots(position, upto)
                position = upto
        except OSError as error:
            self.counters.write_errors += 1
            raise _refusal(self.folder, error) from error
        self.next_sequence = first + count
        if position == self.next_sequence:
            self.limit = self._segment.first + self._rows_per_segment
        return first

    def _write_slots(self, sequence: int, upto: int) -> None:
        """Write the records from `sequence` up to `upto`, which lie together in the ring."""
        start = (sequence & self._mask) << _ROW_SHIFT
        view = self._bytes[start : start + ((upto - sequence) << _ROW_SHIFT)]
        while view:
            view = view[_write(self.descriptor, view) :]

    def _settle(self, count: int) -> int:
        """Bring the file to whole records; returns the sequence that is to be written next.

        After a failed write that is ahead of `next_sequence` by the records that did reach the file. A
        reader may have seen them: they stay if they equal the ring's, else a new epoch begins.
        """
        size = os.fstat(self.descriptor).st_size
        torn = (size - HEADER_BYTES) % ROW_BYTES
        if torn:
            os.ftruncate(self.descriptor, size - torn)
        position = self._segment.first + (size - torn - HEADER_BYTES) // ROW_BYTES
        first = self.next_sequence
        if position < first:
            raise TapeError(
                f"{self._segment.path} ends at record {position - 1} but {first - 1} had been written: "
                "something else has cut it; restart to begin a new epoch"
            )
        shared = min(position, first + count) - first
        if shared and self._on_disk(first, shared) != self._slots(first, shared):
            self._begin_epoch(count)
            return first
        return position

    def _slots(self, first: int, count: int) -> bytes:
        start = (first & self._mask) << _ROW_SHIFT
        return bytes(self._bytes[start : start + (count << _ROW_SHIFT)])

    def _on_disk(self, first: int, count: int) -> bytes:
        """The bytes of records that may lie in several segments, the current one the last."""
        parts = []
        for segment in list_segments(self.folder):
            skip = max(0, first - segment.first)
            upto = first + count - segment.first
            if upto > skip:
                parts.append(segment.load(skip, upto - skip).tobytes())
        return b"".join(parts)

    def _roll(self, first: int) -> None:
        """Let a new segment, created ahead if possible, follow the full one. Raises OSError."""
        start_ns = time.perf_counter_ns()
        wanted = Segment.named(self.folder, self.epoch, first)
        spare = self._keeper.take_spare(wanted) or self._create(wanted)
        self._install(spare)
        self._keeper.rolled(OpenSegment(wanted, spare.descriptor))
        counters = self.counters
        counters.rolls += 1
        counters.roll_ns_last = time.perf_counter_ns() - start_ns
        counters.roll_ns_max = max(counters.roll_ns_max, counters.roll_ns_last)

    def _create(self, segment: Segment) -> Spare:
        temporary = self.folder / f".{segment.path.name}.tmp"
        return Spare(segment, create_segment(segment, time.time_ns(), temporary), temporary)

    def _install(self, spare: Spare) -> None:
        """Give the file its name, by which readers find it, and write to it from now on."""
        try:
            os.rename(spare.temporary, spare.segment.path)
        except OSError:
            spare.discard()
            raise
        self._segment = spare.segment
        self.descriptor = spare.descriptor

    def _begin_epoch(self, count: int) -> None:
        """Give up the records that a failed commit left on the disk and go on under a new epoch.

        state.json first, so that the old epoch cannot come back at these sequences after a crash. Cutting
        in place is safe for readers' mappings: only indexed segments are mapped, and none of these is.
        """
        first = self.next_sequence
        keeper = self._keeper
        with keeper.lock:
            epoch = new_epoch(known for known, _ in keeper.state.epochs)
            spare = self._create(Segment.named(self.folder, epoch, first))
            try:
                keeper.begin_epoch(epoch, first)
                for segment in reversed(list_segments(self.folder)):
                    if segment.first >= first:
                        segment.path.unlink()
                    elif segment.first + segment.row_count() > first:
                        os.truncate(segment.path, offset_of(first - segment.first))
            except OSError:
                spare.discard()
                raise
            self._install(spare)
            keeper.replace_from(first, OpenSegment(spare.segment, spare.descriptor))
        sync_folder(self.folder)
        self.epoch = epoch
        self._epoch_from = self._hot_from = first
        slot = first & self._mask
        seal(self.rows[slot : slot + count], first, epoch)


def _joined(head: Rows, tail: Rows) -> Rows:
    rows = empty_rows(len(head) + len(tail))
    rows[: len(head)] = head
    rows[len(head) :] = tail
    return rows


_REMEDIES: Final = {
    errno.ENOSPC: "free disk space, or lower tape.retention_bytes",
    errno.EDQUOT: "raise the disk quota, or lower tape.retention_bytes",
    errno.EFBIG: "raise the limit on file size (ulimit -f), or lower tape.segment_bytes",
    errno.EROFS: "the file system has become read-only: check the disk, then mount it writable",
    errno.EIO: "the disk reports errors: check it, or set DATA_DIR to another disk",
}


def _refusal(folder: Path, error: OSError) -> TapeError:
    """The disk's refusal with its remedy."""
    remedy = _REMEDIES.get(error.errno or 0, "check the disk and the permissions of the folder")
    return TapeError(f"the tape in {folder} cannot be written ({error.strerror}): {remedy}")
