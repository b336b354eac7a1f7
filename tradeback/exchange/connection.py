"""One socket to the exchange: connect, subscribe, read until it ends. It is never opened twice.

Which symbols it carries is the line's wish and may change at any time: `match` brings the subscriptions in
line with it, and those of other symbols go on undisturbed. What to do when the connection ends, grows old or
goes silent is decided by the `Line` that owns it; during a rollover a line owns two.
"""

import asyncio
from collections.abc import Collection
from functools import partial
from typing import Any, Protocol

import picows

from tradeback.exchange import fallback
from tradeback.exchange.fragments import Fragments
from tradeback.exchange.held import CLOSED, dial, words_of
from tradeback.exchange.intake import Intake
from tradeback.exchange.line_counts import LineCounts
from tradeback.exchange.requests import Requests, is_answer
from tradeback.exchange.socket_reader import SocketReader
from tradeback.exchange.streams import LinePlan, stream_name
from tradeback.ingest.context import ALL_TO_SIDE
from tradeback.model.clock import Clock
from tradeback.model.config import ExchangeConfig
from tradeback.model.errors import DecodeError, ExchangeError, TapeError
from tradeback.model.record import LINE_SHIFT, Rows
from tradeback.model.symbols import SymbolTable

_TEXT, _CONTINUATION, _CLOSE, _PING = 0x01, 0x00, 0x08, 0x09
_FINAL = 0x80
_CONTROL = 0x08
CONTROL_PAYLOAD_MAX = 125
SAMPLE_BYTES = 300
"""How much of a refused frame goes to the log."""


class Owner(Protocol):
    """What a connection tells its line."""

    def on_ended(self) -> None:
        """A connection has ended; its `ended` says why."""

    def on_shutdown(self, connection: "Connection") -> None:
        """The exchange announces that it will cut this connection."""

    def refused(self, reason: str) -> None:
        """The exchange refused a request."""

    def say(self, event: str, **fields: Any) -> None:
        """Warn, at a bounded rate."""

    def accuse(self, event: str, **fields: Any) -> None:
        """Log an error."""


class _Handshake(picows.WSListener):
    """picows' listener until the reader takes over: swaps the protocol before anything was read."""

    def __init__(self, connection: "Connection") -> None:
        self.connection: Connection | None = connection
        """None once this attempt has been given up."""

    def on_ws_connected(self, transport: Any) -> None:
        if self.connection is None:
            transport.disconnect(graceful=False)
        else:
            self.connection.take_over(transport)

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        """A frame that came in one piece with the handshake's answer: the reader does not see it."""
        if self.connection is not None:
            opcode = int(frame.msg_type) | (_FINAL if frame.fin else 0)
            self.connection.on_early_frame(opcode, frame.get_payload_as_bytes())


