"""A tape on disk, drains into a real NATS server, and what stands in its stream."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from tests.sinks.drain_world import SystemTime
from tests.wire.v2_world import DECODED, market
from tradeback.model.config import Config, NatsConfig, TapeConfig
from tradeback.model.record import Rows
from tradeback.model.symbols import Symbol
from tradeback.sinks.drain import Drain
from tradeback.sinks.nats import nats_drains
from tradeback.stores.bus_nats import NatsBus
from tradeback.stores.nats_stream import TapeStream
from tradeback.tape.reader import TapeReader
from tradeback.tape.writer import Tape
from tradeback.wire.v2_exact import ExactCodec, Stretch

LOG = logging.getLogger("tests.nats")
WAIT_S = 60.0


def step_of(digits: int) -> str:
    """The step of a grid with so many decimals."""
    return f"0.{'0' * (digits - 1)}1" if digits else "1"


SYMBOLS = [
    Symbol(number, f"S{number}USDT", tick_size=step_of(price), step_size=step_of(quantity))
    for number, (price, quantity) in DECODED.items()
]


def node_name() -> str:
    """A node of its own for every test: the server is shared."""
    return f"test-{secrets.token_hex(6)}"


def open_tape(folder: Path) -> Tape:
    """A tape of small segments."""
    return Tape.open(folder / "tape", TapeConfig(hot_rows=8_192, segment_bytes=512 * 1024))


def config_of(folder: Path, url: str, node: str, **more: object) -> Config:
    """A configuration with NATS. The server reserves the room of each stream, and has many of them."""
    nats = NatsConfig(url=url, node=node, **{"stream_bytes": 32 << 20, **more})  # type: ignore[arg-type]
    return Config(data_dir=str(folder), nats=nats)


def drains_of(config: Config, symbols: list[Symbol] | None = None) -> dict[str, Drain]:
    """Drains without series and levels, by name."""
    reader = TapeReader(Path(config.data_dir) / "tape")
    known = SYMBOLS if symbols is None else symbols
    made = nats_drains(config, reader, reader, None, lambda: known, None, SystemTime(), LOG)
    return {drain.name: drain for drain in made}


def rows_of(count: int, seed: int = 0) -> Rows:
    """Records of a market."""
    return market(np.random.default_rng(seed), count)


async def drained(drain: Drain, tape: Tape, seconds: float = WAIT_S) -> None:
    """Until everything on the tape is in the store."""
    async with asyncio.timeout(seconds):
        while drain.position.sequence < tape.next_sequence - 1:
            await asyncio.sleep(0.01)


@asynccontextmanager
async def connected(config: NatsConfig) -> AsyncIterator[NatsBus]:
    """A bus that is connected."""
    bus = NatsBus(config, LOG, "tests")
    await bus.start()
    try:
        await bus.ready(WAIT_S)
        yield bus
    finally:
        await bus.close()


async def stretches(config: NatsConfig) -> list[Stretch]:
    """All that the stream of a node holds."""
    codec = ExactCodec()
    codec.attach()
    found = []
    async with connected(config) as bus:
        stream = TapeStream(bus, config)
        state = await stream.state()
        for number in range(state.first, state.last + 1):
            frame = await stream.read(number)
            assert frame is not None
            found.append(codec.decode(frame))
    return found


def check_exactly_once(found: list[Stretch], tape: Tape) -> None:
    """The stream holds the tape: every record once, in order, bit by bit."""
    at = tape.oldest_sequence
    for stretch in found:
        assert stretch.first == at, "a hole or a double"
        at = stretch.end
        epoch, rows = tape.read_with_epoch(stretch.first, len(stretch.rows))
        assert epoch == stretch.epoch
        assert rows.tobytes() == stretch.rows.tobytes()
    assert at == tape.next_sequence
