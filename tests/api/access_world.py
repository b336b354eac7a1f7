"""A guarded front, feed and application on a registry in a file, with users and a clock that is moved."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import websockets

from tests.feed.harness import SYMBOLS, MemoryTape, rows_of
from tests.stores.accounts_world import Notes, TestClock
from tradeback.api.access import Access
from tradeback.api.app import make_runner
from tradeback.api.context import ServingContext
from tradeback.api.gate import SocketGate
from tradeback.feed.front import Front
from tradeback.feed.server import Feed
from tradeback.model.config import Config
from tradeback.model.symbols import SymbolTable
from tradeback.ops.clock import SystemClock
from tradeback.path.path import Path as HotPath
from tradeback.serving import make_access
from tradeback.stores.registry_sqlite import RegistrySqlite
from tradeback.stores.users import Passwords, Users

SECRET = "hunter2-correct-horse"
LOGIN, LOGOUT, SESSION = (f"/api/v1/auth/{name}" for name in ("login", "logout", "session"))
WATCH = "/api/v1/marketwatch"


@dataclass
class AccessWorld:
    """Everything up. `http` keeps cookies as a browser does; `jar` makes further ones."""

    config: Config
    clock: TestClock
    log: Notes
    registry: RegistrySqlite
    context: ServingContext
    feed: Feed
    front: Front
    access: Access
    tape: MemoryTape
    sessions: list[aiohttp.ClientSession] = field(default_factory=list)
    published: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.front.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.front.port}/api/v1/ws"

    def jar(self, **options: Any) -> aiohttp.ClientSession:
        """Another browser."""
        jar = aiohttp.CookieJar(unsafe=True)
        made = aiohttp.ClientSession(self.url, cookie_jar=jar, **options)
        self.sessions.append(made)
        return made

    async def user(self, name: str = "alice", symbols: frozenset[str] | None = None) -> None:
        """A user whose password is SECRET."""
        await self.access.users.add(name, SECRET)
        if symbols is not None:
            await self.access.users.allow(name, symbols)

    async def logged_in(self, name: str = "alice", **more: Any) -> aiohttp.ClientSession:
        """A browser with a session of the user."""
        http = self.jar()
        async with http.post(LOGIN, json={"username": name, "password": SECRET, **more}) as answer:
            assert answer.status == 200, await answer.text()
        return http

    def connect(self, token: str = "", **options: Any) -> Any:
        """A WebSocket with this token as its cookie."""
        headers = dict(options.pop("additional_headers", {}))
        if token:
            headers["Cookie"] = f"session_token={token}"
        url = options.pop("url", self.ws_url)
        return websockets.connect(url, compression=None, additional_headers=headers, **options)

    def trade(self, *trades: tuple[int, float, float]) -> None:
        """Publish trades."""
        rows = rows_of(trades, first_id=self.published + 1)
        self.published += len(rows)
        self.feed.path.serve(self.tape.append(rows), len(rows))


def token_of(http: aiohttp.ClientSession) -> str:
    """The token in a browser's jar; empty when there is none."""
    return next((cookie.value for cookie in http.cookie_jar if cookie.key == "session_token"), "")


async def ask(http: aiohttp.ClientSession, method: str, path: str, **options: Any) -> tuple[int, Any]:
    """Status and JSON of a request; None without a body."""
    async with http.request(method, path, **options) as answer:
        return answer.status, await answer.json() if await answer.read() else None


@asynccontextmanager
async def guarded(
    folder: Path, *, interval_s: float = 3_600.0, head_seconds_max: float = 10.0, **sections: Any
) -> AsyncIterator[AccessWorld]:
    """The world of a configuration. `interval_s`: how often open sockets are compared with the registry."""
    config = Config(**sections)
    registry = RegistrySqlite(folder / "registry.sqlite")
    symbols, tape = SymbolTable.of(SYMBOLS), MemoryTape()
    feed = Feed(config.feed, SystemClock(), symbols, HotPath(tape), features=config.feature)
    clock, log = TestClock(), Notes()
    access = make_access(config, clock, feed, registry, log)
    access.users = Users(registry, clock, Passwords(memory_kib=64))
    access.attendance._interval_s = interval_s
    context = ServingContext(config, clock, symbols, tape, access=access)
    context.feed = feed
    runner = make_runner(context)
    await runner.setup()
    assert runner.server is not None
    front = Front(runner.server, feed.accept, head_seconds_max=head_seconds_max)
    front.gate = SocketGate(access)
    front.shed = runner.shed
    await front.open("127.0.0.1", 0)
    feed.start()
    feed.attach_kernels()
    access.attendance.start()
    made = AccessWorld(config, clock, log, registry, context, feed, front, access, tape)
    try:
        yield made
    finally:
        for session in made.sessions:
            await session.close()
        await front.close()
        await access.attendance.stop()
        await feed.close()
        await runner.cleanup()
        registry.close()
