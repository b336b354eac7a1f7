"""The feed as an asynchronous iterator: connects, subscribes, decodes, connects again when the line breaks.

What has arrived waits in a bounded queue. When the program does not keep up the socket is no longer read,
so that the engine sees a slow reader; nothing piles up here.
"""

import asyncio
import importlib.util
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from picows import WSError, WSInvalidStatusError, WSMsgType, ws_connect

from tradeback.client.batch import Batch, BatchV1, Control, Event, FeedSymbol, Gap, Lost, Position
from tradeback.client.line import Line
from tradeback.client.session import Session
from tradeback.client.wants import Wants
from tradeback.model.errors import DecodeError, TradebackError
from tradeback.wire.control import EPOCH_MAX, SEQUENCE_MAX

_log = logging.getLogger("tradeback.client")
FEED_PATH = "/api/v1/ws"
PROTOCOLS: Final = {None: "tradeback.v2, tradeback.v1", 2: "tradeback.v2", 1: "tradeback.v1"}
CHANNELS_V2: Final = ("trades", "quotes", "gaps", "enigma")
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 10.0
CONNECT_TIMEOUT_S = 10.0
SILENCE_MAX_S = 10.0
"""Silence after which a connection counts as broken: ten heartbeats of the engine. At half of it the engine
is pinged, for one whose clients want nothing of the tape sends no heartbeats."""


class FeedError(TradebackError):
    """The engine cannot be reached, or it speaks something else."""


class FeedRefused(FeedError):
    """The engine answers, and does not let this client in. `status`: HTTP's; 401: a session is needed."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def feed_url(url: str) -> str:
    """The feed's address for an engine given as http(s):// or ws(s)://, with or without a path."""
    parts = urlsplit(url if "//" in url else f"//{url}")
    scheme = {"http": "ws", "https": "wss", "": "ws", "ws": "ws", "wss": "wss"}.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise FeedError(f"{url} is no address of an engine; write http://HOST:PORT")
    path = parts.path if parts.path not in ("", "/") else FEED_PATH
    return f"{scheme}://{parts.netloc}{path}" + (f"?{parts.query}" if parts.query else "")


def connect(
    url: str,
    symbols: Iterable[str] = ("*",),
    *,
    channels: Iterable[str] = ("trades",),
    reconnect: bool = True,
    token: str | None = None,
    version: int | None = None,
    resume: tuple[int, int] | None = None,
    on_gap: Callable[[Gap], None] | None = None,
    on_lost: Callable[[Lost], None] | None = None,
    silence_max_s: float = SILENCE_MAX_S,
) -> "Feed":
    """A feed of `symbols` ("*" = all) to be used with `async with`.

        async with connect("http://127.0.0.1:8080", ["BTCUSDT"], channels=("trades", "quotes")) as feed:
            async for batch in feed:
                print(batch.prices(), batch.latency)
                store(feed.position)   # and go on after a restart: connect(..., resume=stored)

    `channels`: trades, quotes, gaps, enigma. `version`: 1 or 2 insist on one; None takes 2 where the engine
    has it. `resume`: a `position` from before, to get everything since then. `on_gap` is called for every
    change in the life of a gap (with channel gaps), `on_lost` when a resume was refused; both from
    within the iteration, before the batch or event is handed out. `token`: a session's; it travels in a
    header and stands in no address, log or error.

    Entering it raises FeedError when the engine does not answer (FeedRefused when it lets nobody in); later
    breaks are mended as long as `reconnect` is true, and with version 2 nothing is missing or double
    afterwards. A message that cannot be read is such a break, too: logged, counted in `damaged`, and asked
    for again. With `reconnect` false it raises DecodeError.
    """
    if version not in PROTOCOLS:
        raise FeedError(f"there is no version {version} of the feed; use 1, 2, or None")
    if resume is not None and not (1 <= resume[0] <= EPOCH_MAX and 1 <= resume[1] <= SEQUENCE_MAX):
        raise FeedError(f"{tuple(resume)} is no position: give one that `Feed.position` has had, or None")
    wants = Wants()
    wants.add(symbols, channels)
    session = Session(wants, Position(*resume) if resume is not None else None)
    headers = {"Sec-WebSocket-Protocol": PROTOCOLS[version]}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    feed = Feed(feed_url(url), session, headers, reconnect, silence_max_s)
    feed.on_gap, feed.on_lost = on_gap, on_lost
    return feed


