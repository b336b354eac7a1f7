"""cli.doctor_registry: the file, MySQL on a real server, and whether who may log in fits auth.mode."""

import sqlite3
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.servers.kinds import MariadbServer
from tests.servers.process import free_port
from tests.stores.accounts_world import database, record
from tradeback.cli.doctor import Finding
from tradeback.cli.doctor_registry import Users, check_access, check_registry, is_loopback
from tradeback.model.config import AuthConfig, Config, MysqlConfig, ServerConfig
from tradeback.ops.clock import SystemClock
from tradeback.stores.registry_sqlite import RegistrySqlite
from tradeback.stores.users import Passwords
from tradeback.stores.users import Users as Registered

NOBODY = Users(0, 0, 0)


async def judged(folder: Path, **sections: object) -> tuple[Finding, Finding]:
    registry, access = await check_registry(Config(data_dir=str(folder), **sections))  # type: ignore[arg-type]
    return registry, access


# The file.


async def test_no_file_yet(tmp_path: Path) -> None:
    registry, access = await judged(tmp_path)
    assert (registry.state, "none yet" in registry.found, access.state) == ("ok", True, "ok")
    assert list(tmp_path.iterdir()) == []


async def test_users_in_a_file(tmp_path: Path) -> None:
    held = RegistrySqlite(tmp_path / "registry.sqlite")
    users = Registered(held, SystemClock(), Passwords(memory_kib=64))
    required = AuthConfig(mode="required")
    _, access = await judged(tmp_path, auth=required)
    assert (access.state, "no users" in access.found) == ("fail", True)
    assert "tradeback user add" in access.remedy
    await users.add("alice", "correct-horse-battery")
    registry, access = await judged(tmp_path, auth=required)
    assert (registry.state, "1 user" in registry.found, access.state) == ("ok", True, "ok")
    await users.set_active("alice", False)
    _, access = await judged(tmp_path, auth=required)
    assert (access.state, "disabled" in access.found) == ("fail", True)
    await users.set_active("alice", True)
    await users.allow("alice", frozenset({"BTCUSDT"}))
    _, access = await judged(tmp_path)
    assert (access.state, "protect nothing" in access.found) == ("warn", True)
    held.close()


@pytest.mark.parametrize(
    ("version", "state", "words"), [(99, "fail", "install the newer"), (1, "ok", ""), (0, "ok", "")]
)
async def test_files_of_other_versions(tmp_path: Path, version: int, state: str, words: str) -> None:
    with sqlite3.connect(tmp_path / "registry.sqlite") as connection:
        connection.execute(f"PRAGMA user_version={version}")
    connection.close()
    registry, _ = await judged(tmp_path)
    assert (registry.state, words in registry.remedy) == (state, True), registry


async def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "registry.sqlite").write_bytes(b"no database, " * 1_000)
    registry, access = await judged(tmp_path, auth=AuthConfig(mode="required"))
    assert (registry.state, "DATA_DIR" in registry.remedy) == ("fail", True)
    assert access.state == "ok", "of users nothing is known"


# MySQL.


async def test_a_good_server(tmp_path: Path, mariadb_server: MariadbServer) -> None:
    with database(mariadb_server) as mysql:
        registry, access = await judged(tmp_path, mysql=mysql)
        before = mariadb_server.sql("SELECT COUNT(*) FROM settings", mysql.database)
        registry, access = await judged(tmp_path, mysql=mysql, auth=AuthConfig(mode="required"))
        assert mariadb_server.sql("SELECT COUNT(*) FROM settings", mysql.database) == before
    assert registry.state == "ok", registry
    assert "MariaDB" in registry.found
    assert "0 users" in registry.found
    assert (access.state, "no users" in access.found) == ("fail", True)


