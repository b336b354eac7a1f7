"""Symbols and their decimal grids: exchange symbol <-> wire id, precision, lot scale."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

SYMBOL_BYTES_MAX = 24
"""Longest symbol in UTF-8 bytes that the kernels' symbol table holds."""
SYMBOL_IDS_MAX = 65_535
"""Wire ids are u16 and start at 1; 0 is never a symbol."""


def decimals(step: str) -> int:
    """Decimals of a grid step given as a decimal string: "0.01000000" -> 2, "1.00000000" -> 0."""
    _, _, fraction = step.partition(".")
    return len(fraction.rstrip("0"))


def lot_digits(step: str) -> int:
    """Decimal digits of the integer grid on which volumes are summed exactly.

    At least the lot step's decimals, at most the exchange's eight; coarse steps get little room to
    the right, because symbols with whole lots trade in trillions and the sum must stay in 63 bits.
    """
    return min(8, decimals(step) + 4)


@dataclass(frozen=True, slots=True)
class Symbol:
    """One instrument. Grid fields are the exchange's decimal strings, never floats."""

    id: int
    symbol: str
    base_currency: str = ""
    quote_currency: str = ""
    is_active: bool = True
    tick_size: str = "0.00000001"
    step_size: str = "0.00000001"
    min_notional: str = "0"
    min_quantity: str = "0"
    max_quantity: str = "0"

    @property
    def price_precision(self) -> int:
        """Decimals of the tick."""
        return decimals(self.tick_size)

    @property
    def quantity_precision(self) -> int:
        """Decimals of the lot step."""
        return decimals(self.step_size)

    @property
    def lot_digits(self) -> int:
        """Decimal digits of the grid on which volumes are summed."""
        return lot_digits(self.step_size)

    @property
    def name(self) -> str:
        """Display name, BTC/USDT."""
        if self.base_currency and self.quote_currency:
            return f"{self.base_currency}/{self.quote_currency}"
        return self.symbol


@dataclass(slots=True)
class SymbolTable:
    """Symbols by name and by wire id. Grows, never renumbers."""

    _by_name: dict[str, Symbol] = field(default_factory=dict)
    _by_id: dict[int, Symbol] = field(default_factory=dict)

    @classmethod
    def of(cls, symbols: Iterable[Symbol]) -> "SymbolTable":
        """A table that holds `symbols`."""
        table = cls()
        for symbol in symbols:
            table.put(symbol)
        return table

    def put(self, symbol: Symbol) -> None:
        """Add a symbol, or replace the description of one; ValueError if its id means another."""
        held = self._by_id.get(symbol.id)
        if held is not None and held.symbol != symbol.symbol:
            raise ValueError(f"symbol id {symbol.id} already means {held.symbol}, not {symbol.symbol}")
        if not 1 <= symbol.id <= SYMBOL_IDS_MAX:
            raise ValueError(f"symbol id {symbol.id} of {symbol.symbol} is outside 1..{SYMBOL_IDS_MAX}")
        self._by_id[symbol.id] = symbol
        self._by_name[symbol.symbol] = symbol

    def find(self, name: str) -> Symbol | None:
        """The symbol called `name`, whatever its case."""
        return self._by_name.get(name) or self._by_name.get(name.upper())

    def by_id(self, symbol_id: int) -> Symbol | None:
        """The symbol with this wire id."""
        return self._by_id.get(symbol_id)

    def __iter__(self) -> Iterator[Symbol]:
        return iter(sorted(self._by_id.values(), key=lambda symbol: symbol.id))

    def __len__(self) -> int:
        return len(self._by_id)
