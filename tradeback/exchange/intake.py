"""Where bytes become records: the hot path from a socket read to the readers of the tape.

`pull` is one kernel call: decode what a read brought, append it to the tape, serve the feed, derive (see
`path.path_kernel`). Nothing here waits. When the disk refuses, the records stay in the ring, unpublished;
lines stop reading (the exchange queues meanwhile) until the same append succeeds.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tradeback.derive.completeness_gap import unwatched_rows
from tradeback.ingest import context as words
from tradeback.ingest.arbiter import restore_rows
from tradeback.ingest.context import IngestContext
from tradeback.ingest.read import admit_rows, read_frames
from tradeback.kernel.jit import address as address_of
from tradeback.kernel.jit import entry
from tradeback.model.errors import TapeError
from tradeback.model.limits import BATCH_ROWS_MAX
from tradeback.model.record import KIND_NAMES, ROW_BYTES, UNWATCHED, Rows, empty_rows, seal
from tradeback.model.symbols import Symbol
from tradeback.ops.metrics import Family, Histogram
from tradeback.path import layout as at
from tradeback.path.path import Path
from tradeback.path.path_kernel import pump, take
from tradeback.tape.writer import Tape

OnRows = Callable[[int, int], None]
"""A reader in Python: (first sequence, number of records), contiguous in the ring, after the path's stations.
It must not keep references into the ring, which is written over after hot_rows more records."""

RETRY_S = 0.5
"""How often a refused append is tried again."""
_ROW_SHIFT = ROW_BYTES.bit_length() - 1


class Intake:
    """One per engine; all lines share it. Loop thread only."""

    def __init__(self, tape: Tape, path: Path | None = None) -> None:
        self.tape = tape
        self.path = path or Path(tape)
        self.lag = Histogram()
        """Exchange send time E -> receive, us. Holds the difference of two clocks."""
        self.context = IngestContext(self.lag.bounds, self.lag.counts, self.lag.sums)
        self.view = self.context.view
        unseen = Histogram()
        self._beside = IngestContext(unseen.bounds, unseen.counts, unseen.sums)
        self.readers: list[OnRows] = []
        self._stalled: str | None = None
        self.on_stall: list[Callable[[bool], None]] = []
        """Called with True when the tape begins to refuse, with False when it takes records again. One who
        is told late looks at `stalled`: what an earlier one did may have made it refuse again."""
        self.stalls = 0
        """How often the tape has begun to refuse."""
        self._waiting = 0
        self._retrying: asyncio.TimerHandle | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._read = entry(read_frames)
        self._pump = entry(pump)
        self._mask = tape.hot_rows - 1
        self.path.words[at.READ] = address_of(read_frames)
        self.path.words[at.INGEST] = self.context.address
        self.path.words[at.TAPE] = tape.words.ctypes.data
        self.path.attach()
        self._path_address, self._path_view = self.path.address, self.path.view
        self._take = entry(take)

    @property
    def stalled(self) -> str | None:
        """Why the tape refuses records; None while it takes them."""
        return self._stalled

    @stalled.setter
    def stalled(self, reason: str | None) -> None:
        self._stalled = reason
        self._path_view[at.STALLED] = reason is not None

    @property
    def full(self) -> bool:
        """The last `pull` stopped because its stretch of the ring was full: there may be more to pull."""
        return bool(self._path_view[at.FULL])

    def add_symbol(self, symbol: Symbol) -> None:
        """From now on this symbol's frames are understood."""
        self.context.add_symbol(symbol.symbol, symbol.id)
        self._beside.add_symbol(symbol.symbol, symbol.id)

    def begin_anew(self, symbol_ids: Sequence[int], recv_ns: int) -> None:
        """Nobody asked for these symbols since their last record: what was missed meanwhile is no gap, here
        and for readers of the tape. To be called before their streams begin. Raises TapeError like `admit`.
        """
        self.append(unwatched_rows(symbol_ids, recv_ns))
        for symbol_id in symbol_ids:
            self.context.begin_anew(symbol_id)

    def pull(self, address: int, end: int, recv_ns: int, line: int) -> int:
        """Take the frames in [address, end); returns how many records came of it.

        `context.view` says where it stopped and why (POSITION, SIDE_*, PROTOCOL_ERROR); `full` whether
        it stopped because of the ring. Must not be called while `stalled`: the ring's next slots hold
        records then that wait for the disk.
        """
        count: int = self._pump(self._path_address, address, end, recv_ns, line)
        self.finish()
        return count

    def finish(self) -> None:
        """After a kernel has pulled: do what it left to Python, if anything."""
        view = self._path_view
        count, first = view[at.COUNT], view[at.FIRST]
        if not count:
            return
        if view[at.COMMITTED]:
            if view[at.ATTENTION]:
                self.path.attend(first, count)
            for reader in self.readers:
                reader(first, count)
        else:
            self._publish(count, self.tape.commit_slowly)

    def reader(self, words: NDArray[np.int64]) -> Callable[[int, int, int], int]:
        """What a socket reader calls with every read: DONE or LOOK from the address of its memory, the
        number of bytes and the receive time in ns.

        `words` is that memory (int64[READER_WORDS], `path.layout`). After LOOK, and with `readers` in any
        case, `finish` is to be called when READER_TAKEN.
        """
        words[at.READER_PATH] = self._path_address
        return self._take

    async def flowing(self) -> None:
        """Until the tape takes records; at once when it does."""
        while self.stalled is not None:
            await self._flowing.wait()

    def admit(self, rows: Rows) -> int:
        """Arbitrate complete records that did not come through the kernel; returns how many were accepted.

        Raises TapeError while the tape refuses records; of many, the first ones may have been taken then,
        and are known by their ids when the call is repeated. Those that are taken when the refusal begins
        wait in the ring: that raises nothing.
        """
        return self._in_batches(rows, self._admit_batch)

    def append(self, rows: Rows) -> int:
        """Put records on the tape that need no arbitration (seeds). Raises TapeError like `admit`."""
        return self._in_batches(rows, self._append_batch)

    def shadow(self, address: int, end: int) -> Rows | None:
        """The record that the kernel makes of the frame in [address, end), without taking it.

        None for a frame that is not the kernel's. The same kernel over a context of its own, in which
        nothing has been seen yet.
        """
        row = empty_rows(1)
        self._beside.states[:] = 0
        count = self._read(self._beside.address, address, end, 0, 0, int(row.ctypes.data), 1, 0, 0)
        return row if count else None

    def note_event(self, event_us: int, recv_ns: int) -> None:
        """Count exchange -> receive for a frame that took the slow path."""
        self.lag.observe(recv_ns // 1000 - event_us)

    def restore(self, rows: Rows) -> None:
        """Learn from tape records, oldest first, what has been seen. Counters stay as they are."""
        before = self.context.words[words.COUNTERS :].copy()
        held = np.ascontiguousarray(rows)
        start = 0
        for cut in np.flatnonzero(held["kind"] == UNWATCHED).tolist():
            self._restore(held[start:cut])
            self.context.begin_anew(int(held["symbol_id"][cut]))
            start = cut + 1
        self._restore(held[start:])
        self.context.words[words.COUNTERS :] = before

    def _restore(self, rows: Rows) -> None:
        restore_rows(self.context.address, int(rows.ctypes.data), len(rows))

    def _in_batches(self, rows: Rows, take: Callable[[Rows], int]) -> int:
        done = taken = 0
        while done < len(rows):
            if self.stalled is not None:
                raise TapeError(f"the tape takes no records now: {self.stalled}")
            count = min(len(rows) - done, self.tape.room(), BATCH_ROWS_MAX)
            taken += take(rows[done : done + count])
            done += count
        return taken

    def _admit_batch(self, rows: Rows) -> int:
        held = rows.copy()
        tape = self.tape
        first = tape.next_sequence
        target = tape.rows_address + ((first & self._mask) << _ROW_SHIFT)
        count: int = admit_rows(
            self.context.address, int(held.ctypes.data), len(held), target, first, tape.epoch
        )
        if count:
            self._publish(count, tape.commit)
        return count

    def _append_batch(self, rows: Rows) -> int:
        tape = self.tape
        slot = tape.next_sequence & self._mask
        place = tape.rows[slot : slot + len(rows)]
        place[:] = rows
        seal(place, tape.next_sequence, tape.epoch)
        self._publish(len(rows), tape.commit)
        return len(rows)

    def _publish(self, count: int, commit: Callable[[int], int]) -> None:
        """Append, then let every reader have the records: nobody sees what the tape does not hold."""
        try:
            first = commit(count)
        except TapeError as error:
            self._stall(count, error)
            return
        self._serve(first, count)

    def _serve(self, first: int, count: int) -> None:
        self.path.serve(first, count)
        for reader in self.readers:
            reader(first, count)

    def _stall(self, count: int, error: TapeError) -> None:
        self.stalled = str(error)
        self.stalls += 1
        self._waiting = count
        self._flowing.clear()
        self._retrying = asyncio.get_running_loop().call_later(RETRY_S, self._retry)
        for tell in self.on_stall:
            tell(True)

    def _retry(self) -> None:
        self._retrying = None
        if not self._flush():
            self._retrying = asyncio.get_running_loop().call_later(RETRY_S, self._retry)
            return
        for tell in self.on_stall:
            tell(False)

    def _flush(self) -> bool:
        """Try the refused append again, and publish it; False when it is refused again."""
        try:
            first = self.tape.commit(self._waiting)
        except TapeError as error:
            self.stalled = str(error)
            return False
        self.stalled = None
        self._flowing.set()
        self._serve(first, self._waiting)
        return True

    def close(self) -> None:
        """No more retries; what waits gets its last chance. The lines have stopped before."""
        if self._retrying is not None:
            self._retrying.cancel()
            self._retrying = None
            self._flush()

    def collect(self) -> Iterator[Family]:
        """Messages, duplicates and the like per stream; exchange -> receive."""
        names = (
            ("messages", words.MESSAGES, "Market-data messages decoded."),
            ("accepted", words.ACCEPTED, "Messages that entered the tape."),
            ("duplicates", words.DUPLICATES, "Messages dropped because their id had been seen."),
            ("stale", words.STALE, "Messages dropped because their id is older than the window."),
            ("late_fills", words.LATE_FILLS, "Messages accepted after a higher id of their symbol."),
            ("skipped_ids", words.SKIPPED_IDS, "Ids that were jumped over; late fills are not taken off."),
        )
        for name, word, text in names:
            family = Family(f"tradeback_ingest_{name}", "counter", text)
            for kind in words.KINDS:
                family.add(self.context.counter(word, kind), stream=KIND_NAMES[kind])
            yield family
        yield Family(
            "tradeback_receive_latency_seconds",
            "histogram",
            "Exchange send time to receive, in seconds; holds the difference of two clocks.",
        ).add(self.lag)
        yield Family(
            "tradeback_receive_ahead",
            "counter",
            "Messages whose exchange time lay in this machine's future: the clocks are apart.",
        ).add(int(self.lag.sums[1]))
