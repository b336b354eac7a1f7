"""An intake on a real tape, and exchanges that do what a test says, on real sockets."""

import asyncio
import base64
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tradeback.exchange.budget import Budget
from tradeback.exchange.intake import Intake
from tradeback.exchange.line import Line
from tradeback.exchange.pool import Pool
from tradeback.exchange.streams import LinePlan, plan_lines
from tradeback.model.config import ExchangeConfig, TapeConfig
from tradeback.model.record import Rows, count_intact, empty_rows
from tradeback.model.symbols import Symbol, SymbolTable
from tradeback.ops.clock import SystemClock
from tradeback.ops.log import RepeatLimiter
from tradeback.tape.writer import Tape

CLOCK = SystemClock()
BTC = Symbol(1, "BTCUSDT", "BTC", "USDT", tick_size="0.01000000", step_size="0.00001000")
ETH = Symbol(2, "ETHUSDT", "ETH", "USDT", tick_size="0.01000000", step_size="0.00010000")
YEN = Symbol(3, "币安人生USDT", "币安人生", "USDT", tick_size="0.00010000", step_size="0.10000000")
SYMBOLS = (BTC, ETH, YEN)
MATCH_US = 1_781_000_000_123_456
QUICK = ExchangeConfig(
    symbols=("BTCUSDT",),
    connect_timeout_s=2.0,
    idle_timeout_s=30.0,
    backoff_first_s=0.005,
    backoff_max_s=0.02,
    rollover_overlap_s=0.05,
)
UNSTAMPED = ("exchange_us", "id", "price", "quantity", "ask", "ask_quantity", "symbol_id", "kind", "flags")
"""All of a record but what depends on when and where it stands."""


async def until(condition: Callable[[], Any], within_s: float = 10.0) -> None:
    """Poll quickly: what is waited for happens in other tasks of this loop."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s"
        await asyncio.sleep(0.002)


class Logbook:
    """A log that remembers."""

    def __init__(self, lines: list[tuple[str, str, dict[str, Any]]] | None = None, **bound: Any) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = [] if lines is None else lines
        self._bound = bound

    def _note(self, level: str, event: str, fields: dict[str, Any]) -> None:
        self.lines.append((level, event, {**self._bound, **fields}))

    def debug(self, event: str, **fields: Any) -> None:
        self._note("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._note("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._note("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._note("error", event, fields)

    def bind(self, **fields: Any) -> "Logbook":
        return Logbook(self.lines, **{**self._bound, **fields})

    def of(self, event: str) -> list[dict[str, Any]]:
        """The fields of all lines that say `event`."""
        return [fields for _, said, fields in self.lines if event in said]


@dataclass
class Desk:
    """Tape, intake, symbols, and a reader that checks what readers are promised."""

    tape: Tape
    intake: Intake
    symbols: SymbolTable
    log: Logbook = field(default_factory=Logbook)
    seen: list[Rows] = field(default_factory=list)

    def read(self, first: int, count: int) -> None:
        """Every record a reader is shown is committed, intact, and follows the one before."""
        assert first == 1 + sum(map(len, self.seen))
        assert first + count <= self.tape.next_sequence
        slot = first & (self.tape.hot_rows - 1)
        rows = self.tape.rows[slot : slot + count].copy()
        assert len(rows) == count
        assert count_intact(rows, first, self.tape.epoch) == count
        self.seen.append(rows)

    @property
    def rows(self) -> Rows:
        """Everything readers have been shown."""
        return np.concatenate(self.seen) if self.seen else empty_rows(0)

    @property
    def count(self) -> int:
        return sum(map(len, self.seen))

    def check_tape(self) -> None:
        """What was shown is what the tape's files hold."""
        held = [self.tape.read(1, 1 << 20)] if self.count else [empty_rows(0)]
        assert np.concatenate(held).tobytes() == self.rows.tobytes()

    def line(self, endpoint: str, stream: str = "trade", **more: Any) -> Line:
        """One line for all symbols."""
        names = more.pop("names", ("BTCUSDT", "ETHUSDT"))
        number = more.pop("number", 0)
        attempts = more.pop("attempts", None) or Budget(10_000, 1.0)
        config = msgspec.structs.replace(QUICK, ws_endpoint=endpoint, **more)
        plan = LinePlan(stream, number, 0, tuple(names))
        return Line(plan, config, CLOCK, self.intake, self.symbols, attempts, self.log, RepeatLimiter())

    def pool(self, endpoint: str, names: Sequence[str], lines: int = 1, **more: Any) -> Pool:
        """All lines for these symbols; `more` changes the configuration."""
        config = msgspec.structs.replace(QUICK, ws_endpoint=endpoint, **more)
        plans = plan_lines(names, lines, 30)
        return Pool(plans, config, CLOCK, self.intake, self.symbols, self.log)


@contextmanager
def desk(folder: Path, *, hot_rows: int = 1 << 14, symbols: Sequence[Symbol] = SYMBOLS) -> Iterator[Desk]:
    """A fresh tape in `folder` with an intake on it."""
    with Tape.open(folder / "tape", TapeConfig(hot_rows=hot_rows)) as tape:
        made = Desk(tape, Intake(tape), SymbolTable.of(symbols))
        for symbol in symbols:
            made.intake.add_symbol(symbol)
        made.intake.readers.append(made.read)
        try:
            yield made
        finally:
            made.intake.close()


