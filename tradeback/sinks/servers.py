"""The drains into every server that is configured: the recorder's, or the engine's where it is alone."""

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from tradeback.model.clock import Clock
from tradeback.model.config import Config
from tradeback.model.symbols import Symbol
from tradeback.sinks.drain import Drain
from tradeback.sinks.drain_until import Until
from tradeback.stores.series_sqlite import SeriesSqlite
from tradeback.tape.reader import TapeReader

if TYPE_CHECKING:
    from tradeback.derive.state import Derived


def server_drains(
    config: Config,
    reader: TapeReader,
    folded: Callable[[], int],
    store: SeriesSqlite,
    derived: "Derived",
    symbols: Callable[[], Iterable[Symbol]],
    clock: Clock,
) -> list[Drain]:
    """One drain for each thing that a server gets; not started. Client libraries are imported by need.

    `folded`: the sequence behind the newest record that is in `derived`. `symbols`: all there are now. Raises
    StartupError when a server is configured whose client library is not installed.
    """
    log = logging.getLogger("tradeback.sinks")
    until = Until(reader, folded)
    drains: list[Drain] = []
    if config.influx.url:
        from tradeback.sinks.influx import influx_drains

        def named() -> list[tuple[int, str]]:
            return [(symbol.id, symbol.symbol) for symbol in symbols()]

        drains += influx_drains(config, reader, store, named, clock, log)
    if config.redis.addr:
        from tradeback.sinks.redis import redis_drains

        drains += redis_drains(config, until, derived, symbols, clock, log)
    if config.nats.url:
        from tradeback.sinks.nats import nats_drains

        drains += nats_drains(config, reader, until, store, symbols, derived.enigma, clock, log)
    return drains
