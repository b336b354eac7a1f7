"""Writers on a folder, frames to record, and recordings read back."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.exchange.harness import CLOCK, Logbook
from tradeback.recording.format import Channel, parse_mark
from tradeback.recording.reading import Line, is_mark, list_sources, read_lines
from tradeback.recording.writer import Track, Writer

A_TRADE = Channel(0, "trade", 0)
B_TRADE = Channel(1, "trade", 0)
START_NS = 1_781_000_000_000_000_000


def trade(number: int, symbol: str = "BTCUSDT") -> bytes:
    return (
        f'{{"stream":"{symbol.lower()}@trade","data":{{"e":"trade","E":1781000000000500,"s":"{symbol}",'
        f'"t":{number},"p":"64250.01000000","q":"0.00100000","T":1781000000000000,"m":true,"M":true}}}}'
    ).encode()


def agg(number: int) -> bytes:
    return (
        f'{{"stream":"btcusdt@aggTrade","data":{{"e":"aggTrade","E":1781000000000500,"s":"BTCUSDT",'
        f'"a":{number},"p":"64250.01000000","q":"0.00100000","f":{number},"l":{number},'
        f'"T":1781000000000000,"m":true,"M":true}}}}'
    ).encode()


def take(track: Track, numbers: Sequence[int], start_ns: int = START_NS) -> None:
    """Record trades, received a microsecond apart."""
    for number in numbers:
        track.take(b"%d " % (start_ns + 1_000 * number), trade(number))


@asynccontextmanager
async def writing(folder: Path, log: Logbook | None = None, **options: Any) -> AsyncIterator[Writer]:
    writer = Writer(folder, CLOCK, log or Logbook(), **{"flush_s": 0.01, **options})
    writer.start()
    try:
        yield writer
    finally:
        await asyncio.wait_for(writer.close(), 10)


def lines(folder: Path) -> list[Line]:
    return [line for source in list_sources(folder) for line in read_lines(source)]


def frames(folder: Path) -> list[Line]:
    return [line for line in lines(folder) if not is_mark(line)]


def marks(folder: Path) -> list[dict[str, Any]]:
    found = (parse_mark(line.body) for line in lines(folder) if is_mark(line))
    return [fields for fields in found if fields is not None]


def events(folder: Path) -> list[str]:
    return [fields["event"] for fields in marks(folder)]
