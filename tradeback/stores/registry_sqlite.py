"""Symbols and their wire ids in SQLite: the embedded registry."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from tradeback.model.errors import TradebackError
from tradeback.model.symbols import SYMBOL_IDS_MAX, Symbol, decimals
from tradeback.stores.ports import SymbolRecord
from tradeback.stores.sqlite import Sqlite

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE symbolsmap(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    symbol VARCHAR(50) NOT NULL UNIQUE,
    base_currency VARCHAR(20) NOT NULL,
    quote_currency VARCHAR(20) NOT NULL,
    is_active BOOLEAN NOT NULL,
    price_precision INTEGER NOT NULL,
    quantity_precision INTEGER NOT NULL,
    tick_size TEXT NOT NULL,
    min_quantity TEXT NOT NULL,
    max_quantity TEXT NOT NULL,
    step_size TEXT NOT NULL,
    min_notional TEXT NOT NULL,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
)
"""
"""The columns of the MySQL table, with grids as decimal strings; SQLite has no DECIMAL."""

_COLUMNS = (
    "base_currency", "quote_currency", "is_active", "tick_size", "step_size", "min_notional",
    "min_quantity", "max_quantity", "price_precision", "quantity_precision",
)  # fmt: skip
_INSERT = f"INSERT INTO symbolsmap(symbol, {', '.join(_COLUMNS)}) VALUES (?{', ?' * len(_COLUMNS)})"  # noqa: S608
_UPDATE = (
    f"UPDATE symbolsmap SET {', '.join(f'{column} = ?' for column in _COLUMNS)}, "  # noqa: S608
    "updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE symbol = ?"
)
_SELECT = (
    "SELECT id, symbol, base_currency, quote_currency, is_active, tick_size, step_size, min_notional, "
    "min_quantity, max_quantity FROM symbolsmap ORDER BY id"
)


class RegistrySqlite:
    """The registry in one file. Raises StartupError when the file cannot be opened."""

    def __init__(self, path: Path | str) -> None:
        self._file = Sqlite(Path(path), SCHEMA, SCHEMA_VERSION)

    def symbols(self) -> list[Symbol]:
        """All symbols by id, inactive ones included."""
        with self._file.reading() as connection:
            return _read(connection)

    def assign(self, records: Sequence[SymbolRecord]) -> list[Symbol]:
        """Write the records' descriptions; known symbols keep their id, new ones get the next.

        Returns the symbols in the order of `records`; of one that comes twice the last description holds.
        One transaction. Raises TradebackError when the ids, which are 16 bits on the wire, run out;
        nothing is written then.
        """
        wanted = {record[0]: SymbolRecord._make(record) for record in records}
        with self._file.writing() as connection:
            known = {symbol.symbol: symbol for symbol in _read(connection)}
            added = [record for name, record in wanted.items() if name not in known]
            changed = [
                record
                for name, record in wanted.items()
                if name in known and _symbol(known[name].id, record) != known[name]
            ]
            connection.executemany(_INSERT, [(record.symbol, *_values(record)) for record in added])
            connection.executemany(_UPDATE, [(*_values(record), record.symbol) for record in changed])
            held = {symbol.symbol: symbol for symbol in _read(connection)}
            highest = max((symbol.id for symbol in held.values()), default=0)
            if highest > SYMBOL_IDS_MAX:
                raise TradebackError(
                    f"{self._file.path} would need symbol id {highest}, the wire has {SYMBOL_IDS_MAX}: "
                    "follow fewer symbols, or begin with a new registry"
                )
        return [held[record[0]] for record in records]

    def close(self) -> None:
        """Close all connections."""
        self._file.close()


def _read(connection: sqlite3.Connection) -> list[Symbol]:
    return [
        _symbol(symbol_id, SymbolRecord(name, base, quote, bool(active), *grids))
        for symbol_id, name, base, quote, active, *grids in connection.execute(_SELECT)
    ]


def _symbol(symbol_id: int, record: SymbolRecord) -> Symbol:
    return Symbol(id=symbol_id, **record._asdict())


def _values(record: SymbolRecord) -> tuple[str | int, ...]:
    """The values of _COLUMNS."""
    return (*record[1:], decimals(record.tick_size), decimals(record.step_size))
