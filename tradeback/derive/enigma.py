"""Enigma: where the price stands between the lowest and the highest ever, and the Fibonacci levels between.

level = 100 * (price - atl) / (ath - atl), evaluated left to right in float64, then held within 0..100
(its rounding can leave that by one unit in the last place); 50 when ath == atl. A Fibonacci level x is
ath - (ath - atl) * x / 100, held within atl..ath: the retracement convention, 0 is the top of the move.
The same operations in the same order give the same bits on every replay.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FIB_PERCENTS: Final = (0.0, 23.6, 38.2, 50.0, 61.8, 78.6, 100.0)
FIB_NAMES: Final = ("0", "23.6", "38.2", "50", "61.8", "78.6", "100")
"""The keys of the levels in every answer and message."""

ENIGMA: Final = np.dtype(
    [
        ("symbol_id", "<u2"),
        ("level", "<f8"),
        ("ath", "<f8"),
        ("atl", "<f8"),
        ("price", "<f8"),
        ("fib", "<f8", len(FIB_PERCENTS)),
        ("trade_id", "<i8"),
        ("exchange_us", "<i8"),
    ]
)
"""Enigma of many symbols at once, for sinks."""


@dataclass(frozen=True, slots=True)
class Enigma:
    """Enigma of one symbol as of the trade `trade_id`. Prices in quote units, level in percent."""

    symbol_id: int
    level: float
    ath: float
    atl: float
    price: float
    fib: tuple[float, ...]
    trade_id: int
    exchange_us: int

    def fib_levels(self) -> dict[str, float]:
        """The levels under the names that answers and messages use."""
        return dict(zip(FIB_NAMES, self.fib, strict=True))


def level_of(price: float, ath: float, atl: float) -> float:
    """Percent of the way from atl up to ath, 0 to 100; 50 when they are one."""
    if ath == atl:
        return 50.0
    return min(max(100 * (price - atl) / (ath - atl), 0.0), 100.0)


def fib_of(ath: float, atl: float) -> tuple[float, ...]:
    """The seven levels from ath (0 %) down to atl (100 %)."""
    return tuple(min(max(ath - (ath - atl) * percent / 100, atl), ath) for percent in FIB_PERCENTS)


def enigma_rows(states: NDArray[np.void]) -> NDArray[np.void]:
    """Enigma of every symbol in `states` (dtype STATE) that has traded: dtype ENIGMA, the same bits."""
    states = states[states["trade_id"] >= 0]
    rows: NDArray[np.void] = np.zeros(len(states), ENIGMA)
    ath, atl = states["ath"], states["atl"]
    span: NDArray[Any] = ath - atl
    flat = span == 0
    rows["level"] = np.clip(100 * (states["price"] - atl) / np.where(flat, 1.0, span), 0.0, 100.0)
    rows["level"][flat] = 50.0
    for column, percent in enumerate(FIB_PERCENTS):
        rows["fib"][:, column] = np.clip(ath - span * percent / 100, atl, ath)
    for name in ("symbol_id", "ath", "atl", "price", "trade_id", "exchange_us"):
        rows[name] = states[name]
    return rows
