"""Connections to MySQL or MariaDB by aiomysql: few, bounded in time, replaced when the server was gone.

aiomysql's own pool is not used: a connection that is released broken wakes nobody who waits for one, and a
connect that hangs holds the pool's lock. What else one has to know of the library (docs/stores.md): it has no
timeout for reading, a connect that is cancelled leaves its socket open, and `executemany` sends one statement
per row unless the text reads exactly `VALUES (%s, ...)`.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import aiomysql
from pymysql.constants import CLIENT, ER

from tradeback.model.config import MysqlConfig
from tradeback.model.errors import StoreError

T = TypeVar("T")
Work = Callable[[aiomysql.Cursor], Awaitable[T]]

CONNECTIONS_MAX = 4
REST_AFTER_HANG_S = 1.0
"""After a call that timed out, others fail at once for so long: a hung server must not hold all callers."""
TRIES_MAX = 10
"""Of one transaction that another one got in the way of."""
SESSION = (
    "SET time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', "
    "max_error_count = 0, innodb_lock_wait_timeout = 3"
)
"""Times are UTC, nothing is cut silently, and warnings, which would repeat values, are not collected."""

AWAY = "start it, or correct MYSQL_HOST and MYSQL_PORT"
HANGS = "see whether it hangs, or is short of disk or memory"
CONNECTION_LOST = {2006, 2013, 2014, 2055, 4031, ER.SERVER_SHUTDOWN, 1927}
UNREACHABLE = {2002, 2003, 2005, ER.HOST_IS_BLOCKED, *CONNECTION_LOST}
IN_THE_WAY = {ER.LOCK_DEADLOCK, ER.LOCK_WAIT_TIMEOUT, 1020}
"""Another transaction won: try again. 1020: MariaDB's snapshot isolation says it like that."""
READ_ONLY = {
    ER.TABLEACCESS_DENIED_ERROR, ER.COLUMNACCESS_DENIED_ERROR, ER.SPECIFIC_ACCESS_DENIED_ERROR
}  # fmt: skip
RIGHTS = {ER.DBACCESS_DENIED_ERROR, *READ_ONLY}
REPLICA = {ER.OPTION_PREVENTS_STATEMENT, 1792, 1836}
"""Nobody may write, whatever his rights."""
NO_ENTRY = {ER.ACCESS_DENIED_ERROR, 1698, 1251, 2059, 1820, 1862, 3118, 4151}
"""User, password, way of logging in; expired or locked."""
CROWDED = {ER.CON_COUNT_ERROR, 1203, 1226}
FULL = {ER.DISK_FULL, ER.RECORD_FILE_FULL, 1041, 28}


class Unreachable(StoreError):
    """The server is away, or does not answer: trying again later may help."""


class Refused(StoreError):
    """The server answers and says no: somebody has to change something."""


class Taken(StoreError):
    """A row with this key is there already."""


