"""What is published on NATS, each by a drain of its own: the tape, prices with levels, and bars.

| subject                        | what                                                                  |
|--------------------------------|-----------------------------------------------------------------------|
| `tradeback.ticks.<node>`       | every record, as frames between nodes (`wire.v2_exact`)               |
| `tradeback.gaps`               | JSON, each change of a gap's state                                    |
| `tradeback.price.<SYMBOL>`     | JSON, the newest, at most every 100 ms                                |
| `tradeback.enigma.<SYMBOL>`    | JSON, the level as of that price                                      |
| `tradeback.bars.<1m>.<SYMBOL>` | JSON, each bar when it has closed, again when late trades change it   |

The shard of the tape is the node: one subject holds one tape in its order, so a reader sees holes by the
sequence. Whoever wants fewer symbols than a node has takes prices and bars, or the feed.
"""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tradeback.derive.enigma import Enigma
from tradeback.model.clock import Clock
from tradeback.model.config import Config
from tradeback.model.symbols import Symbol
from tradeback.sinks.drain import Drain
from tradeback.sinks.drain_ports import DrainConfig, Source, Target
from tradeback.sinks.influx import Behind, SeriesRead
from tradeback.stores.bus import nats_bus
from tradeback.stores.positions_sqlite import PositionsSqlite

if TYPE_CHECKING:
    from tradeback.stores.bus_nats import NatsBus

CONNECT_S = 5.0
"""How long a drain's `open` waits for the connection."""
TICKS = DrainConfig(batch_rows=4_096, batch_age_s=0.02, in_flight=1)
PRICES = DrainConfig(batch_rows=65_536, batch_age_s=0.1, in_flight=1, latest_only=True)
BARS = DrainConfig(batch_rows=50_000, batch_age_s=0.5, in_flight=1)

Symbols = Callable[[], Iterable[Symbol]]
"""All symbols now."""
Levels = Callable[[int], Enigma | None]
"""The level of a symbol as of now: `Derived.enigma` of this process."""


class Tape(Source, Protocol):
    """The tape, as these drains read it: `TapeReader`."""

    def epochs(self) -> list[tuple[int, int]]:
        """Every epoch with its first sequence."""


class Connection:
    """One connection for all drains: there while any of them uses it. Also where their positions are kept."""

    def __init__(self, bus: "NatsBus", positions: Path) -> None:
        self.bus = bus
        self._path = positions
        self._positions: PositionsSqlite | None = None
        self._users = 0

    @property
    def positions(self) -> PositionsSqlite:
        """Positions of what NATS itself cannot hold one of."""
        if self._positions is None:
            self._positions = PositionsSqlite(self._path)
        return self._positions

    async def enter(self) -> None:
        """One user more; back when it is connected. Raises StoreError."""
        self._users += 1
        await self.bus.start()
        await self.bus.ready(CONNECT_S)

    async def leave(self) -> None:
        """One user less; the last one closes it."""
        self._users -= 1
        if self._users == 0:
            await self.bus.close()
            if self._positions is not None:
                self._positions.close()
                self._positions = None


class Session:
    """What the targets have in common: their share of the connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._inside = False

    @property
    def bus(self) -> "NatsBus":
        """The bus."""
        return self.connection.bus

    async def enter(self) -> None:
        """At `open`."""
        if not self._inside:
            self._inside = True
            await self.connection.enter()
        else:
            await self.bus.ready(CONNECT_S)

    async def leave(self) -> None:
        """At `close`."""
        if self._inside:
            self._inside = False
            await self.connection.leave()


def nats_drains(
    config: Config,
    source: Tape,
    folded: Source,
    store: SeriesRead | None,
    symbols: Symbols,
    levels: Levels | None,
    clock: Clock,
    log: logging.Logger,
) -> list[Drain]:
    """The drains into NATS, not started; none when `nats.url` is empty.

    `folded`: the tape up to where `levels` is true (None: no levels). `store`: the embedded series store,
    for bars (None: without). Raises StartupError when nats-py is not installed.
    """
    if not config.nats.url:
        return []
    folder = Path(config.data_dir)
    connection = Connection(
        nats_bus(config.nats, log, f"tradeback {config.nats.node}"), folder / "positions.sqlite"
    )
    from tradeback.sinks.nats_ticks import LiveTarget, StreamTarget
    from tradeback.sinks.nats_values import BarsTarget, PricesTarget

    def drain(name: str, tape: Source, target: Target, how: DrainConfig) -> Drain:
        path = folder / "set-aside" / f"nats-{name}.jsonl"
        troubles = connection.bus.troubles
        return Drain(f"nats:{name}", tape, target, how, clock, log, path, troubles=troubles)

    session = Session(connection)
    make = StreamTarget if config.nats.jetstream else LiveTarget
    drains = [drain("ticks", source, make(session, config.nats, source, symbols), TICKS)]
    wanted = levels if config.feature.enigma_enabled else None
    drains.append(drain("prices", folded, PricesTarget(Session(connection), symbols, wanted), PRICES))
    if store is not None and config.feature.aggregation_enabled:
        behind = Behind(source, store)
        drains.append(drain("bars", behind, BarsTarget(Session(connection), behind, store, symbols), BARS))
    return drains
