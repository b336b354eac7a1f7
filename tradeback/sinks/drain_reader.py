"""The reading half of a drain: batches from the tape, at a rate, over holes."""

import logging

from tradeback.model.clock import Clock
from tradeback.model.errors import TapeError
from tradeback.sinks.drain_latest import Newest
from tradeback.sinks.drain_ports import Batch, DrainConfig, Source
from tradeback.stores.ports import Position
from tradeback.tape.cursor import Cursor
from tradeback.tape.reader import RecordsGone

DAMAGE_RETRY_S = 5.0
"""How long to leave a tape alone that could not be read."""


class BatchReader:
    """Cuts the tape into batches behind one cursor. Keeps no batch.

    Reads are synchronous: 5,000 records are 320 kB, a fraction of a millisecond from the page cache.
    """

    def __init__(
        self, source: Source, config: DrainConfig, clock: Clock, log: logging.Logger, name: str
    ) -> None:
        self._source, self._config, self._clock, self._log, self._name = source, config, clock, log, name
        self._cursor = Cursor(source, source.oldest_sequence)
        self._newest = Newest()
        self._fold_first = self._fold_end = 0
        self.ready_ns = 0
        """Steady time before which reading again is of no use."""
        self.gone = 0
        """Records that retention removed before they were read."""
        self.skipped = 0
        """Records that a price cache passed over."""
        self.error: str | None = None
        """Why the tape could not be read at last."""

    @property
    def sequence(self) -> int:
        """Sequence of the next record to be read."""
        return self._cursor.sequence

    @property
    def position(self) -> Position:
        """Everything up to here has been read, or was there before `begin`."""
        return Position(self._cursor.epoch, self._cursor.sequence - 1)

    def begin(self, position: Position | None) -> None:
        """Go on behind what the store has. None: from the oldest record."""
        if self._config.latest_only:
            start = max(
                self._source.oldest_sequence, self._source.next_sequence - self._config.latest_scan_rows
            )
            self.skipped += max(0, start - (position.sequence + 1 if position else start))
            self._cursor = Cursor(self._source, start)
            self._fold_end = 0
            self._newest.again()  # nobody knows what of it the store has
        elif position is None or position.sequence == 0:
            self._cursor = Cursor(self._source, self._source.oldest_sequence)
        else:
            self._resume(position)
        self.ready_ns = self._clock.steady_ns()

    def _resume(self, position: Position) -> None:
        """Behind `position`; from the oldest record when that is a position of another tape."""
        self._cursor = Cursor(self._source, position.sequence + 1, position.epoch)
        if self._cursor.sequence <= position.sequence:
            return  # a crash of the machine took the end of that epoch; the next began before it
        held = position.sequence < self._source.next_sequence
        if held and (self._cursor.epoch == position.epoch or self._is_held(position)):
            return
        self._log.warning(
            "%s: this tape does not know record %d of epoch %08x, up to which the store is filled; "
            "the store gets the whole tape",
            self._name,
            position.sequence,
            position.epoch,
        )
        self._cursor = Cursor(self._source, self._source.oldest_sequence)

    def _is_held(self, position: Position) -> bool:
        """Whether the record at `position` is on the tape and of that epoch, which then ended just there."""
        try:
            epoch, rows = self._source.read_with_epoch(position.sequence, 1)
        except RecordsGone:
            return False
        return len(rows) == 1 and epoch == position.epoch

    def read(self) -> Batch | None:
        """The next batch, or None when there is none yet; `ready_ns` says when to ask again."""
        try:
            batch = self._read_newest() if self._config.latest_only else self._read_next()
        except RecordsGone:
            self._skip_gone()
            return None
        except TapeError as error:
            if self.error is None:
                self._log.error("%s: cannot read the tape, retrying: %s", self._name, error)
            self.error = str(error)
            self._rest(DAMAGE_RETRY_S)
            return None
        self.error = None
        return batch

    def _read_next(self) -> Batch | None:
        rows = self._cursor.next(self._config.batch_rows)
        end = self._cursor.sequence
        if len(rows) < self._config.batch_rows:
            self._rest(self._config.batch_age_s if end >= self._source.next_sequence else 0.0)
        elif self._source.next_sequence - end > self._config.batch_rows * self._config.in_flight:
            self._rest(len(rows) / self._config.catch_up_rows_s)
        else:
            self._rest(0.0)
        if not len(rows):
            return None
        return Batch(rows, self._cursor.epoch, end - len(rows), end - 1)

    def _read_newest(self) -> Batch | None:
        """Fold one piece; a batch once what was the tape's end at the first piece has been reached."""
        if self._fold_end == 0:
            self._fold_first, self._fold_end = self._cursor.sequence, self._source.next_sequence
        before = self._cursor.sequence
        rows = self._cursor.next(self._config.batch_rows)
        self._newest.fold(rows)
        if self._cursor.sequence < self._fold_end and (len(rows) or self._cursor.sequence != before):
            self._rest(0.0)
            return None
        first, self._fold_end = self._fold_first, 0
        self._rest(self._config.batch_age_s)
        newest = self._newest.take()
        if not len(newest):
            return None
        return Batch(newest, self._cursor.epoch, first, self._cursor.sequence - 1)

    def _skip_gone(self) -> None:
        first = self._cursor.sequence
        count = self._cursor.skip_gone()
        self.gone += count
        self._log.error(
            "%s: records %d to %d are gone by retention before the store took them; going on behind them",
            self._name,
            first,
            first + count - 1,
        )

    def _rest(self, seconds: float) -> None:
        self.ready_ns = self._clock.steady_ns() + int(seconds * 1e9)
