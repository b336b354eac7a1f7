"""What the routes may ask: one object, filled by the engine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tradeback.model.clock import Clock
from tradeback.model.config import Config
from tradeback.model.record import Rows
from tradeback.model.symbols import SymbolTable
from tradeback.ops.health import HasHealth
from tradeback.ops.metrics import Collects


class TapeSource(Protocol):
    """The engine's own tape."""

    epoch: int
    next_sequence: int

    @property
    def oldest_sequence(self) -> int: ...

    def read(self, sequence: int, rows_max: int) -> Rows: ...


@dataclass(slots=True)
class ServingContext:
    """Everything the HTTP side needs. `not_ready` names what is missing before clients are served well."""

    config: Config
    clock: Clock
    symbols: SymbolTable
    tape: TapeSource
    derived: Any
    series: Any = None
    reader: Any = None
    feed: Any = None
    components: list[HasHealth] = field(default_factory=list)
    collectors: list[Collects] = field(default_factory=list)
    not_ready: Callable[[], Sequence[str]] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
