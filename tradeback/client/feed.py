"""The feed as an asynchronous iterator: connects, subscribes, decodes, connects again when the line breaks.

What has arrived waits in a bounded queue. When the program does not keep up the socket is no longer read,
so that the engine sees a slow reader and conflates for it; nothing piles up here.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlencode, urlsplit

import orjson
from picows import WSCloseCode, WSError, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from tradeback.model.errors import DecodeError, TradebackError
from tradeback.wire.v1 import Entries, decode_v1

FEED_PATH = "/api/v1/ws"
PROTOCOL_V1 = "tradeback.v1"
WAITING_FRAMES_MAX = 1_024
"""Frames that wait for the program before the socket is left alone."""
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 10.0
CONNECT_TIMEOUT_S = 10.0
IDLE_PING_S = 10.0
"""Silence after which the engine is pinged; twice as long without an answer breaks the line."""


class FeedError(TradebackError):
    """The engine cannot be reached, or it speaks something else."""


@dataclass(frozen=True, slots=True)
class FeedSymbol:
    """A symbol as the engine describes it in `subscribed`."""

    id: int
    symbol: str
    price_precision: int
    quantity_precision: int


@dataclass(frozen=True, slots=True)
class Batch:
    """One binary frame. `entries` has the fields symbol_id, price, volume."""

    entries: Entries
    recv_ns: int
    """Wall clock when the frame was handed over by the socket, ns since 1970."""


@dataclass(frozen=True, slots=True)
class Control:
    """A text message of the engine, or the feed's own `{"type":"disconnected","reason":...}`."""

    message: dict[str, Any]

    @property
    def type(self) -> str:
        """`subscribed`, `error`, `enigma`, `disconnected`, ..."""
        return str(self.message.get("type", ""))


Event = Batch | Control


def feed_url(url: str, token: str | None = None) -> str:
    """The feed's address for an engine given as http(s):// or ws(s)://, with or without a path."""
    parts = urlsplit(url if "//" in url else f"//{url}")
    scheme = {"http": "ws", "https": "wss", "": "ws", "ws": "ws", "wss": "wss"}.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise FeedError(f"{url} is no address of an engine; write http://HOST:PORT")
    path = parts.path if parts.path not in ("", "/") else FEED_PATH
    query = urlencode({"token": token}) if token else parts.query
    return f"{scheme}://{parts.netloc}{path}" + (f"?{query}" if query else "")


def connect(
    url: str,
    symbols: Iterable[str] = ("*",),
    *,
    channels: Iterable[str] = ("trades",),
    reconnect: bool = True,
    token: str | None = None,
) -> "Feed":
    """A feed of `symbols` ("*" = all) to be used with `async with`. Entering it raises FeedError when the
    engine does not answer; later breaks are mended as long as `reconnect` is true."""
    return Feed(feed_url(url, token), tuple(symbols), tuple(channels), reconnect)


