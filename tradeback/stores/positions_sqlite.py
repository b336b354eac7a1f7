"""Positions of sinks whose store cannot hold one: a SQLite file under DATA_DIR."""

from pathlib import Path

from tradeback.stores.ports import Position
from tradeback.stores.sqlite import Sqlite

SCHEMA = "CREATE TABLE positions(sink TEXT PRIMARY KEY, epoch INTEGER NOT NULL, sequence INTEGER NOT NULL)"


class PositionsSqlite:
    """One row per sink. Raises StartupError when the file cannot be opened, sqlite3.Error afterwards."""

    def __init__(self, path: Path | str) -> None:
        self._file = Sqlite(Path(path), SCHEMA)

    def load(self, sink: str) -> Position | None:
        """The position saved last; None when there is none."""
        with self._file.reading() as connection:
            found = connection.execute(
                "SELECT epoch, sequence FROM positions WHERE sink = ?", (sink,)
            ).fetchone()
        return Position(*found) if found else None

    def save(self, sink: str, position: Position) -> None:
        """Keep a position: a killed process keeps it, a loss of power perhaps the one before."""
        with self._file.writing() as connection:
            connection.execute("REPLACE INTO positions VALUES (?, ?, ?)", (sink, *position))

    def forget(self, sink: str) -> None:
        """The sink begins anew."""
        with self._file.writing() as connection:
            connection.execute("DELETE FROM positions WHERE sink = ?", (sink,))

    def close(self) -> None:
        """Close all connections."""
        self._file.close()
