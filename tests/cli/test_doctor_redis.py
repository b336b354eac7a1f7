"""cli.doctor_redis: what is wrong with Redis, told before a start."""

from pathlib import Path
from typing import Any

import pytest

from tests.servers.kinds import RedisServer
from tests.servers.process import free_port
from tradeback.cli.doctor_redis import check_redis
from tradeback.model.config import Config, RedisConfig


async def asked(**redis: Any) -> tuple[str, str, str]:
    found = await check_redis(Config(redis=RedisConfig(**redis)))
    assert found is not None
    return found.state, found.found, found.remedy


async def test_none_is_configured() -> None:
    assert await check_redis(Config()) is None


async def test_a_good_one(redis_server: RedisServer) -> None:
    state, found, _ = await asked(addr=redis_server.address)
    assert (state, "version" in found, "without a limit" in found) == ("ok", True, True)


@pytest.mark.parametrize(
    ("options", "redis", "state", "remedy"),
    [
        (("--requirepass", "hunter2"), {"password": "hunter2-not"}, "fail", "correct REDIS_PASSWORD"),
        (("--requirepass", "hunter2"), {}, "fail", "set REDIS_PASSWORD"),
        ((), {"db": 77}, "fail", "correct REDIS_DB"),
        (("--replicaof", "127.0.0.1 1"), {}, "fail", "set REDIS_ADDR to the primary"),
        (("--maxmemory", "1"), {}, "fail", "raise maxmemory"),
        (("--maxmemory", "20mb"), {}, "warn", "raise maxmemory by 67 MiB, or lower REDIS_STREAM_ENTRIES"),
        (("--maxmemory", "500mb", "--maxmemory-policy", "allkeys-lru"), {}, "warn", "volatile-ttl"),
    ],
)
async def test_a_faulty_one(
    tmp_path: Path, options: tuple[str, ...], redis: dict[str, Any], state: str, remedy: str
) -> None:
    with RedisServer(tmp_path, *options) as server:
        found = await asked(addr=server.address, **redis)
    assert (found[0], remedy in found[2]) == (state, True), found
    assert "hunter2" not in " ".join(found)


async def test_nobody_there() -> None:
    state, found, remedy = await asked(addr=f"127.0.0.1:{free_port()}")
    assert (state, "cannot be reached" in found, "REDIS_ADDR" in remedy) == ("fail", True, True)
