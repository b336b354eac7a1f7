"""Bars and levels in SQLite: the embedded series store. One file, bars as packed blobs.

A bar is stored with its whole state (ids, lots, seed; layout.BAR), so that merging a late trade into it
and going on after a restart are exact. The tape position is written in the transaction of what it covers:
after a crash, replaying the tape behind it merges nothing twice.
"""

import sqlite3
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tradeback.derive.bars import Bar, finish_open, from_rows, is_complete, merge_all, merge_bars, settle
from tradeback.derive.completeness_ranges import IdRanges
from tradeback.derive.layout import (
    BAR,
    BAR_BYTES,
    BEFORE,
    CURRENT,
    EXCHANGE,
    HALF,
    PART,
    PREVIOUS,
    STATE,
    Bars,
    Drained,
    Parts,
    States,
)
from tradeback.model.errors import StartupError
from tradeback.stores import series_coverage
from tradeback.stores.ports import Closed, Position, Stored
from tradeback.stores.sqlite import Sqlite

SCHEMA = """
CREATE TABLE bars(
    symbol_id INTEGER NOT NULL, resolution INTEGER NOT NULL, slot INTEGER NOT NULL,
    generation INTEGER NOT NULL, bar BLOB NOT NULL,
    PRIMARY KEY(symbol_id, resolution, slot)
) WITHOUT ROWID;
CREATE TABLE parts(
    symbol_id INTEGER NOT NULL, resolution INTEGER NOT NULL, part INTEGER NOT NULL, bar BLOB NOT NULL,
    PRIMARY KEY(symbol_id, resolution, part)
) WITHOUT ROWID;
CREATE TABLE states(symbol_id INTEGER PRIMARY KEY, state BLOB NOT NULL);
CREATE TABLE position(
    only INTEGER PRIMARY KEY CHECK(only = 0), epoch INTEGER NOT NULL, sequence INTEGER NOT NULL,
    generation INTEGER NOT NULL
);
INSERT INTO position VALUES (0, 0, 0, 1)
"""
"""`slot` in unix seconds. `generation`: bars of an earlier one are replaced, not merged."""

_PACKED = struct.Struct("<q4d7qH3B3x")
assert _PACKED.size == BAR_BYTES
_Key = tuple[int, int, int]

_ONE = "SELECT generation, bar FROM bars WHERE symbol_id = ? AND resolution = ? AND slot = ?"
_BELOW = "SELECT bar FROM bars WHERE symbol_id = ? AND resolution = ? AND slot < ? ORDER BY slot DESC LIMIT ?"
_FROM = "SELECT bar FROM bars WHERE symbol_id = ? AND resolution = ? AND slot >= ? ORDER BY slot LIMIT ?"
_BETWEEN = (
    "SELECT bar FROM bars WHERE symbol_id = ? AND resolution = ? AND slot >= ? AND slot < ? "
    "ORDER BY slot LIMIT ?"
)
_BETWEEN_NEWEST = (
    "SELECT bar FROM bars WHERE symbol_id = ? AND resolution = ? AND slot >= ? AND slot < ? "
    "ORDER BY slot DESC LIMIT ?"
)


