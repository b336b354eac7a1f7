"""Sessions, without HTTP: who is behind a token, for how long, and how that ends.

The token is 32 random bytes that only the client has; kept is its SHA-256, which needs no salt because
nobody guesses 256 bits. A session that has just been looked up is answered from memory for `cache_s`: so long
another node may still accept one that was ended here, unless it is told (`on_end`, `forget`).
"""

import asyncio
import hashlib
import secrets
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from tradeback.model.clock import Clock
from tradeback.model.errors import StoreError
from tradeback.ops.log import Log, RepeatLimiter
from tradeback.ops.tasks import finish
from tradeback.stores.ports import Accounts, SessionRecord

TOKEN_BYTES = 32
TOKEN_CHARACTERS_MAX = 128
"""Longer is no token of ours and is not even hashed."""
USER_AGENT_CHARACTERS_MAX = 512
ADDRESS_CHARACTERS_MAX = 45
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long a session lasts and how often it is looked at. Seconds."""

    idle_s: float = 7 * DAY_S
    """Without any use. Use renews it."""
    absolute_s: float = 30 * DAY_S
    """After this it ends whatever happens; one has to log in again."""
    touch_s: float = 60.0
    """Use is written down this often at the most."""
    cache_s: float = 1.0
    cache_max: int = 10_000
    purge_s: float = 600.0


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session with its token, which exists only here and at the client."""

    token: str = field(repr=False)
    record: SessionRecord


@dataclass(slots=True)
class SessionCounts:
    """Since the start."""

    created: int = 0
    ended: int = 0
    purged: int = 0
    lookups: int = 0
    cached: int = 0
    """Lookups that were answered from memory."""
    unknown: int = 0
    """Tokens that are no session, or no more."""


