"""Settlements in SQLite: prices that somebody asked to be fixed at a time, and what became of it."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from tradeback.stores.ports import USER_PREFIX
from tradeback.stores.sqlite import Sqlite

WAITING, SETTLED, INCOMPLETE = "waiting", "settled", "incomplete"

SCHEMA = """
CREATE TABLE settlements(
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, symbol_id INTEGER NOT NULL, symbol TEXT NOT NULL,
    at_ms INTEGER NOT NULL, created_ns INTEGER NOT NULL, status TEXT NOT NULL, settled_ns INTEGER NOT NULL,
    price REAL, trade_id INTEGER, trade_ms INTEGER, reason TEXT, proof TEXT
) WITHOUT ROWID;
CREATE INDEX settlements_by_status ON settlements(status, settled_ns);
CREATE INDEX settlements_by_owner ON settlements(owner, created_ns)
"""


@dataclass(frozen=True, slots=True)
class Settlement:
    """One of them. Times `_ns` are this machine's, `_ms` the exchange's; 0 or None where there is none."""

    id: str
    owner: str
    """Whose it is (`SessionRecord.watch_id`): a user, or a session without one; empty for nobody's."""
    symbol_id: int
    symbol: str
    at_ms: int
    created_ns: int
    status: str = WAITING
    settled_ns: int = 0
    price: float | None = None
    trade_id: int | None = None
    trade_ms: int | None = None
    reason: str | None = None
    """Why it is not proved complete."""
    proof: str | None = None
    """JSON."""

    @property
    def is_users(self) -> bool:
        """A user's own. Any other is read by its id alone: a session without a user gets lost."""
        return self.owner.startswith(USER_PREFIX)


_COLUMNS = ", ".join(field.name for field in fields(Settlement))
_PLACES = ", ".join("?" * len(fields(Settlement)))

# What is put together here are this module's own words; every value is bound.
_PUT = f"REPLACE INTO settlements({_COLUMNS}) VALUES ({_PLACES})"  # noqa: S608
_ONE = f"SELECT {_COLUMNS} FROM settlements WHERE id = ?"  # noqa: S608
_WAITING = f"SELECT {_COLUMNS} FROM settlements WHERE status = ? ORDER BY at_ms, id"  # noqa: S608
_OF_OWNER = f"SELECT {_COLUMNS} FROM settlements WHERE owner = ? ORDER BY created_ns DESC, id LIMIT ?"  # noqa: S608
_SAME = (
    f"SELECT {_COLUMNS} FROM settlements "  # noqa: S608
    "WHERE owner = ? AND symbol_id = ? AND at_ms = ? ORDER BY created_ns DESC LIMIT 1"
)


class SettlementsSqlite:
    """The store in one file; thread safe. Raises StartupError when the file cannot be opened."""

    def __init__(self, path: Path | str) -> None:
        self._file = Sqlite(Path(path), SCHEMA)

    def put(self, settlements: Sequence[Settlement], kept_max: int) -> None:
        """Write new ones and changed ones; of those that wait no more the newest `kept_max` are kept."""
        with self._file.writing() as connection:
            connection.executemany(_PUT, map(astuple, settlements))
            connection.execute(
                "DELETE FROM settlements WHERE status <> ? AND settled_ns < (SELECT settled_ns FROM "
                "settlements WHERE status <> ? ORDER BY settled_ns DESC LIMIT 1 OFFSET ?)",
                (WAITING, WAITING, kept_max - 1),
            )

    def find(self, identifier: str) -> Settlement | None:
        """The one with this id."""
        return self._first(_ONE, (identifier,))

    def same(self, owner: str, symbol_id: int, at_ms: int) -> Settlement | None:
        """The owner's newest of this symbol and time."""
        return self._first(_SAME, (owner, symbol_id, at_ms))

    def waiting(self) -> list[Settlement]:
        """All that wait, the earliest first."""
        with self._file.reading() as connection:
            return [Settlement(*row) for row in connection.execute(_WAITING, (WAITING,))]

    def of_owner(self, owner: str, limit: int) -> list[Settlement]:
        """The owner's, the newest first."""
        with self._file.reading() as connection:
            return [Settlement(*row) for row in connection.execute(_OF_OWNER, (owner, limit))]

    def give(self, from_owner: str, into_owner: str) -> None:
        """Let all of one owner be another's."""
        with self._file.writing() as connection:
            connection.execute("UPDATE settlements SET owner = ? WHERE owner = ?", (into_owner, from_owner))

    def close(self) -> None:
        """Close all connections."""
        self._file.close()

    def _first(self, query: str, values: tuple[Any, ...]) -> Settlement | None:
        with self._file.reading() as connection:
            row = connection.execute(query, values).fetchone()
        return Settlement(*row) if row else None
