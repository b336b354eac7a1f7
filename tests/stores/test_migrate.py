"""Migrations: both servers, with data, up and down and up; files of older programs; the engine's own way."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.servers.kinds import MariadbServer
from tests.stores.accounts_world import TestClock, database, record
from tradeback.model.config import Config, MysqlConfig
from tradeback.model.errors import StartupError, TradebackError
from tradeback.stores.migrate import Migration
from tradeback.stores.ports import SessionRecord
from tradeback.stores.registry_mysql import RegistryMysql
from tradeback.stores.registry_schema import REVISIONS, STEPS, SYMBOLS
from tradeback.stores.registry_sqlite import FILE_NAME, RegistrySqlite

NOW = TestClock().wall_ns()
NEWEST = REVISIONS[-1]
PASSWORD = "hunter2-correct-horse"


@pytest.fixture
def mysql(mariadb_server: MariadbServer) -> Iterator[MysqlConfig]:
    with database(mariadb_server, migrated=False) as config:
        yield config


def shape(path: Path) -> dict[str, Any]:
    """Tables with columns, defaults, keys and indexes; NOT NULL of a row id says nothing and is left out."""
    with closing(sqlite3.connect(path)) as connection:
        everything = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'")
        everything = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'")
        tables = {name: text for name, text in everything if name != "sqlite_sequence"}
        found: dict[str, Any] = {}
        for table, text in tables.items():
            columns = [
                (name, kind, bool(required and not key), default, key)
                for _, name, kind, required, default, key in connection.execute(f"PRAGMA table_info({table})")
            ]
            indexes = sorted(
                (unique, origin, [row[2] for row in connection.execute(f"PRAGMA index_info({name})")])
                for _, name, unique, origin, _ in connection.execute(f"PRAGMA index_list({table})")
            )
            found[table] = (columns, indexes, "AUTOINCREMENT" in text)
        for query in ("PRAGMA user_version", "SELECT * FROM alembic_version", "SELECT * FROM settings"):
            found[query] = connection.execute(query).fetchall()
        return found


def test_what_the_engine_makes_and_what_alembic_makes_is_the_same(tmp_path: Path) -> None:
    assert len(STEPS) == len(REVISIONS)
    RegistrySqlite(tmp_path / "engine" / FILE_NAME).close()
    migration = Migration(Config(data_dir=str(tmp_path / "alembic")))
    assert migration.status().current == "base"
    assert not (tmp_path / "alembic").exists(), "asking changes nothing"
    assert migration.up() == ("base", NEWEST)
    assert shape(tmp_path / "engine" / FILE_NAME) == shape(tmp_path / "alembic" / FILE_NAME)


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    """A registry of the program before there were migrations."""
    path = tmp_path / FILE_NAME
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"{SYMBOLS}; PRAGMA user_version=1")
        for symbol_id, name in ((1, "ETHUSDT"), (7, "BTCUSDT")):
            connection.execute(
                "INSERT INTO symbolsmap VALUES "
                "(?, ?, 'X', 'USDT', 1, 2, 5, '0.01', '1', '9', '0.1', '5', 'a', 'b')",
                (symbol_id, name),
            )
        connection.commit()
    return path


@pytest.mark.parametrize("way", ["engine", "alembic"])
def test_an_older_file_is_taken_over_without_loss(old_file: Path, way: str) -> None:
    migration = Migration(Config(data_dir=str(old_file.parent)))
    with closing(sqlite3.connect(old_file)) as connection:
        before = connection.execute("SELECT * FROM symbolsmap").fetchall()
    if way == "alembic":
        assert migration.status().current == "0001"
        assert migration.up() == ("0001", NEWEST)
    registry = RegistrySqlite(old_file)
    assert migration.status().is_newest
    with closing(sqlite3.connect(old_file)) as connection:
        assert connection.execute("SELECT * FROM symbolsmap").fetchall() == before
    assert [each.id for each in registry.assign([record("SOLUSDT"), record("BTCUSDT")])] == [8, 7]
    registry.close()
    fresh = old_file.parent / "fresh" / FILE_NAME
    RegistrySqlite(fresh).close()
    assert shape(old_file) == shape(fresh)


def test_a_file_taken_back_is_brought_up_by_the_next_start(tmp_path: Path) -> None:
    migration = Migration(Config(data_dir=str(tmp_path)))
    registry = RegistrySqlite(tmp_path / FILE_NAME)
    registry.assign([record("BTCUSDT")])
    registry.close()
    assert migration.down() == (NEWEST, "0002")
    assert migration.down() == ("0002", "0001")
    assert migration.status().current == "0001"
    again = RegistrySqlite(tmp_path / FILE_NAME)
    assert [each.id for each in again.assign([record("ETHUSDT"), record("BTCUSDT")])] == [2, 1]
    again.close()
    assert migration.status().is_newest
    assert migration.down("base") == (NEWEST, "base")
    RegistrySqlite(tmp_path / FILE_NAME).close()
    assert migration.status().is_newest


async def test_sqlite_down_and_up_with_data(tmp_path: Path) -> None:
    migration = Migration(Config(data_dir=str(tmp_path)))
    migration.up()
    registry = RegistrySqlite(tmp_path / FILE_NAME)
    await registry.assign_ids([record("BTCUSDT"), record("ETHUSDT")])
    await registry.add_user("alice", "h", NOW)
    before = registry.symbols()
    registry.close()
    migration.down("0001")
    migration.up()
    registry = RegistrySqlite(tmp_path / FILE_NAME)
    assert registry.symbols() == before
    assert await registry.users() == [], "what stood in the newer tables is gone"
    registry.close()


async def test_mysql_down_and_up_with_data(mysql: MysqlConfig) -> None:
    migration = Migration(Config(mysql=mysql))
    assert migration.status().current == "base"
    assert migration.up("0001") == ("base", "0001")
    assert migration.up() == ("0001", NEWEST)
    assert migration.up() == (NEWEST, NEWEST)
    registry = RegistryMysql(mysql)
    before = await registry.assign_ids([record("BTCUSDT"), record("ETHUSDT")])
    await registry.add_user("alice", "h", NOW)
    assert migration.down("0001") == (NEWEST, "0001")
    assert migration.up() == ("0001", NEWEST)
    assert await registry.all_symbols() == before
    assert await registry.users() == []
    assert migration.down("base") == (NEWEST, "base")
    assert migration.up() == ("base", NEWEST)
    assert await registry.all_symbols() == []
    await registry.close()


def test_the_mysql_tables_are_those_of_the_contract(
    mysql: MysqlConfig, mariadb_server: MariadbServer
) -> None:
    Migration(Config(mysql=mysql)).up()
    rows = mariadb_server.sql(
        "SELECT table_name, column_name, column_type FROM information_schema.columns "
        f"WHERE table_schema = '{mysql.database}'"
    )
    types = {f"{table}.{column}": kind for table, column, kind in rows}
    assert types.items() >= {
        "symbolsmap.id": "int(11)",
        "symbolsmap.symbol": "varchar(50)",
        "symbolsmap.is_active": "tinyint(1)",
        **{f"symbolsmap.{name}": "decimal(20,8)" for name in (
            "min_quantity", "max_quantity", "step_size", "min_notional",
        )},
        "symbolsmap.updated_at": "datetime(6)",
        "market_watch.session_id": "varchar(255)",
        "market_watch.display_order": "int(11)",
        "user_sessions.session_token": "varchar(255)",
        "user_sessions.ip_address": "varchar(45)",
        "user_sessions.user_agent": "text",
        "users.password_hash": "varchar(255)",
    }.items()  # fmt: skip
    compared = mariadb_server.sql(
        "SELECT DISTINCT collation_name FROM information_schema.columns "
        f"WHERE table_schema = '{mysql.database}' AND collation_name IS NOT NULL "
        "AND table_name != 'alembic_version'"
    )
    assert compared == [["utf8mb4_bin"]]


def test_a_migration_that_was_killed_between_two_tables_runs_again(
    mysql: MysqlConfig, mariadb_server: MariadbServer
) -> None:
    migration = Migration(Config(mysql=mysql))
    migration.up()
    mariadb_server.sql(
        "UPDATE alembic_version SET version_num = '0001'; DROP TABLE settings, market_watch", mysql.database
    )
    assert migration.up() == ("0001", NEWEST)
    assert ["market_watch"] in mariadb_server.sql("SHOW TABLES", mysql.database)


@pytest.mark.parametrize("server", ["sqlite", "mysql"])
async def test_allow_lists_go_with_those_whom_they_restrict(
    tmp_path: Path, mysql: MysqlConfig, server: str
) -> None:
    """Taken back, nobody may see more than before: restricted sessions are gone."""
    config = Config(mysql=mysql) if server == "mysql" else Config(data_dir=str(tmp_path))
    migration = Migration(config)
    migration.up()

    def opened() -> Any:
        return RegistryMysql(mysql) if server == "mysql" else RegistrySqlite(tmp_path / FILE_NAME)

    async def close(registry: Any) -> None:
        closing = registry.close()
        if closing is not None:
            await closing

    registry = opened()
    user = await registry.add_user("alice", "h", NOW)
    seen = frozenset({"BTCUSDT", "ETHUSDT"})
    assert await registry.set_symbols(user.id, seen, NOW)
    assert (await registry.user("alice")).symbols == seen
    for key, symbols in (("free", None), ("bound", seen), ("shut", frozenset())):
        await registry.add_session(SessionRecord(key, user.id, None, "", "", NOW, NOW, NOW + 10**12, symbols))
        assert (await registry.session(key, NOW)).symbols == symbols
    await close(registry)
    migration.down("0002")
    migration.up()
    registry = opened()
    assert await registry.session("free", NOW) is not None
    assert await registry.session("bound", NOW) is None
    assert await registry.session("shut", NOW) is None
    assert (await registry.user("alice")).symbols is None
    await close(registry)


def test_two_migrations_at_once_make_one(mysql: MysqlConfig) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda _: Migration(Config(mysql=mysql)).up()[1], range(3)))
    assert done == [NEWEST] * 3


def test_a_registry_of_a_newer_program_is_left_alone(
    mysql: MysqlConfig, mariadb_server: MariadbServer
) -> None:
    migration = Migration(Config(mysql=mysql))
    migration.up()
    mariadb_server.sql("UPDATE alembic_version SET version_num = '0099'", mysql.database)
    assert migration.status().current == "0099"
    for move in (migration.up, migration.down):
        with pytest.raises(StartupError, match="install the newer tradeback"):
            move("0001")


def test_wrong_ways_are_said(tmp_path: Path) -> None:
    migration = Migration(Config(data_dir=str(tmp_path)))
    with pytest.raises(StartupError, match="nothing to take back"):
        migration.down()
    migration.up()
    with pytest.raises(StartupError, match="use one of base, 0001, 0002, 0003"):
        migration.up("0099")
    with pytest.raises(StartupError, match="tradeback migrate down --to 0001"):
        migration.up("0001")
    migration.down("0001")
    with pytest.raises(StartupError, match="tradeback migrate up --to 0002"):
        migration.down("0002")


def test_what_the_server_refuses_is_one_line_without_the_password(
    mysql: MysqlConfig, mariadb_server: MariadbServer
) -> None:
    mariadb_server.sql(f"CREATE OR REPLACE USER mover IDENTIFIED BY '{PASSWORD}'")
    replace = msgspec.structs.replace
    for changed, word in (
        (replace(mysql, user="mover", password=f"{PASSWORD}x"), "MYSQL_PASSWORD"),
        (replace(mysql, user="mover", password=PASSWORD), "GRANT ALL"),
        (replace(mysql, port=1, password=PASSWORD), "MYSQL_HOST"),
    ):
        with pytest.raises(TradebackError) as caught:
            Migration(Config(mysql=changed)).up()
        assert word in str(caught.value)
        assert "\n" not in str(caught.value)
        assert PASSWORD not in f"{caught.value!r}{caught.value.__cause__!r}"
