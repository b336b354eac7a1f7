"""What the routes may ask: one object, filled by the engine as its parts come up."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from tradeback.api.reads import Reads
from tradeback.api.shapes import DerivedSeries
from tradeback.derive.completeness_gap import Gap
from tradeback.derive.lacking import Span
from tradeback.derive.layout import Bars
from tradeback.model.clock import Clock
from tradeback.model.config import Config
from tradeback.model.symbols import Symbol, SymbolTable
from tradeback.ops.health import ComponentHealth, HasHealth
from tradeback.ops.metrics import Collects
from tradeback.stores.gaps_sqlite import GapQuery
from tradeback.tape.reader import TapeReader

if TYPE_CHECKING:
    from tradeback.api.access import Access
    from tradeback.api.settlement import SettlementDesk
    from tradeback.derive.completeness import Completeness


def nobodys(request: web.Request) -> str | None:
    """There are no sessions."""
    return None


class TapePosition(Protocol):
    """What the API asks of the engine's own tape."""

    next_sequence: int


class FeedState(Protocol):
    """What the API asks of the feed."""

    @property
    def ready(self) -> bool: ...


class BarSeries(Protocol):
    """Whoever answers for bars, wherever they are just now: `sinks.series.SeriesSink`."""

    async def bars(
        self, symbol_id: int, resolution: int, from_s: int, to_s: int, limit: int, *, newest: bool = False
    ) -> tuple[Bars, NDArray[np.bool_]]:
        """Bars with from_s <= slot < to_s (unix seconds), ascending, the first `limit` or the newest.

        With each whether it is proved complete. Loop thread. Raises TradebackError when they cannot be read.
        """


class Klines(Protocol):
    """Whoever fetches what the store lacks: `exchange.backfill.Backfill`. Loop thread."""

    def generation(self, symbol_id: int, resolution: int) -> int:
        """Rises whenever klines of this series were stored."""

    async def fill(
        self, symbol: Symbol, resolution: int, spans: Sequence[Span], bars_wanted: int, wait_s: float
    ) -> bool:
        """Have what the exchange knows of ascending spans in the store, newest first, until `bars_wanted`
        bars have come. False: not all of it is there."""


class GapSource(Protocol):
    """Whoever knows what is missing: `exchange.repair_gaps.GapKeeper`. Loop thread."""

    @property
    def ledger(self) -> "Completeness":
        """Which ids are on the tape."""

    async def find(self, query: GapQuery) -> list[Gap]:
        """Gaps as of now, in the order in which they were noted."""


@dataclass(slots=True)
class ServingContext:
    """Everything the HTTP side needs. Fields that are None are not there yet: their routes answer 503."""

    config: Config
    clock: Clock
    symbols: SymbolTable
    tape: TapePosition
    derived: DerivedSeries | None = None
    """Levels and latest prices in memory; read on the loop thread only."""
    series: BarSeries | None = None
    """Bars of memory and store."""
    klines: Klines | None = None
    """The exchange's klines; without them bars are what the store has."""
    gaps: GapSource | None = None
    """What is missing; without it nothing is said to be complete."""
    reader: TapeReader | None = None
    """The tape's files; read by threads."""
    reads: Reads = field(default_factory=Reads)
    """By way of which answers read them."""
    settlements: "SettlementDesk | None" = None
    """Prices that are to be fixed at a time."""
    no_settlements: str = ""
    """Why there will be none here."""
    access: "Access | None" = None
    """Sessions, limits and market watches; without it everybody may read everything."""
    owner_of: Callable[[web.Request], str | None] = nobodys
    """Whose a request is that has passed the access middleware: `api.access.owner_of`."""
    share_bars: Callable[[str, str, bytes], None] | None = None
    """Told of every answer of a symbol's newest bars (symbol, resolution, body), for other programs."""
    feed: FeedState | None = None
    components: list[HasHealth] = field(default_factory=list)
    reported: Callable[[], Iterable[ComponentHealth]] = field(default=tuple)
    """Components that run in another process, as it has told."""
    collectors: list[Collects] = field(default_factory=list)
    not_ready: Callable[[], Sequence[str]] | None = None
    """What is missing before clients are served well; without it, `api.health` looks at feed and lines."""

    def health(self) -> list[ComponentHealth]:
        """Every component, wherever it runs."""
        return [*(part.health() for part in self.components), *self.reported()]
