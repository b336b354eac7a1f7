"""The four roles of stores. Each has an embedded default, so that nothing needs a server, and may have one.

| role     | keeps                                         | embedded                         | server   |
|----------|-----------------------------------------------|----------------------------------|----------|
| series   | bars, levels, the position they are true for  | SQLite (`series_sqlite`)         | InfluxDB |
| latest   | newest prices, sessions, cached answers, sets | memory                           | Redis    |
| bus      | publish and subscribe, request and reply      | inside the process               | NATS     |
| registry | symbols and their ids, users, settings        | SQLite (`registry_sqlite`)       | MySQL    |

The tape is the one truth. Whatever a store loses is made again from the tape behind the store's position.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
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


class Registry(Protocol):
    """Symbols and their wire ids, stable for ever."""

    def symbols(self) -> list[Symbol]:
        """All symbols by id, inactive ones included."""

    def assign(self, records: Sequence[SymbolRecord]) -> list[Symbol]:
        """Write the records' descriptions; known symbols keep their id, new ones get the next.

        Returns the symbols in the order of `records`. All or nothing.
        """

    def close(self) -> None:
        """Close all connections."""
