"""Calls to Redis fail fast, mend themselves, and say what is wrong without a secret."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis import exceptions as said

from tests.servers.kinds import RedisServer
from tests.servers.process import ask, free_port
from tests.sinks.drain_world import SystemTime
from tradeback.model.config import RedisConfig
from tradeback.stores import redis_client
from tradeback.stores.latest_redis import LatestRedis
from tradeback.stores.redis_client import RedisClient, Refused, Unreachable, explained

SECRET = "hunter2-correct-horse"


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[RedisClient]:
    made = RedisClient(RedisConfig(addr=redis_server.address))
    yield made
    await made.close()


async def ping(client: RedisClient) -> bool:
    return bool(await client.run(lambda library: library.ping()))


async def back(client: RedisClient) -> None:
    """Until Redis is found again."""
    async with asyncio.timeout(60):
        while True:
            try:
                await ping(client)
            except Unreachable:
                await asyncio.sleep(0.01)
            else:
                return


async def test_a_server_that_is_away_fails_at_once_and_is_found_again(
    redis_server: RedisServer, client: RedisClient
) -> None:
    assert await ping(client)
    redis_server.kill()
    with pytest.raises(Unreachable, match="correct REDIS_ADDR"):
        await ping(client)
    calls = client.calls
    for _ in range(100):
        with pytest.raises(Unreachable):
            await ping(client)
    assert client.calls - calls < 100, "the breaker answers without a call"
    redis_server.heal()
    await back(client)
    assert client.last_error is None


async def test_a_hung_server_holds_nobody_for_long(redis_server: RedisServer) -> None:
    client = RedisClient(RedisConfig(addr=redis_server.address, timeout_s=0.1))
    assert await ping(client)
    redis_server.pause()
    async with asyncio.timeout(30):
        with pytest.raises(Unreachable):
            await ping(client)
        with pytest.raises(Unreachable):
            await ping(client)
    redis_server.resume()
    await back(client)
    await client.close()


async def test_a_pooled_connection_that_died_is_no_failure(
    redis_server: RedisServer, client: RedisClient
) -> None:
    assert await ping(client)
    await asyncio.to_thread(redis_server.restart)
    assert await ping(client)
    assert client.errors == 0


async def test_scripts_survive_a_restart(redis_server: RedisServer) -> None:
    from tests.stores.test_latest import price

    store = LatestRedis(RedisConfig(addr=redis_server.address), SystemTime())
    await store.put_prices([price("A", 1, 1)])
    await asyncio.to_thread(redis_server.restart)
    await store.put_prices([price("A", 2, 2)])
    assert (await store.prices(["A"]))["A"].trade_id == 2
    await store.close()


async def test_a_listener_hears_again_after_a_crash(redis_server: RedisServer) -> None:
    from tests.stores.test_latest import heard, price

    store = LatestRedis(RedisConfig(addr=redis_server.address), SystemTime())
    listening = store.listen_prices()

    async def tell() -> None:
        try:
            await store.put_prices([price("A", 1, 1)])
        except Unreachable:
            return

    assert await heard(listening, tell)
    redis_server.kill()
    redis_server.heal()
    await heard(listening, tell)
    assert await heard(listening, tell)
    await store.close()
    async with asyncio.timeout(30):
        async for _ in listening:
            continue


async def test_cancelled_calls_do_not_mix_up_answers(client: RedisClient) -> None:
    async def echo(number: int) -> None:
        found = await client.run(lambda library: library.echo(str(number)))
        assert found == str(number).encode()

    for number in range(200):
        task = asyncio.create_task(echo(number))
        for _ in range(number % 7):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            assert task.exception() is None
        await echo(number)


async def test_check_names_an_old_version(client: RedisClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await client.check())["redis_version"]
    monkeypatch.setattr(redis_client, "VERSION_MIN", (99, 0))
    with pytest.raises(Refused, match=r"version .* update it"):
        await client.check()


async def test_an_account_without_rights_is_named(redis_server: RedisServer) -> None:
    made = b"ACL SETUSER default on nopass ~* &* -@all +ping\r\n"
    assert b"+OK" in ask(redis_server.port, made)
    store = LatestRedis(RedisConfig(addr=redis_server.address), SystemTime())
    try:
        assert await store.check() == {}, "it may not ask"
        with pytest.raises(Refused, match="ACL SETUSER"):
            await store.probe()
    finally:
        await store.close()
        await asyncio.to_thread(redis_server.restart)


async def test_a_closed_client_is_closed(client: RedisClient) -> None:
    await client.close()
    with pytest.raises(Unreachable, match="closed"):
        await ping(client)


ERRORS: list[tuple[Exception, str]] = [
    (said.ResponseError(f"MISCONF Redis is configured {SECRET}"), "make room"),
    (said.MovedError("3999 127.0.0.1:6381"), "single Redis"),
    (said.ResponseError(f"WRONGTYPE Operation {SECRET}"), "another REDIS_DB"),
    (said.ResponseError(f"unknown command 'EVALSHA', with args beginning with: {SECRET}"), "6.2 or newer"),
    (
        said.ResponseError(f"Error running script: @user_script:9: -OOM command not allowed {SECRET}"),
        "maxmemory",
    ),
    (said.ResponseError(f"ACL failure in script: User x has no permissions {SECRET}"), "ACL SETUSER"),
    (said.BusyLoadingError("Redis is loading"), "loading"),
    (said.ResponseError(f"BUSY Redis is busy running a script {SECRET}"), "(BUSY)"),
    (said.DataError(SECRET), "(DataError)"),
    (said.ConnectionError(f"Error 111 connecting to {SECRET}"), "REDIS_ADDR"),
    (ConnectionResetError(SECRET), "REDIS_ADDR"),
    (TimeoutError(SECRET), "does not answer within"),
]


@pytest.mark.parametrize(("error", "remedy"), ERRORS)
def test_errors_are_put_into_words(error: Exception, remedy: str) -> None:
    found = str(explained(RedisConfig(addr="cache:6379", password=SECRET, db=2), error))
    assert found.startswith("Redis cache:6379/2")
    assert remedy in found
    assert SECRET not in found
    assert "\n" not in found


async def test_nobody_there() -> None:
    client = RedisClient(RedisConfig(addr=f"127.0.0.1:{free_port()}", password=SECRET))
    begun = time.monotonic()
    with pytest.raises(Unreachable) as caught:
        await client.check()
    assert time.monotonic() - begun < 30
    assert SECRET not in f"{caught.value!r} {client._config!r}"
    await client.close()


def test_the_library_is_told_to_be_quick(redis_server: RedisServer) -> None:
    client: Any = RedisClient(RedisConfig(addr="localhost"))._made()
    known = client.connection_pool.connection_kwargs
    assert (known["socket_timeout"], known["socket_connect_timeout"]) == (1.0, 0.5)
    assert known["retry"].get_retries() == 1
