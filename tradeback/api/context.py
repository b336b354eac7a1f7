"""What the routes may ask: one object, filled by the engine as its parts come up."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tradeback.api.shapes import DerivedSeries
from tradeback.derive.completeness import Completeness
from tradeback.derive.completeness_gap import Gap
from tradeback.derive.layout import Bars
from tradeback.model.clock import Clock
from tradeback.model.config import Config
from tradeback.model.symbols import SymbolTable
from tradeback.ops.health import HasHealth
from tradeback.ops.metrics import Collects
from tradeback.stores.gaps_sqlite import GapQuery
from tradeback.tape.reader import TapeReader


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


class GapSource(Protocol):
    """Whoever knows what is missing: `exchange.repair_gaps.GapKeeper`. Loop thread."""

    @property
    def ledger(self) -> Completeness:
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
    gaps: GapSource | None = None
    """What is missing; without it nothing is said to be complete."""
    reader: TapeReader | None = None
    """The tape's files; read by threads."""
    feed: FeedState | None = None
    components: list[HasHealth] = field(default_factory=list)
    collectors: list[Collects] = field(default_factory=list)
    not_ready: Callable[[], Sequence[str]] | None = None
    """What is missing before clients are served well; without it, `api.health` looks at feed and lines."""