class Mysql:
    """A few connections to one database. Loop thread only; connects when first asked."""

    def __init__(self, config: MysqlConfig) -> None:
        self._config = config
        self._idle: deque[aiomysql.Connection] = deque()
        self._permits = asyncio.Semaphore(CONNECTIONS_MAX)
        self._busy: set[aiomysql.Connection] = set()
        self._rest_until = 0.0
        self._closed = False
        self.timeout_s = config.timeout_s
        """For everything that one call does: waiting for a connection, connecting, working, trying again."""
        self.connects = 0
        """Connections made so far."""

    @property
    def name(self) -> str:
        """What messages call it: host, port and database, no secret."""
        config = self._config
        return f"MySQL {config.host}:{config.port}/{config.database}"

    async def run(self, work: Work[T]) -> T:
        """Call `work` with a cursor inside one transaction; its result once that is committed.

        `work` may be called several times: after a connection that turned out to be dead, or when another
        transaction was in the way. Also after a commit whose answer got lost, so it must be idempotent.
        Raises Unreachable, Refused, Taken.
        """
        if self._closed:
            raise Unreachable(f"{self.name} is closed")
        if time.monotonic() < self._rest_until:
            raise Unreachable(f"{self.name} does not answer (trying again soon): {HANGS}")
        try:
            async with asyncio.timeout(self.timeout_s), self._permits:
                return await self._insist(work)
        except TimeoutError:
            self._rest_until = time.monotonic() + REST_AFTER_HANG_S
            self._drop_idle()  # they lead to the same silent server
            words = f"{self.name} does not answer (within {self.timeout_s:g} s): {HANGS}"
            raise Unreachable(words) from None

    async def close(self) -> None:
        """Say goodbye on idle connections, cut the others."""
        self._closed = True
        for connection in list(self._busy):
            connection.close()
        await asyncio.sleep(0)  # so that they are closed, and their transactions are over, when this returns
        while self._idle:
            connection = self._idle.pop()
            try:
                async with asyncio.timeout(0.5):
                    await connection.ensure_closed()
            except (OSError, aiomysql.MySQLError):  # TimeoutError is an OSError
                connection.close()

    async def _insist(self, work: Work[T]) -> T:
        tries, lost = 0, 0
        while True:
            try:
                return await self._attempt(work)
            except aiomysql.MySQLError as error:
                code = _code(error)
                if code in CONNECTION_LOST and not lost:
                    lost = 1
                    self._drop_idle()  # if one is dead, so are they all
                    continue
                tries += 1
                if code not in IN_THE_WAY or tries >= TRIES_MAX:
                    if code in RIGHTS:
                        self._drop_idle()  # a connection keeps the rights that it began with
                    # The library's text may repeat values of the statement: it goes no further.
                    raise self._explained(code, error) from None
                await asyncio.sleep(0.002 * tries * (1 + tries) * random.random())
            except (OSError, EOFError) as error:
                raise Unreachable(f"{self.name} cannot be reached ({type(error).__name__}): {AWAY}") from None

    async def _attempt(self, work: Work[T]) -> T:
        connection = self._idle.pop() if self._idle else self._make()
        self._busy.add(connection)
        sound = False
        try:
            if connection.closed:
                await connection.ping()  # of a new one: connects
                self.connects += 1
            await connection.begin()
            try:
                async with connection.cursor() as cursor:
                    result = await work(cursor)
                await connection.commit()
            except (aiomysql.MySQLError, StoreError):
                if not connection.closed:
                    await connection.rollback()
                    sound = True
                raise
            sound = True
            return result
        finally:
            self._busy.discard(connection)
            if sound and not self._closed and not connection.closed:
                self._idle.append(connection)
            else:
                connection.close()

    def _make(self) -> aiomysql.Connection:
        config = self._config
        return aiomysql.Connection(
            host=config.host,
            port=config.port,
            user=config.user,
            password=config.password,
            db=config.database,
            charset="utf8mb4",
            autocommit=True,
            init_command=SESSION,
            client_flag=CLIENT.FOUND_ROWS,
            connect_timeout=self.timeout_s,
        )

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _explained(self, code: int, error: Exception) -> StoreError:
        config, name = self._config, self.name
        if code == ER.DUP_ENTRY:
            return Taken(f"{name} holds this already")
        if code in UNREACHABLE:
            return Unreachable(f"{name} cannot be reached (error {code}): {AWAY}")
        if code in CROWDED:
            return Unreachable(
                f"{name} takes no more connections (error {code}): raise max_connections there"
            )
        remedy, grant = "", f"GRANT ALL ON {config.database}.* TO it"
        if code in NO_ENTRY:
            remedy = f"it refuses user {config.user!r}: correct MYSQL_USER and MYSQL_PASSWORD"
        elif code == ER.DBACCESS_DENIED_ERROR:
            remedy = f"user {config.user!r} has no right to the database: {grant}"
        elif code == ER.BAD_DB_ERROR:
            remedy = "no such database: run `tradeback migrate up`, or correct MYSQL_DATABASE"
        elif code in {ER.NO_SUCH_TABLE, ER.BAD_FIELD_ERROR}:
            remedy = "its tables are missing or of another version: run `tradeback migrate up`"
        elif code in READ_ONLY:
            remedy = f"user {config.user!r} may not write: {grant}"
        elif code in REPLICA:
            remedy = "it is read-only: set MYSQL_HOST to the primary, or SET GLOBAL read_only = 0 there"
        elif code in FULL:
            remedy = "its disk is full: make room"
        if remedy:
            return Refused(f"{name}: {remedy} (error {code})")
        if isinstance(error, RuntimeError | ImportError):
            return Refused(f"{name}: {error}")
        return Refused(f"{name}: error {code} ({_names().get(code, type(error).__name__)})")


def bound(text: str) -> str:
    """A statement that marks its values with `?` as aiomysql wants it; there is no other `?` in one."""
    return text.replace("%", "%%").replace("?", "%s")


def insert_many(table: str, columns: Sequence[str]) -> str:
    """An INSERT that `executemany` sends as one statement: the blank after VALUES matters, 10 times."""
    places = ", ".join(["%s"] * len(columns))
    return f"INSERT INTO {table}({', '.join(columns)}) VALUES ({places})"  # noqa: S608


def _code(error: Exception) -> int:
    code = error.args[0] if error.args else 0
    return code if isinstance(code, int) else 0


def _names() -> dict[Any, str]:
    return {code: name for name, code in vars(ER).items() if isinstance(code, int)}
