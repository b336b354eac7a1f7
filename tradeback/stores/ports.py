"""The four roles of stores. Each has an embedded default, so that nothing needs a server, and may have one.

| role     | keeps                                         | embedded                         | server   |
|----------|-----------------------------------------------|----------------------------------|----------|
| series   | bars, levels, the position they are true for  | SQLite (`series_sqlite`)         | InfluxDB |
| latest   | newest prices, sessions, cached answers, sets | memory                           | Redis    |
| bus      | publish and subscribe, request and reply      | inside the process               | NATS     |
| registry | symbols and their ids, users, settings        | SQLite (`registry_sqlite`)       | MySQL    |

The tape is the one truth. Whatever a store loses is made again from the tape behind the store's position.
"""

from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from tradeback.derive.layout import Bars, Drained, Parts, States
from tradeback.model.symbols import Symbol


class Position(NamedTuple):
    """Every record up to and including `sequence` of `epoch` is in it. 0, 0: none is."""

    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Stored:
    """What a series store holds for a restart: the state of all symbols as of `position`."""

    position: Position
    states: States
    parts: Parts


@dataclass(frozen=True, slots=True)
class Closed:
    """Closed bars of one series, ascending, and the position they are true for.

    The nearest bar on either side of the asked range is among them where it exists, so that completeness
    of the outermost can be told. `truncated`: the limit left bars of the range out.
    """

    rows: Bars
    position: Position
    truncated: bool


class SeriesStore(Protocol):
    """Bars and levels. Writing is one thread's business; reading may happen in any thread."""

    def write(self, drained: Drained, position: Position) -> None:
        """Merge closed bars, replace open parts and states, move the position: all or nothing.

        Writing what stands at or before the stored position changes nothing.
        """

    def put_history(self, bars: Bars) -> int:
        """Take closed klines (EXCHANGE bars); our own complete bars stay. Returns how many were taken."""

    def closed(
        self, symbol_id: int, resolution: int, from_s: int, to_s: int, limit: int, *, newest: bool = False
    ) -> Closed:
        """Closed bars with from_s <= slot < to_s (unix seconds), the first `limit` or the newest."""

    def range(self, symbol_id: int, resolution: int, from_s: int, to_s: int, limit: int) -> Bars:
        """The first `limit` bars with from_s <= slot < to_s, ascending, the open ones as last written."""

    def load(self) -> Stored:
        """What a restart begins with."""

    def begin_rebuild(self) -> None:
        """Forget position, open parts and states; bars of our own are replaced, not merged, from now on."""

    def close(self) -> None:
        """Close all connections. Called once, when nothing reads or writes any more."""


class LatestStore(Protocol):
    """Newest values that may expire, and sets, shared by all nodes. Values are bytes (JSON as a rule)."""

    async def put(self, key: str, value: bytes, ttl_s: float | None = None) -> None:
        """Keep `value` under `key`, for `ttl_s` seconds or for good."""

    async def get(self, key: str) -> bytes | None:
        """The value, or None when there is none or it has expired."""

    async def delete(self, key: str) -> None:
        """Forget `key`; nothing happens when it is unknown."""

    async def add_member(self, key: str, member: str) -> bool:
        """Add to a set; True when it was not in it."""

    async def remove_member(self, key: str, member: str) -> bool:
        """Take out of a set; True when it was in it."""

    async def members(self, key: str) -> Sequence[str]:
        """The members of a set, sorted."""


class Bus(Protocol):
    """Messages between nodes. Subjects are dotted words; delivery is at most once."""

    async def publish(self, subject: str, payload: bytes) -> None:
        """Hand `payload` to everyone who listens to `subject` now."""

    def subscribe(self, subject: str) -> AsyncIterator[tuple[str, bytes]]:
        """(subject, payload) of every message from now on; `*` stands for one word, `>` for the rest."""

    async def request(self, subject: str, payload: bytes, timeout_s: float) -> bytes:
        """The first answer to `payload`. Raises TimeoutError."""


