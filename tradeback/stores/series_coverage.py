"""Of which slots the klines were asked for, whatever came: in SQLite, beside the bars they brought."""

import sqlite3

from tradeback.derive.completeness_ranges import IdRanges

SCHEMA = """
CREATE TABLE coverage(
    symbol_id INTEGER NOT NULL, resolution INTEGER NOT NULL, from_s INTEGER NOT NULL, to_s INTEGER NOT NULL,
    PRIMARY KEY(symbol_id, resolution, from_s)
) WITHOUT ROWID
"""
"""Disjoint spans in unix seconds, the end exclusive. One from 0 on: the exchange has nothing older."""


def read(connection: sqlite3.Connection, symbol_id: int, resolution: int) -> IdRanges:
    """The seconds that are covered."""
    found = connection.execute(
        "SELECT from_s, to_s FROM coverage WHERE symbol_id = ? AND resolution = ? ORDER BY from_s",
        (symbol_id, resolution),
    )
    return IdRanges((from_s, to_s - 1) for from_s, to_s in found)


def add(connection: sqlite3.Connection, symbol_id: int, resolution: int, from_s: int, to_s: int) -> None:
    """Put one more span in; those it touches become one with it. Within the caller's transaction."""
    covered = read(connection, symbol_id, resolution)
    covered.add(from_s, to_s - 1)
    connection.execute("DELETE FROM coverage WHERE symbol_id = ? AND resolution = ?", (symbol_id, resolution))
    connection.executemany(
        "INSERT INTO coverage VALUES (?, ?, ?, ?)",
        ((symbol_id, resolution, first, last + 1) for first, last in covered.pieces()),
    )
