"""Sessions and market watches reach the latest store, whatever happens to it, and other nodes hear of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.kinds import RedisServer
from tests.servers.process import ask
from tests.sinks.drain_world import SystemTime, until
from tests.stores.accounts_world import Notes
from tradeback.model.config import Config, RedisConfig
from tradeback.model.errors import StoreError
from tradeback.stores import latest_mirror, redis_client
from tradeback.stores.latest import open_latest
from tradeback.stores.latest_memory import LatestMemory
from tradeback.stores.latest_mirror import Mirror, MirrorConfig
from tradeback.stores.market_watch import MarketWatch
from tradeback.stores.ports import LatestStore, SharedSession
from tradeback.stores.registry_sqlite import RegistrySqlite
from tradeback.stores.sessions import Lifetime, Sessions


class Node:
    """An engine's services on a registry of its own, and its mirror."""

    def __init__(self, folder: Path, latest: LatestStore, resync_s: float = 1_000.0) -> None:
        clock = SystemTime()
        self.log, self.latest = Notes(), latest
        self.registry = RegistrySqlite(folder)
        self.sessions = Sessions(self.registry, clock, self.log, Lifetime(touch_s=0.0, cache_s=1_000.0))
        self.watches = MarketWatch(self.registry, clock, self.log)
        self.mirror = Mirror(latest, self.registry, clock, self.log, MirrorConfig(resync_s))
        self.mirror.attach(self.sessions, self.watches)

    async def close(self) -> None:
        await self.mirror.stop()
        await self.latest.close()
        self.registry.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latest_mirror, "RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(redis_client, "REST_S", 0.02)


def latest_of(server: RedisServer) -> LatestStore:
    return open_latest(Config(redis=RedisConfig(addr=server.address)), SystemTime())


@pytest.fixture
async def node(redis_server: RedisServer, tmp_path: Path) -> AsyncIterator[Node]:
    ask(redis_server.port, b"FLUSHALL\r\n")
    made = Node(tmp_path / "one.sqlite", latest_of(redis_server))
    yield made
    await made.close()


async def found(ask_for: Any, wanted: Any) -> None:
    """Until the store says what is wanted."""
    async with asyncio.timeout(60):
        while await ask_for() != wanted:
            await asyncio.sleep(0.005)


