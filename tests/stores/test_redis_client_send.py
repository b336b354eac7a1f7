"""What is sent at once, and what waits for the socket."""

import asyncio
import secrets

import pytest

from tests.servers.kinds import RedisServer
from tests.servers.process import ask
from tradeback.model.config import RedisConfig
from tradeback.stores.redis_client import UNSENT_BYTES, RedisClient, Unreachable


@pytest.mark.parametrize("size", [1, UNSENT_BYTES - 1, UNSENT_BYTES + 1, 8 << 20])
async def test_values_of_any_size_arrive_whole(redis_server: RedisServer, size: int) -> None:
    client, value = (
        RedisClient(RedisConfig(addr=redis_server.address, timeout_s=30.0)),
        secrets.token_bytes(size),
    )
    for _ in range(2):
        await client.run(lambda library: library.set("sent", value))
        assert await client.run(lambda library: library.get("sent")) == value
    await client.close()
    assert ask(redis_server.port, b"DEL sent\r\n") == b":1\r\n"


@pytest.mark.parametrize("size", [1, 32 << 20])
async def test_a_server_that_does_not_read_is_left(redis_server: RedisServer, size: int) -> None:
    """Whether the socket takes all of it or not, the call ends, and the next one is answered."""
    client, value = RedisClient(RedisConfig(addr=redis_server.address, timeout_s=0.2)), bytes(size)
    await client.run(lambda library: library.ping())
    redis_server.pause()
    async with asyncio.timeout(30):
        with pytest.raises(Unreachable):
            await client.run(lambda library: library.set("unsent", value))
    redis_server.resume()
    async with asyncio.timeout(60):
        while True:
            try:
                assert await client.run(lambda library: library.ping())
            except Unreachable:
                await asyncio.sleep(0.01)
            else:
                break
    await client.close()
    assert ask(redis_server.port, b"DEL unsent\r\n") in (b":0\r\n", b":1\r\n")
