"""A MySQL that refuses: the copy serves, health and one line say the remedy, and nobody restarts anything."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from tests.servers.fixtures import need
from tests.servers.kinds import MariadbServer
from tests.servers.process import ServerFailed
from tests.stores.accounts_world import Notes, TestClock, database, record
from tradeback.model.config import Config, MysqlConfig
from tradeback.model.errors import StartupError
from tradeback.model.symbols import Symbol
from tradeback.stores import registry_copy
from tradeback.stores.migrate import Migration
from tradeback.stores.registry import OpenRegistry, open_registry
from tradeback.stores.registry_mysql import RegistryMysql
from tradeback.stores.registry_sqlite import RegistrySqlite

BTC, ETH = record("BTCUSDT"), record("ETHUSDT")
PASSWORD, WRONG = "correct-horse-1", "hunter2-1"
WAIT_S = 60.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_copy, "RETRY_S", (0.02,))


@pytest.fixture
def local(tmp_path: Path) -> Iterator[RegistrySqlite]:
    made = RegistrySqlite(tmp_path / "registry.sqlite")
    yield made
    made.close()


class Case(NamedTuple):
    """One thing that is wrong. `wrong` and `mend` are SQL of root, `{db}` and `{user}` filled in."""

    wrong: str
    remedy: str
    mend: str
    password: str = PASSWORD
    migrated: bool = True
    mend_by: Callable[[MysqlConfig], object] = lambda config: None


def up(config: MysqlConfig) -> None:
    Migration(Config(mysql=config)).up()


ALL = f"CREATE OR REPLACE USER {{user}} IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON {{db}}.* TO {{user}}; "
CASES = {
    "wrong password": Case(
        ALL, "correct MYSQL_USER and MYSQL_PASSWORD", f"ALTER USER {{user}} IDENTIFIED BY '{WRONG}'", WRONG
    ),
    "no such user": Case("DROP USER IF EXISTS {user}", "correct MYSQL_USER", ALL),
    "locked": Case(
        ALL + "ALTER USER {user} ACCOUNT LOCK", "correct MYSQL_USER", "ALTER USER {user} ACCOUNT UNLOCK"
    ),
    "no rights": Case(
        f"CREATE OR REPLACE USER {{user}} IDENTIFIED BY '{PASSWORD}'", "GRANT ALL ON {db}.* TO it", ALL
    ),
    "reads only": Case(
        f"CREATE OR REPLACE USER {{user}} IDENTIFIED BY '{PASSWORD}'; GRANT SELECT ON {{db}}.* TO {{user}}",
        "may not write: GRANT ALL ON {db}.* TO it", ALL,
    ),
    "replica": Case(
        ALL + "SET GLOBAL read_only = 1", "set MYSQL_HOST to the primary", "SET GLOBAL read_only = 0"
    ),
    "no database": Case(
        ALL + "DROP DATABASE IF EXISTS {db}", "run `tradeback migrate up`", "SELECT 1",
        migrated=False, mend_by=up,
    ),
    "no tables": Case(
        ALL + "CREATE DATABASE {db}", "run `tradeback migrate up`", "SELECT 1", migrated=False, mend_by=up
    ),
    "older tables": Case(
        ALL + "USE {db}; UPDATE alembic_version SET version_num = '0001'",
        "version 0001, this program needs", "USE {db}; UPDATE alembic_version SET version_num = '{newest}'",
    ),
    "newer tables": Case(
        ALL + "USE {db}; UPDATE alembic_version SET version_num = '9999'", "install the newer tradeback",
        "USE {db}; UPDATE alembic_version SET version_num = '{newest}'",
    ),
}  # fmt: skip


class Wrong:
    """A server that is wrong in one way, and how to mend it."""

    def __init__(self, server: MariadbServer, root: MysqlConfig, case: Case) -> None:
        from tradeback.stores.registry_schema import REVISIONS

        self._server, self._root, self._case = server, root, case
        self._words = {"db": root.database, "user": f"u_{root.database}", "newest": REVISIONS[-1]}
        self.remedy = case.remedy.format(**self._words)
        user = msgspec.structs.replace(root, user=self._words["user"], password=case.password)
        self.config = Config(mysql=user)
        server.sql(case.wrong.format(**self._words))

    def mend(self) -> None:
        self._server.sql(self._case.mend.format(**self._words))
        self._case.mend_by(self._root)


@contextmanager
def wrong(server: MariadbServer, name: str) -> Iterator[Wrong]:
    case = CASES[name]
    with database(server, migrated=case.migrated) as root:
        try:
            yield Wrong(server, root, case)
        finally:
            server.sql(f"SET GLOBAL read_only = 0; DROP USER IF EXISTS u_{root.database}")


def ids(symbols: list[Symbol]) -> dict[str, int]:
    return {symbol.symbol: symbol.id for symbol in symbols}


def said(notes: Notes, remedy: str) -> list[str]:
    everything = "\n".join(notes.lines)
    assert PASSWORD not in everything
    assert WRONG not in everything
    return [line for line in notes.lines if remedy in line]


async def until_ok(opened: OpenRegistry) -> None:
    assert opened.copy is not None
    async with asyncio.timeout(WAIT_S):
        while opened.copy.health().state != "ok" or opened.copy.waiting:
            await asyncio.sleep(0.01)
    assert opened.copy.health().last_error is None


@pytest.mark.parametrize("name", CASES)
async def test_a_start_with_a_copy_goes_on(
    mariadb_server: MariadbServer, local: RegistrySqlite, name: str
) -> None:
    """The known symbol at once, the new one when it is mended."""
    local.assign([BTC])
    notes = Notes()
    with wrong(mariadb_server, name) as it:
        opened = open_registry(it.config, local, TestClock(), notes)
        assert opened.copy is not None
        try:
            assert ids(await opened.ids.assign_ids([BTC, ETH])) == {"BTCUSDT": 1}
            opened.copy.start()
            for _ in range(3):
                assert ids(await opened.ids.assign_ids([BTC, ETH])) == {"BTCUSDT": 1}
            health = opened.copy.health()
            assert (health.name, health.state) == ("store:registry", "degraded")
            assert it.remedy in (health.last_error or "")
            assert "\n" not in (health.last_error or "")
            assert WRONG not in str(health)
            assert len(said(notes, it.remedy)) == 1, notes.lines
            await asyncio.to_thread(it.mend)
            await until_ok(opened)
            assert ids(local.symbols()) == {"BTCUSDT": 1, "ETHUSDT": 2}
            assert said(notes, "is there again")
        finally:
            await opened.close()


@pytest.mark.parametrize("name", ["wrong password", "no tables", "reads only"])
async def test_a_first_start_waits_and_says_for_what(
    mariadb_server: MariadbServer, local: RegistrySqlite, name: str
) -> None:
    notes = Notes()
    with wrong(mariadb_server, name) as it:
        opened = open_registry(it.config, local, TestClock(), notes)
        try:
            assert opened.missing is None
            starting = asyncio.create_task(opened.ids.assign_ids([ETH, BTC]))
            async with asyncio.timeout(WAIT_S):
                while opened.missing is None:
                    await asyncio.sleep(0.01)
            assert it.remedy in opened.missing
            assert not starting.done()
            assert len(said(notes, it.remedy)) == 1, notes.lines
            await asyncio.to_thread(it.mend)
            async with asyncio.timeout(WAIT_S):
                assert ids(await starting) == {"ETHUSDT": 1, "BTCUSDT": 2}
            assert opened.missing is None
        finally:
            await opened.close()


async def test_a_full_disk_is_told_and_room_is_used(tmp_path: Path, local: RegistrySqlite) -> None:
    """A table space of a fixed size that another table has filled; then it may grow."""
    need(MariadbServer)
    fixed, growing = "--innodb-data-file-path=ibdata1:12M", "--innodb-data-file-path=ibdata1:12M:autoextend"
    made = MariadbServer(tmp_path / "mariadb", fixed, "--innodb-file-per-table=0")
    with made as server, database(server) as config:
        server.sql("CREATE DATABASE other; CREATE TABLE other.filler (data LONGBLOB NOT NULL) ENGINE=InnoDB")
        for size in (1_000_000, 100_000, 8_000, 1_000):
            with pytest.raises(ServerFailed, match="full"):
                server.sql(f"INSERT INTO other.filler VALUES (REPEAT('x', {size}));" * 1_000)
        notes = Notes()
        opened = open_registry(Config(mysql=config), local, TestClock(), notes)
        assert opened.copy is not None
        local.assign([BTC])
        many = [record(f"S{number}USDT") for number in range(2_000)]
        try:
            assert ids(await opened.ids.assign_ids([BTC, *many])) == {"BTCUSDT": 1}
            assert "its disk is full: make room" in (opened.copy.health().last_error or "")
            server._extra = (growing, "--innodb-file-per-table=0")
            await asyncio.to_thread(server.restart)
            opened.copy.start()
            await until_ok(opened)
            assert len(local.symbols()) == 2_001
            other = RegistryMysql(config)
            assert ids(await other.all_symbols()) == ids(local.symbols())
            await other.close()
        finally:
            await opened.close()


async def test_engines_that_follow_different_symbols_do_not_disturb_each_other(
    mariadb_server: MariadbServer, local: RegistrySqlite, tmp_path: Path
) -> None:
    """MySQL's `is_active` is the last writer's; what an engine follows is what its own copy says."""
    theirs = RegistrySqlite(tmp_path / "theirs.sqlite")
    with database(mariadb_server) as config:
        mine = open_registry(Config(mysql=config), local, TestClock(), Notes())
        other = open_registry(Config(mysql=config), theirs, TestClock(), Notes())
        try:
            for each in (mine, other):
                await each.ids.assign_ids([BTC, ETH])
            dropped = ETH._replace(is_active=False)
            (gone,) = await other.ids.assign_ids([dropped])
            assert not gone.is_active
            table = "SELECT symbol, is_active FROM symbolsmap ORDER BY id"
            assert mariadb_server.sql(table, config.database) == [["BTCUSDT", "1"], ["ETHUSDT", "0"]]
            # Mine goes on following it, also over a restart and whatever else it asks for.
            assert all(symbol.is_active for symbol in await mine.ids.all_symbols())
            assert ids(await mine.ids.assign_ids([record("SOLUSDT")])) == {"SOLUSDT": 3}
            assert all(symbol.is_active for symbol in await mine.ids.all_symbols())
            await mine.close()
            mine = open_registry(Config(mysql=config), local, TestClock(), Notes())
            assert all(symbol.is_active for symbol in await mine.ids.assign_ids([BTC, ETH]))
            # And the other one still knows that it had dropped it: what it missed since is no gap.
            held = {symbol.symbol: symbol.is_active for symbol in await other.ids.all_symbols()}
            assert held == {"BTCUSDT": True, "ETHUSDT": False}
            assert mariadb_server.sql(table, config.database)[1] == ["ETHUSDT", "1"]
        finally:
            await mine.close()
            await other.close()
            theirs.close()


async def test_other_ids_are_still_refused(mariadb_server: MariadbServer, local: RegistrySqlite) -> None:
    """The one thing that does not mend itself: what is on the tape would mean something else."""
    local.assign([BTC])
    with database(mariadb_server) as config:
        other = RegistryMysql(config)
        await other.assign_ids([ETH])
        await other.close()
        opened = open_registry(Config(mysql=config), local, TestClock(), Notes())
        with pytest.raises(StartupError, match="another DATA_DIR"):
            await opened.ids.assign_ids([BTC])
        await opened.close()
