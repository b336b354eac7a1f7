"""One connection to the exchange: connect, subscribe, read, and again, for ever.

Losing it costs a back-off with jitter; the pool's budget keeps all lines together below the exchange's
limit of connection attempts. A connection that is silent (no byte, not even the exchange's pings) for
`exchange.idle_timeout` is replaced.
"""

import asyncio
import random
from functools import partial
from typing import Any

import picows

from tradeback.exchange import fallback
from tradeback.exchange.backoff import Backoff
from tradeback.exchange.budget import Budget
from tradeback.exchange.fragments import Fragments
from tradeback.exchange.intake import Intake
from tradeback.exchange.line_counts import LineCounts
from tradeback.exchange.requests import Requests, is_answer
from tradeback.exchange.rest import retry_after_s
from tradeback.exchange.socket_reader import SocketReader
from tradeback.exchange.streams import LinePlan, stream_address, stream_name
from tradeback.ingest.context import ALL_TO_SIDE
from tradeback.model.clock import Clock
from tradeback.model.config import ExchangeConfig
from tradeback.model.errors import DecodeError, ExchangeError, TapeError
from tradeback.model.record import LINE_SHIFT, Rows
from tradeback.model.symbols import SymbolTable
from tradeback.ops.health import ComponentHealth, State
from tradeback.ops.log import Log, RepeatLimiter

_TEXT, _CONTINUATION, _CLOSE, _PING = 0x01, 0x00, 0x08, 0x09
_FINAL = 0x80
_CONTROL = 0x08
_CLOSED = "the exchange closed the connection"
CONTROL_PAYLOAD_MAX = 125
SAMPLE_BYTES = 300
"""How much of a refused frame goes to the log."""


class _Handshake(picows.WSListener):
    """picows' listener until the reader takes over: swaps the protocol before anything was read."""

    def __init__(self, line: "Line") -> None:
        self.line: Line | None = line
        """None once the line has given this attempt up."""

    def on_ws_connected(self, transport: Any) -> None:
        if self.line is None:
            transport.disconnect(graceful=False)
        else:
            self.line.take_over(transport)

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        """A frame that came in one piece with the handshake's answer: the reader does not see it."""
        if self.line is not None:
            opcode = int(frame.msg_type) | (_FINAL if frame.fin else 0)
            self.line.on_early_frame(opcode, frame.get_payload_as_bytes())