class SeriesSqlite:
    """The series store in one file. Raises StartupError when the file cannot be opened."""

    def __init__(self, path: Path | str) -> None:
        self._file = Sqlite(Path(path), SCHEMA, series_coverage.SCHEMA)

    def write(self, drained: Drained, position: Position) -> None:
        """Merge closed bars, replace open parts and states, move the position: one transaction.

        Writing what stands at or before the stored position of the same epoch changes nothing, so a write
        of which it is not known whether it succeeded can be repeated.
        """
        with self._file.writing() as connection:
            held, generation = _position(connection)
            if held.epoch == position.epoch and position.sequence <= held.sequence:
                return
            merged = _merge_closed(connection, from_rows(drained.closed), generation)
            _put_bars(connection, merged.values(), generation)
            connection.execute("DELETE FROM parts WHERE part = ?", (HALF,))
            connection.executemany("REPLACE INTO parts VALUES (?, ?, ?, ?)", _part_values(drained.parts))
            connection.executemany("REPLACE INTO states VALUES (?, ?)", _state_values(drained.states))
            connection.execute("UPDATE position SET epoch = ?, sequence = ?", position)

    def put_history(self, bars: Bars) -> int:
        """Take closed klines (EXCHANGE bars); returns how many were taken.

        One replaces what is stored, whose ids it keeps, unless that is proved complete.
        """
        taken = 0
        with self._file.writing() as connection:
            _, generation = _position(connection)
            for bar in from_rows(bars):
                found = connection.execute(_ONE, _key(bar)).fetchone()
                held = _unpack(found[1]) if found else None
                if held is None:
                    new = bar
                elif held.flags & EXCHANGE:
                    new = bar._replace(first_id=held.first_id, last_id=held.last_id)
                elif _is_complete_in(connection, held):
                    continue
                else:
                    new = merge_bars(bar, held)
                _put_bars(connection, [new], generation)
                taken += 1
        return taken

    def cover(self, symbol_id: int, resolution: int, from_s: int, to_s: int) -> None:
        """Note that the exchange's klines of [from_s, to_s) were asked for and are stored."""
        with self._file.writing() as connection:
            series_coverage.add(connection, symbol_id, resolution, from_s, to_s)

    def covered(self, symbol_id: int, resolution: int) -> IdRanges:
        """The unix seconds of which `cover` was told."""
        with self._file.reading() as connection:
            return series_coverage.read(connection, symbol_id, resolution)

    def closed(
        self, symbol_id: int, resolution: int, from_s: int, to_s: int, limit: int, *, newest: bool = False
    ) -> Closed:
        """Closed bars with from_s <= slot < to_s, the first `limit` or the newest, and one on either side."""
        series = symbol_id, resolution
        with self._file.reading() as connection:
            position, _ = _position(connection)
            query = _BETWEEN_NEWEST if newest else _BETWEEN
            found = connection.execute(query, (*series, from_s, to_s, limit + 1)).fetchall()
            if newest:
                found.reverse()
            truncated = len(found) > limit
            if not (truncated and newest):
                found = connection.execute(_BELOW, (*series, from_s, 1)).fetchall() + found
            if not truncated or newest:
                found += connection.execute(_FROM, (*series, to_s, 1)).fetchall()
        return Closed(_rows(blob for (blob,) in found), position, truncated)

    def range(self, symbol_id: int, resolution: int, from_s: int, to_s: int, limit: int) -> Bars:
        """The first `limit` bars with from_s <= slot < to_s, ascending, the open ones as last written."""
        with self._file.reading() as connection:
            values = symbol_id, resolution, from_s, to_s, limit
            stored = _rows(blob for (blob,) in connection.execute(_BETWEEN, values))
            opened = _read_open(connection, symbol_id, resolution)
        inside = [bar for bar in opened if from_s <= _slot_s(bar) < to_s]
        if len(stored) == limit:
            inside = [bar for bar in inside if bar.slot_us <= int(stored["slot_us"][-1])]
        return merge_all([stored, _rows(_pack(bar) for bar in inside)])[:limit]

    def position(self) -> Position:
        """Up to where the store is true."""
        with self._file.reading() as connection:
            return _position(connection)[0]

    def load(self) -> Stored:
        """The state of all symbols as of the stored position; Position(0, 0) in a new file.

        Raises StartupError when the blobs do not have the shape that this program writes.
        """
        with self._file.reading() as connection:
            position, _ = _position(connection)
            states = connection.execute("SELECT state FROM states ORDER BY symbol_id").fetchall()
            parts = connection.execute("SELECT part, bar FROM parts").fetchall()
        if any(len(state) != STATE.itemsize for (state,) in states):
            raise StartupError(
                f"{self._file.path} holds states of another shape: remove the file to rebuild it"
            )
        loaded: Parts = np.zeros(len(parts), PART)
        loaded["part"] = [part for part, _ in parts]
        loaded["bar"] = _rows(blob for _, blob in parts)
        return Stored(position, np.frombuffer(b"".join(s for (s,) in states), STATE).copy(), loaded)

    def begin_rebuild(self) -> None:
        """Forget position, open parts and states, and count a new generation of bars.

        Bars of our own from an earlier generation stay readable until the replay of the tape replaces
        them, and stay for good where the tape does not reach back to them. EXCHANGE bars stay.
        """
        with self._file.writing() as connection:
            connection.execute("DELETE FROM parts")
            connection.execute("DELETE FROM states")
            connection.execute("UPDATE position SET epoch = 0, sequence = 0, generation = generation + 1")

    def close(self) -> None:
        """Close all connections."""
        self._file.close()


