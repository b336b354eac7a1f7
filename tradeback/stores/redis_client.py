"""One Redis, by redis-py: calls that fail fast, a circuit breaker, and errors in words with the remedy.

Left alone the library tries eleven times and takes 4 s to say that nobody listens, a minute to say that a
server hangs. So calls get one repetition (a pooled connection may be dead) and `redis.timeout` each; after a
failure others fail at once until one of them has found the server again. Whoever listens gets a client
of the library's own patience, because there a lost connection must come back by itself.

What the library says of an error may repeat the command with its values: it goes no further.
"""

import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import hiredis
import redis.asyncio
from redis import exceptions as said
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tradeback.model.address import split_address
from tradeback.model.config import RedisConfig
from tradeback.model.errors import StoreError

PORT: Final = 6379
CONNECTIONS_MAX: Final = 8
REST_S: Final = 0.5
"""After a failure calls fail at once for so long; then one of them asks anew."""
UNSENT_BYTES: Final = 64 * 1024
"""So much may lie unsent while the answer is waited for."""
VERSION_MIN: Final = (6, 2)
_DENIED_IN_SCRIPT = re.compile("ACL failure in script|executing the script can't")
LISTEN_HEALTH_S: Final = 15
"""A connection that only listens is asked so often whether it lives."""

Result = TypeVar("Result")
Work = Callable[[Any], Awaitable[Result]]
"""What is done with the library's client, whose methods are typed for both of its worlds at once."""


class Unreachable(StoreError):
    """Redis is away, or does not answer: trying again later may help."""


class Refused(StoreError):
    """Redis answers and says no: somebody has to change something."""


