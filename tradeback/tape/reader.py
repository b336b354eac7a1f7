"""Reading a tape's files from any process, while it is written. No numba, no descriptor kept, thread safe."""

import threading
import time
from bisect import bisect_right
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from tradeback.model.errors import TapeError
from tradeback.model.record import Rows, count_intact, empty_rows
from tradeback.tape.query import Enough, Found, IndexCache, Query, find, first_rows
from tradeback.tape.segment import Segment, list_segments
from tradeback.tape.state import load_state

_MTIME_GRAIN_NS: Final = 50_000_000
"""A folder's time stamp may stand still this long while names change (the kernel's clock tick)."""


class RecordsGone(TapeError):
    """Retention has removed the records that were asked for; `oldest_sequence` is the first still held."""

    def __init__(self, message: str, oldest_sequence: int) -> None:
        super().__init__(message)
        self.oldest_sequence = oldest_sequence


class TapeReader:
    """The tape in `folder` as its files show it. Writes nothing, takes no lock."""

    def __init__(self, folder: Path | str) -> None:
        """Raises TapeError when there is no tape in `folder`."""
        self.folder = Path(folder)
        self._lock = threading.Lock()
        self._listed: tuple[Segment, ...] = ()
        self._listed_mtime_ns = -1
        self._listed_at_ns = 0
        self._indexes = IndexCache()
        if not self.segments() and load_state(self.folder) is None:
            raise TapeError(
                f"there is no tape in {self.folder}: set DATA_DIR to the folder of a running engine"
            )

    def segments(self) -> tuple[Segment, ...]:
        """All segments by rising first sequence; the last is the one being written."""
        try:
            mtime_ns = self.folder.stat().st_mtime_ns
            now_ns = time.time_ns()
            with self._lock:
                settled = self._listed_at_ns - self._listed_mtime_ns > _MTIME_GRAIN_NS
                if mtime_ns != self._listed_mtime_ns or not settled:
                    self._listed = list_segments(self.folder)
                    self._listed_mtime_ns = mtime_ns
                    self._listed_at_ns = now_ns
                return self._listed
        except (FileNotFoundError, NotADirectoryError) as error:
            raise TapeError(
                f"there is no folder {self.folder}: set DATA_DIR to that of a running engine"
            ) from error

    @property
    def oldest_sequence(self) -> int:
        """Sequence of the oldest record held, or of the first to come."""
        segments = self.segments()
        return segments[0].first if segments else 1

    @property
    def next_sequence(self) -> int:
        """Sequence of the record to come: one more than that of the last intact record."""
        segments = self.segments()
        if not segments:
            return 1
        last = segments[-1]
        if last.header() is None:
            return last.first
        count = last.row_count()
        if count and not len(self._verified(last, last.load(count - 1, 1), count - 1)):
            count = last.count_intact()
        return last.first + count

    def read(self, sequence: int, rows_max: int) -> Rows:
        """Up to `rows_max` verified records from `sequence` on, all of one epoch; empty at the end.

        Fewer at a segment's end and before a torn tail. Raises RecordsGone when retention has removed
        them, TapeError when they are damaged.
        """
        return self.read_with_epoch(sequence, rows_max)[1]

    def read_with_epoch(self, sequence: int, rows_max: int) -> tuple[int, Rows]:
        """Like `read`, with the epoch of the records; at the end that of the newest segment (0: none)."""
        while True:
            segments = self.segments()
            if not segments:
                return 0, empty_rows(0)
            place = bisect_right(segments, sequence, key=_first_of) - 1
            if place < 0:
                oldest = segments[0].first
                raise RecordsGone(
                    f"records {sequence} to {oldest - 1} are gone from {self.folder} by retention: "
                    f"go on at {oldest}, or raise tape.retention_bytes",
                    oldest,
                )
            segment = segments[place]
            try:
                raw = segment.load(sequence - segment.first, rows_max)
            except FileNotFoundError:
                self._forget()
                continue
            rows = self._verified(segment, raw, sequence - segment.first)
            if len(rows) or rows_max <= 0:
                return segment.epoch, rows
            now = self.segments()
            if now != segments:
                continue
            if place == len(segments) - 1:
                return segment.epoch, rows
            if len(raw):
                raise TapeError(
                    f"record {sequence} in {segment.path} is damaged: run `tradeback tape verify`"
                )
            if sequence < segments[place + 1].first and segment.row_count() <= sequence - segment.first:
                raise TapeError(
                    f"records {sequence} to {segments[place + 1].first - 1} are missing behind {segment.path}"
                )

    def symbol_rows(
        self,
        symbol_id: int,
        *,
        kinds: Collection[int] | None = None,
        from_us: int | None = None,
        to_us: int | None = None,
        from_id: int | None = None,
        rows_max: int,
        by_id: bool = False,
    ) -> Rows:
        """Records of one symbol: by index in sealed segments; the newest as far as it is known, then by scan.

        `kinds` None: all. Times are us since 1970, `from_us` inclusive, `to_us` exclusive: the exchange's
        time, or the time of receipt where there is none (quotes). `from_id` is the lowest id wanted.
        The first `rows_max` matches in tape order, or, with `by_id`, those with the lowest ids in order
        of id (repaired trades stand late on the tape). Raises TapeError when a record in the way is damaged.
        """
        query = Query(symbol_id, kinds, from_us, to_us, from_id)
        enough = Enough() if by_id else None
        return first_rows(find(self.segments(), query, self._indexes, enough), rows_max, enough)

    def find(self, query: Query) -> Iterator[Found]:
        """All matches with their sequences, in tape order and in pieces; see query.find."""
        return find(self.segments(), query, self._indexes)

    def resume(self, epoch: int, sequence: int) -> tuple[int, int]:
        """Where a reader goes on that has seen everything before `sequence` of `epoch` (0: unknown).

        Usually the very same place. When that epoch ended before `sequence`, because a crash of the
        machine lost records that the reader has seen, it is the beginning of the epoch that followed.
        """
        history = self.epochs()
        for place, (known, _) in enumerate(history):
            if known == epoch and place + 1 < len(history) and sequence >= history[place + 1][1]:
                return history[place + 1]
            if known == epoch:
                return epoch, sequence
        began = [known for known, first in history if first <= sequence]
        return (began[-1] if began else 0), sequence

    def epochs(self) -> list[tuple[int, int]]:
        """Every epoch that has a segment, with its first sequence as far as known, oldest first."""
        state = load_state(self.folder)
        history = dict(state.epochs) if state is not None else {}
        for segment in self.segments():
            history[segment.epoch] = min(segment.first, history.get(segment.epoch, segment.first))
        return sorted(history.items(), key=lambda item: item[1])

    def _forget(self) -> None:
        with self._lock:
            self._listed_mtime_ns = -1

    @staticmethod
    def _verified(segment: Segment, rows: Rows, row: int) -> Rows:
        return rows[: count_intact(rows, segment.first + row, segment.epoch)]


def _first_of(segment: Segment) -> int:
    return segment.first
