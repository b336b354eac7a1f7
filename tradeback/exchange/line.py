"""One connection to the exchange: connect, subscribe, read, and again, for ever.

Losing it costs a back-off with jitter; the pool's budget keeps all lines together below the exchange's
limit of connection attempts. A connection that is silent (no byte, not even the exchange's pings) for
`exchange.idle_timeout` is replaced.
"""

import asyncio
import random
from typing import Any

import picows

from tradeback.exchange import fallback
from tradeback.exchange.backoff import Backoff
from tradeback.exchange.budget import Budget
from tradeback.exchange.intake import Intake
from tradeback.exchange.line_counts import LineCounts
from tradeback.exchange.socket_reader import SocketReader
from tradeback.exchange.streams import LinePlan, control_messages, stream_address, stream_name
from tradeback.ingest.context import ALL_TO_SIDE
from tradeback.model.clock import Clock
from tradeback.model.config import ExchangeConfig
from tradeback.model.errors import DecodeError, ExchangeError, TapeError
from tradeback.model.limits import CONTROL_MESSAGES_PER_SECOND, READ_BUFFER_BYTES_MAX
from tradeback.model.record import LINE_SHIFT
from tradeback.model.symbols import SymbolTable
from tradeback.ops.health import ComponentHealth, State
from tradeback.ops.log import Log, RepeatLimiter

_TEXT, _CONTINUATION, _CLOSE, _PING = 0x01, 0x00, 0x08, 0x09
_FINAL = 0x80
SUBSCRIBE_WAIT_S = 10.0
"""How long the exchange may take to acknowledge a subscription."""
SAMPLE_BYTES = 300
"""How much of a refused frame goes to the log."""


