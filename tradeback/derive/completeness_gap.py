"""What is known of one gap, and how it looks as a record of the tape. Pure.

A gap is a range of ids of one stream (trades or aggregates of one symbol) in which ids are missing. It is
named by (symbol_id, stream, first_id, last_id), which never change. Its life: open, then repaired (no id
is missing any more) or unrepairable (`missing` ids will not come). Every change of state is one record on
the tape, so that a replay knows the same:

| record field | meaning                                                                |
|--------------|------------------------------------------------------------------------|
| id           | first id of the gap                                                    |
| ask          | last id of the gap                                                     |
| quantity     | state: OPEN, REPAIRED or UNREPAIRABLE                                  |
| price        | ids still missing                                                      |
| ask_quantity | the stream: kind of its records, TRADE or AGG                          |
| exchange_us  | exchange time of the last record before the gap; 0 when there was none |
| recv_ns      | when this state was noted                                              |
| flags        | LINE_LOCAL                                                             |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tradeback.derive.completeness_ranges import Range
from tradeback.model.record import AGG, GAP, LINE_LOCAL, LINE_SHIFT, TRADE, UNWATCHED, Rows, empty_rows

OPEN: Final = 1
REPAIRED: Final = 2
UNREPAIRABLE: Final = 3
STATE_NAMES: Final = {OPEN: "open", REPAIRED: "repaired", UNREPAIRABLE: "unrepairable"}

TRADES: Final = 0
AGGS: Final = 1
STREAM_KINDS: Final = (TRADE, AGG)
"""The kind of record by stream."""


@dataclass(slots=True)
class Gap:
    """One gap. Times `_ns` are this machine's, `_us` the exchange's; 0 where there is none."""

    symbol_id: int
    stream: int
    """TRADES or AGGS."""
    first_id: int
    last_id: int
    state: int
    missing: int
    """Ids of the range that are not on the tape (a stand-in does not count as being there)."""
    opened_ns: int
    closed_ns: int = 0
    before_us: int = 0
    """Time of the last record before it."""
    after_us: int = 0
    """Time of the first record behind it, as far as known."""
    sequence: int = 0
    """Where on the tape it was noticed."""

    @property
    def noted_ns(self) -> int:
        """When it came to its state."""
        return self.closed_ns or self.opened_ns

    @property
    def name(self) -> Range:
        """What names it within its stream."""
        return self.first_id, self.last_id


@dataclass(frozen=True, slots=True)
class Suspect:
    """A range in which ids were jumped over at `since_ns`; they may still come by another line."""

    first: int
    last: int
    since_ns: int
    before_us: int
    after_us: int
    sequence: int


@dataclass(frozen=True, slots=True)
class StreamState:
    """All that is known of one stream at a position of the tape, for a restart; gaps apart."""

    symbol_id: int
    stream: int
    from_id: int
    """Where the claim to completeness begins; -1: nothing has come yet."""
    top_id: int
    """Highest id known to exist."""
    top_us: int
    holes: tuple[Range, ...] = ()
    """Ids between that are not on the tape."""
    covered: tuple[Range, ...] = ()
    """Those of them for which a stand-in is on the tape."""
    suspects: tuple[tuple[int, int, int, int, int, int], ...] = ()
    """Fields of Suspect."""


def gap_rows(gaps: Sequence[Gap]) -> Rows:
    """One record for the present state of each."""
    rows = empty_rows(len(gaps))
    for row, gap in zip(rows, gaps, strict=True):
        row["kind"], row["symbol_id"] = GAP, gap.symbol_id
        row["id"], row["ask"] = gap.first_id, gap.last_id
        row["quantity"], row["price"] = gap.state, gap.missing
        row["ask_quantity"] = STREAM_KINDS[gap.stream]
        row["exchange_us"], row["recv_ns"] = gap.before_us, gap.noted_ns
    rows["flags"] = LINE_LOCAL << LINE_SHIFT
    return rows


def unwatched_rows(symbol_ids: Sequence[int], recv_ns: int) -> Rows:
    """One record for each symbol that is asked for again: its claim to completeness begins anew behind it."""
    rows = empty_rows(len(symbol_ids))
    rows["kind"], rows["symbol_id"], rows["recv_ns"] = UNWATCHED, symbol_ids, recv_ns
    rows["flags"] = LINE_LOCAL << LINE_SHIFT
    return rows
