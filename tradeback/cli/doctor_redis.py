"""`tradeback doctor` asks Redis, where one is configured."""

from typing import TYPE_CHECKING, Any

from tradeback.cli.doctor import Finding
from tradeback.model.errors import StartupError, StoreError
from tradeback.ops.clock import SystemClock

if TYPE_CHECKING:
    from tradeback.model.config import Config

CHECK = "Redis"
ENTRY_BYTES = 14_000
"""Of the stream, as a rule; see RedisConfig.stream_entries."""


async def check_redis(config: "Config") -> Finding | None:
    """Whether it is there and takes what the engine will put; None when there is none."""
    from tradeback.stores.latest import latest_redis

    if not config.redis.addr:
        return None
    try:
        store = latest_redis(config, SystemClock())
    except StartupError as error:
        found, _, remedy = str(error).partition(": ")
        return Finding(CHECK, "fail", found, remedy)
    try:
        info = await store.check()
        await store.probe()
    except StoreError as error:
        found, _, remedy = str(error).rpartition(": ")
        return Finding(CHECK, "fail", found or remedy, remedy if found else "look at it, then ask again")
    finally:
        await store.close()
    return _judged(config, info)


def _judged(config: "Config", info: dict[str, Any]) -> Finding:
    """What it says of itself, held against what it will have to keep."""
    redis = config.redis
    where = f"{redis.addr}/{redis.db}"
    if not info:
        return Finding(CHECK, "ok", f"{where} takes values; it does not let us ask for more")
    limit, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    policy = str(info.get("maxmemory_policy", "noeviction"))
    room = f"{used / 1024**2:.1f} of {limit / 1024**2:.1f} MiB used" if limit else "memory without a limit"
    found = f"{where}, version {info.get('redis_version')}, {room}"
    wanted = redis.stream_entries * ENTRY_BYTES
    if limit and policy.startswith("allkeys"):
        remedy = "set maxmemory-policy to volatile-ttl: with this one it may throw the stream away"
        return Finding(CHECK, "warn", f"{found}, {policy}", remedy)
    if limit and limit - used < wanted:
        remedy = f"raise maxmemory by {wanted / 1024**2:.0f} MiB, or lower REDIS_STREAM_ENTRIES"
        return Finding(CHECK, "warn", f"{found}; the stream may need {wanted / 1024**2:.0f} MiB", remedy)
    return Finding(CHECK, "ok", found)
