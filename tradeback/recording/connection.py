"""One connection to the exchange whose frames are recorded as they come: nothing is decoded.

Back-off, limits and subscription are those of the engine's lines; numba is not needed. The receive time is
taken when picows hands over the first frame of a socket read, and is that of all frames of the read.
"""

import asyncio
import random
from functools import partial
from typing import Any

import orjson
import picows

from tradeback.exchange.backoff import Backoff
from tradeback.exchange.budget import Budget
from tradeback.exchange.fragments import Fragments
from tradeback.exchange.requests import Requests, is_answer
from tradeback.exchange.rest import retry_after_s
from tradeback.exchange.streams import LinePlan, stream_address, stream_name
from tradeback.model.clock import Clock
from tradeback.model.config import ExchangeConfig
from tradeback.model.errors import ExchangeError
from tradeback.model.limits import READ_BUFFER_BYTES, READ_BUFFER_BYTES_MAX
from tradeback.ops.log import Log, RepeatLimiter
from tradeback.recording.format import CONNECTED, LOST
from tradeback.recording.writer import Track

_FINAL = 0x80
_CLOSED = "the exchange closed the connection"
_EVENT = b'{"stream"'
"""How every market-data message of a combined stream begins; anything else may be an answer to us."""


class _Listener(picows.WSListener):
    """picows' callbacks of one attempt."""

    def __init__(self, connection: "Connection", track: Track, clock: Clock) -> None:
        self.connection: Connection | None = connection
        """None once the connection has given this attempt up."""
        self.closed = asyncio.Event()
        self._take, self._wall_ns = track.take, clock.wall_ns
        self._stamp = b""
        self._first_of_read = True
        self._text = picows.WSMsgType.TEXT
        self.heard = 0

    def on_ws_connected(self, transport: Any) -> None:
        if self.connection is None:
            transport.disconnect(graceful=False)
        else:
            self.connection.on_connected(transport)

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        """The hot path: one stamp per read, then the payload as it is."""
        if self._first_of_read:
            self._stamp = b"%d " % self._wall_ns()
        self._first_of_read = frame.last_in_buffer
        self.heard += 1
        payload = frame.get_payload_as_bytes()
        if payload[:9] == _EVENT and frame.fin and frame.msg_type is self._text:
            self._take(self._stamp, payload)
        elif self.connection is not None:
            opcode = frame.msg_type.value | (_FINAL if frame.fin else 0)
            self.connection.on_other(opcode, payload, self._stamp)

    def on_ws_disconnected(self, transport: Any) -> None:
        self.closed.set()


