"""What a drain asks of a store, and what it gives it: `Target` and its words."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tradeback.model.errors import StoreError
from tradeback.model.record import Rows
from tradeback.stores.ports import Position
from tradeback.tape import cursor


@dataclass(frozen=True, slots=True)
class Batch:
    """Records for one write, all of one epoch, in tape order. Shared with retries: never change `rows`.

    An archive gets every record: `rows[i]` stands at `first_sequence + i`. A price cache (`latest_only`)
    gets the newest trade (highest id) and the newest quote of each symbol between `first_sequence` and
    `last_sequence`, so its rows are not adjacent.
    """

    rows: Rows
    epoch: int
    first_sequence: int
    last_sequence: int

    @property
    def is_contiguous(self) -> bool:
        """Whether `rows[i]` stands at `first_sequence + i`."""
        return self.last_sequence - self.first_sequence + 1 == len(self.rows)

    @property
    def position(self) -> Position:
        """Where the store is when it holds this batch and all before."""
        return Position(self.epoch, self.last_sequence)


class Rejected(NamedTuple):
    """One row that the store will never take."""

    row: int
    """Index into the batch's rows."""
    reason: str


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a batch: everything but `rejected` is in the store."""

    rejected: tuple[Rejected, ...] = ()
    dropped: int = 0
    """Rows that the store let go by its own rules without saying which (older than its retention)."""


class BatchRefused(StoreError):
    """The store says no to the content, not to us: repeating it is useless.

    The drain halves the batch until the rows that are to blame stand alone, and sets those aside. Not for
    credentials, rights, a missing database or a full disk: those are StoreError, and repeated.
    """


class Target(Protocol):
    """A store, as a drain sees it. One caller, one loop; every call is bounded in time from outside.

    Anything a call raises means "not now": it is repeated, after a while, with the same batch; only
    `BatchRefused` means "never". A call that is cancelled may have happened or not.
    """

    async def open(self) -> Position | None:
        """Connect, make what is missing, and say up to where the store is true; None: nothing known.

        Called again after every outage, `close` in between: a store that has lost data says so here, with
        a lower position, and gets the records again. Raises StoreError with the remedy in one line.
        """

    async def write(self, batch: Batch) -> Written:
        """Put the batch into the store. Writing what is in it already must change nothing.

        With `in_flight` 2 two calls run at once, the older batch first, and either may be repeated.
        """

    async def save(self, position: Position) -> None:
        """Keep `position` durably: all up to it has been written. Nothing to do for a store that keeps the
        position with the data of `write` (then `in_flight` must be 1).

        Called now and then, in rising order, and at the end; a position that lags is no harm.
        """

    async def close(self) -> None:
        """Let go of connections. Also called after a failed `open`; never raises for a lost connection."""


class Source(cursor.Source, Protocol):
    """The tape, as a drain reads it: `Tape` or `TapeReader`."""

    @property
    def next_sequence(self) -> int:
        """Sequence of the record to come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainConfig:
    """How a drain goes about it. Defaults suit an archive on a server nearby."""

    batch_rows: int = 5_000
    """Most records in a write."""
    batch_age_s: float = 0.2
    """How long a record may wait for others before it is written."""
    in_flight: int = 2
    """Batches on their way at once; also the most that is held in memory."""
    write_timeout_s: float = 10.0
    """After this a write, save, open or close is cancelled, and counts as failed."""
    backoff_first_s: float = 0.1
    backoff_max_s: float = 10.0
    breaker_failures: int = 3
    """Failures in a row after which the store counts as down: closed, and probed by one `open` per wait."""
    catch_up_rows_s: float = 200_000.0
    """Most records a second while more than `in_flight` batches behind."""
    save_interval_s: float = 1.0
    """How often the position is saved while it moves."""
    latest_only: bool = False
    """A price cache: only the newest of each symbol; after an outage from the head, without the past."""
    latest_scan_rows: int = 262_144
    """How far back from the head a price cache looks for the newest of each symbol when it (re)starts."""
    refused_writes_max: int = 1_000
    """Writes spent on finding the bad rows of one refused batch; what is in doubt then is set aside whole."""