class SymbolRecord(NamedTuple):
    """What the exchange says of one symbol; grids as decimal strings."""

    symbol: str
    base_currency: str
    quote_currency: str
    is_active: bool
    tick_size: str
    step_size: str
    min_notional: str
    min_quantity: str
    max_quantity: str


class SymbolIds(Protocol):
    """Symbols and their wire ids, stable for ever."""

    async def all_symbols(self) -> list[Symbol]:
        """All symbols by id, inactive ones included."""

    async def assign_ids(self, records: Sequence[SymbolRecord]) -> list[Symbol]:
        """Write the records' descriptions; known symbols keep their id, new ones get the next.

        Returns the symbols in the order of `records`; of one that comes twice the last description holds.
        All or nothing. Raises StoreError when the ids, which are 16 bits on the wire, run out.
        """


@dataclass(frozen=True, slots=True)
class UserRecord:
    """One user. Times in ns since 1970, kept to the microsecond."""

    id: int
    username: str
    password_hash: str = field(repr=False)
    """argon2id, with its parameters."""
    is_active: bool
    created_ns: int


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """One session. Its token is nowhere but with the client; here is the token's SHA-256."""

    token_hash: str = field(repr=False)
    user_id: int | None
    """None: anonymous."""
    username: str | None
    ip_address: str
    user_agent: str
    created_ns: int
    last_activity_ns: int
    expires_ns: int

    @property
    def watch_id(self) -> str:
        """Whose market watch it sees: the user's own on every device, an anonymous one's is its own."""
        return self.token_hash if self.user_id is None else f"user:{self.user_id}"


class Accounts(Protocol):
    """Users, sessions, market watches and settings. Every call may raise StoreError."""

    async def add_user(self, username: str, password_hash: str, now_ns: int) -> UserRecord | None:
        """The new user; None when there is one of that name."""

    async def user(self, username: str) -> UserRecord | None:
        """The user of exactly this name, disabled ones too."""

    async def users(self) -> list[UserRecord]:
        """All users by name."""

    async def set_password(self, user_id: int, password_hash: str, now_ns: int) -> bool:
        """Replace the hash; False when there is no such user."""

    async def set_active(self, user_id: int, active: bool, now_ns: int) -> bool:
        """Enable or disable; disabling ends the user's sessions. False when there is no such user."""

    async def remove_user(self, user_id: int) -> bool:
        """Remove with sessions and market watch; False when there is no such user."""

    async def add_session(self, session: SessionRecord) -> None:
        """Keep a new session."""

    async def session(self, token_hash: str, now_ns: int) -> SessionRecord | None:
        """The session, unless it has ended or expired or its user is disabled or gone."""

    async def touch_session(self, token_hash: str, last_activity_ns: int, expires_ns: int) -> bool:
        """Note activity and the new expiry of a session that has not ended; False when it has."""

    async def end_session(self, token_hash: str) -> bool:
        """End one; False when it was no live session."""

    async def end_sessions(self, user_id: int) -> list[str]:
        """End all of a user; the hashes of those that were live."""

    async def purge_sessions(self, now_ns: int) -> int:
        """Delete what has expired or ended, with the market watches of anonymous ones. Returns how many."""

    async def count_sessions(self, now_ns: int) -> int:
        """Live sessions."""

    async def watch(self, watch_id: str, symbol: str, symbols_max: int, now_ns: int) -> bool | None:
        """Add to the end: True, False when it is there already, None when the watch is full."""

    async def unwatch(self, watch_id: str, symbol: str) -> bool:
        """Take out; False when it was not there."""

    async def watched(self, watch_id: str) -> list[str]:
        """The symbols of one watch in display order."""

    async def watched_by_all(self, now_ns: int) -> list[str]:
        """Symbols in any watch whose owner has a live session, sorted."""

    async def setting(self, name: str) -> str | None:
        """A system setting; None when it was never set."""

    async def put_setting(self, name: str, value: str, now_ns: int) -> None:
        """Set a system setting."""


class Registry(SymbolIds, Accounts, Protocol):
    """The whole role."""

    def close(self) -> Awaitable[None] | None:
        """Close all connections."""
