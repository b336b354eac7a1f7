"""Connections to a real MariaDB: bounded, mended after a restart, a crash and a hang, and discreet."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterator

import aiomysql
import msgspec
import pytest
from aiomysql.cursors import RE_INSERT_VALUES

from tests.servers.kinds import MariadbServer
from tests.stores.accounts_world import DAY_NS, TestClock, database, record
from tradeback.model.config import MysqlConfig
from tradeback.stores.mysql import CONNECTIONS_MAX, Mysql, Refused, Taken, Unreachable, insert_many
from tradeback.stores.ports import SessionRecord
from tradeback.stores.registry_mysql import INSERT, RegistryMysql

NOW = TestClock().wall_ns()
SECRET = "hunter2-correct-horse"


@pytest.fixture
def config(mariadb_server: MariadbServer) -> Iterator[MysqlConfig]:
    with database(mariadb_server) as made:
        yield made


@pytest.fixture
async def registry(config: MysqlConfig) -> AsyncIterator[RegistryMysql]:
    made = RegistryMysql(config)
    yield made
    await made.close()


async def one(cursor: aiomysql.Cursor) -> int:
    await cursor.execute("SELECT 1")
    return int((await cursor.fetchone())[0])


async def fill(server: Mysql) -> None:
    """Open all connections that there may be."""
    barrier = asyncio.Barrier(CONNECTIONS_MAX)

    async def work(cursor: aiomysql.Cursor) -> int:
        await barrier.wait()
        return await one(cursor)

    assert await asyncio.gather(*(server.run(work) for _ in range(CONNECTIONS_MAX))) == [1] * CONNECTIONS_MAX


async def test_connections_are_few_and_used_again(registry: RegistryMysql) -> None:
    await asyncio.gather(*(registry.setting("x") for _ in range(50)))
    await fill(registry.server)
    await asyncio.gather(*(registry.setting("x") for _ in range(50)))
    assert registry.server.connects == CONNECTIONS_MAX


@pytest.mark.parametrize("how", ["restart", "kill"])
async def test_a_restart_or_a_crash_between_two_calls_is_not_noticed(
    registry: RegistryMysql, mariadb_server: MariadbServer, how: str
) -> None:
    await registry.assign_ids([record("BTCUSDT")])
    await fill(registry.server)
    if how == "restart":
        mariadb_server.restart()
    else:
        mariadb_server.kill()
        mariadb_server.start()
    assert [each.id for each in await registry.assign_ids([record("ETHUSDT"), record("BTCUSDT")])] == [2, 1]
    await asyncio.gather(*(registry.setting("x") for _ in range(20)))


async def test_while_the_server_is_down_calls_fail_at_once_and_work_when_it_is_back(
    registry: RegistryMysql, mariadb_server: MariadbServer
) -> None:
    await fill(registry.server)
    mariadb_server.kill()
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(Unreachable, match="cannot be reached"):
            await registry.setting("x")
    assert time.monotonic() - began < 2.0
    mariadb_server.start()
    assert await registry.setting("x") is None


async def test_a_crash_in_the_middle_of_writing_loses_no_acknowledged_session(
    registry: RegistryMysql, mariadb_server: MariadbServer
) -> None:
    kept: list[str] = []
    failures = 0
    enough, down, back = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def write(writer: int) -> None:
        nonlocal failures
        for number in range(60):
            key = f"{writer}-{number}"
            try:
                await registry.add_session(SessionRecord(key, None, None, "", "", NOW, NOW, NOW + DAY_NS))
                kept.append(key)
            except Unreachable:
                failures += 1
                down.set()
                await back.wait()
            if len(kept) >= 40:
                enough.set()

    writing = asyncio.gather(*(write(writer) for writer in range(4)))
    await enough.wait()
    mariadb_server.kill()
    await down.wait()
    mariadb_server.start()
    back.set()
    await writing
    held = await registry._read("SELECT session_token FROM user_sessions")
    assert {key for (key,) in held} >= set(kept)
    assert len(kept) == 240 - failures


async def test_a_hung_server_costs_one_bounded_wait_and_then_nothing(
    registry: RegistryMysql, mariadb_server: MariadbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry.server, "timeout_s", 0.2)
    await fill(registry.server)
    mariadb_server.pause()
    began = time.monotonic()
    results = await asyncio.gather(*(registry.setting("x") for _ in range(20)), return_exceptions=True)
    assert all(isinstance(each, Unreachable) for each in results)
    assert 0.15 < time.monotonic() - began < 3.5, "twenty, one after the other, would wait for 4 s"
    with pytest.raises(Unreachable, match=r"does not answer \(trying again soon\)"):
        await registry.setting("x")  # refused without another wait
    monkeypatch.setattr(registry.server, "_rest_until", 0.0)
    with pytest.raises(Unreachable, match=r"does not answer \(within"):
        await registry.setting("x")  # a new connection hangs too, and its socket is not left open
    mariadb_server.resume()
    monkeypatch.setattr(registry.server, "_rest_until", 0.0)
    monkeypatch.setattr(registry.server, "timeout_s", 5.0)
    assert await registry.setting("x") is None
    gc.collect()  # an unclosed connection would warn, which is an error here


async def test_a_cancelled_call_drops_its_connection_and_no_other_answer_is_taken(
    registry: RegistryMysql,
) -> None:
    started = asyncio.Event()

    async def slow(cursor: aiomysql.Cursor) -> None:
        started.set()
        await cursor.execute("SELECT SLEEP(30), 'wrong'")

    call = asyncio.create_task(registry.server.run(slow))
    await started.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await registry.put_setting("x", "right", NOW)
    assert {await registry.setting("x") for _ in range(10)} == {"right"}


async def test_what_fails_is_rolled_back_and_the_connection_is_used_again(registry: RegistryMysql) -> None:
    async def work(cursor: aiomysql.Cursor) -> None:
        await cursor.execute("INSERT INTO settings VALUES ('a', 'b', '2026-01-01')")
        await cursor.execute("INSERT INTO settings VALUES ('a', 'b', '2026-01-01')")

    with pytest.raises(Taken):
        await registry.server.run(work)
    assert await registry.setting("a") is None
    assert registry.server.connects == 1


async def test_transactions_in_each_other_s_way_both_come_through(registry: RegistryMysql) -> None:
    await registry.put_setting("a", "", NOW)
    await registry.put_setting("b", "", NOW)
    both = asyncio.Barrier(2)
    tries = 0

    async def cross(first: str, second: str) -> None:
        async def work(cursor: aiomysql.Cursor) -> None:
            nonlocal tries
            tries += 1
            await cursor.execute("UPDATE settings SET value = CONCAT(value, 'x') WHERE name = %s", (first,))
            if tries <= 2:
                await both.wait()
            await cursor.execute("UPDATE settings SET value = CONCAT(value, 'y') WHERE name = %s", (second,))

        await registry.server.run(work)

    await asyncio.gather(cross("a", "b"), cross("b", "a"))
    assert tries == 3, "one deadlock, tried again"
    assert sorted((await registry.setting("a") or "") + (await registry.setting("b") or "")) == list("xxyy")


async def test_inserts_of_many_rows_are_one_statement(registry: RegistryMysql) -> None:
    """aiomysql sends row by row, ten times slower, whatever does not read exactly like this."""
    assert RE_INSERT_VALUES.match(INSERT)
    assert insert_many("symbolsmap", INSERT[INSERT.index("(") + 1 : INSERT.index(")")].split(", ")) == INSERT
    assert not RE_INSERT_VALUES.match(INSERT.replace("VALUES (", "VALUES(").replace("%s)", "NOW())"))

    async def inserts(cursor: aiomysql.Cursor) -> int:
        await cursor.execute("SHOW SESSION STATUS LIKE 'Com_insert'")
        return int((await cursor.fetchone())[1])

    before = await registry.server.run(inserts)
    await registry.assign_ids([record(f"S{number}") for number in range(500)])
    assert await registry.server.run(inserts) - before == 1
    assert registry.server.connects == 1, "the status is this connection's"


async def test_engines_on_one_server_give_the_same_ids(config: MysqlConfig) -> None:
    names = [f"S{number:02}" for number in range(40)]
    engines = [RegistryMysql(config) for _ in range(4)]
    orders = [names[shift:] + names[:shift] for shift in (0, 7, 19, 33)]
    found = await asyncio.gather(
        *(
            engine.assign_ids([record(name) for name in order[begin : begin + 8]])
            for engine, order in zip(engines, orders, strict=True)
            for begin in range(0, 40, 8)
        )
    )
    ids: dict[str, int] = {}
    for symbol in (symbol for part in found for symbol in part):
        assert ids.setdefault(symbol.symbol, symbol.id) == symbol.id
    assert sorted(ids.values()) == list(range(1, 41)), "no id is burnt"
    held = await engines[0].all_symbols()
    assert {symbol.symbol: symbol.id for symbol in held} == ids
    await asyncio.gather(*(engine.close() for engine in engines))


async def test_an_insert_without_the_lock_is_no_harm(registry: RegistryMysql, config: MysqlConfig) -> None:
    """Somebody who gives out ids by hand, between our reading and our writing."""
    other = Mysql(config)
    original, calls = registry._added, 0

    def added(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        return original(*arguments)  # type: ignore[arg-type]

    registry._added = added  # type: ignore[method-assign, assignment]
    await registry.assign_ids([record("BTCUSDT")])

    async def by_hand(cursor: aiomysql.Cursor) -> None:
        await cursor.execute(INSERT, (2, "ETHUSDT", "ETH", "USDT", 1, "0.01", 1, 1, 1, 1, 2, 0))

    await other.run(by_hand)
    found = await registry.assign_ids([record("ETHUSDT"), record("SOLUSDT")])
    assert [symbol.id for symbol in found] == [2, 3]
    await other.close()


async def test_the_wrong_server_password_database_and_rights_are_said_with_the_remedy(
    config: MysqlConfig, mariadb_server: MariadbServer
) -> None:
    mariadb_server.sql(
        f"CREATE OR REPLACE USER reader IDENTIFIED BY '{SECRET}';"
        f"GRANT SELECT ON {config.database}.* TO reader;"
        f"CREATE OR REPLACE USER stranger IDENTIFIED BY '{SECRET}'"
    )
    replace = msgspec.structs.replace

    async def words(changed: MysqlConfig) -> str:
        registry = RegistryMysql(changed)
        with pytest.raises((Refused, Unreachable)) as caught:
            await registry.put_setting("a", "b", NOW)
        await registry.close()
        assert SECRET not in f"{caught.value!r} {caught.value.__context__!r}"
        return str(caught.value)

    assert "MYSQL_PASSWORD" in await words(replace(config, user="reader", password=f"{SECRET}x"))
    assert "GRANT ALL" in await words(replace(config, user="reader", password=SECRET))
    assert "GRANT ALL" in await words(replace(config, user="stranger", password=SECRET))
    assert "tradeback migrate up" in await words(replace(config, database="absent"))
    assert "cannot be reached" in await words(replace(config, port=1))
    assert "cannot be reached" in await words(replace(config, host="no-such-host.invalid"))


async def test_errors_do_not_repeat_values(registry: RegistryMysql) -> None:
    with pytest.raises(Refused) as caught:
        await registry._write(("INSERT INTO settings VALUES (?, ?, ?)", ("a", "b", SECRET)))
    assert SECRET not in f"{caught.value} {caught.value.__cause__}"
    with pytest.raises(Refused, match="migrate up"):
        await registry._read("SELECT * FROM absent WHERE a = ?", (SECRET,))


async def test_the_times_are_utc_whatever_the_server_s_zone(
    registry: RegistryMysql, mariadb_server: MariadbServer, config: MysqlConfig
) -> None:
    mariadb_server.sql("SET GLOBAL time_zone = '+09:00'")
    try:
        await registry.add_user("alice", "h", NOW)
        await registry.assign_ids([record("BTCUSDT")])
        query = "SELECT created_at, TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(), created_at) FROM "
        ((written, _),) = mariadb_server.sql(f"{query} users", config.database)
        ((_, apart),) = mariadb_server.sql(f"{query} symbolsmap", config.database)
    finally:
        mariadb_server.sql("SET GLOBAL time_zone = 'SYSTEM'")
    assert written == "2026-11-21 05:21:22.123456"
    assert abs(int(apart)) < 60