def _position(connection: sqlite3.Connection) -> tuple[Position, int]:
    epoch, sequence, generation = connection.execute(
        "SELECT epoch, sequence, generation FROM position"
    ).fetchone()
    return Position(epoch, sequence), generation


def _merge_closed(connection: sqlite3.Connection, bars: Iterable[Bar], generation: int) -> dict[_Key, Bar]:
    """Every bar merged into what is stored under its key, or into the one before it in `bars`."""
    merged: dict[_Key, Bar] = {}
    for bar in bars:
        key = _key(bar)
        held = merged.get(key)
        if held is None:
            found = connection.execute(_ONE, key).fetchone()
            if found is not None:
                stored = _unpack(found[1])
                if found[0] == generation or stored.flags & EXCHANGE:
                    held = stored
        merged[key] = settle(bar) if held is None else merge_bars(held, bar)
    return merged


def _is_complete_in(connection: sqlite3.Connection, bar: Bar) -> bool:
    symbol_id, resolution, slot = _key(bar)
    below = connection.execute(_BELOW, (symbol_id, resolution, slot, 1)).fetchone()
    above = connection.execute(_FROM, (symbol_id, resolution, slot + 1, 1)).fetchone()
    return is_complete(bar, _unpack(below[0]) if below else None, _unpack(above[0]) if above else None)


def _read_open(connection: sqlite3.Connection, symbol_id: int, resolution: int) -> list[Bar]:
    found = connection.execute(
        "SELECT part, bar FROM parts WHERE symbol_id = ? AND resolution = ?", (symbol_id, resolution)
    )
    parts = {part: _unpack(blob) for part, blob in found}
    state = connection.execute("SELECT state FROM states WHERE symbol_id = ?", (symbol_id,)).fetchone()
    if state is None:
        return []
    (row,) = np.frombuffer(state[0], STATE)
    return finish_open(
        parts.get(CURRENT),
        parts.get(PREVIOUS),
        parts.get(BEFORE),
        int(row["anchor_id"]),
        int(row["since_us"]),
    )


def _put_bars(connection: sqlite3.Connection, bars: Iterable[Bar], generation: int) -> None:
    connection.executemany(
        "REPLACE INTO bars VALUES (?, ?, ?, ?, ?)", ((*_key(bar), generation, _pack(bar)) for bar in bars)
    )


def _part_values(parts: Parts) -> list[tuple[int, int, int, bytes]]:
    bars = parts["bar"]
    columns = (bars["symbol_id"].tolist(), bars["resolution"].tolist(), parts["part"].tolist(), _blobs(bars))
    return list(zip(*columns, strict=True))


def _state_values(states: States) -> list[tuple[int, bytes]]:
    states = states.copy()
    states["dirty"] = 0
    return list(zip(states["symbol_id"].tolist(), _blobs(states), strict=True))


def _blobs(rows: Bars) -> list[bytes]:
    """The bytes of each row."""
    raw, size = rows.tobytes(), rows.dtype.itemsize
    return [raw[start : start + size] for start in range(0, len(raw), size)]


def _slot_s(bar: Bar) -> int:
    return bar.slot_us // 1_000_000


def _key(bar: Bar) -> _Key:
    return bar.symbol_id, bar.resolution, _slot_s(bar)


def _pack(bar: Bar) -> bytes:
    return _PACKED.pack(*bar)


def _unpack(blob: bytes) -> Bar:
    return Bar._make(_PACKED.unpack(blob))


def _rows(blobs: Iterable[bytes]) -> Bars:
    return np.frombuffer(b"".join(blobs), BAR).copy()