class Feed:
    """Iterate over it for market data, over `events()` for all that happens; one iteration at a time."""

    on_gap: Callable[[Gap], None] | None = None
    on_lost: Callable[[Lost], None] | None = None

    def __init__(
        self, url: str, session: Session, headers: dict[str, str], reconnect: bool, silence_max_s: float
    ) -> None:
        """Use `connect`."""
        self.url = url
        self.reconnects = 0
        self.damaged = 0
        """Messages that could not be read; each cost a connection, and nothing of the data."""
        self._session = session
        self._headers = headers
        self._reconnect = reconnect
        self._silence_max_s = silence_max_s
        self._delay_s = BACKOFF_FIRST_S
        self._line: Line | None = None
        self._closed = False
        self._accelerating: asyncio.Future[bool] | None = None
        self._may_accelerate = importlib.util.find_spec("numba") is not None

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

    @property
    def version(self) -> int:
        """Version of the feed that the engine speaks on this connection."""
        return self._session.version

    @property
    def position(self) -> Position | None:
        """Everything before it has been handed out: store it once you have used the batch at hand, and
        give it to `connect(..., resume=...)`. None with version 1, and before the first answer."""
        return self._session.position

    @property
    def symbols(self) -> dict[int, FeedSymbol]:
        """Symbols of the `subscribed` answers by wire id."""
        return self._session.symbols

    def symbol(self, symbol_id: int) -> FeedSymbol:
        """The symbol with this wire id; one listed after a "*" subscription of version 1 is named `#17`."""
        return self.symbols.get(symbol_id) or FeedSymbol(symbol_id, f"#{symbol_id}", 8, 8)

    @property
    def waiting(self) -> int:
        """Frames that have arrived and were not read yet."""
        return self._line.waiting if self._line is not None else 0

    def send(self, message: dict[str, Any]) -> None:
        """Send a control message on the present connection. FeedError when there is none."""
        if self._line is None or self._line.over:
            raise FeedError(f"the feed is not connected to {self.url}; it connects again by itself")
        self._line.send(orjson.dumps(message))

    def subscribe(self, symbols: Iterable[str], channels: Iterable[str] = ("trades",)) -> None:
        """Want these, too: first a snapshot of them, then live data. Also after every reconnect."""
        self._ask("subscribe", list(symbols), list(channels))

    def unsubscribe(self, symbols: Iterable[str], channels: Iterable[str] = CHANNELS_V2) -> None:
        """Want these no more. What is on the way still arrives."""
        self._ask("unsubscribe", list(symbols), list(channels))

    def _ask(self, kind: str, symbols: list[str], channels: list[str]) -> None:
        wants = self._session.wants
        if kind == "subscribe":
            wants.add(symbols, channels)
        else:
            wants.remove(symbols, channels, [symbol.symbol for symbol in self.symbols.values()])
        if self._line is not None:
            self._line.send(orjson.dumps({"type": kind, "symbols": symbols, "channels": channels}))

    async def __aiter__(self) -> AsyncGenerator[Batch, None]:
        async for event in self.events():
            if isinstance(event, Batch):
                yield event
            elif isinstance(event, BatchV1):
                raise FeedError(
                    f"{self.url} speaks version 1 of the feed only: iterate over `batches()` or `events()`"
                )

    async def batches(self) -> AsyncGenerator[Batch | BatchV1, None]:
        """Market data of either version; both have `entries` (symbol_id, price, volume) and `recv_ns`."""
        async for event in self.events():
            if isinstance(event, Batch | BatchV1):
                yield event

    async def events(self) -> AsyncIterator[Event]:
        """Everything: batches, the engine's text messages and breaks (Control), refused resumes (Lost)."""
        while not self._closed and self._line is not None:
            line = self._line
            held = await line.next()
            if held is None:
                if self._closed:
                    return
                yield Control({"type": "disconnected", "reason": line.reason})
                if not self._reconnect or self._closed:
                    return
                await self._mend()
                continue
            for event in self._understood(line, *held):
                self._note(event)
                yield event

    def _understood(self, line: Line, kind: WSMsgType, payload: bytes, recv_ns: int) -> Iterator[Event]:
        """What one message says. One that cannot be read costs its connection; the next resumes before it.

        Raises DecodeError for it when there is to be no next one.
        """
        session = self._session
        try:
            if kind == WSMsgType.BINARY:
                yield from session.binary(payload, recv_ns, line.send)
            else:
                yield from session.text(payload, line.send)
        except DecodeError as error:
            self.damaged += 1
            line.give_up(f"what came cannot be read: {error}")
            if not self._reconnect:
                raise
            _log.warning("%s: %s; connecting again", self.url.partition("?")[0], line.reason)

    def _note(self, event: Event) -> None:
        """Callbacks, and what a healthy connection allows."""
        if isinstance(event, Batch):
            self._delay_s = BACKOFF_FIRST_S
            if self.on_gap is not None and len(event.gaps):
                for gap in event.gap_events(self.symbols):
                    self.on_gap(gap)
            if self._may_accelerate and self._session.is_busy:
                self._may_accelerate = False
                work = asyncio.to_thread(self._session.decoder.accelerate)
                self._accelerating = asyncio.ensure_future(work)
        elif isinstance(event, BatchV1):
            self._delay_s = BACKOFF_FIRST_S
        elif isinstance(event, Lost) and self.on_lost is not None:
            self.on_lost(event)

    async def _open(self) -> Line:
        try:
            transport, line = await ws_connect(
                lambda: Line(self._silence_max_s),
                self.url,
                websocket_handshake_timeout=CONNECT_TIMEOUT_S,
                extra_headers=self._headers,
            )
        except WSInvalidStatusError as error:
            status = int(error.response.status) if error.response is not None else 0
            raise FeedRefused(f"{self.url} refuses the connection: {_words(error)}", status) from error
        except (OSError, WSError, TimeoutError) as error:
            raise FeedError(f"no engine answers at {self.url}: {error}") from error
        if not isinstance(line, Line):
            raise FeedError(f"no engine answers at {self.url}: the connection broke during the handshake")
        for request in self._session.begin(line.version):
            transport.send(WSMsgType.TEXT, request)
        return line

    async def _mend(self) -> None:
        """Connect again: soon at first, then ever more seldom, with jitter. Ends when closed meanwhile."""
        while not self._closed:
            await asyncio.sleep(self._delay_s * random.uniform(0.5, 1.0))
            self._delay_s = min(self._delay_s * 2, BACKOFF_MAX_S)
            try:
                line = await self._open()
            except FeedError:
                continue
            if self._closed:
                await line.close()
                return
            self._line = line
            self.reconnects += 1
            return


def _words(error: WSInvalidStatusError) -> str:
    """Why, in the engine's words where it has said it in its form of errors."""
    try:
        return str(orjson.loads(error.raw_body or b"")["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return str(error)
