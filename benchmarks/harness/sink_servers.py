"""The four servers that sinks write to, on the core of the ends, where they take what others leave."""

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.flow.all_servers import Servers
from tests.servers.kinds import InfluxServer, MariadbServer, NatsServer, RedisServer
from tests.servers.process import Server, find_binary

KINDS: tuple[type[Server], ...] = (InfluxServer, RedisServer, NatsServer, MariadbServer)
NAMES = {InfluxServer: "InfluxDB", RedisServer: "Redis", NatsServer: "NATS", MariadbServer: "MariaDB"}
HUNG, KILLED = "hung", "killed"


def not_installed() -> str:
    """Which servers' programs are missing, in one line with the remedy; empty when none is."""
    missing = [kind.program for kind in KINDS if find_binary(kind.program) is None]
    return f"not installed: {', '.join(missing)} (make servers, as root)" if missing else ""


def _stand_back(core: int) -> None:
    """This thread, and all that it starts, gets what others leave of the core."""
    os.sched_setaffinity(0, {core})
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


class SinkServers:
    """All four, with the registry's tables; a context manager. They start in the background: `wait` for them.

    One thread handles them, which is never in the way of who measures. Redis remembers over a crash (its
    log is written before it answers), as it must to hold every batch.
    """

    def __init__(self, core: int) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tradeback-servers-"))
        self._hand = ThreadPoolExecutor(1, "servers", initializer=_stand_back, initargs=(core,))
        self._stack = ExitStack()
        redis = RedisServer(self._folder / "redis", "--appendonly", "yes")
        nats, mariadb = NatsServer(self._folder / "nats"), MariadbServer(self._folder / "mariadb")
        influx = InfluxServer(self._folder / "influx")
        self.all: tuple[Server, ...] = (influx, redis, nats, mariadb)
        self.stores = Servers(f"bench_{secrets.token_hex(4)}", redis, nats, mariadb, influx)

    def __enter__(self) -> Self:
        self._begun = self._hand.submit(self._begin)
        return self

    def wait(self) -> None:
        """Until all run. Raises ServerFailed."""
        self._begun.result()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self) -> None:
        for server in self.all:
            self._stack.enter_context(server)
        self.stores.prepare()

    def close(self) -> None:
        """Stop them; their data go with them."""
        self._hand.submit(self._stack.close).result()
        self._hand.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextmanager
    def trouble(
        self, servers: tuple[Server, ...], kind: str, after_s: float, seconds: float
    ) -> Iterator[None]:
        """`servers` are in trouble for `seconds`, `after_s` into the body. Behind it they run again."""
        with ailing(self._hand.submit, servers, kind, after_s, seconds):
            yield


@contextmanager
def ailing(
    submit: Callable[[Callable[[], None]], "Future[None]"],
    servers: tuple[Server, ...],
    kind: str,
    after_s: float,
    seconds: float,
) -> Iterator[None]:
    """See `SinkServers.trouble`. `submit` runs a function in the thread that handles servers."""

    def work() -> None:
        time.sleep(after_s)
        for server in servers:
            (server.pause if kind == HUNG else server.kill)()
        time.sleep(seconds)
        for server in servers:
            server.heal()

    work_done = submit(work)
    try:
        yield
    finally:
        work_done.result()