class Feed:
    """Iterate over it for everything, over `batches()` for market data alone."""

    def __init__(
        self, url: str, symbols: tuple[str, ...], channels: tuple[str, ...], reconnect: bool
    ) -> None:
        self.url = url
        self.symbols: dict[int, FeedSymbol] = {}
        """Symbols of the `subscribed` answers by wire id."""
        self.reconnects = 0
        self._request = orjson.dumps({"type": "subscribe", "symbols": symbols, "channels": channels})
        self._reconnect = reconnect
        self._line: _Line | None = None
        self._closed = False

    async def __aenter__(self) -> "Feed":
        self._line = await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; a running iteration ends."""
        self._closed = True
        line, self._line = self._line, None
        if line is not None:
            await line.close()

    def symbol(self, symbol_id: int) -> FeedSymbol:
        """The symbol with this wire id; one listed after a "*" subscription is named by its id, `#17`."""
        return self.symbols.get(symbol_id) or FeedSymbol(symbol_id, f"#{symbol_id}", 8, 8)

    @property
    def waiting(self) -> int:
        """Frames that have arrived and were not read yet."""
        return self._line.waiting if self._line is not None else 0

    def send(self, message: dict[str, Any]) -> None:
        """Send a control message on the present connection. FeedError when there is none."""
        if self._line is None:
            raise FeedError("the feed is not connected")
        self._line.transport.send(WSMsgType.TEXT, orjson.dumps(message))

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """Market data only."""
        async for event in self:
            if isinstance(event, Batch):
                yield event

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        while not self._closed and self._line is not None:
            held = await self._line.next()
            if held is None:
                if self._closed:
                    return
                yield Control({"type": "disconnected", "reason": self._line.reason})
                if not self._reconnect or self._closed:
                    return
                await self._mend()
                continue
            yield self._decode(*held)

    def _decode(self, kind: WSMsgType, payload: bytes, recv_ns: int) -> Event:
        if kind == WSMsgType.BINARY:
            return Batch(decode_v1(payload), recv_ns)
        try:
            message = orjson.loads(payload)
        except orjson.JSONDecodeError as error:
            raise DecodeError(f"the engine sent text that is no JSON: {error}") from None
        if not isinstance(message, dict):
            raise DecodeError("the engine sent JSON that is no object")
        if message.get("type") == "subscribed":
            for name, described in message["symbols"].items():
                self.symbols[described["id"]] = FeedSymbol(symbol=name, **described)
        return Control(message)

    async def _open(self) -> "_Line":
        try:
            transport, line = await ws_connect(
                _Line,
                self.url,
                websocket_handshake_timeout=CONNECT_TIMEOUT_S,
                enable_auto_ping=True,
                auto_ping_idle_timeout=IDLE_PING_S,
                auto_ping_reply_timeout=IDLE_PING_S,
                extra_headers={"Sec-WebSocket-Protocol": PROTOCOL_V1},
            )
        except (OSError, WSError, TimeoutError) as error:
            raise FeedError(f"no engine answers at {self.url}: {error}") from error
        assert isinstance(line, _Line)
        transport.send(WSMsgType.TEXT, self._request)
        return line

    async def _mend(self) -> None:
        """Connect again: soon at first, then ever more seldom, with jitter. Ends when closed meanwhile."""
        delay_s = BACKOFF_FIRST_S
        while not self._closed:
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))
            try:
                line = await self._open()
            except FeedError:
                delay_s = min(delay_s * 2, BACKOFF_MAX_S)
                continue
            if self._closed:
                await line.close()
                return
            self._line = line
            self.reconnects += 1
            return


class _Line(WSListener):
    """One connection: its callbacks only copy, so that nothing can fail inside them."""

    transport: WSTransport

    def __init__(self) -> None:
        super().__init__()
        self.reason = ""
        self._waiting: deque[tuple[WSMsgType, bytes, int]] = deque()
        self._arrived = asyncio.Event()
        self._paused = False
        self._over = False
        self._parts: list[bytes] = []
        self._parts_kind = WSMsgType.BINARY

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        recv_ns = time.time_ns()
        kind = frame.msg_type
        if kind in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION):
            self._take(kind, frame.get_payload_as_bytes(), bool(frame.fin), recv_ns)
        elif kind == WSMsgType.CLOSE:
            words = (frame.get_close_message() or b"").decode("utf-8", "replace")
            self.reason = f"closed by the engine: {frame.get_close_code()} {words}".rstrip()
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()

    def _take(self, kind: WSMsgType, payload: bytes, final: bool, recv_ns: int) -> None:
        if kind != WSMsgType.CONTINUATION:
            self._parts_kind = kind
        if not final or self._parts:
            self._parts.append(payload)
            if not final:
                return
            payload = b"".join(self._parts)
            self._parts.clear()
        self._waiting.append((self._parts_kind, payload, recv_ns))
        self._arrived.set()
        if len(self._waiting) >= WAITING_FRAMES_MAX and not self._paused:
            self._paused = True
            self.transport.underlying_transport.pause_reading()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._over = True
        self.reason = self.reason or "the connection broke"
        self._arrived.set()

    @property
    def waiting(self) -> int:
        """Messages not read yet."""
        return len(self._waiting)

    async def next(self) -> tuple[WSMsgType, bytes, int] | None:
        """The next message with its arrival; None when the connection is over and all is read."""
        while not self._waiting:
            if self._over:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        held = self._waiting.popleft()
        if self._paused and len(self._waiting) < WAITING_FRAMES_MAX // 2:
            self._paused = False
            if not self._over:
                self.transport.underlying_transport.resume_reading()
        return held

    async def close(self) -> None:
        """Say goodbye and wait until the socket is closed."""
        if not self._over:
            self.transport.send_close(WSCloseCode.OK)
            self.transport.disconnect()
            await self.transport.wait_disconnected()