class Connection:
    """See the module. `open`, then the owner is told of its end; `close` in any case. Loop thread only."""

    def __init__(
        self,
        plan: LinePlan,
        endpoint: str,
        config: ExchangeConfig,
        clock: Clock,
        intake: Intake,
        symbols: SymbolTable,
        counts: LineCounts,
        owner: Owner,
        wanted: Collection[str] | None = None,
    ) -> None:
        """`wanted`: the symbols to carry, looked at by every `match`; the plan's when not given."""
        self._wanted = plan.symbols if wanted is None else wanted
        self._asked: dict[str, None] = {}
        """Symbols for which SUBSCRIBE has left."""
        self.carried: set[str] = set()
        """Symbols whose subscription is acknowledged."""
        self._matching = asyncio.Lock()
        self.plan, self._endpoint, self._config = plan, endpoint, config
        self._clock, self._intake, self._symbols = clock, intake, symbols
        self._counts, self._owner = counts, owner
        self.transport: Any = None
        self.reader: SocketReader | None = None
        self._requests: Requests | None = None
        self._fragments = Fragments()
        self._pong: bytes | None = None
        """The payload of a ping that waits for its answer's turn."""
        self._control_bytes = 0
        self.ended: str | None = None
        """Why this connection has ended; None while it lives."""
        self.is_leaving = False
        """The exchange has announced that it will cut this connection."""
        self.up_ns: int | None = None
        """Steady time at which everything was subscribed."""

    # Its life.

    async def open(self) -> None:
        """Connect and subscribe. Raises one of LOST."""
        await self._connect()
        await self.match()
        if self._requests is None:
            raise ExchangeError(self.ended or CLOSED)
        self.up_ns = self._clock.steady_ns()

    async def match(self) -> None:
        """Subscribe to what is wanted and not carried, unsubscribe from what is carried and not wanted, until
        neither is left. Does nothing before `open` has come so far. ExchangeError when the exchange refuses
        or does not answer: what it sends from then on is not known, so the connection must be replaced.
        """
        async with self._matching:
            while self._requests is not None:
                gone = [symbol for symbol in self._asked if symbol not in self._wanted]
                new = [symbol for symbol in self._wanted if symbol not in self._asked]
                if not gone and not new:
                    return
                # First what goes: the exchange counts the streams of a connection.
                for symbol in gone:
                    del self._asked[symbol]
                self.carried.difference_update(gone)
                await self._requests.unsubscribe(self._streams(gone), self._pauses)
                if self._requests is not None:
                    self._asked.update(dict.fromkeys(new))
                    await self._requests.subscribe(self._streams(new), self._pauses)
                    self.carried.update(new)

    def _streams(self, symbols: Collection[str]) -> list[str]:
        return [stream_name(symbol, self.plan.stream) for symbol in symbols]

    async def passed(self) -> bool:
        """Until everything the exchange had queued for this connection has come; False when it ends."""
        requests = self._requests
        return requests is not None and self.ended is None and await requests.passed(self._pauses)

    def close(self, *, politely: bool = False) -> None:
        """End it. Nothing that still comes is taken; calling it again does nothing."""
        if self.ended is None:
            self.ended = "closed by us"
        if self._requests is not None:
            self._requests.end(self.ended)
        if self.reader is not None:
            self.reader.detach()
            self._counts.keep(self.reader.reads, self.reader.bytes_read)
        if self.transport is not None:
            if politely:
                self.transport.send_close(picows.WSCloseCode.OK)
            self.transport.underlying_transport.abort()
        self.transport = self.reader = self._requests = None

    async def _connect(self) -> None:
        handshake = _Handshake(self)
        try:
            await dial(handshake, self._endpoint, self._config, read_buffer_init_size=2048)
        except BaseException:
            handshake.connection = None
            raise
        if self.reader is None:
            # picows reports a connection that ends during the handshake as a success.
            raise ExchangeError("the exchange closed the connection during the handshake")

    def take_over(self, transport: Any) -> None:
        """Right after the handshake: from here on the socket is read by kernels."""
        self.transport = transport
        under = transport.underlying_transport
        self._requests = Requests(partial(transport.send, picows.WSMsgType.TEXT), self._clock)
        self.reader = SocketReader(self._intake, self._clock, self.plan.line, under, self)
        under.set_protocol(self.reader)

    def _pauses(self) -> tuple[bool, int]:
        return self._intake.stalled is not None, self._intake.stalls

    # What was read.

    @property
    def reads(self) -> int:
        """Socket reads."""
        return self.reader.reads if self.reader is not None else 0

    @property
    def bytes_read(self) -> int:
        """Bytes read, of any kind."""
        return self.reader.bytes_read if self.reader is not None else 0

    @property
    def market_bytes(self) -> int:
        """Bytes read without pings and answers."""
        return self.bytes_read - self._control_bytes

    def on_stall(self, stalled: bool) -> None:
        """The tape refuses or takes records: reading stops or goes on, the exchange queues meanwhile."""
        if self.reader is None:
            return
        if stalled:
            self.transport.underlying_transport.pause_reading()
        else:
            self.reader.resume()

    # What the reader tells.

    def on_side_frame(self, opcode: int, payload: bytes, status: int, recv_ns: int) -> None:
        """A frame that is not the kernel's: control, fragment, answer, or an odd event."""
        kind = opcode & 0x0F
        if kind & _CONTROL:
            self._control_bytes += len(payload) + 2
        if kind & _CONTROL and (len(payload) > CONTROL_PAYLOAD_MAX or not opcode & _FINAL):
            self.on_broken(1002, "a control frame that is long or in fragments")
        elif kind == _PING:
            self._counts.pings += 1
            self._answer_ping(payload)
        elif kind == _CLOSE:
            code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005
            words = payload[2:].decode(errors="replace")
            self.ended = f"the exchange closed: {code} {words}".rstrip()
            self.transport.underlying_transport.abort()
        elif kind == _TEXT and opcode & _FINAL:
            self._on_text(payload, recv_ns)
        elif kind in (_TEXT, _CONTINUATION):
            self._on_fragment(opcode, payload, recv_ns)
        else:
            self._counts.odd_frames += 1

    def on_early_frame(self, opcode: int, payload: bytes) -> None:
        """A frame that came together with the handshake."""
        if self.transport is not None:
            self.on_side_frame(opcode, payload, 0, self._clock.wall_ns())

    def on_broken(self, close_code: int, reason: str) -> None:
        """Nothing behind this byte can be trusted: the connection ends."""
        self._counts.broken += 1
        self.ended = f"{reason} ({close_code})"
        self.transport.send_close(picows.WSCloseCode(close_code))
        self.transport.underlying_transport.abort()

    def on_shadow(self, payload: bytes, row: Rows) -> None:
        """Compare the kernel's record with the slow path's; trust is lost at the first difference."""
        self._counts.shadow_checked += 1
        try:
            slow, _ = fallback.decode_event(fallback.event_of(fallback.parse(payload)), self._symbols)
        except DecodeError as error:
            self._distrust(payload, str(error))
            return
        if not fallback.same(row, slow):
            self._distrust(payload, "the records differ")

    def give_up(self, reason: str) -> None:
        """End it from this side, so that its line replaces it."""
        if self.ended is None and self.transport is not None:
            self.ended = reason
            self.transport.underlying_transport.abort()

    def on_closed(self, error: Exception | None) -> None:
        """The connection has ended."""
        if self.ended is None:
            self.ended = words_of(error) if error is not None else CLOSED
        if self._requests is not None:
            self._requests.end(self.ended)
        self._owner.on_ended()

    def _answer_ping(self, payload: bytes) -> None:
        """Within the exchange's limit of messages, which counts pongs; of many pings the newest is answered.

        RFC 6455 section 5.5.3 allows that.
        """
        waits, self._pong = self._pong is not None, payload
        if waits or self._requests is None:
            return
        wait_s = self._requests.take_turn()
        if wait_s:
            asyncio.get_running_loop().call_later(wait_s, self._send_pong)
        else:
            self._send_pong()

    def _send_pong(self) -> None:
        if self._pong is not None and self.transport is not None and self.ended is None:
            self.transport.send_pong(self._pong)
        self._pong = None

    def _distrust(self, payload: bytes, reason: str) -> None:
        self._counts.shadow_differs += 1
        self._intake.view[ALL_TO_SIDE] = 1
        self._owner.accuse(
            "kernel and slow path disagree; decoding goes on by the slow path",
            reason=reason,
            frame=payload[:SAMPLE_BYTES].decode(errors="replace"),
        )

    def _on_fragment(self, opcode: int, payload: bytes, recv_ns: int) -> None:
        try:
            whole = self._fragments.add(opcode, payload)
        except ValueError:
            self._counts.odd_frames += 1
            return
        if self._fragments.too_long:
            self.on_broken(1009, "a message in fragments grew too long")
        elif whole is not None:
            self._on_text(whole, recv_ns)

    def _on_text(self, payload: bytes, recv_ns: int) -> None:
        try:
            message = fallback.parse(payload)
            if is_answer(message):
                self._control_bytes += len(payload) + (2 if len(payload) < 126 else 4)
                self._on_answer(message)
                return
            event = fallback.event_of(message)
            if event.get("e") == "serverShutdown":
                self._counts.shutdowns += 1
                self.is_leaving = True
                self._owner.on_shutdown(self)
                return
            self._counts.fallbacks += 1
            rows, event_us = fallback.decode_event(event, self._symbols)
        except DecodeError as error:
            self._counts.malformed += 1
            sample = payload[:SAMPLE_BYTES].decode(errors="replace")
            self._owner.say("frame dropped", reason=str(error), frame=sample)
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
            self._owner.refused(wrong)
