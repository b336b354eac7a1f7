"""One WebSocket client of the feed: frames in, frames out, and the state in which it is.

States: live (in a group; `group` may be None while it wants nothing), lagging (its socket is full;
requests wait, reading pauses), closing (a CLOSE was sent or a cut is under way; nothing goes in or out).
"""

import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from tradeback.feed.admission import NOBODY, Admission
from tradeback.feed.fanout import Group
from tradeback.feed.interest import NOTHING, Interest
from tradeback.feed.ladder import LagWatch
from tradeback.model.limits import CLIENT_MESSAGE_BYTES_MAX, CLIENT_REQUESTS_MAX

if TYPE_CHECKING:
    from tradeback.feed.lane import Lane
    from tradeback.feed.replay import Replay
    from tradeback.feed.server import Feed

RECEIVE_BUFFER_BYTES = 64 * 1024
"""Kernel receive buffer of one client: what a client can make us hold by sending without reading."""
CLOSE_GRACE_S = 1.0
"""How long a client may take to answer our CLOSE, or to drain before a cut."""


class Client(WSListener):
    """A listener of picows; the feed reads and sets its fields."""

    __slots__ = (
        "admission",
        "asked",
        "auto",
        "batches",
        "closing",
        "cursor",
        "deferred",
        "enigma",
        "enigma_missed",
        "epoch",
        "errors",
        "fd",
        "feed",
        "group",
        "heard_s",
        "interest",
        "lagging",
        "lane",
        "live_from",
        "parked",
        "parts",
        "pinged",
        "place",
        "plain",
        "replay",
        "requests",
        "requests_s",
        "resume_from",
        "transport",
        "watch",
        "watched",
        "write",
        "ws",
    )

    def __init__(self, feed: "Feed", lane: "Lane", admission: Admission = NOBODY) -> None:
        self.feed = feed
        self.lane = lane
        self.admission = admission
        self.asked = False
        """It has subscribed to something itself."""
        self.watched: tuple[str, ...] = ()
        """Symbols of its market watch, as far as it has been told."""
        self.auto: frozenset[int] = NOTHING
        """Symbol ids whose trades it gets because of the watch alone."""
        self.parked: frozenset[int] = NOTHING
        """Such ids that wait for the subscription which a resume announced (version 2)."""
        self.replay: Replay | None = None
        """Its way to the head of the tape, while it is catching up (version 2)."""
        self.resume_from: tuple[int, int] | None = None
        """(epoch, sequence) that it asked for before it subscribed."""
        self.live_from: int | None = None
        """Sequence at which its subscriptions began; None without any, or when they differ."""
        self.ws: WSTransport | None = None
        self.transport: Any = None
        self.write: Callable[[bytes], None] = _not_connected
        self.fd = -1
        self.plain = True
        self.interest: Interest = NOTHING
        self.enigma: Interest = NOTHING
        self.enigma_missed = False
        self.group: Group | None = None
        self.batches = 0
        self.place = 0
        self.cursor = 0
        self.epoch = 0
        """Sequence and epoch of the next record for it, while it is lagging."""
        self.lagging = False
        self.closing = False
        self.watch: LagWatch | None = None
        self.deferred: list[bytes] | None = None
        self.parts: bytearray | None = None
        self.errors = 0
        self.requests = 0
        self.requests_s = 0.0
        """What it has asked for, with what that costs, since the sweep at this time."""
        self.heard_s = feed.now_s
        self.pinged = False

    # Callbacks of picows.

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.ws = transport
        raw = self.transport = transport.underlying_transport
        sock = raw.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.feed.send_buffer_bytes)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self.feed.dead_peer_ms)
        self.fd = sock.fileno()
        self.plain = not transport.is_secure
        self.write = raw.write
        self.feed.connected(self)
        raw.set_write_buffer_limits(high=0)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.closing = True
        self.feed.disconnected(self)

    def pause_writing(self) -> None:
        if not self.closing:
            self.feed.stalled(self)

    def resume_writing(self) -> None:
        if not self.closing:
            self.feed.drained(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.heard_s = self.feed.now_s
        self.pinged = False
        kind = frame.msg_type
        if kind == WSMsgType.CLOSE:
            self._answer_close(transport, frame)
        elif self.closing:
            return
        elif frame.rsv1 or frame.rsv2 or frame.rsv3:
            self.close(WSCloseCode.PROTOCOL_ERROR, "reserved bits without an extension")
        elif kind == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif kind != WSMsgType.PONG:
            self._take_data(kind, frame)

    def _take_data(self, kind: WSMsgType, frame: WSFrame) -> None:
        """A data frame, whole or a part (RFC 6455 section 5.4)."""
        payload = frame.get_payload_as_bytes()
        if kind == WSMsgType.CONTINUATION:
            if self.parts is None:
                self.close(WSCloseCode.PROTOCOL_ERROR, "a continuation of nothing")
                return
            self.parts += payload
            if len(self.parts) > CLIENT_MESSAGE_BYTES_MAX:
                self.close(WSCloseCode.MESSAGE_TOO_BIG, "message too big")
            elif frame.fin:
                payload, self.parts = bytes(self.parts), None
                self.receive(payload)
            return
        if self.parts is not None:
            self.close(WSCloseCode.PROTOCOL_ERROR, "a message inside a fragmented message")
        elif kind == WSMsgType.BINARY:
            self.feed.refuse_binary(self)
        elif frame.fin:
            self.receive(payload)
        else:
            self.parts = bytearray(payload)

    def receive(self, text: bytes) -> None:
        """A whole text message. While lagging or catching up it waits, so that answers never pile up."""
        if self.lagging or self.replay is not None or self.deferred:
            self.defer(text)
        else:
            self.feed.request(self, text)

    def defer(self, text: bytes) -> None:
        """Let a message wait, and all that come behind it."""
        waiting = self.deferred = self.deferred or []
        waiting.append(text)
        if sum(map(len, waiting)) > 2 * CLIENT_MESSAGE_BYTES_MAX:
            self.close(WSCloseCode.POLICY_VIOLATION, "requests without reading the answers")

    def charge(self, cost: int) -> bool:
        """Count a request, or what it costs more; False when this is more than one client may ask."""
        if self.requests_s != self.feed.now_s:
            self.requests, self.requests_s = 0, self.feed.now_s
        self.requests += cost
        return self.requests <= CLIENT_REQUESTS_MAX

    def may_see(self, symbol: str | None) -> bool:
        """Whether its session may see this symbol; None: what is about none."""
        allowed = self.admission.symbols
        return symbol is None or allowed is None or symbol in allowed

    # Ways out.

    def send_text(self, payload: bytes) -> None:
        """One text message."""
        if self.ws is not None and not self.closing:
            self.ws.send(WSMsgType.TEXT, payload)

    def ping(self) -> None:
        """Ask whether anybody is there."""
        if self.ws is not None and not self.closing:
            self.pinged = True
            self.ws.send_ping()

    def unsent_bytes(self) -> int:
        """Bytes that wait for this client: in the transport, and in the kernel (not yet acknowledged)."""
        queued = struct.unpack("i", fcntl.ioctl(self.fd, termios.TIOCOUTQ, b"\0\0\0\0"))[0]
        return int(self.transport.get_write_buffer_size()) + int(queued)

    def close(self, code: WSCloseCode, reason: str) -> None:
        """Send CLOSE, let it drain for CLOSE_GRACE_S, then cut."""
        if self.closing or self.ws is None:
            return
        self.closing = True
        self.feed.leaving(self)
        self.ws.send_close(code, reason.encode())
        self.transport.resume_reading()
        self.feed.later(CLOSE_GRACE_S, self.transport.abort)

    def abort(self) -> None:
        """Cut at once: whatever waits is dropped."""
        self.closing = True
        self.feed.leaving(self)
        if self.transport is not None:
            self.transport.abort()

    def _answer_close(self, transport: WSTransport, frame: WSFrame) -> None:
        if not self.closing:
            self.closing = True
            self.feed.leaving(self)
            code = frame.get_close_code()
            transport.send_close(WSCloseCode.OK if code == WSCloseCode.NO_INFO else code)
            # Closing waits for the peer to take what is queued; one that never does is cut.
            self.feed.later(CLOSE_GRACE_S, self.transport.abort)
        transport.disconnect()


def _not_connected(data: bytes) -> None:
    raise RuntimeError("a client was written to before it was connected")
