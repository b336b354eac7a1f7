"""One connection to the exchange whose frames are recorded as they come: nothing is decoded.

Limits and subscription are those of the engine's connections; numba is not needed. The receive time is
taken when picows hands over the first frame of a socket read, and is that of all frames of the read. What to
do when it ends, grows old or goes silent is decided by the line that owns it; during a rollover a line owns
two, and both record.
"""

from functools import partial
from typing import Any, Protocol

import orjson
import picows

from tradeback.exchange.fragments import Fragments
from tradeback.exchange.held import CLOSED, dial
from tradeback.exchange.requests import Requests, is_answer
from tradeback.exchange.streams import LinePlan, stream_name
from tradeback.model.clock import Clock
from tradeback.model.config import ExchangeConfig
from tradeback.model.errors import ExchangeError
from tradeback.model.limits import READ_BUFFER_BYTES, READ_BUFFER_BYTES_MAX
from tradeback.recording.writer import Track

_FINAL = 0x80
_EVENT = b'{"stream":"'
"""How every market-data message of a combined stream begins; anything else may be an answer to us."""
_OF_ALL = b"!"
"""How names of streams begin that are of no symbol: nobody has asked for one, so the exchange has to say
something."""
_HEAD_BYTES = 2
"""Of a frame, at the least."""


class Owner(Protocol):
    """What a connection tells its line."""

    def subscribing(self) -> None:
        """SUBSCRIBE is about to leave: frames may come from here on."""

    def on_ended(self) -> None:
        """A connection has ended; its `ended` says why."""

    def on_shutdown(self, connection: "Connection") -> None:
        """The exchange announces that it will cut this connection."""

    def refused(self, reason: str) -> None:
        """The exchange refused a request."""


class _Listener(picows.WSListener):
    """picows' callbacks of one connection."""

    def __init__(self, connection: "Connection", track: Track, clock: Clock) -> None:
        self.connection: Connection | None = connection
        """None once the connection has been given up."""
        self._take, self._wall_ns = track.take, clock.wall_ns
        self._stamp = b""
        self._first_of_read = True
        self._text = picows.WSMsgType.TEXT
        self.market_bytes = self.other_bytes = 0

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
        payload = frame.get_payload_as_bytes()
        if (
            payload[:11] == _EVENT
            and frame.fin
            and frame.msg_type is self._text
            and payload[11:12] != _OF_ALL
        ):
            self.market_bytes += len(payload)
            self._take(self._stamp, payload)
        elif self.connection is not None:
            self.other_bytes += _HEAD_BYTES + len(payload)
            opcode = frame.msg_type.value | (_FINAL if frame.fin else 0)
            self.connection.on_other(opcode, payload, self._stamp)

    def on_ws_disconnected(self, transport: Any) -> None:
        if self.connection is not None:
            self.connection.on_closed()


class Connection:
    """See the module; `exchange.held` says what its line sees of it."""

    def __init__(
        self,
        plan: LinePlan,
        endpoint: str,
        config: ExchangeConfig,
        clock: Clock,
        track: Track,
        owner: Owner,
    ) -> None:
        self._plan, self._endpoint, self._config, self._clock = plan, endpoint, config, clock
        self._track, self._owner = track, owner
        self._listener = _Listener(self, track, clock)
        self._transport: Any = None
        self._requests: Requests | None = None
        self._fragments = Fragments()
        self.ended: str | None = None
        self.is_leaving = False
        self.up_ns: int | None = None
        self.has_asked = False
        """SUBSCRIBE has left, or is about to: frames may come."""

    @property
    def market_bytes(self) -> int:
        """Bytes of market data."""
        return self._listener.market_bytes

    @property
    def bytes_read(self) -> int:
        """Bytes of anything."""
        return self._listener.market_bytes + self._listener.other_bytes

    async def open(self) -> None:
        """Connect and subscribe. Raises one of `held.LOST`."""
        await dial(
            self._listener, self._endpoint, self._config,
            read_buffer_init_size=READ_BUFFER_BYTES, max_frame_size=READ_BUFFER_BYTES_MAX,
        )  # fmt: skip
        if self._requests is None or self.ended is not None:
            raise ExchangeError(self.ended or "the exchange closed the connection during the handshake")
        self.has_asked = True
        self._owner.subscribing()
        names = [stream_name(symbol, self._plan.stream) for symbol in self._plan.symbols]
        await self._requests.subscribe(names, _never_pauses)
        self.up_ns = self._clock.steady_ns()

    def on_connected(self, transport: Any) -> None:
        """Right after the handshake."""
        self._transport = transport
        self._requests = Requests(partial(transport.send, picows.WSMsgType.TEXT), self._clock)

    async def passed(self) -> bool:
        """Until everything the exchange had queued for this connection has come; False when it ends."""
        requests = self._requests
        return requests is not None and self.ended is None and await requests.passed(_never_pauses)

    def close(self, *, politely: bool = False) -> None:
        """End it. Nothing that still comes is taken; calling it again does nothing."""
        self._listener.connection = None
        self.ended = self.ended or "closed by us"
        if self._requests is not None:
            self._requests.end(self.ended)
        if self._transport is not None:
            if politely:
                self._transport.send_close(picows.WSCloseCode.OK)
            self._transport.underlying_transport.abort()
        self._transport = self._requests = None

    def on_closed(self) -> None:
        """The connection has ended."""
        self.ended = self.ended or CLOSED
        if self._requests is not None:
            self._requests.end(self.ended)
        self._owner.on_ended()

    def _end(self, reason: str) -> None:
        self.ended = reason
        self._transport.underlying_transport.abort()

    # Everything but whole market-data messages.

    def on_other(self, opcode: int, payload: bytes, stamp: bytes) -> None:
        """A control frame, a fragment, an answer to a request, or a message of an odd shape."""
        kind = opcode & 0x0F
        if kind == picows.WSMsgType.PING.value:
            self._transport.send_pong(payload)
        elif kind == picows.WSMsgType.CLOSE.value:
            code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005
            self._end(f"the exchange closed: {code} {payload[2:].decode(errors='replace')}".rstrip())
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
            self._end("a message in fragments grew too long")
        elif whole is not None:
            self._on_text(whole, stamp)

    def _on_text(self, payload: bytes, stamp: bytes) -> None:
        """Recorded like any other; an answer and an announcement are also told to whom they concern."""
        self._track.take(stamp, payload)
        try:
            message = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return
        if not isinstance(message, dict):
            return
        if is_answer(message):
            wrong = self._requests.on_answer(message) if self._requests is not None else None
            if wrong is not None:
                self._owner.refused(wrong)
            return
        event = message.get("data", message)
        if isinstance(event, dict) and event.get("e") == "serverShutdown":
            self.is_leaving = True
            self._owner.on_shutdown(self)


def _never_pauses() -> tuple[bool, int]:
    """A recorder always reads: see `Requests.subscribe`."""
    return False, 0