@asynccontextmanager
async def running(line: Line) -> AsyncIterator[Line]:
    """A line at work. It must not end by itself."""
    task = asyncio.create_task(line.run())
    try:
        yield line
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# Frames.


def samples(source: Any) -> Iterator[tuple[str, str, Any]]:
    """Every sample of a collector: (family, the line or stream it is of, value)."""
    for family in source.collect():
        for labels, value in family.samples:
            yield family.name, labels.get("line", labels.get("stream", "")), value


def frame(payload: bytes, first: int = 0x81) -> bytes:
    """One unmasked frame; `first` is FIN and opcode."""
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65_536:
        return bytes((first, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload


def combined(stream: str, data: str) -> bytes:
    return frame(f'{{"stream":"{stream}","data":{data}}}'.encode())


def trade(number: int, *, symbol: str = "BTCUSDT", price: str = "64250.01000000", extra: str = "") -> bytes:
    """A trade of a quantity that tells its id."""
    return combined(
        f"{symbol.lower()}@trade",
        f'{{"e":"trade","E":{MATCH_US + 500},"s":"{symbol}","t":{number},"p":"{price}",'
        f'"q":"{number % 1000 + 1}.00010000","T":{MATCH_US + number},"m":{str(number % 3 == 0).lower()}'
        f'{extra},"M":true}}',
    )


def agg(number: int, first: int, last: int, quantity: str, *, symbol: str = "BTCUSDT") -> bytes:
    return combined(
        f"{symbol.lower()}@aggTrade",
        f'{{"e":"aggTrade","E":{MATCH_US + 500},"s":"{symbol}","a":{number},"p":"64250.01000000",'
        f'"q":"{quantity}","f":{first},"l":{last},"T":{MATCH_US + last},"m":true,"M":true}}',
    )


def quote(number: int, *, symbol: str = "BTCUSDT") -> bytes:
    return combined(
        f"{symbol.lower()}@bookTicker",
        f'{{"u":{number},"s":"{symbol}","b":"64250.00000000","B":"1.50000000",'
        f'"a":"64250.01000000","A":"0.25000000"}}',
    )


# Exchanges.


class Peer:
    """The exchange's end of one connection, after the handshake."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.requests: list[dict[str, Any]] = []
        self.opcodes: list[tuple[int, bytes]] = []
        """Every frame of the client but text: (opcode, payload)."""

    async def receive(self) -> tuple[int, bytes]:
        """The client's next frame; IncompleteReadError at the end."""
        first, second = await self.reader.readexactly(2)
        assert second & 0x80, "clients mask"
        size = second & 0x7F
        if size == 126:
            size = int.from_bytes(await self.reader.readexactly(2), "big")
        mask = await self.reader.readexactly(4)
        payload = bytes(
            byte ^ mask[place % 4] for place, byte in enumerate(await self.reader.readexactly(size))
        )
        opcode = first & 0x0F
        if opcode == 1:
            self.requests.append(msgspec.json.decode(payload))
        else:
            self.opcodes.append((opcode, payload))
        return opcode, payload

    async def subscribed(self, requests: int = 1) -> None:
        """Take and acknowledge SUBSCRIBEs."""
        for _ in range(requests):
            while (await self.receive())[0] != 1:
                pass
            await self.send(frame(b'{"result":null,"id":%d}' % self.requests[-1]["id"]))

    async def send(self, *frames: bytes) -> None:
        """All in one write."""
        self.writer.write(b"".join(frames))
        await self.writer.drain()

    async def hold(self) -> None:
        """Read what the client sends until it goes."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await self.receive()


Script = Callable[[Peer], Awaitable[None]]


class Scripted:
    """A server: the n-th connection is served by the n-th script, later ones by the last."""

    def __init__(self, scripts: Sequence[Script]) -> None:
        self._scripts = scripts
        self.paths: list[str] = []
        self.peers: list[Peer] = []
        self.answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self.attach = b""
        """Bytes that leave in one write with the handshake's answer."""
        self.attempts = 0
        self.refuse: Callable[[int], bytes | None] = lambda attempt: None
        """The whole HTTP answer for the n-th attempt; None lets it in, b"" hangs up."""
        self.errors: list[BaseException] = []
        self.endpoint = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.attempts += 1
            refused = self.refuse(self.attempts)
            if refused is not None:
                writer.write(refused)
                return
            await self._upgrade(head, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except BaseException as error:
            self.errors.append(error)
            raise
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _upgrade(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = head.decode().split("\r\n")
        self.paths.append(lines[0].split()[1])
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        key = next(line.split(": ", 1)[1] for line in lines if line.lower().startswith("sec-websocket-key"))
        assert "sec-websocket-extensions" not in headers, "a latency client offers no compression"
        digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        accept = b"Sec-WebSocket-Accept: " + base64.b64encode(digest)
        writer.write(self.answer + accept + b"\r\n\r\n" + self.attach)
        peer = Peer(reader, writer)
        self.peers.append(peer)
        await self._scripts[min(len(self.peers), len(self._scripts)) - 1](peer)


@asynccontextmanager
async def scripted(*scripts: Script) -> AsyncIterator[Scripted]:
    """Listen; at the end every script must have ended without an error of its own."""
    exchange = Scripted(scripts)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(exchange.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=1 << 20)
    exchange.endpoint = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield exchange
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    failed = [error for error in exchange.errors if not isinstance(error, asyncio.CancelledError)]
    assert not failed, failed
