"""The contract of the registry: SQLite and MySQL pass the same tests."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.stores.accounts_world import DAY_NS, Notes, TestClock, database, record
from tradeback.model.config import Config, MysqlConfig
from tradeback.model.errors import StartupError, StoreError
from tradeback.model.symbols import SYMBOL_IDS_MAX
from tradeback.stores import registry as opening
from tradeback.stores import registry_rows
from tradeback.stores.ports import Registry, SessionRecord
from tradeback.stores.registry_accounts import MANY
from tradeback.stores.registry_sqlite import RegistrySqlite

NOW = TestClock().wall_ns()
AWKWARD = ("a'b", 'a"b', "a\\", "100%s", "%(x)s", "?", "--", "'; DROP TABLE users; --", "币安🚀", "a\0b", "é")


@pytest.fixture(params=["sqlite", "mysql"])
async def registry(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Registry]:
    if request.param == "sqlite":
        local = RegistrySqlite(tmp_path / "registry.sqlite")
        yield local
        local.close()
        return
    from tradeback.stores.registry_mysql import RegistryMysql

    with database(request.getfixturevalue("mariadb_server")) as config:
        remote = RegistryMysql(config)
        await remote.check()
        yield remote
        await remote.close()


def session(key: str, user_id: int | None = None, *, expires_ns: int = NOW + DAY_NS) -> SessionRecord:
    return SessionRecord(key, user_id, None, "::1", "agent", NOW, NOW, expires_ns)


async def test_ids_begin_at_one_and_never_change(registry: Registry) -> None:
    first = await registry.assign_ids([record("ETHUSDT"), record("BTCUSDT")])
    assert [(each.id, each.symbol) for each in first] == [(1, "ETHUSDT"), (2, "BTCUSDT")]
    again = await registry.assign_ids([record("币安USDT"), record("BTCUSDT"), record("BTCUSDT")])
    assert [each.id for each in again] == [3, 2, 2]
    assert [each.symbol for each in await registry.all_symbols()] == ["ETHUSDT", "BTCUSDT", "币安USDT"]
    assert await registry.assign_ids([]) == []


async def test_descriptions_follow_the_exchange(registry: Registry) -> None:
    await registry.assign_ids([record("BTCUSDT")])
    (changed,) = await registry.assign_ids([record("BTCUSDT", active=False, step="0.10000000")])
    assert (changed.id, changed.is_active, changed.quantity_precision) == (1, False, 1)
    assert await registry.all_symbols() == [changed]


async def test_names_are_told_apart_by_every_byte(registry: Registry) -> None:
    names = ["aUSDT", "AUSDT", "áUSDT", "ÁUSDT"]
    assert [each.id for each in await registry.assign_ids([record(name) for name in names])] == [1, 2, 3, 4]


async def test_many_symbols_at_once(registry: Registry) -> None:
    found = await registry.assign_ids([record(f"S{number}USDT") for number in range(3_000)])
    assert [each.id for each in found] == list(range(1, 3_001))
    assert await registry.all_symbols() == found


async def test_beyond_the_wire_s_ids_is_an_error_and_nothing_is_written(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SYMBOL_IDS_MAX == 65_535
    monkeypatch.setattr(registry_rows, "SYMBOL_IDS_MAX", 3)
    await registry.assign_ids([record("AUSDT")])
    with pytest.raises(StoreError, match="symbol id 4, the wire has 3: follow fewer"):
        await registry.assign_ids([record(f"{name}USDT") for name in "BCD"])
    assert [each.id for each in await registry.all_symbols()] == [1]
    assert [each.id for each in await registry.assign_ids([record("BUSDT"), record("CUSDT")])] == [2, 3]


async def test_users(registry: Registry) -> None:
    alice = await registry.add_user("alice", "hash-a", NOW)
    assert alice is not None
    assert (alice.username, alice.password_hash, alice.is_active, alice.created_ns) == (
        "alice", "hash-a", True, NOW,
    )  # fmt: skip
    assert await registry.add_user("alice", "hash-b", NOW) is None
    assert await registry.add_user("alice", "hash-a", NOW) == alice, (
        "the same call again, after a lost answer"
    )
    bob = await registry.add_user("Alice", "hash-c", NOW)
    assert bob is not None
    assert [each.username for each in await registry.users()] == ["Alice", "alice"]
    assert await registry.set_password(alice.id, "hash-d", NOW + 1_000)
    assert await registry.set_password(alice.id, "hash-d", NOW + 1_000), "unchanged is not unknown"
    held = await registry.user("alice")
    assert held is not None
    assert held.password_hash == "hash-d"
    assert not await registry.set_password(99, "x", NOW)
    assert not await registry.set_active(99, True, NOW)
    assert not await registry.remove_user(99)
    assert await registry.remove_user(bob.id)
    assert await registry.user("Alice") is None
    again = await registry.add_user("Alice", "hash-e", NOW)
    assert again is not None
    assert again.id > bob.id, "an id is never given twice: a watch hangs on it"


async def test_sessions_end_by_log_out_expiry_and_their_user(registry: Registry) -> None:
    user = await registry.add_user("alice", "h", NOW)
    assert user is not None
    for key in ("one", "two", "three"):
        await registry.add_session(session(key, user.id))
    await registry.add_session(session("nobody", expires_ns=NOW + 5_000))
    found = await registry.session("one", NOW)
    assert found == SessionRecord("one", user.id, "alice", "::1", "agent", NOW, NOW, NOW + DAY_NS)
    assert found.watch_id == f"user:{user.id}"
    assert await registry.count_sessions(NOW) == 4
    assert await registry.session("ONE", NOW) is None
    assert await registry.session("nobody", NOW + 4_000) is not None
    assert await registry.session("nobody", NOW + 5_000) is None
    assert await registry.end_session("one")
    assert not await registry.end_session("one")
    assert await registry.session("one", NOW) is None
    assert not await registry.touch_session("one", NOW, NOW + 2 * DAY_NS), "an ended session stays ended"
    assert await registry.session("one", NOW) is None
    assert sorted(await registry.end_sessions(user.id)) == ["three", "two"]
    assert await registry.end_sessions(user.id) == []
    assert await registry.count_sessions(NOW) == 1


async def test_a_disabled_user_has_no_sessions_and_gets_none_back(registry: Registry) -> None:
    user = await registry.add_user("alice", "h", NOW)
    assert user is not None
    await registry.add_session(session("one", user.id))
    assert await registry.set_active(user.id, False, NOW)
    await registry.add_session(session("late", user.id))
    assert await registry.session("one", NOW) is None
    assert await registry.session("late", NOW) is None
    assert await registry.set_active(user.id, True, NOW)
    assert await registry.session("one", NOW) is None
    await registry.remove_user(user.id)
    await registry.add_session(session("later", user.id))
    assert await registry.session("later", NOW) is None, "of a user who is gone"


async def test_renewal(registry: Registry) -> None:
    await registry.add_session(session("one", expires_ns=NOW + 1_000))
    assert await registry.touch_session("one", NOW + 2_000, NOW + DAY_NS)
    assert await registry.touch_session("one", NOW + 2_000, NOW + DAY_NS), "unchanged is not ended"
    found = await registry.session("one", NOW + 5_000)
    assert found is not None
    assert (found.created_ns, found.last_activity_ns, found.expires_ns) == (NOW, NOW + 2_000, NOW + DAY_NS)


async def test_watches_keep_their_order_and_their_limit(registry: Registry) -> None:
    for symbol in ("B", "A", "C"):
        assert await registry.watch("one", symbol, 3, NOW) is True
    assert await registry.watch("one", "A", 3, NOW) is False, "there already, though the watch is full"
    assert await registry.watch("one", "D", 3, NOW) is None
    assert await registry.watch("two", "D", 3, NOW) is True
    assert await registry.watched("one") == ["B", "A", "C"]
    assert await registry.unwatch("one", "B")
    assert not await registry.unwatch("one", "B")
    assert await registry.watch("one", "B", 3, NOW) is True
    assert await registry.watched("one") == ["A", "C", "B"]
    assert await registry.watched("three") == []
    await registry.arrange_watch("one", ["B", "C", "NOPE", "A"])
    assert await registry.watched("one") == ["B", "C", "A"]
    assert await registry.watched("two") == ["D"], "another's"
    await registry.unwatch("one", "C")
    assert await registry.watch("one", "C", 3, NOW) is True
    assert await registry.watched("one") == ["B", "A", "C"], "what comes later stands at the end"
    await registry.arrange_watch("three", [])


async def test_many_adds_at_once_neither_double_nor_pass_the_limit(registry: Registry) -> None:
    answers = await asyncio.gather(
        *(registry.watch("one", symbol, 5, NOW) for symbol in "ABCDEFGH"),
        *(registry.watch("one", "A", 5, NOW) for _ in range(4)),
    )
    held = await registry.watched("one")
    assert len(held) == len(set(held)) == 5 == answers.count(True)


async def test_the_union_is_of_those_who_are_there(registry: Registry) -> None:
    user = await registry.add_user("alice", "h", NOW)
    assert user is not None
    await registry.add_session(session("anonymous", expires_ns=NOW + 5_000))
    await registry.add_session(session("hers", user.id))
    await registry.watch("anonymous", "A", 9, NOW)
    await registry.watch("anonymous", "B", 9, NOW)
    await registry.watch(f"user:{user.id}", "B", 9, NOW)
    await registry.watch(f"user:{user.id}", "C", 9, NOW)
    await registry.watch("nobody's", "D", 9, NOW)
    assert await registry.watched_by_all(NOW) == ["A", "B", "C"]
    assert await registry.watched_by_all(NOW + 5_000) == ["B", "C"]
    assert await registry.purge_sessions(NOW + 5_000) == 1
    assert await registry.watched("anonymous") == []
    await registry.end_session("hers")
    assert await registry.watched_by_all(NOW) == []
    assert await registry.purge_sessions(NOW) == 1
    assert await registry.watched(f"user:{user.id}") == ["B", "C"], "a user's watch waits for him"
    await registry.remove_user(user.id)
    assert await registry.watched(f"user:{user.id}") == []


async def test_what_lives_can_be_listed(registry: Registry) -> None:
    """For whoever writes it elsewhere: `stores.latest_mirror`."""
    user = await registry.add_user("alice", "h", NOW)
    assert user is not None
    for number in range(5):
        await registry.add_session(session(f"a{number}", user.id if number < 2 else None))
    await registry.add_session(session("old", expires_ns=NOW))
    await registry.end_session("a4")
    for watch_id, symbol in (("a2", "B"), ("a2", "A"), (f"user:{user.id}", "C"), ("a4", "X"), ("old", "Y")):
        await registry.watch(watch_id, symbol, 9, NOW)
    listed = await registry.live_sessions(NOW, "", 3)
    assert [found.token_hash for found in listed] == ["a0", "a1", "a2"]
    assert [found.user_id for found in listed] == [user.id, user.id, None]
    assert [found.token_hash for found in await registry.live_sessions(NOW, "a2", 3)] == ["a3"]
    assert await registry.live_watches(NOW) == {"a2": ["B", "A"], f"user:{user.id}": ["C"]}
    await registry.set_active(user.id, False, NOW)
    assert await registry.live_watches(NOW) == {"a2": ["B", "A"]}


async def test_settings(registry: Registry) -> None:
    assert await registry.setting("a") is None
    await registry.put_setting("a", "1", NOW)
    await registry.put_setting("a", "1", NOW)
    await registry.put_setting("a", "2", NOW)
    assert await registry.setting("a") == "2"
    assert await registry.setting("A") is None
    await asyncio.gather(*(registry.put_setting("b", str(number), NOW) for number in range(8)))
    assert await registry.setting("b") in set("01234567")


@pytest.mark.parametrize("text", AWKWARD)
async def test_values_are_bound_whatever_they_are(registry: Registry, text: str) -> None:
    user = await registry.add_user(text, text, NOW)
    assert user is not None
    assert (user.username, user.password_hash) == (text, text)
    await registry.add_session(SessionRecord(text, user.id, None, text[:45], text, NOW, NOW, NOW + DAY_NS))
    found = await registry.session(text, NOW)
    assert found is not None
    assert (found.username, found.ip_address, found.user_agent) == (text, text[:45], text)
    await registry.watch(text, text, 9, NOW)
    assert await registry.watched(text) == [text]
    await registry.put_setting(text, text, NOW)
    assert await registry.setting(text) == text


async def test_without_a_server_it_is_the_local_file(tmp_path: Path) -> None:
    local = RegistrySqlite(tmp_path / "registry.sqlite")
    opened = opening.open_registry(Config(), local, TestClock(), Notes())
    assert opened.ids is local
    assert opened.accounts is local
    await opened.close()
    assert local.symbols() == []
    local.close()


async def test_with_a_server_and_without_its_library_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "tradeback.stores.registry_mysql", raising=False)
    monkeypatch.delitem(sys.modules, "tradeback.stores.mysql", raising=False)
    monkeypatch.setitem(sys.modules, "aiomysql", None)
    with pytest.raises(StartupError, match=r"pip install 'tradeback\[mysql\]'"):
        opening.mysql_registry(Config(mysql=MysqlConfig(host="db")))


def test_the_client_library_is_imported_only_where_it_is_configured() -> None:
    import subprocess
    import sys

    script = (
        "import sys, tempfile, tradeback.engine, tradeback.stores.registry as r\n"
        "from tradeback.model.config import Config\n"
        "from tradeback.stores.registry_sqlite import RegistrySqlite\n"
        "r.open_registry(Config(), RegistrySqlite(tempfile.mkdtemp() + '/r'), None, None)\n"
        "print(sorted({'aiomysql', 'pymysql', 'alembic', 'sqlalchemy', 'argon2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_many_sessions_and_watches_in_one_question(registry: Registry) -> None:
    """More than fit into one statement; ended and expired ones are left out."""
    user = await registry.add_user("alice", "h", NOW)
    assert user is not None
    seen = frozenset({"BTCUSDT"})
    keys = [f"{number:064x}" for number in range(7)]
    for number, key in enumerate(keys):
        symbols = seen if number == 2 else None
        expires_ns = NOW if number == 5 else NOW + DAY_NS
        owner = user.id if number % 2 else None
        made = SessionRecord(key, owner, None, "", "", NOW, NOW, expires_ns, symbols)
        await registry.add_session(made)
        await registry.watch(key, f"S{number}", 10, NOW)
        await registry.watch(key, "LAST", 10, NOW)
    await registry.end_session(keys[6])
    unknown = [f"{number:064x}" for number in range(100, 100 + MANY)]
    found = await registry.sessions_alive([*unknown, *keys], NOW)
    assert {each.token_hash for each in found} == set(keys[:5])
    for each in found:
        assert each == await registry.session(each.token_hash, NOW)
    assert [each.symbols for each in found if each.token_hash == keys[2]] == [seen]
    watched = await registry.watched_by([*unknown, *keys])
    assert watched == {key: [f"S{number}", "LAST"] for number, key in enumerate(keys)}
    assert await registry.sessions_alive([], NOW) == []
    assert await registry.watched_by([]) == {}
    await registry.set_active(user.id, False, NOW)
    left = {each.token_hash for each in await registry.sessions_alive(keys, NOW)}
    assert left == {keys[0], keys[2], keys[4]}
