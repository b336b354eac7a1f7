"""InfluxDB's line protocol: bytes of points from records, bars and levels. Pure.

A point is its measurement, its tags and its time in ns: two with the same three are one, the later wins.
So the time of a trade must be its own, and the same whenever it is written: the exchange's microsecond
plus the last three digits of the trade id in ns. Ids rise by one per symbol, so up to a thousand trades of
one microsecond stand apart, in the order of their ids but for the one place where the digits start again.
Only of a longer run in one microsecond the second thousand goes to the next microsecond, and so on; that
needs to know where the run began, which `influx_trades` learns from the records before.
"""

import math
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tradeback.derive.enigma import FIB_NAMES
from tradeback.derive.layout import RESOLUTIONS, Bars
from tradeback.wire.influx_layout import SLOTS

EXCHANGE: Final = "binance"
_FIB_FIELDS: Final = tuple(f"fib_{name.replace('.', '_')}" for name in FIB_NAMES)
_TAG_ESCAPES: Final = str.maketrans({",": r"\,", "=": r"\=", " ": r"\ "})


def tag(text: str) -> str:
    """A tag's value or key as lines carry it. ValueError for what cannot be written there."""
    if not text or not text.isprintable() or text.endswith("\\"):
        raise ValueError(f"{text!r} cannot be a tag in InfluxDB")
    return text.translate(_TAG_ESCAPES)


def trade_ns(exchange_us: int, trade_id: int, run_first_id: int | None = None) -> int:
    """The time of a trade's point. `run_first_id`: first known id of the same symbol and microsecond."""
    beyond = 0 if run_first_id is None else max(0, (trade_id - run_first_id) // SLOTS)
    return exchange_us * SLOTS + trade_id % SLOTS + beyond * SLOTS


class Names:
    """Symbols by id, asked for again when one is unknown."""

    def __init__(self, known: Callable[[], Iterable[tuple[int, str]]]) -> None:
        """`known`: called for all (id, name) known now."""
        self._known = known
        self._names: dict[int, str] = {}

    def get(self, symbol_id: int) -> str | None:
        """The name; None when nobody knows it."""
        if symbol_id not in self._names:
            self._names = dict(self._known())
        return self._names.get(symbol_id)

    def tag(self, symbol_id: int) -> str | None:
        """The name as a tag's value; None when there is none, or it cannot be one."""
        name = self.get(symbol_id)
        try:
            return None if name is None else tag(name)
        except ValueError:
            return None


def bar_measurement(resolution: int) -> str:
    """Where bars of a resolution (index into RESOLUTIONS) are kept."""
    return f"ohlcv_{RESOLUTIONS[resolution]}"


def bar_lines(bars: Bars, names: Names) -> list[str]:
    """One line per bar whose symbol has a name."""
    lines = []
    for bar in bars:
        symbol = names.tag(int(bar["symbol_id"]))
        if symbol is None or not math.isfinite(float(bar["open"])):
            continue
        volume = int(bar["volume"]) / 10 ** int(bar["lot_digits"])
        lines.append(
            f"{bar_measurement(int(bar['resolution']))},exchange={EXCHANGE},symbol={symbol} "
            f"open={float(bar['open'])!r},high={float(bar['high'])!r},low={float(bar['low'])!r},"
            f"close={float(bar['close'])!r},volume={volume!r},trade_count={int(bar['trade_count'])}i "
            f"{int(bar['slot_us']) * 1_000}"
        )
    return lines


def enigma_lines(rows: NDArray[np.void], names: Names) -> list[str]:
    """One line per row of dtype ENIGMA, at the time of the trade that it was computed from."""
    lines = []
    for row in rows:
        symbol = names.tag(int(row["symbol_id"]))
        values = [float(row[field]) for field in ("level", "ath", "atl")]
        fibs = row["fib"].tolist()
        if symbol is None or not all(map(math.isfinite, (*values, *fibs))):
            continue
        named = zip(("level", "ath", "atl", *_FIB_FIELDS), (*values, *fibs), strict=True)
        fields = ",".join(f"{field}={value!r}" for field, value in named)
        ns = trade_ns(int(row["exchange_us"]), int(row["trade_id"]))
        lines.append(f"enigma,symbol={symbol} {fields},trade_id={int(row['trade_id'])}i {ns}")
    return lines


def position_line(sink: str, epoch: int, sequence: int, ns: int) -> str:
    """The point that keeps a sink's position."""
    return f"tradeback_position,sink={tag(sink)} epoch={epoch}i,sequence={sequence}i {ns}"


def body_of(lines: Iterable[str]) -> bytes:
    """What is sent: the lines that are not empty."""
    return "\n".join(filter(None, lines)).encode()
