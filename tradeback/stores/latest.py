"""Opens what keeps the newest values: Redis where one is configured, memory otherwise."""

from typing import TYPE_CHECKING

from tradeback.model.clock import Clock
from tradeback.model.config import Config
from tradeback.model.errors import StartupError
from tradeback.stores.latest_memory import LatestMemory
from tradeback.stores.ports import LatestStore

if TYPE_CHECKING:
    from tradeback.stores.latest_redis import LatestRedis


def open_latest(config: Config, clock: Clock) -> LatestStore:
    """The store of this configuration. Connects to nothing yet.

    Raises StartupError when Redis is configured and its client library is not installed.
    """
    redis = config.redis
    if not redis.addr:
        return LatestMemory(
            clock, price_ttl_s=redis.price_ttl_s, bars_ttl_s=redis.bars_ttl_s,
            stream_entries=redis.stream_entries,
        )  # fmt: skip
    return latest_redis(config, clock)


def latest_redis(config: Config, clock: Clock) -> "LatestRedis":
    """The store in Redis. Raises StartupError when its client library is not installed."""
    try:
        from tradeback.stores.latest_redis import LatestRedis
    except ModuleNotFoundError as error:
        raise StartupError(
            f"REDIS_ADDR is set and {error.name} is not installed: pip install 'tradeback[redis]', "
            "or unset REDIS_ADDR"
        ) from None
    return LatestRedis(config.redis, clock)
