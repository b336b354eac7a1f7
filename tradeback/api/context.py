"""What the routes may ask: one object, filled by the engine as its parts come up."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tradeback.api.bars import PendingBars
from tradeback.api.shapes import DerivedSeries
from tradeback.model.clock import Clock
from tradeback.model.config import Config
from tradeback.model.symbols import SymbolTable
from tradeback.ops.health import HasHealth
from tradeback.ops.metrics import Collects
from tradeback.stores.ports import SeriesStore
from tradeback.tape.reader import TapeReader


class TapePosition(Protocol):
    """What the API asks of the engine's own tape."""

    next_sequence: int


class FeedState(Protocol):
    """What the API asks of the feed."""

    @property
    def ready(self) -> bool: ...


@dataclass(slots=True)
class ServingContext:
    """Everything the HTTP side needs. Fields that are None are not there yet: their routes answer 503."""

    config: Config
    clock: Clock
    symbols: SymbolTable
    tape: TapePosition
    derived: DerivedSeries | None = None
    """Bars, levels and latest prices in memory; read on the loop thread only."""
    series: SeriesStore | None = None
    """Closed bars; read by threads."""
    reader: TapeReader | None = None
    """The tape's files; read by threads."""
    feed: FeedState | None = None
    pending_bars: Callable[[], Sequence[PendingBars]] | None = None
    """Bars drained from `derived` whose write to `series` is not known to have succeeded."""
    components: list[HasHealth] = field(default_factory=list)
    collectors: list[Collects] = field(default_factory=list)
    not_ready: Callable[[], Sequence[str]] | None = None
    """What is missing before clients are served well; without it, `api.health` looks at feed and lines."""
