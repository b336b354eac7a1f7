"""The embedded registry: symbols with their wire ids, users, sessions and watches in one SQLite file.

Where MySQL is configured this file still holds a copy of its symbols (`registry_copy`).
"""

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tradeback.model.errors import StoreError
from tradeback.model.symbols import Symbol
from tradeback.stores.ports import SymbolRecord
from tradeback.stores.registry_accounts import Duplicate, SqlAccounts, Statement
from tradeback.stores.registry_rows import (
    COLUMNS,
    check_id,
    moment_text,
    ns_of_text,
    record_of,
    symbol_of,
    symbol_values,
)
from tradeback.stores.registry_schema import STEPS
from tradeback.stores.sqlite import Sqlite

FILE_NAME = "registry.sqlite"
"""Under DATA_DIR."""

_INSERT = f"INSERT INTO symbolsmap(symbol, {', '.join(COLUMNS)}) VALUES (?{', ?' * len(COLUMNS)})"  # noqa: S608
_COPY = f"INSERT INTO symbolsmap(id, symbol, {', '.join(COLUMNS)}) VALUES (?, ?{', ?' * len(COLUMNS)})"  # noqa: S608
_UPDATE = (
    f"UPDATE symbolsmap SET {', '.join(f'{column} = ?' for column in COLUMNS)}, "  # noqa: S608
    "updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE symbol = ?"
)
_SELECT = (
    "SELECT id, symbol, base_currency, quote_currency, is_active, tick_size, step_size, min_notional, "
    "min_quantity, max_quantity FROM symbolsmap ORDER BY id"
)


class RegistrySqlite(SqlAccounts):
    """The registry in one file. Raises StartupError when the file cannot be opened.

    `symbols`, `assign` and `copy` block and may be called in any thread; what is awaited works in a thread.
    """

    owner_text = "'user:' || s.user_id"

    def __init__(self, path: Path | str) -> None:
        self._file = Sqlite(Path(path), *STEPS)

    # Symbols.

    def symbols(self) -> list[Symbol]:
        """All symbols by id, inactive ones included."""
        with self._file.reading() as connection:
            return _read(connection)

    def assign(self, records: Sequence[SymbolRecord]) -> list[Symbol]:
        """Write the records' descriptions; known symbols keep their id, new ones get the next.

        Returns the symbols in the order of `records`; of one that comes twice the last description holds.
        One transaction. Raises StoreError when the ids, which are 16 bits on the wire, run out; nothing is
        written then.
        """
        wanted = {record[0]: SymbolRecord._make(record) for record in records}
        with self._file.writing() as connection:
            known = {symbol.symbol: symbol for symbol in _read(connection)}
            added = [record for name, record in wanted.items() if name not in known]
            connection.executemany(_INSERT, [(record.symbol, *symbol_values(record)) for record in added])
            _describe(connection, wanted, known)
            held = {symbol.symbol: symbol for symbol in _read(connection)}
            check_id(max((symbol.id for symbol in held.values()), default=0), str(self._file.path))
        return [held[record[0]] for record in records]

    def copy(self, symbols: Sequence[Symbol]) -> None:
        """Hold these symbols under their ids beside those held. One transaction.

        Raises StoreError when one of the ids or names means another here; nothing is written then.
        """
        records = {symbol.symbol: record_of(symbol) for symbol in symbols}
        try:
            with self._file.writing() as connection:
                known = {symbol.symbol: symbol for symbol in _read(connection)}
                for symbol in symbols:
                    held = known.get(symbol.symbol)
                    if held is not None and held.id != symbol.id:
                        raise StoreError(
                            f"{symbol.symbol} has id {held.id} in {self._file.path}, not {symbol.id}"
                        )
                added = [symbol for symbol in symbols if symbol.symbol not in known]
                values = [(each.id, each.symbol, *symbol_values(records[each.symbol])) for each in added]
                connection.executemany(_COPY, values)
                _describe(connection, records, known)
        except sqlite3.IntegrityError as error:
            raise StoreError(f"an id means another symbol in {self._file.path}") from error

    async def all_symbols(self) -> list[Symbol]:
        """`symbols`, in a thread."""
        return await asyncio.to_thread(self.symbols)

    async def assign_ids(self, records: Sequence[SymbolRecord]) -> list[Symbol]:
        """`assign`, in a thread."""
        return await asyncio.to_thread(self.assign, records)

    def close(self) -> None:
        """Close all connections."""
        self._file.close()

    # How SqlAccounts runs its statements.

    async def _read(self, text: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return await asyncio.to_thread(self._read_now, text, values)

    async def _write(self, *statements: Statement) -> list[int]:
        return await asyncio.to_thread(self._write_now, statements)

    def _read_now(self, text: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        try:
            with self._file.reading() as connection:
                return connection.execute(text, tuple(values)).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"{self._file.path} cannot be read: {error}") from error

    def _write_now(self, statements: Sequence[Statement]) -> list[int]:
        try:
            with self._file.writing() as connection:
                return [connection.execute(text, tuple(values)).rowcount for text, values in statements]
        except sqlite3.IntegrityError as error:
            raise Duplicate(f"{self._file.path} holds this already") from error
        except sqlite3.Error as error:
            raise StoreError(
                f"{self._file.path} cannot be written: {error}. Make room, and the file writable"
            ) from error

    def _time(self, ns: int) -> str:
        return moment_text(ns)

    def _ns(self, value: str) -> int:
        return ns_of_text(value)


def _describe(
    connection: sqlite3.Connection, wanted: dict[str, SymbolRecord], known: dict[str, Symbol]
) -> None:
    """Write what has changed of the known symbols, and nothing else."""
    changed = [
        record for name, record in wanted.items() if name in known and record != record_of(known[name])
    ]
    connection.executemany(_UPDATE, [(*symbol_values(record), record.symbol) for record in changed])


def _read(connection: sqlite3.Connection) -> list[Symbol]:
    return [
        symbol_of(symbol_id, SymbolRecord(name, base, quote, bool(active), *grids))
        for symbol_id, name, base, quote, active, *grids in connection.execute(_SELECT)
    ]