async def test_what_changes_is_written_through(node: Node) -> None:
    node.mirror.start()
    user = await node.registry.add_user("alice", "h", 0)
    assert user is not None
    made = await node.sessions.create(user.id, username="alice")
    key = made.record.token_hash
    session = SharedSession(user.id, made.record.expires_ns // 1_000_000)
    await found(lambda: node.latest.session(key), session)
    await node.watches.add(made.record.watch_id, "BTCUSDT")
    await node.watches.add(made.record.watch_id, "ETHUSDT")
    await found(lambda: node.latest.watch(f"user:{user.id}"), ["BTCUSDT", "ETHUSDT"])
    await node.watches.remove(made.record.watch_id, "BTCUSDT")
    await found(lambda: node.latest.watch(f"user:{user.id}"), ["ETHUSDT"])
    renewed = await node.sessions.find(made.token)
    assert renewed is not None
    await found(lambda: node.latest.session(key), SharedSession(user.id, renewed.expires_ns // 1_000_000))
    assert await node.sessions.end(made.token)
    await found(lambda: node.latest.session(key), None)


async def test_what_was_there_before_is_written_at_the_start(node: Node) -> None:
    made = [await node.sessions.create() for _ in range(3)]
    for each in made:
        await node.watches.add(each.record.watch_id, "BTCUSDT")
    await node.sessions.end(made[0].token)
    node.mirror = Mirror(node.latest, node.registry, SystemTime(), node.log)
    node.mirror.start()
    await until(lambda: node.mirror.health().state == "ok", 60.0)
    assert await node.latest.session(made[0].record.token_hash) is None
    assert await node.latest.session(made[1].record.token_hash) is not None
    assert await node.latest.watched_by_all() == {"BTCUSDT"}
    assert await node.latest.watch(made[0].record.token_hash) == [], "a watch ends with its session"


async def test_pages_of_sessions_leave_none_out(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latest_mirror, "PAGE", 3)
    made = [await node.sessions.create() for _ in range(9)]
    node.mirror.start()
    await until(lambda: node.mirror.resyncs, 60.0)
    for each in made:
        assert await node.latest.session(each.record.token_hash) is not None


async def test_the_watch_of_a_session_ends_with_it(node: Node) -> None:
    node.mirror.start()
    one, other = await node.sessions.create(), await node.sessions.create()
    await node.watches.add(one.record.watch_id, "BTCUSDT")
    await node.watches.add(other.record.watch_id, "ETHUSDT")
    await found(node.latest.watched_by_all, frozenset({"BTCUSDT", "ETHUSDT"}))
    await node.watches.add(one.record.watch_id, "BNBUSDT")
    await node.sessions.end(one.token)
    await found(node.latest.watched_by_all, frozenset({"ETHUSDT"}))


async def test_a_store_that_was_away_is_whole_afterwards(redis_server: RedisServer, node: Node) -> None:
    before = await node.sessions.create()
    await node.watches.add(before.record.watch_id, "BTCUSDT")
    node.mirror.start()
    await found(node.latest.watched_by_all, frozenset({"BTCUSDT"}))
    redis_server.kill()
    during = await node.sessions.create()
    await node.watches.add(during.record.watch_id, "ETHUSDT")
    await node.sessions.end(before.token)
    await until(lambda: node.mirror.health().state == "degraded", 60.0)
    assert "Redis" in (node.mirror.health().last_error or "")
    await asyncio.to_thread(redis_server.heal)
    await until(lambda: node.mirror.health().state == "ok", 60.0)
    assert await node.latest.session(before.record.token_hash) is None
    assert await node.latest.session(during.record.token_hash) is not None
    assert await node.latest.watched_by_all() == {"ETHUSDT"}
    assert len([line for line in node.log.lines if "not shared" in line]) == 1, "said once"


async def test_a_store_that_forgot_is_filled_when_it_is_due(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    node = Node(tmp_path / "registry.sqlite", latest_of(redis_server), resync_s=0.05)
    made = await node.sessions.create()
    await node.watches.add(made.record.watch_id, "BTCUSDT")
    node.mirror.start()
    await until(lambda: node.mirror.resyncs, 60.0)
    ask(redis_server.port, b"FLUSHALL\r\n")
    await found(node.latest.watched_by_all, frozenset({"BTCUSDT"}))
    await node.close()


async def test_another_node_sees_it_and_forgets_what_ended(
    redis_server: RedisServer, node: Node, tmp_path: Path
) -> None:
    other = Node(tmp_path / "one.sqlite", latest_of(redis_server))
    node.mirror.start()
    other.mirror.start()
    made = await node.sessions.create()
    await node.watches.add(made.record.watch_id, "BTCUSDT")
    await found(other.watches.union, frozenset({"BTCUSDT"}))
    assert await other.sessions.find(made.token) is not None, "and answers from memory from now on"
    await node.sessions.end(made.token)
    async with asyncio.timeout(60):
        while await other.sessions.find(made.token) is not None:
            await node.latest.drop_session(made.record.token_hash)  # until the other listens
            await asyncio.sleep(0.005)
    await other.close()


async def test_the_union_outlives_the_store(redis_server: RedisServer, node: Node, tmp_path: Path) -> None:
    alone = Node(tmp_path / "two.sqlite", latest_of(redis_server))
    await node.latest.put_watches({"user:7": ["BTCUSDT"]})
    assert await alone.watches.union() == {"BTCUSDT"}, "its own registry knows nothing of it"
    redis_server.kill()
    assert await alone.watches.union() == {"BTCUSDT"}
    await alone.close()


class Stubborn(LatestMemory):
    """Its listener swallows the first cancellation, as the Redis client does while it subscribes anew."""

    async def listen_ended(self) -> AsyncIterator[str]:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()
        yield "never"


async def test_it_ends_though_a_cancellation_is_swallowed(tmp_path: Path) -> None:
    node = Node(tmp_path / "one.sqlite", Stubborn(SystemTime()))
    node.mirror.start()
    await until(lambda: node.mirror.resyncs, 60.0)
    async with asyncio.timeout(30) as limit:
        await node.close()
    assert not limit.expired()


async def test_changes_that_wait_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latest_mirror, "CHANGES_MAX", 5)

    class Away(LatestMemory):
        there = False

        async def put_session(self, token_hash: str, session: SharedSession) -> None:
            if not self.there:
                raise StoreError("away")
            await super().put_session(token_hash, session)

    latest = Away(SystemTime())
    node = Node(tmp_path / "registry.sqlite", latest)
    node.mirror.start()
    made = [await node.sessions.create() for _ in range(20)]
    assert node.mirror.left_out >= 15
    assert len(node.mirror._changed) <= 5
    latest.there = True
    await until(lambda: node.mirror.health().state == "ok", 60.0)
    assert [await latest.session(each.record.token_hash) is None for each in made] == [False] * 20
    families = {family.name: family.samples[0][1] for family in node.mirror.collect()}
    assert families["tradeback_mirror_left_out"] == node.mirror.left_out
    await node.close()
