"""Gaps and the state of the completeness ledger in SQLite, beside the series store.

One transaction holds what has changed and the position of the tape for which all of it is true. A gap's
key is its name (symbol, stream, first id, last id), so reading the same stretch of the tape again writes
the same rows again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import orjson

from tradeback.derive.completeness_gap import REPAIRED, Gap, StreamState
from tradeback.stores.ports import Position
from tradeback.stores.sqlite import Sqlite

SCHEMA = """
CREATE TABLE gaps(
    symbol_id INTEGER NOT NULL, stream INTEGER NOT NULL,
    first_id INTEGER NOT NULL, last_id INTEGER NOT NULL,
    state INTEGER NOT NULL, missing INTEGER NOT NULL, opened_ns INTEGER NOT NULL, closed_ns INTEGER NOT NULL,
    before_us INTEGER NOT NULL, after_us INTEGER NOT NULL, sequence INTEGER NOT NULL,
    PRIMARY KEY(symbol_id, stream, first_id, last_id)
) WITHOUT ROWID;
CREATE INDEX gaps_by_time ON gaps(opened_ns, symbol_id, stream, first_id);
CREATE TABLE streams(
    symbol_id INTEGER NOT NULL, stream INTEGER NOT NULL, from_id INTEGER NOT NULL, top_id INTEGER NOT NULL,
    top_us INTEGER NOT NULL, holes BLOB NOT NULL,
    PRIMARY KEY(symbol_id, stream)
) WITHOUT ROWID;
CREATE TABLE position(
    only INTEGER PRIMARY KEY CHECK(only = 0), epoch INTEGER NOT NULL, sequence INTEGER NOT NULL
);
INSERT INTO position VALUES (0, 0, 0)
"""
"""`holes`: JSON of [holes, covered, suspects] as StreamState has them. `stream`: 0 trades, 1 aggregates."""
_COLUMNS = (
    "symbol_id, stream, first_id, last_id, state, missing, opened_ns, "
    "closed_ns, before_us, after_us, sequence"
)
I64_MAX = (1 << 63) - 1
"""SQLite refuses larger integers; the year 2262 in ns."""
_BEGIN_NS = "min(opened_ns, CASE before_us WHEN 0 THEN opened_ns ELSE before_us * 1000 END)"
"""A gap lasts from the last record before it until its trades were missed."""

# What is put together here and in `find` are this module's own words; every value is bound.
_PUT_GAP = f"REPLACE INTO gaps({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
_UNREPAIRED = f"SELECT {_COLUMNS} FROM gaps WHERE state <> ?"  # noqa: S608


@dataclass(frozen=True, slots=True)
class GapQuery:
    """Which gaps: those that touch [from_us, to_us), of one symbol or all, behind `after`."""

    symbol_id: int | None = None
    from_us: int | None = None
    to_us: int | None = None
    states: tuple[int, ...] = ()
    """Empty: every state."""
    after: tuple[int, int, int, int, int] | None = None
    """(opened_ns, symbol_id, stream, first_id, last_id) of the last gap of the page before."""
    limit: int = 1_000


@dataclass(frozen=True, slots=True)
class StoredGaps:
    """What a restart begins with."""

    position: Position
    states: Sequence[StreamState]
    gaps: Sequence[Gap]
    """Those that are not repaired."""


class GapsSqlite:
    """The store of gaps in one file. Raises StartupError when the file cannot be opened."""

    def __init__(self, path: Path | str) -> None:
        self._file = Sqlite(Path(path), SCHEMA)

    def write(self, states: Iterable[StreamState], gaps: Iterable[Gap], position: Position) -> None:
        """Replace what is stored of these streams and gaps, and move the position: all or nothing."""
        with self._file.writing() as connection:
            connection.executemany(
                "REPLACE INTO streams VALUES (?, ?, ?, ?, ?, ?)", (_stream_values(state) for state in states)
            )
            connection.executemany(_PUT_GAP, map(astuple, gaps))
            connection.execute("UPDATE position SET epoch = ?, sequence = ?", position)

    def load(self) -> StoredGaps:
        """The streams, the gaps that are not repaired, and the position; Position(0, 0) in a new file."""
        with self._file.reading() as connection:
            position = Position(*connection.execute("SELECT epoch, sequence FROM position").fetchone())
            streams = connection.execute("SELECT * FROM streams").fetchall()
            gaps = connection.execute(_UNREPAIRED, (REPAIRED,)).fetchall()
        return StoredGaps(position, [_stream(row) for row in streams], [Gap(*row) for row in gaps])

    def find(self, query: GapQuery) -> list[Gap]:
        """Gaps in the order in which they were noted."""
        wheres, values = ["1"], list[Any]()
        if query.symbol_id is not None:
            wheres, values = [*wheres, "symbol_id = ?"], [*values, query.symbol_id]
        if query.from_us is not None:
            wheres, values = (
                [*wheres, "max(opened_ns, after_us * 1000) >= ?"],
                [*values, min(query.from_us * 1_000, I64_MAX)],
            )
        if query.to_us is not None:
            wheres, values = [*wheres, f"{_BEGIN_NS} < ?"], [*values, min(query.to_us * 1_000, I64_MAX)]
        if query.states:
            wheres.append(f"state IN ({', '.join('?' * len(query.states))})")
            values += query.states
        if query.after is not None:
            wheres.append("(opened_ns, symbol_id, stream, first_id, last_id) > (?, ?, ?, ?, ?)")
            values += query.after
        text = (
            f"SELECT {_COLUMNS} FROM gaps WHERE {' AND '.join(wheres)} "  # noqa: S608
            "ORDER BY opened_ns, symbol_id, stream, first_id, last_id LIMIT ?"
        )
        with self._file.reading() as connection:
            return [Gap(*row) for row in connection.execute(text, (*values, query.limit))]

    def forget(self) -> None:
        """Streams and position do not fit the tape any more: they are made anew. Gaps stay as history."""
        with self._file.writing() as connection:
            connection.execute("DELETE FROM streams")
            connection.execute("UPDATE position SET epoch = 0, sequence = 0")

    def close(self) -> None:
        """Close all connections."""
        self._file.close()


def _stream_values(state: StreamState) -> tuple[Any, ...]:
    rest = orjson.dumps((state.holes, state.covered, state.suspects))
    return state.symbol_id, state.stream, state.from_id, state.top_id, state.top_us, rest


def _stream(row: tuple[int, int, int, int, int, bytes]) -> StreamState:
    symbol_id, stream, from_id, top_id, top_us, rest = row
    holes, covered, suspects = (tuple(map(tuple, part)) for part in orjson.loads(rest))
    return StreamState(symbol_id, stream, from_id, top_id, top_us, holes, covered, suspects)