class Line:
    """See the module. `run` is the line's life; it ends only by cancellation."""

    def __init__(
        self,
        plan: LinePlan,
        config: ExchangeConfig,
        clock: Clock,
        intake: Intake,
        symbols: SymbolTable,
        attempts: Budget,
        log: Log,
        limiter: RepeatLimiter,
    ) -> None:
        self.plan = plan
        self.name = f"line:{plan.name}"
        self.counts = LineCounts()
        self._config, self._clock, self._intake, self._symbols = config, clock, intake, symbols
        self._attempts = attempts
        self._log, self._limiter = log.bind(line=plan.name), limiter
        self._backoff = Backoff(config.backoff_first_s, config.backoff_max_s)
        self._state: State = "starting"
        self._since_ns = clock.wall_ns()
        self.last_error: str | None = None
        self._transport: Any = None
        self._reader: SocketReader | None = None
        self._requests: Requests | None = None
        self._ended: str | None = None
        """Why this connection has ended, as far as it is known."""
        self.was_up = asyncio.Event()
        """Set when the line is subscribed for the first time."""
        self._fragments = Fragments()
        intake.on_stall.append(self._on_stall)

    async def run(self) -> None:
        """Keep the connection up. Ends by cancellation."""
        failures = 0
        while True:
            await self._intake.flowing()
            await self._wait_for_attempt()
            up_ns: int | None = None
            try:
                await self._connect()
                await self._subscribe()
                up_ns = self._clock.steady_ns()
                self._become("ok")
                await self._watch()
            except (OSError, TimeoutError, picows.WSError, ExchangeError) as error:
                self.last_error = _words(error)
                self._obey_limit(error)
            else:
                self.last_error = self._ended or _CLOSED
            finally:
                self._disconnect()
            # One that is cut again and again right after it came up is no success.
            stable_ns = int(self._config.backoff_max_s * 1e9)
            lasted = up_ns is not None and self._clock.steady_ns() - up_ns >= stable_ns
            failures = 1 if lasted else failures + 1
            self.counts.reconnects += 1
            self._become("down")
            delay_s = self._backoff.delay_s(failures, random.random())
            self._say("line lost", error=self.last_error, again_in_s=round(delay_s, 2), failures=failures)
            await asyncio.sleep(delay_s)

    # Connecting.

    async def _wait_for_attempt(self) -> None:
        """Until the exchange's limit of connection attempts allows one more."""
        wait_s = self._attempts.take(self._clock.steady_ns())
        while wait_s:
            # Another line's handshake may have been refused while this one waited.
            await asyncio.sleep(wait_s)
            wait_s = self._attempts.blocked_s(self._clock.steady_ns())

    def _obey_limit(self, error: BaseException) -> None:
        """A refused handshake that says Retry-After holds all lines back."""
        response = getattr(error, "response", None)
        if response is not None and int(response.status) in (418, 429):
            seconds = retry_after_s(response.headers.get("Retry-After"), 0.0)
            self._attempts.block(self._clock.steady_ns(), seconds)

    async def _connect(self) -> None:
        self._ended = None
        self._fragments = Fragments()
        timeout_s = self._config.connect_timeout_s
        handshake = _Handshake(self)
        try:
            async with asyncio.timeout(timeout_s):
                await picows.ws_connect(
                    lambda: handshake,
                    stream_address(self._config.ws_endpoint),
                    enable_auto_ping=False,
                    enable_auto_pong=False,
                    websocket_handshake_timeout=timeout_s,
                    read_buffer_init_size=2048,
                    extra_headers={"User-Agent": "tradeback"},
                )
        except BaseException:
            handshake.line = None
            raise
        if self._reader is None:
            # picows reports a connection that ends during the handshake as a success.
            raise ExchangeError("the exchange closed the connection during the handshake")

    def take_over(self, transport: Any) -> None:
        """Right after the handshake: from here on the socket is read by kernels."""
        self._transport = transport
        under = transport.underlying_transport
        self._requests = Requests(partial(transport.send, picows.WSMsgType.TEXT), self._clock)
        self._reader = SocketReader(self._intake, self._clock, self.plan.line, under, self)
        under.set_protocol(self._reader)

    async def _subscribe(self) -> None:
        assert self._requests is not None
        names = [stream_name(symbol, self.plan.stream) for symbol in self.plan.symbols]
        intake = self._intake
        await self._requests.subscribe(names, lambda: (intake.stalled is not None, intake.stalls))

    async def _watch(self) -> None:
        """Until the connection ends; ExchangeError when it goes silent."""
        reader, intake = self._reader, self._intake
        assert reader is not None
        idle_s = self._config.idle_timeout_s
        heard_ns, seen = self._clock.steady_ns(), (0, 0)
        while True:
            try:
                async with asyncio.timeout(idle_s / 4):
                    await reader.closed.wait()
                return
            except TimeoutError:
                now_ns = self._clock.steady_ns()
                heard = (reader.bytes_read, intake.stalls)
                # While the tape refuses nobody listens, so silence says nothing.
                if heard != seen or intake.stalled is not None:
                    heard_ns, seen = now_ns, heard
                elif now_ns - heard_ns >= idle_s * 1e9:
                    raise ExchangeError(f"silent for {idle_s:g} s") from None

    def _disconnect(self) -> None:
        if self._requests is not None:
            self._requests.end(self._ended or _CLOSED)
        if self._reader is not None:
            self._reader.detach()
            self.counts.keep(self._reader.reads, self._reader.bytes_read)
        if self._transport is not None:
            self._transport.underlying_transport.abort()
        self._transport = self._reader = self._requests = None

    # What the reader tells.

    def on_side_frame(self, opcode: int, payload: bytes, status: int, recv_ns: int) -> None:
        """A frame that is not the kernel's: control, fragment, answer, or an odd event."""
        kind = opcode & 0x0F
        if kind & _CONTROL and (len(payload) > CONTROL_PAYLOAD_MAX or not opcode & _FINAL):
            self.on_broken(1002, "a control frame that is long or in fragments")
        elif kind == _PING:
            self.counts.pings += 1
            self._transport.send_pong(payload)
        elif kind == _CLOSE:
            code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005
            words = payload[2:].decode(errors="replace")
            self._ended = f"the exchange closed: {code} {words}".rstrip()
            self._transport.underlying_transport.abort()
        elif kind == _TEXT and opcode & _FINAL:
            self._on_text(payload, recv_ns)
        elif kind in (_TEXT, _CONTINUATION):
            self._on_fragment(opcode, payload, recv_ns)
        else:
            self.counts.odd_frames += 1

    def on_early_frame(self, opcode: int, payload: bytes) -> None:
        """A frame that came together with the handshake."""
        if self._transport is not None:
            self.on_side_frame(opcode, payload, 0, self._clock.wall_ns())

    def on_broken(self, close_code: int, reason: str) -> None:
        """Nothing behind this byte can be trusted: the connection is replaced."""
        self.counts.broken += 1
        self._ended = f"{reason} ({close_code})"
        self._transport.send_close(picows.WSCloseCode(close_code))
        self._transport.underlying_transport.abort()

    def on_shadow(self, payload: bytes, row: Rows) -> None:
        """Compare the kernel's record with the slow path's; trust is lost at the first difference."""
        self.counts.shadow_checked += 1
        try:
            slow, _ = fallback.decode_event(fallback.event_of(fallback.parse(payload)), self._symbols)
        except DecodeError as error:
            self._distrust(payload, str(error))
            return
        if not fallback.same(row, slow):
            self._distrust(payload, "the records differ")

    def on_closed(self, error: Exception | None) -> None:
        """The connection has ended."""
        if self._ended is None:
            self._ended = _words(error) if error is not None else _CLOSED
        if self._requests is not None:
            self._requests.end(self._ended)

    def _distrust(self, payload: bytes, reason: str) -> None:
        self.counts.shadow_differs += 1
        self._intake.view[ALL_TO_SIDE] = 1
        self._log.error(
            "kernel and slow path disagree; decoding goes on by the slow path",
            reason=reason,
            frame=payload[:SAMPLE_BYTES].decode(errors="replace"),
        )

    def _on_fragment(self, opcode: int, payload: bytes, recv_ns: int) -> None:
        try:
            whole = self._fragments.add(opcode, payload)
        except ValueError:
            self.counts.odd_frames += 1
            return
        if self._fragments.too_long:
            self.on_broken(1009, "a message in fragments grew too long")
        elif whole is not None:
            self._on_text(whole, recv_ns)

    def _on_text(self, payload: bytes, recv_ns: int) -> None:
        try:
            message = fallback.parse(payload)
            if is_answer(message):
                self._on_answer(message)
                return
            event = fallback.event_of(message)
            if event.get("e") == "serverShutdown":
                self.counts.shutdowns += 1
                self._say("the exchange announces its shutdown")
                return
            self.counts.fallbacks += 1
            rows, event_us = fallback.decode_event(event, self._symbols)
        except DecodeError as error:
            self.counts.malformed += 1
            sample = payload[:SAMPLE_BYTES].decode(errors="replace")
            self._say("frame dropped", reason=str(error), frame=sample)
            return
        rows["recv_ns"] = recv_ns
        rows["flags"] |= self.plan.line << LINE_SHIFT
        try:
            self._intake.admit(rows)
        except TapeError:
            # The read loop stops as soon as the tape refuses, so a frame can only come here together
            # with the refusal; replacing the connection makes the exchange's other line or REST fill it.
            self.on_broken(1011, "the tape refused a record")
            return
        if event_us:
            self._intake.note_event(event_us, recv_ns)

    def _on_answer(self, message: dict[str, Any]) -> None:
        wrong = self._requests.on_answer(message) if self._requests is not None else None
        if wrong is not None:
            self.last_error = wrong
            self._say("request refused", error=wrong)

    def _on_stall(self, stalled: bool) -> None:
        """The tape refuses or takes records: reading stops or goes on, the exchange queues meanwhile."""
        if self._reader is None:
            return
        if stalled:
            self._transport.underlying_transport.pause_reading()
        else:
            self._reader.resume()

    # What operators see.

    def _become(self, state: State) -> None:
        if state == "ok":
            self.was_up.set()
            self._log.info("line up", streams=len(self.plan.symbols))
            self.last_error = None
        if state != self._state:
            self._state, self._since_ns = state, self._clock.wall_ns()

    def _say(self, event: str, **fields: Any) -> None:
        """Warn, but not more than the limiter allows for the same line and words."""
        held = self._limiter.allow(f"{self.name} {event}", self._clock.steady_ns())
        if held is not None:
            self._log.warning(event, **fields, **({"suppressed": held} if held else {}))

    @property
    def reads(self) -> int:
        """Socket reads, over all connections."""
        return self.counts.reads + (self._reader.reads if self._reader else 0)

    @property
    def bytes_read(self) -> int:
        """Bytes read, over all connections."""
        return self.counts.bytes_read + (self._reader.bytes_read if self._reader else 0)

    def health(self) -> ComponentHealth:
        """ok while subscribed."""
        return ComponentHealth(self.name, self._state, self._since_ns, self.last_error)


def _words(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return "timed out" if isinstance(error, TimeoutError) and not str(error) else text
