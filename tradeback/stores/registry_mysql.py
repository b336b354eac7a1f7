"""The registry on MySQL or MariaDB. Imported only where `mysql.host` is set."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import aiomysql

from tradeback.model.config import MysqlConfig
from tradeback.model.symbols import Symbol
from tradeback.stores.mysql import Mysql, Refused, Taken, bound, insert_many
from tradeback.stores.ports import SymbolRecord
from tradeback.stores.registry_accounts import Duplicate, SqlAccounts, Statement
from tradeback.stores.registry_rows import (
    COLUMNS,
    check_id,
    decimal_of,
    moment,
    ns_of,
    record_of,
    symbol_of,
    symbol_values,
)
from tradeback.stores.registry_schema import LOCK, REVISIONS, WATCH_LOCK

_SELECT = (
    "SELECT id, symbol, base_currency, quote_currency, is_active, tick_size, step_size, min_notional, "
    "min_quantity, max_quantity FROM symbolsmap ORDER BY id"
)
INSERT = insert_many("symbolsmap", ("id", "symbol", *COLUMNS))
_UPDATE = (
    f"UPDATE symbolsmap SET {', '.join(f'{column} = %s' for column in COLUMNS)}, "  # noqa: S608
    "updated_at = UTC_TIMESTAMP(6) WHERE symbol = %s"
)
_LOCK_IDS = "SELECT name FROM settings WHERE name = %s FOR UPDATE"
_TAKEN_TRIES = 3


class WrongIds(Refused):
    """The ids in this data folder are not those of the registry."""


class RegistryMysql(SqlAccounts):
    """See `ports.Registry`. Loop thread only. Raises Unreachable and Refused (`stores.mysql`)."""

    owner_text = "CONCAT('user:', s.user_id)"
    lock_watches = (("SELECT name FROM settings WHERE name = ? FOR UPDATE", (WATCH_LOCK,)),)

    def __init__(self, config: MysqlConfig) -> None:
        self.server = Mysql(config)

    async def check(self) -> None:
        """Raises Unreachable when the server is away, Refused when its tables are not of this version."""
        held = await self.server.run(_version)
        if held != REVISIONS[-1]:
            words = f"its tables have version {held}, this program needs {REVISIONS[-1]}"
            remedy = "run `tradeback migrate up`" if held in REVISIONS else "install the newer tradeback"
            raise Refused(f"{self.server.name}: {words}: {remedy}")

    async def all_symbols(self) -> list[Symbol]:
        """See `ports.SymbolIds`. Grids have eight decimals."""
        return await self.server.run(_read_symbols)

    async def assign_ids(self, records: Sequence[SymbolRecord], held: Sequence[Symbol] = ()) -> list[Symbol]:
        """See `ports.SymbolIds`: the symbols are as the records say, not rounded to the table's decimals.

        `held`: symbols whose ids stand in this engine's tape. The registry takes over those it does not know;
        WrongIds when one of these ids or names means another there. Any number of engines may call this at
        the same time: they wait for each other at one locked row.
        """
        wanted = {record[0]: SymbolRecord._make(record) for record in records}

        async def work(cursor: aiomysql.Cursor) -> dict[str, int]:
            await cursor.execute(_LOCK_IDS, (LOCK,))
            await cursor.fetchall()
            # The first plain read comes after the lock: it sees what the engine before has committed.
            known = {symbol.symbol: symbol for symbol in await _read_symbols(cursor)}
            added = self._added(wanted, known, held)
            await cursor.executemany(
                INSERT, [(each.id, each.symbol, *_values(record_of(each))) for each in added]
            )
            for name, record in wanted.items():
                if name in known and _values(record) != _values(record_of(known[name])):
                    await cursor.execute(_UPDATE, (*_values(record), name))
            return {symbol.symbol: symbol.id for symbol in (*known.values(), *added)}

        for last in (False,) * (_TAKEN_TRIES - 1) + (True,):
            try:
                ids = await self.server.run(work)
                break
            except Taken:  # by somebody who does not lock: read again what there is
                if last:
                    raise
        return [symbol_of(ids[record[0]], wanted[record[0]]) for record in records]

    def _added(
        self, wanted: dict[str, SymbolRecord], known: dict[str, Symbol], held: Sequence[Symbol]
    ) -> list[Symbol]:
        """What the table lacks, with ids. Ids are given here, not by AUTO_INCREMENT, which burns some of the
        65,535 with every insert that fails."""
        by_id = {symbol.id: symbol.symbol for symbol in known.values()}
        added = []
        for symbol in held:
            other = known[symbol.symbol].id if symbol.symbol in known else None
            if other not in (None, symbol.id) or by_id.get(symbol.id, symbol.symbol) != symbol.symbol:
                there = f"{other or 'none'}, and {symbol.id} is {by_id.get(symbol.id, 'none')}"
                raise WrongIds(
                    f"{self.server.name} and this data folder disagree on ids: {symbol.symbol} is "
                    f"{symbol.id} here, there it is {there}: use another DATA_DIR, or another MYSQL_DATABASE"
                )
            if other is None:
                added.append(symbol_of(symbol.id, wanted.get(symbol.symbol, record_of(symbol))))
        highest = max((*by_id, *(symbol.id for symbol in added)), default=0)
        names = known.keys() | {symbol.symbol for symbol in added}
        for number, name in enumerate((name for name in wanted if name not in names), highest + 1):
            check_id(number, self.server.name)
            added.append(symbol_of(number, wanted[name]))
        return added

    async def close(self) -> None:
        """Close all connections."""
        await self.server.close()

    # How SqlAccounts runs its statements.

    async def _read(self, text: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        async def work(cursor: aiomysql.Cursor) -> list[tuple[Any, ...]]:
            await cursor.execute(bound(text), tuple(values))
            return list(await cursor.fetchall())

        return await self.server.run(work)

    async def _write(self, *statements: Statement) -> list[int]:
        async def work(cursor: aiomysql.Cursor) -> list[int]:
            return [int(await cursor.execute(bound(text), tuple(values))) for text, values in statements]

        try:
            return await self.server.run(work)
        except Taken as error:
            raise Duplicate(str(error)) from None

    def _time(self, ns: int) -> datetime:
        return moment(ns).replace(tzinfo=None)

    def _ns(self, value: datetime) -> int:
        return ns_of(value)


async def _version(cursor: aiomysql.Cursor) -> str:
    await cursor.execute("SELECT version_num FROM alembic_version")
    rows = await cursor.fetchall()
    return str(rows[0][0]) if rows else "none"


async def _read_symbols(cursor: aiomysql.Cursor) -> list[Symbol]:
    await cursor.execute(_SELECT)
    return [
        symbol_of(
            number, SymbolRecord(name, base, quote, bool(active), tick, *(f"{each:f}" for each in grids))
        )
        for number, name, base, quote, active, tick, *grids in await cursor.fetchall()
    ]


def _values(record: SymbolRecord) -> tuple[Any, ...]:
    """The values of COLUMNS as the table holds them."""
    base, quote, active, tick, *rest = symbol_values(record)
    grids, precisions = rest[:-2], rest[-2:]
    return (base, quote, int(active), tick, *(decimal_of(str(grid)) for grid in grids), *precisions)
