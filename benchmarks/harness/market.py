"""A pool of mixed frames (bookTicker, trade, aggTrade 6:2:2) that can be sent for ever with rising ids.

After each round the C helper adds to every id what its symbol used up in one round, and to every time
the pool's span, so the stream has no duplicate, no hole, and every aggTrade covers trades that were sent.
"""

import random
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.native import address, library
from benchmarks.harness.trades import FIRST_ID, ws_text

FIELD = np.dtype([("last_digit", "<u4"), ("step", "<u4")])
CHUNK_BYTES = 64 * 1024
FRAME_GAP_US = 1
"""Event time between two frames: a pool of 20,000 frames spans 20 ms."""
NUMBER = re.compile(rb'"(?:[utaflET])":(\d+)')
ID_KEYS = (b"u", b"t", b"a")
HEAD_FRAMES = 60.0
"""The mean of the exponential from which symbols are drawn: a few are busy, most are quiet."""


@dataclass
class _Counters:
    """The ids of one symbol."""

    book: int = FIRST_ID
    trade: int = FIRST_ID
    agg: int = FIRST_ID
    uncertified: deque[tuple[int, str, str]] = field(default_factory=deque)


def _price(rng: random.Random, base: float) -> str:
    return f"{base * (1 + rng.gauss(0, 1e-4)):.2f}000000"


@dataclass
class Chunk:
    """A run of whole frames, and what one more round adds to the sum of its ids."""

    start: int
    end: int
    fields: NDArray[np.void]
    frames: int
    id_sum: int
    id_step: int


@dataclass
class Tally:
    """What was sent: frames, bytes, and the sum of their ids (u, t or a)."""

    frames: int = 0
    total_bytes: int = 0
    id_sum: int = 0


class MarketPool:
    """Frames in one bytearray, cut into chunks that end at frame ends. Sent by `send`."""

    def __init__(self, symbols: Sequence[str], count: int, start_us: int, seed: int = 7) -> None:
        """About `count` frames. `start_us`: event time of the first frame, us since 1970 (16 digits)."""
        rng = random.Random(seed)
        self._names = list(symbols)
        self._base = {name: 10 ** rng.uniform(0, 4.8) for name in symbols}
        self._counters = {name: _Counters() for name in symbols}
        self._waiting: deque[str] = deque()
        made = [self._one(rng, start_us + number * FRAME_GAP_US) for number in range(count)]
        # Nothing stays uncertified over the end of a round: the rest of the aggTrades close it.
        made += [self._agg(start_us + count * FRAME_GAP_US) for _ in range(len(self._waiting))]
        self.count = len(made)
        self._pristine = b"".join(frame for _, frame in made)
        self.data = bytearray(self._pristine)
        self.chunks = self._cut(made, count * FRAME_GAP_US)

    @property
    def mean_bytes(self) -> float:
        """Mean size of a frame, header included."""
        return len(self.data) / self.count

    def send(self, send: Callable[[memoryview], object], ended: Callable[[], bool]) -> Tally:
        """Send round after round from the first ids on, until `ended()` says so; only whole chunks."""
        self.data[:] = self._pristine
        view, tally, number = memoryview(self.data), Tally(), 0
        base = address(np.frombuffer(self.data, np.uint8))
        renumber = library().renumber
        while True:
            for chunk in self.chunks:
                if ended():
                    return tally
                send(view[chunk.start : chunk.end])
                tally.frames += chunk.frames
                tally.total_bytes += chunk.end - chunk.start
                tally.id_sum += chunk.id_sum + number * chunk.id_step
                renumber(base, address(chunk.fields), len(chunk.fields))
            number += 1

    def _one(self, rng: random.Random, time_us: int) -> tuple[str, bytes]:
        name = self._names[min(int(rng.expovariate(1 / HEAD_FRAMES)), len(self._names) - 1)]
        counter = self._counters[name]
        kind = rng.choices(("book", "trade", "agg"), (6, 2, 2))[0]
        price, quantity = _price(rng, self._base[name]), f"{10 ** rng.uniform(-3, 4):.5f}000"
        if kind == "agg" and self._waiting:
            return self._agg(time_us)
        if kind == "book":
            counter.book += rng.randint(1, 9)
            return name, ws_text(
                f'{{"stream":"{name.lower()}@bookTicker","data":{{"u":{counter.book},"s":"{name}","b":"{price}",'
                f'"B":"{quantity}","a":"{_price(rng, self._base[name])}","A":"{quantity}"}}}}'
            )
        trade = counter.trade
        counter.trade += 1
        counter.uncertified.append((trade, price, quantity))
        self._waiting.append(name)
        return name, ws_text(
            f'{{"stream":"{name.lower()}@trade","data":{{"e":"trade","E":{time_us},"s":"{name}","t":{trade},'
            f'"p":"{price}","q":"{quantity}","T":{time_us},"m":{rng.choice(("true", "false"))},"M":true}}}}'
        )

    def _agg(self, time_us: int) -> tuple[str, bytes]:
        """The aggTrade of the oldest trade that has none yet."""
        name = self._waiting.popleft()
        counter = self._counters[name]
        trade, price, quantity = counter.uncertified.popleft()
        aggregate = counter.agg
        counter.agg += 1
        return name, ws_text(
            f'{{"stream":"{name.lower()}@aggTrade","data":{{"e":"aggTrade","E":{time_us},"s":"{name}",'
            f'"a":{aggregate},"p":"{price}","q":"{quantity}","f":{trade},"l":{trade},"T":{time_us},'
            f'"m":false,"M":true}}}}'
        )

    def _steps(self, name: str, span_us: int) -> dict[bytes, int]:
        counter = self._counters[name]
        trades = counter.trade - FIRST_ID
        return {
            b"u": counter.book - FIRST_ID, b"t": trades, b"f": trades, b"l": trades,
            b"a": counter.agg - FIRST_ID, b"E": span_us, b"T": span_us,
        }  # fmt: skip

    def _cut(self, made: list[tuple[str, bytes]], span_us: int) -> list[Chunk]:
        steps = {name: self._steps(name, span_us) for name in self._names}
        chunks: list[Chunk] = []
        fields: list[tuple[int, int]] = []
        start = at = frames = id_sum = id_step = 0
        for place, (name, frame) in enumerate(made):
            for found in NUMBER.finditer(frame):
                key, step = found.group(0)[1:2], steps[name][found.group(0)[1:2]]
                fields.append((at + found.end() - 1, step))
                if key in ID_KEYS:
                    id_sum += int(found.group(1))
                    id_step += step
            at, frames = at + len(frame), frames + 1
            if at - start >= CHUNK_BYTES or place == len(made) - 1:
                chunks.append(Chunk(start, at, np.array(fields, FIELD), frames, id_sum, id_step))
                start, fields, frames, id_sum, id_step = at, [], 0, 0, 0
        return chunks
