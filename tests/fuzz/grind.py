"""Good frames with broken ones between them, in reads of any size, through a connection's own decoding.

Everything is the product's but the socket: reader, kernels, slow path, arbiter, tape. Good frames are
trades of BTCUSDT with ids from 1 on; the broken ones were frames of ETHUSDT of every kind. Whatever these
do, the good ones must be on the tape, each once, unharmed, and the connection must live.
"""

import asyncio
import random
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.exchange.harness import (
    BTC,
    CLOCK,
    MATCH_US,
    QUICK,
    SYMBOLS,
    Logbook,
    agg,
    desk,
    frame,
    quote,
    trade,
)
from tests.fuzz.mutate import mutated
from tradeback.exchange.connection import Connection
from tradeback.exchange.line_counts import LineCounts
from tradeback.exchange.streams import LinePlan
from tradeback.model.record import Rows

GOOD_EVERY = 4
"""One frame in this many is good."""
READ_BYTES_MAX = 20_000
TAPE_ROWS = 1 << 14
SEED_FRAMES = 65_536
"""Frames of one seed on the command line."""


class _Transport:
    """A socket that takes everything and brings what it is fed."""

    def __init__(self) -> None:
        self.underlying_transport = self
        self.protocol: Any = None
        self.aborted = False

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_extra_info(self, name: str) -> None:
        return None

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    def send(self, *_: Any) -> None:
        """Answers to garbage go nowhere."""

    send_pong = send_close = pause_reading = resume_reading = send

    def feed(self, data: bytes) -> None:
        """One socket read after the other, as large as the reader lets them be."""
        while data:
            place = self.protocol.get_buffer(-1)
            size = min(len(place), len(data))
            place[:size] = data[:size]
            self.protocol.buffer_updated(size)
            data = data[size:]


class _Owner:
    """A line whose connection must not end."""

    def __init__(self) -> None:
        self.log = Logbook()

    def on_ended(self) -> None:
        raise AssertionError("the connection has ended")

    def on_shutdown(self, connection: Connection) -> None:
        """A mutated frame may well say so."""

    def refused(self, reason: str) -> None:
        """A mutated frame may look like an answer."""

    def say(self, event: str, **fields: Any) -> None:
        """The rate of these is the line's business."""

    def accuse(self, event: str, **fields: Any) -> None:
        raise AssertionError(f"{event}: {fields}")


@dataclass
class Ground:
    """What came of it."""

    frames: int = 0
    good: int = 0
    broken_accepted: int = 0
    """Broken frames that still read as an event, and are on the tape as one."""
    by_slow_path: int = 0
    malformed: int = 0
    problems: list[str] = field(default_factory=list)


def _source(chance: random.Random, number: int) -> bytes:
    """The payload of a frame that is about to be broken."""
    kind = chance.randrange(3)
    if kind == 0:
        whole = trade(number, symbol="ETHUSDT")
    elif kind == 1:
        whole = quote(number, symbol="ETHUSDT")
    else:
        whole = agg(number, number, number, "1.00010000", symbol="ETHUSDT")
    return whole[4:]


def _check(rows: Rows, first_id: int, ground: Ground) -> int:
    """Compare the records of one stretch; returns the id that the next good trade has."""
    good = rows[rows["symbol_id"] == BTC.id]
    wanted = np.arange(first_id, first_id + len(good))
    if not np.array_equal(good["id"], wanted):
        ground.problems.append(f"good trades from {first_id} on came as {good['id'][:20].tolist()}")
    quantities = np.array([float(f"{number % 1000 + 1}.0001") for number in wanted])
    if not (np.array_equal(good["quantity"], quantities) and (good["price"] == 64250.01).all()):
        ground.problems.append(f"a good trade from {first_id} on has other values")
    if not np.array_equal(good["exchange_us"], MATCH_US + wanted):
        ground.problems.append(f"a good trade from {first_id} on has another time")
    others = rows[rows["symbol_id"] != BTC.id]
    for name in ("price", "quantity", "ask", "ask_quantity"):
        if not np.isfinite(others[name]).all():
            ground.problems.append(f"{name} of an accepted frame is not finite")
    ground.broken_accepted += len(others)
    return first_id + len(good)


def grind(folder: Path, frames: int, seed: int) -> Ground:
    """Feed `frames` frames; what is wrong stands in `problems`. Tapes in `folder` come and go meanwhile."""
    chance, ground, number = random.Random(seed), Ground(), 0
    for stretch in range(0, frames, TAPE_ROWS // 2):
        count = min(TAPE_ROWS // 2, frames - stretch)
        number = _stretch(folder / str(stretch), count, number, chance, ground)
        if ground.problems:
            break
    return ground


def _stretch(folder: Path, count: int, number: int, chance: random.Random, ground: Ground) -> int:
    first_id = number + 1
    with desk(folder, hot_rows=TAPE_ROWS) as world:
        counts, transport = LineCounts(), _Transport()
        plan = LinePlan("trade", 0, 0, tuple(symbol.symbol for symbol in SYMBOLS))
        connection = Connection(
            plan, "ws://nowhere", QUICK, CLOCK, world.intake, world.symbols, counts, _Owner()
        )
        connection.take_over(transport)
        waiting, size = bytearray(), chance.randrange(1, READ_BYTES_MAX)
        for place in range(count):
            if place % GOOD_EVERY == 0:
                number += 1
                waiting += trade(number)
            else:
                waiting += frame(mutated(_source(chance, ground.frames + place), chance))
            if len(waiting) >= size:
                cut = len(waiting) - chance.randrange(min(len(waiting), 400))  # a read ends anywhere
                transport.feed(bytes(waiting[:cut]))
                waiting, size = waiting[cut:], chance.randrange(1, READ_BYTES_MAX)
        transport.feed(bytes(waiting))
        if transport.aborted or connection.ended is not None:
            ground.problems.append(f"the connection ended: {connection.ended}")
        came = _check(world.rows, first_id, ground)
        if came != number + 1:
            ground.problems.append(f"good trades end with {came - 1} instead of {number}")
        world.check_tape()
    ground.frames += count
    ground.good += number - first_id + 1
    ground.by_slow_path += counts.fallbacks
    ground.malformed += counts.malformed
    _remove(folder)
    return number


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def grind_seed(seed: int) -> tuple[int, Ground]:
    """SEED_FRAMES frames of this seed, in a process of a pool."""

    async def work() -> Ground:
        with tempfile.TemporaryDirectory() as folder:
            return grind(Path(folder), SEED_FRAMES, seed)

    return seed, asyncio.run(work())