class Sessions:
    """The service behind log-in, log-out and every request with a token. Loop thread only.

    Every call may raise StoreError while the registry is away.
    """

    def __init__(self, accounts: Accounts, clock: Clock, log: Log, lifetime: Lifetime | None = None) -> None:
        self.counts = SessionCounts()
        self.on_live: list[Callable[[SessionRecord], None]] = []
        """Called with every session that begins here or is renewed."""
        self.on_end: list[Callable[[str], None]] = []
        """Called with the token hash of every session that ends here: close its sockets, tell other nodes."""
        self._accounts, self._clock, self._log = accounts, clock, log
        self._lifetime = lifetime or Lifetime()
        self._cache: dict[str, tuple[SessionRecord, int]] = {}
        """token hash -> session and until when (steady ns) that holds."""
        self._generation = 0
        """Rises with everything that ends: what was looked up before may be over now."""
        self._limiter = RepeatLimiter(60.0)
        self._task: asyncio.Task[None] | None = None

    async def create(
        self,
        user_id: int | None = None,
        *,
        ip_address: str = "",
        user_agent: str = "",
        username: str = "",
        symbols: frozenset[str] | None = None,
    ) -> NewSession:
        """A new session of a user, or an anonymous one. Always a new token: one from before a log-in, which
        somebody else may have planted, gets no rights by it."""
        now_ns = self._clock.wall_ns()
        token = secrets.token_urlsafe(TOKEN_BYTES)
        record = SessionRecord(
            token_hash=token_hash(token),
            user_id=user_id,
            username=username or None,
            ip_address=cleaned(ip_address, ADDRESS_CHARACTERS_MAX),
            user_agent=cleaned(user_agent, USER_AGENT_CHARACTERS_MAX),
            created_ns=now_ns,
            last_activity_ns=now_ns,
            expires_ns=self._expiry_ns(now_ns, now_ns),
            symbols=symbols,
        )
        await self._accounts.add_session(record)
        self.counts.created += 1
        self._tell_live(record)
        return NewSession(token, record)

    async def find(self, token: str) -> SessionRecord | None:
        """The live session of a token; None for everything else. Renews it."""
        if not token or len(token) > TOKEN_CHARACTERS_MAX:
            return None
        self.counts.lookups += 1
        key, now_ns = token_hash(token), self._clock.wall_ns()
        held, until_ns = self._cache.get(key, (None, 0))
        if held is not None and self._clock.steady_ns() < until_ns and now_ns < held.expires_ns:
            self.counts.cached += 1
            return held
        generation = self._generation
        found = await self._accounts.session(key, now_ns)
        if found is not None:
            found = await self._touch(found, now_ns)
        if found is None:
            self.counts.unknown += 1
            self._cache.pop(key, None)
        elif generation == self._generation:  # else it may have ended while the answer was on its way
            self._remember(found)
        return found

    async def check(self, keys: Sequence[str]) -> dict[str, SessionRecord]:
        """Those of these token hashes that are live sessions: for open sockets, which are a use like others,
        so it renews them."""
        now_ns = self._clock.wall_ns()
        alive = {}
        for found in await self._accounts.sessions_alive(keys, now_ns):
            renewed = await self._touch(found, now_ns)
            if renewed is not None:
                alive[found.token_hash] = renewed
        return alive

    async def end(self, token: str) -> bool:
        """Log out. False when it was no live session."""
        return await self.end_by_hash(token_hash(token))

    async def end_by_hash(self, key: str) -> bool:
        """End the session with this token hash."""
        self.forget(key)  # also when the registry is away: at least here it is over
        try:
            ended = await self._accounts.end_session(key)
        finally:
            self.forget(key)
        self.counts.ended += ended
        self._tell([key])
        return ended

    async def end_all(self, user_id: int) -> int:
        """Log out everywhere; how many sessions that were."""
        self._forget_user(user_id)
        try:
            ended = await self._accounts.end_sessions(user_id)
        finally:
            self._forget_user(user_id)
        self.counts.ended += len(ended)
        self._tell(ended)
        return len(ended)

    def forget(self, key: str) -> None:
        """Look this session up anew when it comes next: another node has ended it."""
        self._generation += 1
        self._cache.pop(key, None)

    async def active(self) -> int:
        """Live sessions in the registry."""
        return await self._accounts.count_sessions(self._clock.wall_ns())

    async def purge(self) -> int:
        """Delete what has expired or ended; how many."""
        purged = await self._accounts.purge_sessions(self._clock.wall_ns())
        self.counts.purged += purged
        steady_ns = self._clock.steady_ns()
        self._cache = {key: held for key, held in self._cache.items() if held[1] > steady_ns}
        return purged

    def start(self) -> None:
        """Purge now and then."""
        self._task = asyncio.create_task(self._purge_often())

    async def stop(self) -> None:
        """End the purging."""
        if self._task is not None:
            await finish([self._task])

    def _expiry_ns(self, created_ns: int, now_ns: int) -> int:
        lifetime = self._lifetime
        return min(now_ns + int(lifetime.idle_s * 1e9), created_ns + int(lifetime.absolute_s * 1e9))

    async def _touch(self, found: SessionRecord, now_ns: int) -> SessionRecord | None:
        """Note the use, rarely; None when the session ended meanwhile."""
        if now_ns - found.last_activity_ns < self._lifetime.touch_s * 1e9:
            return found
        expires_ns = self._expiry_ns(found.created_ns, now_ns)
        try:
            if not await self._accounts.touch_session(found.token_hash, now_ns, expires_ns):
                return None
        except StoreError as error:  # a registry that can only be read: the session is good all the same
            if self._limiter.allow("touch", self._clock.steady_ns()) is not None:
                self._log.warning("a session could not be renewed", reason=str(error))
            return found
        renewed = replace(found, last_activity_ns=now_ns, expires_ns=expires_ns)
        self._tell_live(renewed)
        return renewed

    def _remember(self, found: SessionRecord) -> None:
        while len(self._cache) >= self._lifetime.cache_max:
            del self._cache[next(iter(self._cache))]
        until_ns = self._clock.steady_ns() + int(self._lifetime.cache_s * 1e9)
        self._cache.pop(found.token_hash, None)  # so that the newest stands last
        self._cache[found.token_hash] = found, until_ns

    def _forget_user(self, user_id: int) -> None:
        self._generation += 1
        self._cache = {key: held for key, held in self._cache.items() if held[0].user_id != user_id}

    def _tell_live(self, record: SessionRecord) -> None:
        for notify in self.on_live:
            notify(record)

    def _tell(self, keys: list[str]) -> None:
        for key in keys:
            for notify in self.on_end:
                notify(key)

    async def _purge_often(self) -> None:
        while True:
            try:
                await self.purge()
            except StoreError as error:
                if self._limiter.allow("purge", self._clock.steady_ns()) is not None:
                    self._log.warning("expired sessions could not be deleted", reason=str(error))
            await asyncio.sleep(self._lifetime.purge_s)


def token_hash(token: str) -> str:
    """SHA-256 of a token, in hexadecimal: the only form in which it is kept or compared."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def cleaned(text: str, characters_max: int) -> str:
    """What a client says of itself, fit for a column and a log line: bounded, nothing unprintable."""
    return "".join(map(_printable, text[:characters_max])).strip()


def _printable(character: str) -> str:
    """Itself, or a space for control characters and for line ends of any kind."""
    category = unicodedata.category(character)
    return " " if category[0] == "C" or category in ("Zl", "Zp") else character
