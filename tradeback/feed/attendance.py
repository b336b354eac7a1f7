"""The open sockets of sessions: which belong to one, what they are to get, and that they end with it.

Told of a change they act at once; what happens elsewhere (another node, `tradeback user`, expiry, another
process of this run) they find by asking the registry every `interval_s`, in slices. A socket that has just
opened is asked about at once: its session may have ended while it was on its way here.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import orjson
from picows import WSCloseCode

from tradeback.feed.client import Client
from tradeback.feed.requests import Requests
from tradeback.model.errors import StoreError
from tradeback.ops.log import Log, RepeatLimiter
from tradeback.ops.metrics import Family, unlabelled
from tradeback.ops.tasks import finish
from tradeback.stores.market_watch import MarketWatch
from tradeback.stores.sessions import Sessions

INTERVAL_S = 5.0
SLICE = 100
"""Sessions or watches in one question: their answer costs the loop a fraction of a millisecond."""
AGAIN_S = 0.25
"""A client whose socket is full gets its watch this much later."""
ENDED = "the session has ended; log in again"


class Attendance:
    """Loop thread only. Hang it into `Feed.attendance`, then `start`; `stop` before the registry closes."""

    def __init__(
        self,
        requests: Requests,
        sessions: Sessions,
        watch: MarketWatch,
        log: Log,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self.closed = 0
        """Sockets closed because their session had ended."""
        self.sessions, self.watch = sessions, watch
        self._requests, self._log = requests, log
        self._interval_s = interval_s
        self._by_session: dict[str, set[Client]] = {}
        self._by_watch: dict[str, set[Client]] = {}
        self._new: tuple[set[str], set[str]] = (set(), set())
        """Sessions and watches to ask about now."""
        self._old: tuple[set[str], set[str]] = (set(), set())
        """The same, when nothing is new: everything, once in an interval."""
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._limiter = RepeatLimiter(60.0)

    # The feed's side.

    def arrived(self, client: Client) -> None:
        """A socket with a session is open."""
        admission = client.admission
        if admission.session is not None:
            self._by_session.setdefault(admission.session, set()).add(client)
            self._new[0].add(admission.session)
        if admission.watch_id is not None:
            self._by_watch.setdefault(admission.watch_id, set()).add(client)
            self._new[1].add(admission.watch_id)
        self._requests.follow(client, admission.watch)
        self._wake.set()

    def left(self, client: Client) -> None:
        """And closed."""
        _discard(self._by_session, client.admission.session, client)
        _discard(self._by_watch, client.admission.watch_id, client)

    # What has happened.

    def ended(self, session: str) -> None:
        """The session with this token hash is over: so are its sockets."""
        for client in list(self._by_session.get(session, ())):
            self.closed += 1
            client.close(WSCloseCode.POLICY_VIOLATION, ENDED)

    def changed(self, watch_id: str) -> None:
        """Read this market watch again."""
        if watch_id in self._by_watch:
            self._new[1].add(watch_id)
            self._wake.set()

    def symbols_came(self) -> None:
        """There are symbols that nobody knew: watches may have been waiting for them."""
        self._new[1].update(self._by_watch)
        self._wake.set()

    def push(self, owner: str, message: dict[str, Any]) -> int:
        """Send JSON text to the sockets of a user (`SessionRecord.watch_id`) or of a session (token hash).

        How many that are here. What is about a symbol is not for sockets that may not see it.
        """
        symbol = message.get("data", {}).get("symbol")
        found = self._by_watch.get(owner, set()) | self._by_session.get(owner, set())
        clients = [client for client in found if not client.closing and client.may_see(symbol)]
        payload = orjson.dumps(message)
        for client in clients:
            client.send_text(payload)
        return len(clients)

    # Asking.

    def start(self) -> None:
        """Begin. Needs the running loop."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            await finish([self._task])

    def collect(self) -> Iterator[Family]:
        """How many there are."""
        rows = (("sessions", len(self._by_session), "sessions with open sockets"),)
        ended = (("session_ends", self.closed, "sockets closed because their session had ended"),)
        yield from unlabelled("tradeback_feed_", "gauge", rows)
        yield from unlabelled("tradeback_feed_", "counter", ended)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time() + self._interval_s
        while True:
            if not any((*self._new, *self._old)):
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(due_s):
                        await self._wake.wait()
            if loop.time() >= due_s:
                due_s = loop.time() + self._interval_s
                self._old = set(self._by_session), set(self._by_watch)
            await self._ask()

    async def _ask(self) -> None:
        """One slice of what is due."""
        try:
            await self._ask_sessions(_take(self._new[0]) or _take(self._old[0]))
            await self._ask_watches(_take(self._new[1]) or _take(self._old[1]))
        except StoreError as error:
            # Sockets stay as they are: a registry that is away never stops the feed. In the next round again.
            for due in (*self._new, *self._old):
                due.clear()
            if self._limiter.allow("ask", int(asyncio.get_running_loop().time() * 1e9)) is not None:
                self._log.warning("open sockets cannot be compared with the registry", reason=str(error))

    async def _ask_sessions(self, keys: Sequence[str]) -> None:
        if keys:
            alive = await self.sessions.check(keys)
            for key in keys:
                if key not in alive:
                    self.ended(key)

    async def _ask_watches(self, ids: Sequence[str]) -> None:
        if not ids:
            return
        for watch_id, names in (await self.watch.lists(ids)).items():
            if watch_id not in self._new[1]:  # else it has changed since, and is read again
                self._tell(watch_id, names)

    def _tell(self, watch_id: str, names: Sequence[str]) -> None:
        waiting = False
        for client in list(self._by_watch.get(watch_id, ())):
            waiting |= not self._requests.follow(client, names)
        if waiting:
            asyncio.get_running_loop().call_later(AGAIN_S, self.changed, watch_id)


def _take(due: set[str]) -> list[str]:
    """Some of them, which are then no longer due."""
    return [due.pop() for _ in range(min(SLICE, len(due)))]


def _discard(listed: dict[str, set[Client]], key: str | None, client: Client) -> None:
    held: Iterable[Client] = listed.get(key or "", ())
    if isinstance(held, set):
        held.discard(client)
        if not held and key is not None:
            del listed[key]
