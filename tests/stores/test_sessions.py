"""Sessions: tokens, expiry, renewal, the cache and what ends them, on a registry in a file."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stores.accounts_world import Notes, TestClock
from tradeback.model.errors import StoreError
from tradeback.stores.ports import SessionRecord
from tradeback.stores.registry_sqlite import RegistrySqlite
from tradeback.stores.sessions import Lifetime, NewSession, Sessions, cleaned, token_hash

LIFETIME = Lifetime(idle_s=1_000.0, absolute_s=3_000.0, touch_s=60.0, cache_s=5.0, cache_max=3)


class World:
    """A registry in a file, a service on it, and a second service as another node would have it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "registry.sqlite"
        self.clock, self.log = TestClock(), Notes()
        self.registry = RegistrySqlite(self.path)
        self.sessions = Sessions(self.registry, self.clock, self.log, LIFETIME)
        self.other = Sessions(self.registry, self.clock, self.log, LIFETIME)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.sessions.stop()
    made.registry.close()


async def test_a_token_is_random_and_nowhere_in_the_file(world: World) -> None:
    made = [await world.sessions.create(user_agent="x") for _ in range(20)]
    tokens = {each.token for each in made}
    assert len(tokens) == 20
    assert all(len(token) == 43 for token in tokens), "32 bytes, url-safe"
    world.registry.close()
    kept = b"".join(path.read_bytes() for path in world.path.parent.iterdir())
    for each in made:
        assert each.token.encode() not in kept
        assert each.record.token_hash.encode() in kept
        assert each.record.token_hash == token_hash(each.token) != each.token


async def test_found_by_its_token_alone(world: World) -> None:
    user = await world.registry.add_user("alice", "h", 0)
    assert user is not None
    made = await world.sessions.create(user.id, ip_address="10.0.0.1", user_agent="curl", username="alice")
    anonymous = await world.sessions.create()
    for sessions in (world.sessions, world.other):
        assert await sessions.find(made.token) == made.record
        found = await sessions.find(anonymous.token)
        assert found is not None
        assert (found.user_id, found.watch_id) == (None, anonymous.record.token_hash)
    for wrong in ("", made.token[:-1], made.record.token_hash, made.token + "x", "x" * 5_000, "\udc80", "'"):
        assert await world.sessions.find(wrong) is None


async def test_it_ends_without_use_and_use_renews_it_but_not_for_ever(world: World) -> None:
    made = await world.sessions.create()
    begun_ns = world.clock.now_ns
    world.clock.move(999)
    found = await world.sessions.find(made.token)
    assert found is not None
    assert (found.last_activity_ns, found.expires_ns) == (
        world.clock.now_ns,
        world.clock.now_ns + 1_000 * 10**9,
    )
    for _ in range(2):
        world.clock.move(999)
        found = await world.other.find(made.token)
    assert found is not None
    assert found.expires_ns == begun_ns + 3_000 * 10**9
    world.clock.move(3)
    assert await world.sessions.find(made.token) is None
    idle = await world.sessions.create()
    world.clock.move(1_000)
    assert await world.sessions.find(idle.token) is None


async def test_it_is_written_down_rarely(world: World) -> None:
    made = await world.sessions.create()
    writes = []
    original = world.registry.touch_session

    async def touch(key: str, last_ns: int, expires_ns: int) -> bool:
        writes.append(last_ns)
        return await original(key, last_ns, expires_ns)

    world.registry.touch_session = touch  # type: ignore[method-assign, assignment]
    for _ in range(30):
        world.clock.move(10)
        assert await world.sessions.find(made.token) is not None
    assert len(writes) == 5


async def test_the_cache_answers_and_expiry_beats_it(world: World) -> None:
    made = await world.sessions.create()
    for _ in range(10):
        assert await world.sessions.find(made.token) is not None
    assert (world.sessions.counts.lookups, world.sessions.counts.cached) == (10, 9)
    for _ in range(6):
        each = await world.sessions.create()
        await world.sessions.find(each.token)
    assert len(world.sessions._cache) == LIFETIME.cache_max
    short = Sessions(
        world.registry, world.clock, world.log, Lifetime(idle_s=2.0, cache_s=100.0, touch_s=50.0)
    )
    brief = await short.create()
    assert await short.find(brief.token) is not None
    world.clock.move(2)
    assert await short.find(brief.token) is None