async def test_tables_that_are_missing_or_old(tmp_path: Path, mariadb_server: MariadbServer) -> None:
    with database(mariadb_server, migrated=False) as mysql:
        registry, _ = await judged(tmp_path, mysql=mysql)
        assert (registry.state, "tradeback migrate up" in registry.remedy) == ("fail", True), registry
    with database(mariadb_server) as mysql:
        mariadb_server.sql("UPDATE alembic_version SET version_num = '0002'", mysql.database)
        registry, _ = await judged(tmp_path, mysql=mysql)
        assert "version 0002" in registry.found
        assert (registry.state, "tradeback migrate up" in registry.remedy) == ("fail", True), registry


async def test_a_user_who_may_only_read(tmp_path: Path, mariadb_server: MariadbServer) -> None:
    with database(mariadb_server) as mysql:
        mariadb_server.sql("CREATE OR REPLACE USER reader IDENTIFIED BY 'hunter2-read'")
        mariadb_server.sql(f"GRANT SELECT ON {mysql.database}.* TO reader")
        registry, _ = await judged(tmp_path, mysql=replace(mysql, user="reader", password="hunter2-read"))
        assert (registry.state, "GRANT ALL" in registry.remedy) == ("fail", True), registry
        registry, _ = await judged(tmp_path, mysql=replace(mysql, user="reader", password="hunter2-not"))
        assert (registry.state, "MYSQL_PASSWORD" in registry.remedy) == ("fail", True), registry
        assert "hunter2" not in f"{registry}"
        mariadb_server.sql("DROP USER reader")


async def test_a_database_that_is_missing_and_a_server_that_is(
    tmp_path: Path, mariadb_server: MariadbServer
) -> None:
    mysql = MysqlConfig(
        host=mariadb_server.host, port=mariadb_server.port, database="tradeback_nowhere", user="root"
    )
    registry, _ = await judged(tmp_path, mysql=mysql)
    assert (registry.state, "MYSQL_DATABASE" in registry.remedy) == ("fail", True), registry
    registry, _ = await judged(tmp_path, mysql=MysqlConfig(host="127.0.0.1", port=free_port()))
    assert (registry.state, "MYSQL_HOST" in registry.remedy) == ("fail", True), registry


async def test_ids_that_mean_other_symbols_there(tmp_path: Path, mariadb_server: MariadbServer) -> None:
    from tradeback.stores.registry_mysql import RegistryMysql

    held = RegistrySqlite(tmp_path / "registry.sqlite")
    held.assign([record("BTCUSDT"), record("ETHUSDT")])
    held.close()
    with database(mariadb_server) as mysql:
        registry, _ = await judged(tmp_path, mysql=mysql)
        assert registry.state == "ok", "what is not there yet is no contradiction"
        remote = RegistryMysql(mysql)
        await remote.assign_ids([record("ETHUSDT")])
        await remote.close()
        registry, _ = await judged(tmp_path, mysql=mysql)
    assert (registry.state, "another DATA_DIR" in registry.remedy) == ("fail", True), registry


# Who may read.


@pytest.mark.parametrize(
    ("mode", "host", "proxies", "users", "state", "remedy"),
    [
        ("open", "127.0.0.1", (), NOBODY, "ok", ""),
        ("open", "0.0.0.0", (), NOBODY, "warn", "AUTH_MODE=required"),
        ("open", "127.0.0.1", (), Users(2, 2, 1), "warn", "AUTH_MODE=required"),
        ("required", "127.0.0.1", (), NOBODY, "fail", "user add"),
        ("required", "127.0.0.1", (), None, "ok", ""),
        ("required", "0.0.0.0", (), Users(1, 1, 0), "warn", "SERVER_PROXIES"),
        ("required", "0.0.0.0", ("10.0.0.0/8",), Users(1, 1, 0), "ok", ""),
    ],
)
def test_access(
    mode: str, host: str, proxies: tuple[str, ...], users: Users | None, state: str, remedy: str
) -> None:
    auth = AuthConfig(mode=mode)  # type: ignore[arg-type]
    found = check_access(Config(auth=auth, server=ServerConfig(host=host, proxies=proxies)), users)
    assert (found.state, remedy in found.remedy) == (state, True), found


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("db", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
