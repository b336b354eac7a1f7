"""A subscriber that shares no code with tradeback: websockets, struct, zlib. And finding what it saw."""

import asyncio
import json
import struct
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple

import websockets
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.flow.running import until


class Entry(NamedTuple):
    """One entry of a v1 frame, under the symbol's name."""

    symbol: str
    price: float
    volume: float


def decode(frame: bytes) -> Iterator[tuple[int, float, float]]:
    """The entries of one v1 frame; wire.md section 1."""
    crc, count = struct.unpack_from("<IH", frame)
    assert crc == zlib.crc32(frame[4:]), f"wrong crc in {frame.hex()}"
    assert 1 <= count <= 50
    assert len(frame) == 6 + 18 * count, "the count tells the length"
    yield from struct.iter_unpack("<Hdd", frame[6:])


class Watcher:
    """Subscribed to symbols; keeps every frame."""

    def __init__(self, connection: ClientConnection, names: dict[int, str]) -> None:
        self._connection = connection
        self.ids = names
        self.frames: list[bytes] = []
        self.count = 0
        """Entries received."""
        self.closed: str | None = None
        self.last_known: dict[str, float] = {}
        """The price with which each symbol's entries began; filled by `by_symbol`."""
        self._reading = asyncio.create_task(self._read())

    @property
    def code(self) -> int | None:
        """With which the connection was closed."""
        return self._connection.close_code

    @classmethod
    async def subscribe(cls, feed_url: str, *symbols: str) -> "Watcher":
        """Connect, subscribe ("*" = all), and wait for the answer."""
        connection = await connect(
            feed_url, subprotocols=[Subprotocol("tradeback.v1")], compression=None, max_size=None,
            max_queue=None, ping_interval=None, proxy=None,
        )  # fmt: skip
        await connection.send(json.dumps({"type": "subscribe", "symbols": symbols or ("*",)}))
        answer = json.loads(await connection.recv())
        assert answer["type"] == "subscribed", answer
        return cls(connection, {held["id"]: name for name, held in answer["symbols"].items()})

    async def _read(self) -> None:
        try:
            async for frame in self._connection:
                assert isinstance(frame, bytes), frame
                self.frames.append(frame)
                self.count += frame[4] | frame[5] << 8
        except websockets.ConnectionClosed as closed:
            self.closed = str(closed)

    async def saw(self, count: int, timeout_s: float = 20.0, *, strict: bool = True) -> bool:
        """Until so many entries have come."""
        return await until(lambda: self.count >= count, f"{count} entries", timeout_s, strict=strict)

    async def close(self) -> None:
        """Hang up. An error of the reading comes out here."""
        await self._connection.close()
        await self._reading

    async def end(self) -> None:
        """Until the other side has gone."""
        await asyncio.wait_for(self._reading, 10)

    def by_symbol(self) -> dict[str, list[tuple[float, float]]]:
        """(price, volume) of every trade seen, in order. What stands before them, at volume 0, is the last
        known price: it comes first or not at all."""
        found: dict[str, list[tuple[float, float]]] = defaultdict(list)
        begun: set[str] = set()
        for frame in self.frames:
            for number, price, volume in decode(frame):
                name = self.ids[number]
                if volume == 0.0:
                    assert name not in begun, f"{name}: an entry without volume after the first"
                    self.last_known[name] = price
                else:
                    found[name].append((price, volume))
                begun.add(name)
        return dict(found)


def exact(value: float) -> Decimal:
    """The decimal that a float was read from; right for up to 15 digits."""
    return Decimal(repr(value))


def window(
    truth: Sequence[tuple[float, float]], seen: Sequence[tuple[float, float]], start: int = 0
) -> int | None:
    """Where in `truth`, from `start` on, all of `seen` stands without a hole; None when nowhere."""
    if not seen:
        return start
    for place in range(start, len(truth) - len(seen) + 1):
        if truth[place] == seen[0] and list(truth[place : place + len(seen)]) == list(seen):
            return place
    return None
