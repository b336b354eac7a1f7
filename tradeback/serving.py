"""A feed over a tape and the series derived from it: the same in the engine and in every worker."""

from collections.abc import Callable

from tradeback.api.shapes import DerivedSeries, enigma_source
from tradeback.feed.server import Feed
from tradeback.model.clock import Clock
from tradeback.model.config import Config
from tradeback.model.symbols import SymbolTable
from tradeback.path.path import HotTape, Path


def make_feed(
    config: Config,
    clock: Clock,
    symbols: SymbolTable,
    tape: HotTape,
    derived: Callable[[], DerivedSeries | None],
) -> Feed:
    """The feed of `tape`. `derived`: latest prices and levels, None while they are not known yet."""

    def latest_price(symbol_id: int) -> float | None:
        series = derived()
        state = series.latest(symbol_id) if series else None
        return float(state["price"]) if state is not None and state["trade_id"] >= 0 else None

    def enigma_of(symbol_id: int) -> dict[str, object] | None:
        series = derived()
        return enigma_source(symbols, series, symbol_id) if series else None

    return Feed(
        config.feed,
        clock,
        symbols,
        Path(tape),
        latest_price=latest_price,
        enigma_of=enigma_of,
        known=derived,
        features=config.feature,
    )