async def test_log_out_works_here_at_once_and_elsewhere_when_told_or_soon(world: World) -> None:
    ended: list[str] = []
    world.sessions.on_end.append(ended.append)
    made, second = await world.sessions.create(), await world.sessions.create()
    for each in (made, second):
        assert await world.other.find(each.token) is not None
        assert await world.sessions.find(each.token) is not None
    assert await world.sessions.end(made.token)
    assert not await world.sessions.end(made.token)
    assert await world.sessions.find(made.token) is None
    assert ended[0] == made.record.token_hash
    world.other.forget(made.record.token_hash)
    assert await world.other.find(made.token) is None
    await world.sessions.end(second.token)
    world.clock.move(LIFETIME.cache_s)
    assert await world.other.find(second.token) is None


async def test_everywhere_means_all_of_one_user(world: World) -> None:
    alice, bob = await world.registry.add_user("alice", "h", 0), await world.registry.add_user("bob", "h", 0)
    assert alice is not None
    assert bob is not None
    ended: list[str] = []
    world.sessions.on_end.append(ended.append)
    hers = [await world.sessions.create(alice.id) for _ in range(2)]
    his = await world.sessions.create(bob.id)
    for each in (*hers, his):
        assert await world.sessions.find(each.token) is not None
    assert await world.sessions.end_all(alice.id) == 2
    assert [await world.sessions.find(each.token) for each in hers] == [None, None]
    assert await world.sessions.find(his.token) is not None
    assert sorted(ended) == sorted(each.record.token_hash for each in hers)
    assert await world.sessions.active() == 1


@pytest.mark.parametrize("everywhere", [True, False])
async def test_a_lookup_under_way_does_not_bring_an_ended_session_back(
    world: World, everywhere: bool
) -> None:
    user = await world.registry.add_user("alice", "h", 0)
    assert user is not None
    made = await world.sessions.create(user.id)
    read, go_on = asyncio.Event(), asyncio.Event()
    original = world.registry.session

    async def slow(key: str, now_ns: int) -> SessionRecord | None:
        found = await original(key, now_ns)
        read.set()
        await go_on.wait()
        return found

    world.registry.session = slow  # type: ignore[method-assign, assignment]
    looking = asyncio.create_task(world.sessions.find(made.token))
    await read.wait()
    await (world.sessions.end_all(user.id) if everywhere else world.sessions.end(made.token))
    go_on.set()
    await looking
    world.registry.session = original  # type: ignore[method-assign]
    assert await world.sessions.find(made.token) is None


async def test_what_expired_is_deleted_by_itself(world: World) -> None:
    made = await world.sessions.create()
    await world.registry.watch(made.record.watch_id, "BTCUSDT", 9, world.clock.now_ns)
    world.clock.move(1_000)
    world.sessions.start()
    async with asyncio.timeout(10):
        while not world.sessions.counts.purged:
            await asyncio.sleep(0)
    with closing(sqlite3.connect(world.path)) as connection:
        for table in ("user_sessions", "market_watch"):
            assert connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone() == (0,)


async def test_a_registry_that_is_away_ends_nothing_silently(world: World) -> None:
    made = await world.sessions.create()
    assert await world.sessions.find(made.token) is not None

    async def refuse(*_: object) -> bool:
        raise StoreError("the registry is away")

    world.registry.end_session = refuse  # type: ignore[method-assign, assignment]
    world.registry.touch_session = refuse  # type: ignore[method-assign, assignment]
    with pytest.raises(StoreError):
        await world.sessions.end(made.token)
    world.clock.move(100)
    assert await world.sessions.find(made.token) is not None, "it cannot be renewed, but it is valid"
    assert any("could not be renewed" in line for line in world.log.lines)


async def test_no_token_in_a_log_line_an_exception_or_a_repr(
    world: World, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    made = await world.sessions.create(user_agent="agent")

    async def refuse(*_: object) -> bool:
        raise StoreError("the registry is away")

    words = [repr(made), str(made.record), repr(vars(world.sessions)["counts"])]
    for name in ("touch_session", "end_session", "purge_sessions", "session"):
        setattr(world.registry, name, refuse)
        world.clock.move(100)
        for call in (world.sessions.find(made.token), world.sessions.end(made.token), world.sessions.purge()):
            try:
                await call
            except StoreError as error:
                words += [repr(error), repr(error.__context__)]
    words += [*world.log.lines, caplog.text, *capfd.readouterr()]
    assert not any(made.token in word for word in words)
    assert isinstance(made, NewSession)


@given(st.text(max_size=2_000))
def test_what_a_client_says_of_itself_is_bounded_and_printable(text: str) -> None:
    kept = cleaned(text, 512)
    assert len(kept) <= 512
    assert kept.isprintable() or not set(kept) & set("\r\n\t\0\x1b")
    kept.encode()


@given(st.text(min_size=1, max_size=60))
def test_a_hash_is_never_the_token(token: str) -> None:
    assert token_hash(token) != token
    assert token not in token_hash(token) or len(token) < 8
