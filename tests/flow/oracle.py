"""What the recordings say, worked out anew with Decimal: trades, quotes, bars, Enigma. Shares no code."""

import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

SECONDS = {"1s": 1, "1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "4h": 14_400, "1d": 86_400}
FIBONACCI = ("0", "23.6", "38.2", "50", "61.8", "78.6", "100")


class Trade(NamedTuple):
    """One recorded trade; price and quantity as the exchange wrote them, time in ms."""

    id: int
    price: str
    quantity: str
    time_ms: int
    maker: bool


class Quote(NamedTuple):
    """One recorded bookTicker."""

    id: int
    bid: str
    bid_quantity: str
    ask: str
    ask_quantity: str


class BarValues(NamedTuple):
    """A bar as numbers of JSON."""

    open: float
    high: float
    low: float
    close: float
    volume: float
    trade_count: int


@dataclass
class Recorded:
    """Everything of one symbol, in the order of the recording."""

    trades: list[Trade] = field(default_factory=list)
    quotes: list[Quote] = field(default_factory=list)


def lines_of(file: Path) -> Iterator[tuple[int, bytes]]:
    """(receive time in ns, line) of every stream frame in a file of 2024."""
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as lines:
        for line in lines:
            time, _, text = line.partition(b" ")
            if text.startswith(b'{"stream"'):
                yield int(time), line


def read(files: Iterable[Path]) -> dict[str, Recorded]:
    """The trades and quotes of all files by symbol; files of a symbol follow each other in time."""
    found: dict[str, Recorded] = defaultdict(Recorded)
    for file in sorted(files):
        for _, line in lines_of(file):
            message = json.loads(line.partition(b" ")[2])
            data, kind = message["data"], message["stream"].partition("@")[2]
            if kind == "trade":
                trade = Trade(data["t"], data["p"], data["q"], data["T"], data["m"])
                found[data["s"]].trades.append(trade)
            elif kind == "bookTicker":
                quote = Quote(data["u"], data["b"], data["B"], data["a"], data["A"])
                found[data["s"]].quotes.append(quote)
    return dict(found)


def cut(files: Iterable[Path], from_ns: int, to_ns: int, folder: Path) -> Path:
    """The lines received in a span, one plain file for each that has any."""
    folder.mkdir()
    for file in files:
        inside = [line for time, line in lines_of(file) if from_ns <= time < to_ns]
        if inside:
            (folder / file.stem).write_bytes(b"".join(inside))
    return folder


def bars(trades: Iterable[Trade], resolution: str) -> dict[int, BarValues]:
    """Bars by start in unix seconds; sums by Decimal, made a float at the very end."""
    slots: dict[int, list[Trade]] = defaultdict(list)
    size_ms = SECONDS[resolution] * 1_000
    for trade in sorted(trades):
        slots[trade.time_ms // size_ms * size_ms // 1_000].append(trade)
    return {
        slot: BarValues(
            float(Decimal(held[0].price)),
            float(max(Decimal(trade.price) for trade in held)),
            float(min(Decimal(trade.price) for trade in held)),
            float(Decimal(held[-1].price)),
            float(sum((Decimal(trade.quantity) for trade in held), Decimal())),
            len(held),
        )
        for slot, held in slots.items()
    }


def bar_of_kline(kline: list[Any]) -> BarValues:
    """An element of the exchange's klines answer."""
    opened, high, low, close, volume = (float(Decimal(text)) for text in kline[1:6])
    return BarValues(opened, high, low, close, volume, kline[8])


def enigma(price: str, highest: str, lowest: str) -> tuple[Fraction, dict[str, Fraction]]:
    """Level and Fibonacci levels without any rounding."""
    last, top, bottom = Fraction(price), Fraction(highest), Fraction(lowest)
    level = Fraction(50) if top == bottom else 100 * (last - bottom) / (top - bottom)
    return level, {name: top - (top - bottom) * Fraction(name) / 100 for name in FIBONACCI}
