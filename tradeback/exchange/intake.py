"""Where bytes become records: the hot path from a socket read to the readers of the tape.

`pull` is one kernel call over what a read brought, one append to the tape, and one call of every reader.
Nothing here waits. When the disk refuses, the records stay in the ring, unpublished; lines stop reading
(the exchange queues meanwhile) until the same append succeeds.
"""

import asyncio
from collections.abc import Callable, Iterator

import numpy as np

from tradeback.ingest import context as words
from tradeback.ingest.arbiter import restore_rows
from tradeback.ingest.context import IngestContext
from tradeback.ingest.read import admit_rows, decode_one, note_lag, read_frames
from tradeback.kernel.jit import entry
from tradeback.model.errors import TapeError
from tradeback.model.limits import BATCH_ROWS_MAX
from tradeback.model.record import KIND_NAMES, ROW_BYTES, Rows, empty_rows, seal
from tradeback.model.symbols import Symbol
from tradeback.ops.metrics import Family, Histogram
from tradeback.tape.writer import Tape

OnRows = Callable[[int, int], None]
"""A reader: (first sequence, number of records), contiguous in the ring. See `Feed.on_rows`."""

RETRY_S = 0.5
"""How often a refused append is tried again."""
_ROW_SHIFT = ROW_BYTES.bit_length() - 1


class Intake:
    """One per engine; all lines share it. Loop thread only."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.lag = Histogram()
        """Exchange send time E -> receive, us. Holds the difference of two clocks."""
        self.context = IngestContext(self.lag.bounds, self.lag.counts, self.lag.sums)
        self.view = self.context.view
        self.readers: list[OnRows] = []
        self.stalled: str | None = None
        """Why the tape refuses records; None while it takes them."""
        self.on_stall: list[Callable[[bool], None]] = []
        """Called with True when the tape begins to refuse, with False when it takes records again."""
        self._waiting = 0
        self._read = entry(read_frames)
        self._mask = tape.hot_rows - 1

    def add_symbol(self, symbol: Symbol) -> None:
        """From now on this symbol's frames are understood."""
        self.context.add_symbol(symbol.symbol, symbol.id)

    def pull(self, address: int, end: int, recv_ns: int, line: int) -> int:
        """Take the frames in [address, end); returns how many records came of it.

        `context.view` says where it stopped and why (POSITION, SIDE_*, PROTOCOL_ERROR). When it stopped
        at BATCH_ROWS_MAX or at the ring's end, there is more to pull.
        """
        tape = self.tape
        first = tape.next_sequence
        slot = first & self._mask
        room = tape.hot_rows - slot
        count: int = self._read(
            self.context.address,
            address,
            end,
            recv_ns,
            line,
            tape.rows_address + (slot << _ROW_SHIFT),
            room if room < BATCH_ROWS_MAX else BATCH_ROWS_MAX,
            first,
            tape.epoch,
        )
        if count:
            self._publish(count)
        return count

    def admit(self, rows: Rows) -> int:
        """Arbitrate complete records that did not come through the kernel; returns how many were accepted.

        Raises TapeError while the tape refuses records; then nothing has been taken.
        """
        return self._in_batches(rows, self._admit_batch)

    def append(self, rows: Rows) -> int:
        """Put records on the tape that need no arbitration (seeds). Raises TapeError like `admit`."""
        return self._in_batches(rows, self._append_batch)

    def decode(self, address: int, end: int, row: Rows) -> int:
        """Decode one frame payload without taking it; returns the grammar's status."""
        status: int = decode_one(self.context.address, address, end, int(row.ctypes.data))
        return status

    def note_event(self, event_us: int, recv_ns: int) -> None:
        """Count exchange -> receive for a frame that took the slow path."""
        note_lag(self.context.address, event_us, recv_ns)

    def restore(self, rows: Rows) -> None:
        """Learn from tape records, oldest first, what has been seen. Counters stay as they are."""
        before = self.context.words[words.COUNTERS :].copy()
        held = np.ascontiguousarray(rows)
        restore_rows(self.context.address, int(held.ctypes.data), len(held))
        self.context.words[words.COUNTERS :] = before

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
            self._publish(count)
        return count

    def _append_batch(self, rows: Rows) -> int:
        tape = self.tape
        slot = tape.next_sequence & self._mask
        place = tape.rows[slot : slot + len(rows)]
        place[:] = rows
        seal(place, tape.next_sequence, tape.epoch)
        self._publish(len(rows))
        return len(rows)

    def _publish(self, count: int) -> None:
        """Append, then let every reader have the records: nobody sees what the tape does not hold."""
        try:
            first = self.tape.commit(count)
        except TapeError as error:
            self._stall(count, error)
            return
        for reader in self.readers:
            reader(first, count)

    def _stall(self, count: int, error: TapeError) -> None:
        self.stalled = str(error)
        self._waiting = count
        for tell in self.on_stall:
            tell(True)
        asyncio.get_running_loop().call_later(RETRY_S, self._retry)

    def _retry(self) -> None:
        try:
            first = self.tape.commit(self._waiting)
        except TapeError as error:
            self.stalled = str(error)
            asyncio.get_running_loop().call_later(RETRY_S, self._retry)
            return
        self.stalled = None
        for reader in self.readers:
            reader(first, self._waiting)
        for tell in self.on_stall:
            tell(False)

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


def scratch_row() -> Rows:
    """One record to decode into."""
    return empty_rows(1)
