"""The series in InfluxDB: an archive of trades, bars and levels. See influx_lines for the schema.

Charts read the embedded store (5,000 bars take InfluxDB 20 ms); this one is for whoever keeps the past
there and asks it himself. What both can do is held together by one contract test: put closed bars, read
them back by range, keep a position.
"""

import time
from typing import Any, Final

from tradeback.derive.layout import RESOLUTION_S, Bars, empty_bars
from tradeback.model.config import InfluxConfig
from tradeback.stores.influx_client import InfluxClient, literal, quoted
from tradeback.stores.influx_lines import Names, bar_lines, bar_measurement, body_of, position_line
from tradeback.stores.ports import Position

HOUR_NS: Final = 3_600 * 10**9
VOLUME_DIGITS: Final = 8


class SeriesInflux:
    """One connection to one bucket. Loop only; every method raises StoreError (influx_client)."""

    def __init__(self, config: InfluxConfig, names: Names) -> None:
        self.client = InfluxClient(config)
        self.names = names

    async def open(self) -> None:
        """Connect and make the bucket when it is missing."""
        await self.client.open()

    async def close(self) -> None:
        """Let go of the session."""
        await self.client.close()

    async def write_bars(self, bars: Bars) -> None:
        """Put bars; one that is there already is replaced. Its volume is kept in base units."""
        await self.client.write(body_of(bar_lines(bars, self.names)))

    async def range(
        self, symbol_id: int, resolution: int, from_s: int, to_s: int, limit: int, *, newest: bool = False
    ) -> Bars:
        """The first (or newest) `limit` bars with from_s <= slot < to_s, ascending.

        Carries what is stored: times, prices, volume (in lots of 10^-8), trade count.
        """
        name = self.names.get(symbol_id)
        if name is None:
            return empty_bars(0)
        order = f"ORDER BY time {'DESC' if newest else 'ASC'} LIMIT {limit}"
        where = f"WHERE symbol = {literal(name)} AND time >= {from_s}s AND time < {to_s}s"
        fields = "open, high, low, close, volume, trade_count"
        table = quoted(bar_measurement(resolution))
        # Names and texts are quoted, the rest are numbers.
        series = await self.client.query(f"SELECT {fields} FROM {table} {where} {order}")  # noqa: S608
        values = series[0]["values"] if series else []
        return _bars(values[::-1] if newest else values, symbol_id, resolution)

    async def position(self, sink: str) -> Position | None:
        """What `save_position` kept last; None when it never did."""
        where = f"WHERE sink = {literal(sink)} ORDER BY time DESC LIMIT 1"
        series = await self.client.query(f"SELECT epoch, sequence FROM tradeback_position {where}")  # noqa: S608
        if not series:
            return None
        _, epoch, sequence = series[0]["values"][0]
        return Position(int(epoch), int(sequence))

    async def save_position(self, sink: str, position: Position) -> None:
        """Keep a sink's position: one point an hour, overwritten within the hour, so that any retention
        longer than that keeps the newest."""
        now_ns = time.time_ns()
        await self.client.write(position_line(sink, *position, now_ns - now_ns % HOUR_NS).encode())


def _bars(values: list[list[Any]], symbol_id: int, resolution: int) -> Bars:
    bars = empty_bars(len(values))
    bars["symbol_id"], bars["resolution"], bars["lot_digits"] = symbol_id, resolution, VOLUME_DIGITS
    for bar, (ns, opened, high, low, close, volume, count) in zip(bars, values, strict=True):
        bar["slot_us"] = ns // 1_000
        bar["open"], bar["high"], bar["low"], bar["close"] = opened, high, low, close
        bar["volume"], bar["trade_count"] = round(volume * 10**VOLUME_DIGITS), count
    return bars


def slot_of(us: int, resolution: int) -> int:
    """Start, in unix seconds, of the slot that holds a time."""
    seconds = us // 1_000_000
    return int(seconds - seconds % RESOLUTION_S[resolution])
