"""The four roles of stores. Each has an embedded default, so that nothing needs a server, and may have one.

| role     | keeps                                         | embedded                         | server   |
|----------|-----------------------------------------------|----------------------------------|----------|
| series   | bars, levels, the position they are true for  | SQLite (`series_sqlite`)         | InfluxDB |
| latest   | newest prices, sessions, cached answers, sets | memory                           | Redis    |
| bus      | publish and subscribe, request and reply      | inside the process               | NATS     |
| registry | symbols and their ids, users, settings        | SQLite (`registry_sqlite`)       | MySQL    |

The bus stands in `ports_bus`, the others here.

The tape is the one truth. Whatever a store loses is made again from the tape behind the store's position.
"""

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from tradeback.derive.completeness_ranges import IdRanges
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

    def cover(self, symbol_id: int, resolution: int, from_s: int, to_s: int) -> None:
        """Note that the exchange's klines of [from_s, to_s) (unix seconds) were asked for and are stored."""

    def covered(self, symbol_id: int, resolution: int) -> IdRanges:
        """The unix seconds of which `cover` was told."""

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


class Price(NamedTuple):
    """What is known of a symbol just now. None: not yet, or no number."""

    symbol: str
    price: float | None
    bid: float | None
    ask: float | None
    volume: float | None
    """Quantity of the last trade, as in `GET /symbols/{symbol}/price`."""
    timestamp: int
    """unix ms: the exchange's time of the trade; of the quote while there is no trade."""
    trade_id: int
    """-1 before the first trade. A trade with a higher id is newer."""
    quote_us: int
    """When the quote came, us since 1970; 0 before the first. A quote that came later is newer."""


class Levels(NamedTuple):
    """The Enigma of a symbol as of a trade."""

    symbol: str
    level: float | None
    ath: float | None
    atl: float | None
    fib_levels: dict[str, float | None]
    trade_id: int


class SharedSession(NamedTuple):
    """What other nodes may know of a session. `expires_at`: unix ms."""

    user_id: int | None
    expires_at: int


class StreamSymbol(NamedTuple):
    """What the number of a symbol in the stream's frames means, and the grid of its values."""

    id: int
    symbol: str
    price_precision: int
    quantity_precision: int


@dataclass(frozen=True, slots=True)
class StreamBatch:
    """A stretch of the tape in the stream: records `first` to `last` of `epoch`.

    `frames`: its trades, quotes and gaps, as `wire.v2_batch.pack` puts frames together.
    """

    epoch: int
    first: int
    last: int
    frames: bytes


class LatestStore(Protocol):
    """Newest values, shared by all nodes and without a promise to last: each is made again when it is lost.

    Every call may raise StoreError.
    """

    async def put_prices(
        self, prices: Sequence[Price], levels: Sequence[Levels] = (), *, publish: bool = True
    ) -> int:
        """Keep what is newer than what is there: the trade's values, and bid with ask, each for itself.

        They expire unless they are put again in time; what is older than the trade that is kept prolongs
        nothing. `publish`: tell the listeners. Returns of how many symbols no price was kept before.
        """

    async def prices(self, symbols: Sequence[str]) -> dict[str, Price]:
        """Those of `symbols` that are kept."""

    async def levels(self, symbol: str) -> Levels | None:
        """The levels of a symbol, or None."""

    def listen_prices(self) -> AsyncIterator[list[Price]]:
        """Prices from now on, as they are put. What comes while nobody takes it may be lost."""

    async def put_bars(self, symbol: str, resolution: str, answer: bytes) -> None:
        """Keep a finished answer of the newest bars for a moment."""

    async def bars(self, symbol: str, resolution: str) -> bytes | None:
        """That answer, or None."""

    async def put_session(self, token_hash: str, session: SharedSession) -> None:
        """Keep a session until it expires."""

    async def session(self, token_hash: str) -> SharedSession | None:
        """A session that some node has put, or None."""

    async def drop_session(self, token_hash: str) -> None:
        """The session has ended: forget it, and tell the listeners."""

    def listen_ended(self) -> AsyncIterator[str]:
        """Token hashes of sessions that end from now on, on any node."""

    async def put_watches(self, watches: Mapping[str, Sequence[str]]) -> None:
        """Market watches by watch id, each whole; an empty one is forgotten. They expire unless put again."""

    async def watch(self, watch_id: str) -> list[str]:
        """The symbols of one market watch, sorted."""

    async def watched_by_all(self) -> frozenset[str]:
        """The symbols of all market watches."""

    async def append(self, batch: StreamBatch, *, begins: bool = True) -> bool:
        """Put a batch at the stream's end, unless its records are in it: False then.

        `begins`: it may be the first. Else a stream that is gone is not begun anew: StoreError.
        """

    async def stream_positions(self) -> dict[int, int]:
        """Last sequence that is in the stream, by epoch; empty when the stream is."""

    async def read_stream(self, after: str = "0", count: int = 100) -> list[tuple[str, StreamBatch]]:
        """Batches with their ids, behind the one with the id `after`, or from the oldest that is kept."""

    async def put_symbols(self, symbols: Sequence[StreamSymbol]) -> None:
        """Say what numbers in the stream mean, beside what was said before."""

    async def stream_symbols(self) -> list[StreamSymbol]:
        """All that was said, by id."""

    async def close(self) -> None:
        """Let go of connections; what is kept may be lost. Listening ends."""


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
    symbols: frozenset[str] | None = None
    """All that the user may see; None: everything."""


