"""Ids from MySQL with a copy in SQLite: who knows what while the server is away."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.servers.kinds import MariadbServer
from tests.stores.accounts_world import Notes, TestClock, database, record
from tradeback.model.config import Config, MysqlConfig
from tradeback.model.errors import StartupError
from tradeback.model.symbols import Symbol
from tradeback.stores import registry_copy
from tradeback.stores.migrate import Migration
from tradeback.stores.registry import OpenRegistry, open_registry
from tradeback.stores.registry_copy import SymbolCopy
from tradeback.stores.registry_mysql import RegistryMysql
from tradeback.stores.registry_sqlite import RegistrySqlite

BTC, ETH, SOL = record("BTCUSDT"), record("ETHUSDT"), record("SOLUSDT")


@pytest.fixture
def config(mariadb_server: MariadbServer) -> Iterator[MysqlConfig]:
    with database(mariadb_server) as made:
        yield made


@pytest.fixture
def local(tmp_path: Path) -> Iterator[RegistrySqlite]:
    made = RegistrySqlite(tmp_path / "registry.sqlite")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_copy, "RETRY_S", (0.02,))
    monkeypatch.setattr(registry_copy, "START_TIMEOUT_S", 0.5)


@pytest.fixture
async def opened(config: MysqlConfig, local: RegistrySqlite) -> AsyncIterator[OpenRegistry]:
    made = open_registry(Config(mysql=config), local, TestClock(), Notes())
    yield made
    await made.close()


def copy_of(opened: OpenRegistry) -> SymbolCopy:
    assert opened.copy is not None
    return opened.copy


def ids(symbols: list[Symbol]) -> dict[str, int]:
    return {symbol.symbol: symbol.id for symbol in symbols}


async def test_the_copy_follows_the_server(opened: OpenRegistry, local: RegistrySqlite) -> None:
    copy = copy_of(opened)
    assert copy.health().state == "starting"
    found = await opened.ids.assign_ids([ETH, BTC])
    assert ids(found) == {"ETHUSDT": 1, "BTCUSDT": 2}
    assert local.symbols() == found, "the copy holds what the exchange said, to the letter"
    (changed,) = await opened.ids.assign_ids([record("BTCUSDT", step="0.1")])
    assert local.symbols() == [found[0], changed]
    assert changed.step_size == "0.1"
    assert copy.health().state == "ok"
    assert await opened.accounts.setting("x") is None


async def test_while_the_server_is_away_the_copy_serves_and_new_symbols_wait(
    opened: OpenRegistry, mariadb_server: MariadbServer, config: MysqlConfig
) -> None:
    copy = copy_of(opened)
    await opened.ids.assign_ids([ETH, BTC])
    mariadb_server.kill()
    assert ids(await opened.ids.assign_ids([BTC, SOL])) == {"BTCUSDT": 2}
    assert copy.waiting == ["SOLUSDT"]
    assert ids(await opened.ids.all_symbols()) == {"ETHUSDT": 1, "BTCUSDT": 2}
    health = copy.health()
    assert (health.state, health.details) == ("degraded", {"kind": "mysql", "symbols_waiting": 1})
    assert "cannot be reached" in (health.last_error or "")
    mariadb_server.start()
    other = RegistryMysql(config)
    await other.assign_ids([record("XRPUSDT")])  # another engine has taken the next id meanwhile
    came = asyncio.get_running_loop().create_future()
    copy.on_assigned.append(came.set_result)
    copy.start()
    async with asyncio.timeout(10):
        assert ids(await came) == {"SOLUSDT": 4}
    assert (copy.waiting, copy.health().state) == ([], "ok")
    await other.close()


async def test_ids_that_a_crashed_server_has_forgotten_are_given_back_to_it(
    opened: OpenRegistry, mariadb_server: MariadbServer, config: MysqlConfig
) -> None:
    await opened.ids.assign_ids([ETH, BTC])
    mariadb_server.sql("DELETE FROM symbolsmap", config.database)
    assert ids(await opened.ids.assign_ids([SOL])) == {"SOLUSDT": 3}
    other = RegistryMysql(config)
    assert ids(await other.all_symbols()) == {"ETHUSDT": 1, "BTCUSDT": 2, "SOLUSDT": 3}
    await other.close()


async def test_a_start_with_a_server_that_hangs_is_served_by_the_copy(
    opened: OpenRegistry, local: RegistrySqlite, mariadb_server: MariadbServer
) -> None:
    local.assign([ETH, BTC])
    mariadb_server.pause()
    async with asyncio.timeout(2.0):
        assert ids(await opened.ids.assign_ids([BTC])) == {"BTCUSDT": 2}
    mariadb_server.resume()


async def test_a_first_start_without_the_server_waits_for_it(
    opened: OpenRegistry, mariadb_server: MariadbServer
) -> None:
    mariadb_server.kill()
    asking = asyncio.create_task(opened.ids.assign_ids([BTC]))
    while copy_of(opened).health().last_error is None:
        await asyncio.sleep(0)
    assert not asking.done()
    mariadb_server.start()
    async with asyncio.timeout(10):
        assert ids(await asking) == {"BTCUSDT": 1}


async def test_ids_from_before_the_server_are_taken_over(
    opened: OpenRegistry, local: RegistrySqlite, config: MysqlConfig
) -> None:
    local.assign([SOL, ETH, BTC])
    assert ids(await opened.ids.assign_ids([record("XRPUSDT"), BTC])) == {"XRPUSDT": 4, "BTCUSDT": 3}
    other = RegistryMysql(config)
    assert ids(await other.all_symbols()) == {"SOLUSDT": 1, "ETHUSDT": 2, "BTCUSDT": 3, "XRPUSDT": 4}
    await other.close()


@pytest.mark.parametrize("there", [[BTC], [SOL, ETH], [SOL, BTC, ETH]])
async def test_other_ids_than_the_tape_s_are_refused_at_the_start(
    opened: OpenRegistry, local: RegistrySqlite, config: MysqlConfig, there: list[object]
) -> None:
    local.assign([ETH, BTC])
    other = RegistryMysql(config)
    await other.assign_ids(there)  # type: ignore[arg-type]
    before = await other.all_symbols()
    with pytest.raises(StartupError, match="another DATA_DIR, or another MYSQL_DATABASE"):
        await opened.ids.assign_ids([BTC])
    assert await other.all_symbols() == before
    assert ids(local.symbols()) == {"ETHUSDT": 1, "BTCUSDT": 2}
    await other.close()


async def test_a_server_without_tables_is_noted(
    opened: OpenRegistry, config: MysqlConfig, local: RegistrySqlite
) -> None:
    """At the start and later; see test_registry_wrong for all that a server may refuse."""
    await opened.ids.assign_ids([BTC])
    Migration(Config(mysql=config)).down("0001")
    assert ids(await opened.ids.assign_ids([BTC, ETH])) == {"BTCUSDT": 1}
    assert "tradeback migrate up" in (copy_of(opened).health().last_error or "")
    again = open_registry(Config(mysql=config), local, TestClock(), Notes())
    assert ids(await again.ids.assign_ids([BTC])) == {"BTCUSDT": 1}
    words = copy_of(again).health().last_error or ""
    assert re.search(r"version 0001, this program needs \d+: run `tradeback migrate up`", words)
    await again.close()


async def test_ids_that_differ_are_noted_when_the_server_comes_later(
    opened: OpenRegistry, local: RegistrySqlite, config: MysqlConfig, mariadb_server: MariadbServer
) -> None:
    copy = copy_of(opened)
    local.assign([ETH, BTC])
    other = RegistryMysql(config)
    await other.assign_ids([BTC])
    await other.close()
    mariadb_server.kill()
    assert ids(await opened.ids.assign_ids([BTC])) == {"BTCUSDT": 2}
    copy.start()
    mariadb_server.start()
    async with asyncio.timeout(10):
        while "disagree on ids" not in (copy.health().last_error or ""):
            await asyncio.sleep(0.01)
    assert copy.health().state == "degraded"
    assert ids(local.symbols()) == {"ETHUSDT": 1, "BTCUSDT": 2}


def test_the_copy_refuses_another_meaning(local: RegistrySqlite) -> None:
    from tradeback.model.errors import StoreError

    local.assign([ETH, BTC])
    for wrong in (Symbol(3, "BTCUSDT"), Symbol(2, "SOLUSDT")):
        with pytest.raises(StoreError):
            local.copy([Symbol(9, "XRPUSDT"), wrong])
    assert ids(local.symbols()) == {"ETHUSDT": 1, "BTCUSDT": 2}
    local.copy([Symbol(9, "XRPUSDT")])
    assert ids(local.assign([SOL])) == {"SOLUSDT": 10}
