"""The tape's background thread: syncs, seals, indexes, prepares the next segment, retires old ones.

The loop thread only appends to queues here and never waits, except when a write has failed. The
thread alone closes the descriptors of sealed segments, so none is closed while it is being synced.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from tradeback.model.config import TapeConfig
from tradeback.model.errors import TapeError
from tradeback.tape.index import build_index, read_index, write_index
from tradeback.tape.segment import Segment, create_segment, sync_folder
from tradeback.tape.state import State, save_state


@dataclass(slots=True)
class TapeCounters:
    """Plain counters for metrics and health; written by one thread each, read by anyone."""

    synced_sequence: int = 0
    """Every record with a lower sequence survives a loss of power."""
    syncs: int = 0
    sync_ns_last: int = 0
    sync_ns_max: int = 0
    keeper_errors: int = 0
    keeper_error_last: str = ""
    """What the background thread could not do; "" once it succeeds again."""
    rolls: int = 0
    roll_ns_last: int = 0
    roll_ns_max: int = 0
    write_errors: int = 0
    segments: int = 0
    """Segment files, the current one included."""
    segment_bytes: int = 0
    """Bytes of the sealed segments."""
    segments_retired: int = 0
    segments_damaged: int = 0
    """Sealed segments with a bad record or header, found while indexing."""
    damage_last: str = ""


class OpenSegment(NamedTuple):
    """A segment with its descriptor, open for appending."""

    segment: Segment
    descriptor: int


class Spare(NamedTuple):
    """A segment created ahead, still under a temporary name."""

    segment: Segment
    descriptor: int
    temporary: Path

    def discard(self) -> None:
        """Close and remove it."""
        os.close(self.descriptor)
        self.temporary.unlink(missing_ok=True)


class Keeper:
    """Everything about segments that the loop thread need not wait for."""

    def __init__(
        self,
        folder: Path,
        config: TapeConfig,
        state: State,
        sealed: tuple[Segment, ...],
        current: OpenSegment,
        position: Callable[[], int],
        rows_per_segment: int,
    ) -> None:
        self.counters = TapeCounters(synced_sequence=state.synced_before)
        self.state = state
        self.lock = threading.Lock()
        """Held through each round; the loop thread takes it only to begin a new epoch and to close."""
        self._folder = folder
        self._config = config
        self._position = position
        self._rows_per_segment = rows_per_segment
        self._current = current
        self._sealed: deque[OpenSegment] = deque()
        self._held: deque[tuple[Segment, int]] = deque()
        self._unindexed: deque[Segment] = deque()
        self._spares: deque[Spare] = deque()
        """None or one; who pops it owns it."""
        self._saved = state
        self._wake = threading.Event()
        self._stopping = False
        for segment in sealed:
            if segment.first < state.synced_before:
                self._adopt(segment)
            else:
                self._sealed.append(OpenSegment(segment, os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)))
        self._count()
        self._thread = threading.Thread(target=self._run, name="tape-keeper", daemon=True)
        self._thread.start()

    @property
    def oldest_sequence(self) -> int:
        """First sequence that is still held."""
        for queue in (self._held, self._sealed):
            try:
                return queue[0][0].first
            except IndexError:
                continue
        return self._current.segment.first

    # Called by the loop thread.

    def take_spare(self, wanted: Segment) -> Spare | None:
        """The segment created ahead if it is the wanted one."""
        if self._spares and self._spares[0].segment == wanted:
            try:
                return self._spares.popleft()
            except IndexError:
                pass  # the thread has just taken it for stale
        return None

    def rolled(self, current: OpenSegment) -> None:
        """The current segment is full and `current` follows it."""
        self._sealed.append(self._current)
        self._current = current
        self._wake.set()

    def begin_epoch(self, epoch: int, first: int) -> None:
        """Durably note that `epoch` begins at `first`. The caller holds the lock. Raises OSError."""
        state = msgspec.structs.replace(
            self.state,
            epoch=epoch,
            epochs=(*self.state.epochs, (epoch, first)),
            synced_before=min(self.state.synced_before, first),
        )
        save_state(self._folder, state)
        self.state = self._saved = state

    def replace_from(self, first: int, current: OpenSegment) -> None:
        """Forget segments from `first` on, whose files are gone; `current` follows. Caller holds the lock."""
        everything = [*self._sealed, self._current]
        self._sealed = deque(entry for entry in everything if entry.segment.first < first)
        for entry in everything:
            if entry.segment.first >= first:
                os.close(entry.descriptor)
        self._held = deque(entry for entry in self._held if entry[0].first < first)
        self._unindexed = deque(segment for segment in self._unindexed if segment.first < first)
        self._current = current

    def stop(self, *, clean: bool) -> None:
        """Do a last round, sync everything, note the clean end, close all descriptors. Raises OSError."""
        self._stopping = True
        self._wake.set()
        self._thread.join()
        with self.lock:
            try:
                self._seal_and_sync()
                if clean:
                    save_state(self._folder, msgspec.structs.replace(self.state, clean=True))
            finally:
                for spare in self._spares:
                    spare.discard()
                for entry in (*self._sealed, self._current):
                    os.close(entry.descriptor)

    # The thread.

    def _run(self) -> None:
        while not self._stopping:
            with self.lock:
                self._round()
            self._wake.wait(self._config.sync_interval_s)
            self._wake.clear()

    def _round(self) -> None:
        """One turn of duties. What fails is noted and tried again; the others still get their turn."""
        failed = ""
        for duty in (self._prepare_spare, self._seal_and_sync, self._retire, self._index):
            try:
                duty()
            except OSError as error:
                self.counters.keeper_errors += 1
                failed = failed or f"{duty.__name__.strip('_')}: {error}"
        self.counters.keeper_error_last = failed

    def _prepare_spare(self) -> None:
        segment = self._current.segment
        following = Segment.named(self._folder, segment.epoch, segment.first + self._rows_per_segment)
        if self._spares:
            if self._spares[0].segment == following:
                return
            # The loop thread had to roll without it; it takes only the one it wants, so this is ours.
            self._spares.popleft().discard()
        temporary = self._folder / f".{following.path.name}.spare.tmp"
        descriptor = create_segment(following, time.time_ns(), temporary)
        os.fdatasync(descriptor)
        self._spares.append(Spare(following, descriptor, temporary))

    def _seal_and_sync(self) -> None:
        """Sync sealed segments and the current one; position first, so that nothing is claimed too much."""
        position = self._position()
        current = self._current
        if position <= self.counters.synced_sequence and not self._sealed:
            return
        start_ns = time.perf_counter_ns()
        while self._sealed and self._sealed[0].descriptor != current.descriptor:
            segment, descriptor = self._sealed[0]
            os.fdatasync(descriptor)
            self._adopt(segment)
            self._sealed.popleft()
            os.close(descriptor)
        os.fdatasync(current.descriptor)
        counters = self.counters
        counters.sync_ns_last = time.perf_counter_ns() - start_ns
        counters.sync_ns_max = max(counters.sync_ns_max, counters.sync_ns_last)
        counters.syncs += 1
        counters.synced_sequence = position
        self.state = msgspec.structs.replace(self.state, synced_before=min(current.segment.first, position))
        if self.state != self._saved:
            sync_folder(self._folder)
            save_state(self._folder, self.state)
            self._saved = self.state
        self._count()

    def _adopt(self, segment: Segment) -> None:
        try:
            size = segment.size()
        except FileNotFoundError:
            return  # removed by hand: the records are gone, the tape goes on
        self._held.append((segment, size))
        self._unindexed.append(segment)

    def _index(self) -> None:
        """Index what is sealed and committed; leave out rows that a failed commit has left ahead."""
        while self._unindexed and not self._stopping:
            segment = self._unindexed[0]
            try:
                if segment.first + segment.row_count() > self._position():
                    return
                if read_index(segment) is None:
                    write_index(segment, build_index(segment))
            except FileNotFoundError:
                pass  # retired or removed by hand: nothing to index
            except TapeError as error:
                self.counters.segments_damaged += 1
                self.counters.damage_last = str(error)
            self._unindexed.popleft()

    def _retire(self) -> None:
        """Remove the oldest sealed segments beyond the bounds on bytes and age."""
        total = sum(size for _, size in self._held)
        oldest_s = time.time() - self._config.retention_age_s
        while self._held:
            segment, size = self._held[0]
            try:
                expired = segment.path.stat().st_mtime < oldest_s
            except FileNotFoundError:
                expired = True
            if total <= self._config.retention_bytes and not expired:
                break
            self._held.popleft()
            segment.path.unlink(missing_ok=True)
            segment.index_path.unlink(missing_ok=True)
            total -= size
            self.counters.segments_retired += 1
        self._count()

    def _count(self) -> None:
        self.counters.segments = len(self._held) + len(self._sealed) + 1
        self.counters.segment_bytes = sum(size for _, size in self._held)
