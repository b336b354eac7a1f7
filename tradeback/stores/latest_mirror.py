"""Sessions and market watches, written through from the registry into the latest store for other nodes.

The registry stays the truth. A change is written at once; everything is written again now and then, so
that a store which has lost its data, or was away, is whole again within `resync_s`, and what no node
vouches for any more expires. Log-ins and watches never wait for this.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tradeback.model.clock import Clock
from tradeback.model.errors import StoreError
from tradeback.ops.health import ComponentHealth, State
from tradeback.ops.log import Log
from tradeback.ops.metrics import Family
from tradeback.ops.tasks import finish
from tradeback.ops.troubles import Troubles
from tradeback.stores.market_watch import MarketWatch
from tradeback.stores.ports import Accounts, LatestStore, SessionRecord, SharedSession
from tradeback.stores.sessions import Sessions

PAGE = 500
"""Sessions read from the registry at a time."""
CHANGES_MAX = 10_000
"""Changes that wait for the store; more are left to the next time everything is written."""
RETRY_FIRST_S, RETRY_MAX_S = 0.25, 5.0
_UNCHANGED = SharedSession(None, 0)


@dataclass(frozen=True, slots=True)
class MirrorConfig:
    """Seconds. Watches must live longer in the store than it takes to write them again."""

    resync_s: float = 60.0


class Mirror:
    """`attach` the services, then `start`. Loop thread only."""

    def __init__(
        self,
        latest: LatestStore,
        accounts: Accounts,
        clock: Clock,
        log: Log,
        config: MirrorConfig | None = None,
    ) -> None:
        self._latest, self._accounts, self._clock, self._log = latest, accounts, clock, log
        self._config = config or MirrorConfig()
        self.on_ended: list[Callable[[str], None]] = []
        """Called with the token hash of every session that ends on any node, this one too."""
        self._changed: dict[str, SharedSession | None] = {}
        """Sessions by token hash, None: ended. The newest change of each."""
        self._watches: dict[str, None] = {}
        """Watch ids that have changed, oldest first."""
        self._something = asyncio.Event()
        self._whole = False
        """Whether everything has been written since the store was away last."""
        self._tasks: list[asyncio.Task[None]] = []
        self._state: State = "starting"
        self._since_ns = clock.wall_ns()
        self._error: str | None = None
        self._troubles, self._told = Troubles(clock), False
        self.written = self.resyncs = self.errors = self.left_out = self.told = 0

    def attach(self, sessions: Sessions, watches: MarketWatch) -> None:
        """Write through what changes in these two, and tell them what changes elsewhere."""
        self.on_ended.append(sessions.forget)
        sessions.on_live.append(self._on_live)
        sessions.on_end.append(self._on_end)
        watches.on_change.append(self._on_watch)
        watches.elsewhere = self._latest.watched_by_all

    def start(self) -> None:
        """Begin with everything."""
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._hear())]

    async def stop(self) -> None:
        """End; what still waits is written at the next start."""
        await finish(self._tasks)
        self._tasks = []

    def _on_live(self, record: SessionRecord) -> None:
        self._note(record.token_hash, SharedSession(record.user_id, record.expires_ns // 1_000_000))

    def _on_end(self, token_hash: str) -> None:
        self._watches.pop(token_hash, None)  # an anonymous session's watch ends with it
        self._note(token_hash, None)

    def _note(self, token_hash: str, session: SharedSession | None) -> None:
        if len(self._changed) >= CHANGES_MAX and token_hash not in self._changed:
            self.left_out += 1
            self._whole = False
            return
        self._changed[token_hash] = session
        self._something.set()

    def _on_watch(self, watch_id: str, symbol: str, added: bool) -> None:
        if len(self._watches) >= CHANGES_MAX and watch_id not in self._watches:
            self.left_out += 1
            self._whole = False
            return
        self._watches[watch_id] = None
        self._something.set()

    async def _run(self) -> None:
        """Changes as they come, everything when it is due; after a failure everything anew."""
        failures, due_ns = 0, 0
        while True:
            try:
                now_ns = self._clock.steady_ns()
                if not self._whole or now_ns >= due_ns:
                    await self._resync()
                    due_ns = now_ns + int(self._config.resync_s * 1e9)
                await self._write_changes()
            except StoreError as error:
                failures += 1
                self.errors += 1
                self._whole = False
                self._become("degraded", str(error))
                await asyncio.sleep(min(RETRY_MAX_S, RETRY_FIRST_S * 2 ** min(failures, 8)))
                continue
            failures = 0
            self._become("ok", None)
            left_s = max(0.01, (due_ns - self._clock.steady_ns()) / 1e9)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, self._config.resync_s)):
                    await self._something.wait()

    async def _write_changes(self) -> None:
        self._something.clear()
        while self._changed or self._watches:
            if self._changed:
                token_hash = next(iter(self._changed))
                session = self._changed.pop(token_hash)
                try:
                    await self._put_session(token_hash, session)
                except BaseException:
                    self._changed.setdefault(token_hash, session)  # unless it has changed again
                    raise
            if self._watches:
                watch_id = next(iter(self._watches))
                del self._watches[watch_id]
                try:
                    await self._latest.put_watches({watch_id: await self._accounts.watched(watch_id)})
                except BaseException:
                    if self._changed.get(watch_id, _UNCHANGED) is not None:  # its session lives
                        self._watches[watch_id] = None
                    raise
            self.written += 1

    async def _put_session(self, token_hash: str, session: SharedSession | None) -> None:
        if session is None:
            await self._latest.drop_session(token_hash)
            await self._latest.put_watches({token_hash: []})
        else:
            await self._latest.put_session(token_hash, session)

    async def _resync(self) -> None:
        """All live sessions and their watches. What changes meanwhile is written behind it."""
        self._whole = True
        await self._latest.watched_by_all()  # a store that is away shows even when there is nothing to write
        now_ns = self._clock.wall_ns()
        after = ""
        while True:
            page = await self._accounts.live_sessions(now_ns, after, PAGE)
            for record in page:
                session = SharedSession(record.user_id, record.expires_ns // 1_000_000)
                await self._latest.put_session(record.token_hash, session)
            if len(page) < PAGE:
                break
            after = page[-1].token_hash
        await self._latest.put_watches(await self._accounts.live_watches(now_ns))
        self.resyncs += 1

    async def _hear(self) -> None:
        """Sessions that another node has ended are not answered from memory here."""
        async for token_hash in self._latest.listen_ended():
            self.told += 1
            for notify in self.on_ended:
                notify(token_hash)

    def _become(self, state: State, error: str | None) -> None:
        if error is not None and self._troubles.is_news(error):
            self._log.warning("sessions and market watches are not shared with other nodes", reason=error)
            self._told = True
        elif error is None and self._told:
            self._log.info("sessions and market watches are shared again")
            self._told = False
        if state != self._state:
            self._state, self._since_ns = state, self._clock.wall_ns()
        self._error = error

    def health(self) -> ComponentHealth:
        """ok; degraded while the store or the registry is away."""
        details = {"waiting": len(self._changed) + len(self._watches), "resyncs": self.resyncs}
        return ComponentHealth("store:latest", self._state, self._since_ns, self._error, details=details)

    def collect(self) -> Iterator[Family]:
        """What was written, and what was left to the next time."""
        for name, value, text in (
            ("written", self.written, "Changes of sessions and market watches that were written through."),
            ("resyncs", self.resyncs, "Times that everything was written."),
            ("errors", self.errors, "Attempts that failed."),
            ("left_out", self.left_out, "Changes left to the next time that everything is written."),
            ("ended_elsewhere", self.told, "Ends of sessions that were heard of."),
        ):
            yield Family(f"tradeback_mirror_{name}", "counter", text).add(value)
