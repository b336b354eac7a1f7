"""What tests of the registry share: records, a clock that is told the time, a database of one's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from tests.servers.kinds import MariadbServer
from tradeback.model.config import Config, MysqlConfig
from tradeback.stores.ports import SymbolRecord

DAY_NS = 86_400 * 10**9
_numbers = count(1)


class TestClock:
    """Both clocks stand until they are moved."""

    __test__ = False

    def __init__(self) -> None:
        self.now_ns = 1_795_238_482_123_456_000

    def wall_ns(self) -> int:
        return self.now_ns

    def steady_ns(self) -> int:
        return self.now_ns

    def move(self, seconds: float) -> None:
        self.now_ns += int(seconds * 1e9)


class Notes:
    """A log that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def _note(self, event: str, **fields: Any) -> None:
        self.lines.append(f"{event} {fields}")

    debug = info = warning = error = _note

    def bind(self, **fields: Any) -> "Notes":
        return self


def record(name: str, *, active: bool = True, step: str = "0.00001000") -> SymbolRecord:
    return SymbolRecord(
        name, name[:3], "USDT", active, "0.01000000", step, "5.00000000", step, "9000.00000000"
    )


@contextmanager
def database(server: MariadbServer, *, migrated: bool = True) -> Iterator[MysqlConfig]:
    """The configuration of a new database, with its tables unless told otherwise."""
    from tradeback.stores.migrate import Migration

    name = f"tradeback_{next(_numbers)}"
    # The fixture's server is quick and forgets the last second when it is killed; these tests kill it.
    server.sql(f"SET GLOBAL innodb_flush_log_at_trx_commit = 1; DROP DATABASE IF EXISTS {name}")
    config = MysqlConfig(
        host=server.host, port=server.port, database=name, user=server.user, password=server.password
    )
    if migrated:
        Migration(Config(mysql=config)).up()
    yield config
    server.heal()
    # A transaction that a failed test left open must not hold this for a day.
    server.sql(f"SET lock_wait_timeout = 5; DROP DATABASE IF EXISTS {name}")