USER_PREFIX = "user:"
"""Of what belongs to a user and not to one session."""


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
    symbols: frozenset[str] | None = None
    """All that the session may see; None: everything."""

    @property
    def watch_id(self) -> str:
        """Whose market watch it sees: the user's own on every device, an anonymous one's is its own."""
        return self.token_hash if self.user_id is None else f"{USER_PREFIX}{self.user_id}"


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

    async def set_symbols(self, user_id: int, symbols: frozenset[str] | None, now_ns: int) -> bool:
        """What the user may see from the next log-in on; False when there is no such user."""

    async def remove_user(self, user_id: int) -> bool:
        """Remove with sessions and market watch; False when there is no such user."""

    async def add_session(self, session: SessionRecord) -> None:
        """Keep a new session."""

    async def session(self, token_hash: str, now_ns: int) -> SessionRecord | None:
        """The session, unless it has ended or expired or its user is disabled or gone."""

    async def sessions_alive(self, token_hashes: Sequence[str], now_ns: int) -> list[SessionRecord]:
        """Those of these sessions that have not ended, in no order; as `session` in one question."""

    async def touch_session(self, token_hash: str, last_activity_ns: int, expires_ns: int) -> bool:
        """Note activity and the new expiry of a session that has not ended; False when it has."""

    async def end_session(self, token_hash: str) -> bool:
        """End one; False when it was no live session."""

    async def end_sessions(self, user_id: int) -> list[str]:
        """End all of a user; the hashes of those that were live."""

    async def purge_sessions(self, now_ns: int) -> int:
        """Delete what has expired or ended, with the market watches of anonymous ones. Returns how many."""

    async def live_sessions(self, now_ns: int, after: str, count: int) -> list[SessionRecord]:
        """Up to `count` live sessions by token hash, behind the one with the hash `after`."""

    async def count_sessions(self, now_ns: int) -> int:
        """Live sessions."""

    async def watch(self, watch_id: str, symbol: str, symbols_max: int, now_ns: int) -> bool | None:
        """Add to the end: True, False when it is there already, None when the watch is full."""

    async def unwatch(self, watch_id: str, symbol: str) -> bool:
        """Take out; False when it was not there."""

    async def arrange_watch(self, watch_id: str, symbols: Sequence[str]) -> None:
        """Bring the symbols of one watch into this order, all at once; none comes or goes."""

    async def watched(self, watch_id: str) -> list[str]:
        """The symbols of one watch in display order."""

    async def watched_by(self, watch_ids: Sequence[str]) -> dict[str, list[str]]:
        """`watched` of many; a watch that is empty may be missing."""

    async def watched_by_all(self, now_ns: int) -> list[str]:
        """Symbols in any watch whose owner has a live session, sorted."""

    async def live_watches(self, now_ns: int) -> dict[str, list[str]]:
        """Every watch whose owner has a live session, by watch id."""

    async def setting(self, name: str) -> str | None:
        """A system setting; None when it was never set."""

    async def put_setting(self, name: str, value: str, now_ns: int) -> None:
        """Set a system setting."""


class Registry(SymbolIds, Accounts, Protocol):
    """The whole role."""

    def close(self) -> Awaitable[None] | None:
        """Close all connections."""