class _Handshake(picows.WSListener):
    """picows' listener until the reader takes over: swaps the protocol before anything was read."""

    def __init__(self, line: "Line") -> None:
        self._line = line

    def on_ws_connected(self, transport: Any) -> None:
        self._line.take_over(transport)


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
        self._closed = asyncio.Event()
        self.was_up = asyncio.Event()
        """Set when the line is subscribed for the first time."""
        self._pending: dict[int, asyncio.Future[None]] = {}
        self._fragments: list[bytes] = []
        self._next_id = 1
        intake.on_stall.append(self._on_stall)

    async def run(self) -> None:
        """Keep the connection up. Ends by cancellation."""
        failures = 0
        while True:
            wait_s = self._attempts.take(self._clock.steady_ns())
            if wait_s:
                await asyncio.sleep(wait_s)
            try:
                await self._connect()
                await self._subscribe()
                failures = 0
                self._become("ok")
                await self._watch()
                raise ExchangeError(self.last_error or "the exchange closed the connection")
            except (OSError, TimeoutError, picows.WSError, ExchangeError) as error:
                self.last_error = _words(error)
            finally:
                self._disconnect()
            failures += 1
            self.counts.reconnects += 1
            self._become("down")
            delay_s = self._backoff.delay_s(failures, random.random())
            self._say("line lost", error=self.last_error, again_in_s=round(delay_s, 2), failures=failures)
            await asyncio.sleep(delay_s)

    # Connecting.

    async def _connect(self) -> None:
        self._closed.clear()
        self._fragments.clear()
        async with asyncio.timeout(self._config.connect_timeout_s):
            await picows.ws_connect(
                lambda: _Handshake(self),
                stream_address(self._config.ws_endpoint),
                enable_auto_ping=False,
                read_buffer_init_size=2048,
                extra_headers={"User-Agent": "tradeback"},
            )

    def take_over(self, transport: Any) -> None:
        """Right after the handshake: from here on the socket is read by kernels."""
        self._transport = transport
        under = transport.underlying_transport
        self._reader = SocketReader(self._intake, self._clock, self.plan.line, under, self)
        under.set_protocol(self._reader)

    async def _subscribe(self) -> None:
        """SUBSCRIBE in chunks, at most a few a second, and wait for every answer."""
        names = [stream_name(symbol, self.plan.stream) for symbol in self.plan.symbols]
        budget = Budget(CONTROL_MESSAGES_PER_SECOND, 1.0)
        waiting = []
        for message in control_messages("SUBSCRIBE", names, self._next_id):
            await asyncio.sleep(budget.take(self._clock.steady_ns()))
            if self._closed.is_set():
                break
            answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._pending[self._next_id] = answer
            self._next_id += 1
            waiting.append(answer)
            self._transport.send(picows.WSMsgType.TEXT, message)
        try:
            async with asyncio.timeout(SUBSCRIBE_WAIT_S):
                await asyncio.gather(*waiting)
        except TimeoutError:
            raise ExchangeError("the exchange did not acknowledge the subscription") from None
        finally:
            self._pending.clear()
        if self._closed.is_set():
            raise ExchangeError(self.last_error or "the exchange closed the connection while subscribing")

    async def _watch(self) -> None:
        """Until the connection ends; ExchangeError when it goes silent."""
        reader = self._reader
        while reader is not None:
            seen = reader.bytes_read
            try:
                async with asyncio.timeout(self._config.idle_timeout_s):
                    await self._closed.wait()
                return
            except TimeoutError:
                if reader.bytes_read == seen and self._intake.stalled is None:
                    raise ExchangeError(f"silent for {self._config.idle_timeout_s:g} s") from None

    def _disconnect(self) -> None:
        for answer in self._pending.values():
            answer.cancel()
        self._pending.clear()
        if self._transport is not None:
            self._transport.underlying_transport.abort()
        if self._reader is not None:
            self.counts.keep(self._reader.reads, self._reader.bytes_read)
        self._transport = self._reader = None

    # What the reader tells.

    def on_side_frame(self, opcode: int, payload: bytes, status: int, recv_ns: int) -> None:
        """A frame that is not the kernel's: control, fragment, answer, or an odd event."""
        kind = opcode & 0x0F
        if kind == _PING:
            self.counts.pings += 1
            self._transport.send_pong(payload)
        elif kind == _CLOSE:
            code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005
            self.last_error = f"the exchange closed: {code} {payload[2:].decode(errors='replace')}".rstrip()
            self._transport.underlying_transport.abort()
        elif kind == _TEXT and opcode & _FINAL:
            self._on_text(payload, recv_ns)
        elif kind in (_TEXT, _CONTINUATION):
            self._on_fragment(opcode, payload, recv_ns)
        else:
            self.counts.odd_frames += 1

    def on_broken(self, close_code: int, reason: str) -> None:
        """Nothing behind this byte can be trusted: the connection is replaced."""
        self.counts.broken += 1
        self.last_error = f"{reason} ({close_code})"
        self._transport.send_close(picows.WSCloseCode(close_code))
        self._transport.underlying_transport.abort()

    def on_shadow(self, payload: bytes, agrees: int, row: Any) -> None:
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
        if error is not None and self.last_error is None:
            self.last_error = _words(error)
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(ExchangeError("the connection ended"))
        self._closed.set()

    def _distrust(self, payload: bytes, reason: str) -> None:
        self.counts.shadow_differs += 1
        self._intake.view[ALL_TO_SIDE] = 1
        self._log.error(
            "kernel and slow path disagree; decoding goes on by the slow path",
            reason=reason,
            frame=payload[:SAMPLE_BYTES].decode(errors="replace"),
        )

    def _on_fragment(self, opcode: int, payload: bytes, recv_ns: int) -> None:
        if opcode & 0x0F == _TEXT:
            self._fragments = [payload]
            return
        if not self._fragments:
            self.counts.odd_frames += 1
            return
        self._fragments.append(payload)
        if sum(map(len, self._fragments)) > READ_BUFFER_BYTES_MAX:
            self.on_broken(1009, "a message in fragments grew too long")
        elif opcode & _FINAL:
            whole, self._fragments = b"".join(self._fragments), []
            self._on_text(whole, recv_ns)

    def _on_text(self, payload: bytes, recv_ns: int) -> None:
        try:
            message = fallback.parse(payload)
            if "stream" not in message and "e" not in message and ("id" in message or "error" in message):
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
        request = message.get("id")
        answer = self._pending.get(request) if isinstance(request, int) else None
        wrong = message.get("error") or (message if "code" in message else None)
        if wrong is None:
            if answer is not None and not answer.done():
                answer.set_result(None)
            return
        text = f"the exchange refused a request: {wrong.get('code')} {wrong.get('msg')}"
        self.last_error = text
        if answer is not None and not answer.done():
            answer.set_exception(ExchangeError(text))
        else:
            self._say(text)

    def _on_stall(self, stalled: bool) -> None:
        """The tape refuses or takes records: reading stops or goes on, the exchange queues meanwhile."""
        if self._transport is None or self._transport.underlying_transport.is_closing():
            return
        if stalled:
            self._transport.underlying_transport.pause_reading()
        else:
            self._transport.underlying_transport.resume_reading()
            if self._reader is not None:
                self._reader.drain(self._clock.wall_ns())

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
