"""The symbols a simulated exchange lists: real names first, invented ones behind them. Pure."""

import random
from dataclasses import dataclass

from tradeback.sim.text import SCALE, decimal8, units8

QUOTES = ("USDT", "FDUSD", "USDC", "TRY", "EUR", "BTC", "ETH", "BNB")
"""Quote currencies by which a name is cut into base and quote, in the order they are tried."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """One symbol. Prices and quantities are integers in units of 1e-8."""

    symbol: str
    base: str
    quote: str
    tick: int
    step: int
    price: int
    """A plausible price: where a synthetic market starts."""
    lot: int = SCALE
    """A plausible trade quantity (median)."""

    @property
    def stream(self) -> str:
        """The name in stream names: lower case."""
        return self.symbol.lower()

    @property
    def tick_size(self) -> str:
        """Price grid as a decimal string."""
        return decimal8(self.tick)

    @property
    def step_size(self) -> str:
        """Quantity grid as a decimal string."""
        return decimal8(self.step)


KNOWN = (
    ("BTCUSDT", "64250", "0.01", "0.00001", "0.004"),
    ("ETHUSDT", "3120", "0.01", "0.0001", "0.08"),
    ("BNBUSDT", "612", "0.01", "0.001", "0.3"),
    ("SOLUSDT", "171.2", "0.01", "0.001", "1.2"),
    ("XRPUSDT", "2.31", "0.0001", "0.1", "90"),
    ("DOGEUSDT", "0.1952", "0.00001", "1", "900"),
    ("ADAUSDT", "0.712", "0.0001", "0.1", "250"),
    ("TRXUSDT", "0.2713", "0.0001", "0.1", "500"),
    ("AVAXUSDT", "24.31", "0.01", "0.01", "7"),
    ("LINKUSDT", "15.72", "0.01", "0.01", "10"),
    ("DOTUSDT", "4.713", "0.001", "0.01", "35"),
    ("MATICUSDT", "0.5123", "0.0001", "0.1", "300"),
    ("LTCUSDT", "92.41", "0.01", "0.001", "1.5"),
    ("BCHUSDT", "421.3", "0.1", "0.001", "0.4"),
    ("SHIBUSDT", "0.00001432", "0.00000001", "1", "9000000"),
    ("UNIUSDT", "7.812", "0.001", "0.01", "20"),
    ("ATOMUSDT", "4.912", "0.001", "0.01", "30"),
    ("XLMUSDT", "0.2831", "0.0001", "1", "500"),
    ("ETCUSDT", "18.42", "0.01", "0.01", "8"),
    ("FILUSDT", "2.913", "0.001", "0.01", "50"),
    ("NEARUSDT", "2.871", "0.001", "0.1", "50"),
    ("APTUSDT", "5.214", "0.001", "0.01", "25"),
    ("ARBUSDT", "0.4127", "0.0001", "0.1", "350"),
    ("OPUSDT", "0.823", "0.001", "0.01", "150"),
    ("SUIUSDT", "3.4127", "0.0001", "0.1", "45"),
    ("PEPEUSDT", "0.00001123", "0.00000001", "1", "12000000"),
    ("INJUSDT", "11.23", "0.01", "0.01", "12"),
    ("AAVEUSDT", "171.4", "0.1", "0.001", "0.9"),
    ("TONUSDT", "3.214", "0.001", "0.01", "45"),
    ("HBARUSDT", "0.17412", "0.00001", "1", "800"),
    ("ETHBTC", "0.04856", "0.00001", "0.001", "0.06"),
    ("BNBBTC", "0.009523", "0.000001", "0.01", "0.2"),
)
"""symbol, price, tick, step, median quantity. Tick and step decimals sum to at most 8 (on the
exchange they mostly do), so that price x quantity is exact with eight decimals."""

UNICODE = ("币安人生USDT", "çayUSDT")
"""Names with non-ASCII letters: the exchange lists some since 2025-12."""


def known(symbol: str) -> Instrument | None:
    """The instrument behind a well-known name."""
    for name, price, tick, step, lot in KNOWN:
        if name == symbol:
            base, quote = split_name(name)
            return Instrument(name, base, quote, units8(tick), units8(step), units8(price), units8(lot))
    return None


def split_name(symbol: str) -> tuple[str, str]:
    """Base and quote currency of a symbol."""
    for quote in QUOTES:
        if symbol.endswith(quote) and len(symbol) > len(quote):
            return symbol[: -len(quote)], quote
    return symbol, "USDT"


def invented(symbol: str) -> Instrument:
    """A plausible instrument for any name; always the same one for the same name."""
    rng = random.Random(symbol)
    price_decimals = rng.randrange(2, 6)
    step_decimals = rng.randrange(0, 8 - price_decimals)
    tick = 10 ** (8 - price_decimals)
    step = 10 ** (8 - step_decimals)
    price = tick * rng.randrange(2_000, 90_000)
    lot = max(step * 10, (200 * SCALE * SCALE // price) // step * step)
    base, quote = split_name(symbol)
    return Instrument(symbol, base, quote, tick, step, price, lot)


def catalogue(count: int, unicode_names: bool = False) -> list[Instrument]:
    """The first `count` instruments: well-known names, two non-ASCII ones if asked, then invented ones."""
    if count < 1:
        raise ValueError(f"a market needs at least 1 symbol, not {count}")
    names = [name for name, *_ in KNOWN]
    if unicode_names:
        names[2:2] = UNICODE
    rng = random.Random("tradeback simulator names")
    taken = set(names)
    while len(names) < count:
        name = "".join(rng.choice("BCDFGKLMNPRSTVZ") + rng.choice("AEIOU") for _ in range(2)) + "XQ"[
            rng.randrange(2)
        ] * rng.randrange(2)
        if name + "USDT" not in taken:
            taken.add(name + "USDT")
            names.append(name + "USDT")
        elif len(taken) > 5_000:
            names.append(f"C{len(names):04d}USDT")
    return [known(name) or invented(name) for name in names[:count]]