class QuickConnection(redis.asyncio.Connection):
    """Packs commands in C, as the library's other half does: half of the time of a large one. Sends without a
    task and a timer for each."""

    def pack_command(self, *args: Any) -> list[bytes]:
        """A command as it is sent. Raises DataError for what cannot be."""
        words = tuple(args[0].split()) if isinstance(args[0], str) else args[:1]
        try:
            return [hiredis.pack_command((*words, *args[1:]))]
        except TypeError as error:
            raise said.DataError(str(error)) from None

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send what was packed; waits, as the library does, where much lies unsent.

        A server that does not read is noticed by the wait for its answer, which has a limit.
        """
        writer = self._writer
        if writer is not None and isinstance(command, list) and not writer.transport.is_closing():
            writer.writelines(command)
            if writer.transport.get_write_buffer_size() < UNSENT_BYTES:
                return
            command = []
        await super().send_packed_command(command, check_health)


class RedisClient:
    """Connections to one database. Loop thread only; connects when first asked."""

    def __init__(self, config: RedisConfig) -> None:
        self._config = config
        self._client: Any = None
        self._closed = False
        self._rest_until = 0.0
        self.last_error: str | None = None
        """Why the last call failed; None when it did not."""
        self.calls = self.errors = 0

    @property
    def name(self) -> str:
        """What messages call it: address and database, no secret."""
        return f"Redis {self._config.addr}/{self._config.db}"

    async def run(self, work: Work[Result]) -> Result:
        """Call `work` with the library's client. It may be called twice, so it must be idempotent.

        Raises Unreachable, Refused.
        """
        now = time.monotonic()
        if self._closed:
            raise Unreachable(f"{self.name}: the client is closed")
        if now < self._rest_until:
            raise Unreachable(self.last_error or f"{self.name} does not answer")
        if self.last_error is not None:
            self._rest_until = now + REST_S  # this call asks for all
        self.calls += 1
        try:
            result = await work(self._made())
        except (said.RedisError, OSError) as error:
            self.errors += 1
            failure = explained(self._config, error)
            self.last_error = str(failure)
            if isinstance(failure, Unreachable):
                self._rest_until = time.monotonic() + REST_S
            else:
                self._rest_until = 0.0
            raise failure from None
        self.last_error, self._rest_until = None, 0.0
        return result

    async def check(self) -> dict[str, Any]:
        """Whether this is a Redis that can be used; what it says of itself (INFO), as far as it may be asked.

        Raises Unreachable, Refused.
        """
        await self.run(lambda client: client.ping())
        try:
            found: dict[str, Any] = await self.run(lambda client: client.info())
        except Refused:
            return {}  # an account that may not ask; the first write will tell
        version = tuple(int(part) for part in re.findall(r"\d+", str(found.get("redis_version", "")))[:2])
        if version and version < VERSION_MIN:
            raise Refused(
                f"{self.name} is version {found['redis_version']}: 6.2 or newer is needed, update it"
            )
        if found.get("role") == "slave" and str(found.get("slave_read_only", 1)) == "1":
            raise Refused(
                f"{self.name} is a read-only replica: set REDIS_ADDR to the primary "
                f"({found.get('master_host')}:{found.get('master_port')})"
            )
        return found

    def listener(self) -> Any:
        """A client for whoever listens, to be closed by him."""
        return redis.asyncio.Redis(
            **self._where(), socket_timeout=5.0, socket_connect_timeout=5.0,
            health_check_interval=LISTEN_HEALTH_S,
        )  # fmt: skip

    async def close(self) -> None:
        """Close all connections; nothing can be called any more."""
        self._closed = True
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _made(self) -> Any:
        if self._client is None:
            pool = redis.asyncio.ConnectionPool(
                connection_class=QuickConnection, max_connections=CONNECTIONS_MAX,
                **self._where(), socket_timeout=self._config.timeout_s,
                socket_connect_timeout=self._config.timeout_s / 2,
                retry=Retry(NoBackoff(), 1),
            )  # fmt: skip
            self._client = redis.asyncio.Redis.from_pool(pool)
        return self._client

    def _where(self) -> dict[str, Any]:
        config = self._config
        host, port = split_address(config.addr, PORT)
        # Version 2 of the protocol: a connection costs no HELLO, which older proxies refuse.
        return {
            "host": host, "port": port, "db": config.db, "protocol": 2,
            "username": config.user or None, "password": config.password or None,
        }  # fmt: skip


def explained(config: RedisConfig, error: Exception) -> StoreError:
    """An error of the library in one line, with the remedy and without a secret."""
    name, text = f"Redis {config.addr}/{config.db}", str(error)
    code = getattr(error, "status_code", None) or text.partition(" ")[0]
    remedy = _remedy(config, error, text, code)
    if remedy is not None:
        return Refused(f"{name}: {remedy}")
    if isinstance(error, said.TimeoutError | TimeoutError):
        return Unreachable(f"{name} does not answer within {config.timeout_s:g} s")
    if isinstance(error, said.BusyLoadingError):
        return Unreachable(f"{name} is loading its data")
    if isinstance(error, said.MaxConnectionsError):
        return Unreachable(f"{name}: {CONNECTIONS_MAX} calls are on their way already")
    if isinstance(error, said.ConnectionError | OSError):
        return Unreachable(f"{name} cannot be reached: start it, or correct REDIS_ADDR")
    kind = code if re.fullmatch(r"[A-Z]{3,20}", code) else type(error).__name__
    return Refused(f"{name} refuses a command ({kind})")


def _remedy(config: RedisConfig, error: Exception, text: str, code: str) -> str | None:
    if isinstance(error, said.AuthenticationError | said.AuthenticationWrongNumberOfArgsError):
        if "without any password" in text or "no password is set" in text:
            return "it wants no password: unset REDIS_PASSWORD"
        if config.user:
            return f"it does not accept user {config.user!r}: correct REDIS_USER and REDIS_PASSWORD"
        if config.password:
            return "it does not accept the password: correct REDIS_PASSWORD"
        return "it wants a password: set REDIS_PASSWORD"
    if isinstance(error, said.NoPermissionError) or _DENIED_IN_SCRIPT.search(text):
        return "the user may not do this: give it all commands on all keys and channels (ACL SETUSER)"
    if "DB index is out of range" in text or "Invalid Database" in text or "SELECT is not allowed" in text:
        return f"it has no database {config.db}: correct REDIS_DB (0 is always there)"
    if isinstance(error, said.ReadOnlyError) or "READONLY" in text:
        return "it is a read-only replica: set REDIS_ADDR to the primary"
    if isinstance(error, said.OutOfMemoryError) or "OOM command not allowed" in text:
        return "its memory is full: raise maxmemory, or lower REDIS_STREAM_ENTRIES"
    if isinstance(error, said.InvalidResponse) or "Protocol error" in text or "Protocol Error" in text:
        return "what answers there is no Redis: correct REDIS_ADDR"
    if isinstance(error, said.MovedError | said.AskError | said.ClusterDownError) or "CROSSSLOT" in text:
        return "it is a cluster, which is not supported: set REDIS_ADDR to a single Redis"
    if code == "MISCONF" or "MISCONF" in text:
        return "it cannot save to its disk and takes no writes: make room there, see its log"
    if code == "WRONGTYPE" or "WRONGTYPE" in text:
        return "a key of ours holds something else: choose another REDIS_DB"
    if "max number of clients" in text:
        return "it has too many connections: raise maxclients"
    if "unknown command" in text:
        return "a command that is needed is missing or renamed there: use Redis 6.2 or newer, unchanged"
    return None