class Connection:
    """See the module. `run` is its life; it ends only by cancellation."""

    def __init__(
        self,
        plan: LinePlan,
        config: ExchangeConfig,
        clock: Clock,
        track: Track,
        attempts: Budget,
        log: Log,
        limiter: RepeatLimiter,
    ) -> None:
        self.plan = plan
        self.up = False
        self.was_up = asyncio.Event()
        self.reconnects = 0
        self.last_error: str | None = None
        self._config, self._clock, self._track, self._attempts = config, clock, track, attempts
        self._log, self._limiter = log.bind(line=plan.name), limiter
        self._backoff = Backoff(config.backoff_first_s, config.backoff_max_s)
        self._transport: Any = None
        self._listener: _Listener | None = None
        self._requests: Requests | None = None
        self._fragments = Fragments()
        self._ended: str | None = None

    async def run(self) -> None:
        """Keep the connection up and record it. Ends by cancellation."""
        failures = 0
        while True:
            await self._wait_for_attempt()
            up_ns: int | None = None
            try:
                await self._connect()
                await self._subscribe()
                up_ns = self._clock.steady_ns()
                self._become_up()
                await self._watch()
            except (OSError, TimeoutError, picows.WSError, ExchangeError) as error:
                self.last_error = self._ended or _words(error)
                self._obey_limit(error)
            else:
                self.last_error = self._ended or _CLOSED
            finally:
                self._disconnect()
            stable_ns = int(self._config.backoff_max_s * 1e9)
            lasted = up_ns is not None and self._clock.steady_ns() - up_ns >= stable_ns
            failures = 1 if lasted else failures + 1
            self.reconnects += 1
            delay_s = self._backoff.delay_s(failures, random.random())
            self._say("line lost", error=self.last_error, again_in_s=round(delay_s, 2), failures=failures)
            await asyncio.sleep(delay_s)

    async def _wait_for_attempt(self) -> None:
        wait_s = self._attempts.take(self._clock.steady_ns())
        while wait_s:
            await asyncio.sleep(wait_s)
            wait_s = self._attempts.blocked_s(self._clock.steady_ns())

    def _obey_limit(self, error: BaseException) -> None:
        """A refused handshake that says Retry-After holds all connections back."""
        response = getattr(error, "response", None)
        if response is not None and int(response.status) in (418, 429):
            seconds = retry_after_s(response.headers.get("Retry-After"), 0.0)
            self._attempts.block(self._clock.steady_ns(), seconds)

    async def _connect(self) -> None:
        self._ended = None
        self._fragments = Fragments()
        timeout_s = self._config.connect_timeout_s
        listener = _Listener(self, self._track, self._clock)
        try:
            async with asyncio.timeout(timeout_s):
                await picows.ws_connect(
                    lambda: listener,
                    stream_address(self._config.ws_endpoint),
                    enable_auto_ping=False,
                    enable_auto_pong=False,
                    websocket_handshake_timeout=timeout_s,
                    read_buffer_init_size=READ_BUFFER_BYTES,
                    max_frame_size=READ_BUFFER_BYTES_MAX,
                    extra_headers={"User-Agent": "tradeback"},
                )
        except BaseException:
            listener.connection = None
            raise
        if self._transport is None:
            raise ExchangeError("the exchange closed the connection during the handshake")
        self._listener = listener

    def on_connected(self, transport: Any) -> None:
        """Right after the handshake."""
        self._transport = transport
        self._requests = Requests(partial(transport.send, picows.WSMsgType.TEXT), self._clock)

    async def _subscribe(self) -> None:
        assert self._requests is not None
        names = [stream_name(symbol, self.plan.stream) for symbol in self.plan.symbols]
        # Before the request: the first frames may come together with the answer.
        self._track.mark(self._clock.wall_ns(), CONNECTED, streams=len(names))
        await self._requests.subscribe(names, lambda: (False, 0))

    async def _watch(self) -> None:
        """Until the connection ends; ExchangeError when it goes silent."""
        listener = self._listener
        assert listener is not None
        idle_s = self._config.idle_timeout_s
        heard_ns, seen = self._clock.steady_ns(), 0
        while True:
            try:
                async with asyncio.timeout(idle_s / 4):
                    await listener.closed.wait()
                return
            except TimeoutError:
                now_ns = self._clock.steady_ns()
                if listener.heard != seen:
                    heard_ns, seen = now_ns, listener.heard
                elif now_ns - heard_ns >= idle_s * 1e9:
                    raise ExchangeError(f"silent for {idle_s:g} s") from None

    def _disconnect(self) -> None:
        reason = self._ended or self.last_error or _CLOSED
        if self._requests is not None:
            self._requests.end(reason)
        if self._listener is not None:
            self._listener.connection = None
        if self._transport is not None:
            self._transport.underlying_transport.abort()
            self._track.mark(self._clock.wall_ns(), LOST, reason=reason)
        self._transport = self._requests = self._listener = None
        self.up = False

    # Everything but whole market-data messages.

    def on_other(self, opcode: int, payload: bytes, stamp: bytes) -> None:
        """A control frame, a fragment, an answer to a request, or a message of an odd shape."""
        kind = opcode & 0x0F
        if kind == picows.WSMsgType.PING.value:
            self._transport.send_pong(payload)
        elif kind == picows.WSMsgType.CLOSE.value:
            code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005
            self._ended = f"the exchange closed: {code} {payload[2:].decode(errors='replace')}".rstrip()
            if self._requests is not None:
                self._requests.end(self._ended)
            self._transport.underlying_transport.abort()
        elif opcode == _FINAL | picows.WSMsgType.TEXT.value:
            self._on_text(payload, stamp)
        elif kind in (picows.WSMsgType.TEXT.value, picows.WSMsgType.CONTINUATION.value):
            self._on_fragment(opcode, payload, stamp)
        elif kind == picows.WSMsgType.BINARY.value:
            self._track.odd(int(stamp), opcode, payload)

    def _on_fragment(self, opcode: int, payload: bytes, stamp: bytes) -> None:
        try:
            whole = self._fragments.add(opcode, payload)
        except ValueError:
            self._track.odd(int(stamp), opcode, payload)
            return
        if self._fragments.too_long:
            self._ended = "a message in fragments grew too long"
            self._transport.underlying_transport.abort()
        elif whole is not None:
            self._on_text(whole, stamp)

    def _on_text(self, payload: bytes, stamp: bytes) -> None:
        """Recorded like any other; if it is an answer, whoever waits for it is told."""
        self._track.take(stamp, payload)
        if payload[:9] == _EVENT:
            return
        try:
            message = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return
        if isinstance(message, dict) and is_answer(message) and self._requests is not None:
            wrong = self._requests.on_answer(message)
            if wrong is not None:
                self.last_error = wrong
                self._say("request refused", error=wrong)

    def _become_up(self) -> None:
        self.up = True
        self.last_error = None
        self.was_up.set()
        self._log.info("line up", streams=len(self.plan.symbols))

    def _say(self, event: str, **fields: Any) -> None:
        held = self._limiter.allow(f"{self.plan.name} {event}", self._clock.steady_ns())
        if held is not None:
            self._log.warning(event, **fields, **({"suppressed": held} if held else {}))


def _words(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return "timed out" if isinstance(error, TimeoutError) and not str(error) else text
