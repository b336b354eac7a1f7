"""One port for HTTP and WebSocket: read the request head, then hand the connection on.

A small protocol reads the head within its limits. An upgrade goes to picows' server protocol, anything
else to aiohttp's request handler, through `transport.set_protocol`; afterwards the front is out of the
way and costs nothing. picows' protocol constructor is internal, so picows is pinned; the test of the
front is the thing to run when it is raised. (The other way, picows answering small GETs itself, has no
keep-alive, no bodies and refuses Firefox; it is not built.)
"""

import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import aiofastnet
import picows
from picows.picows import WSProtocol  # type: ignore[attr-defined]

from tradeback.feed.admission import NOBODY, Admission, Gate, Verdict
from tradeback.feed.head import (
    HEAD_END,
    may_become_request,
    parse_head,
    read_request,
    with_plain_connection,
    without_credentials,
)
from tradeback.feed.listening import BACKLOG, bind
from tradeback.feed.negotiate import Declined
from tradeback.feed.passage import may_go
from tradeback.feed.refusal import refusal
from tradeback.model.limits import (
    CLIENT_MESSAGE_BYTES_MAX,
    HEAD_BYTES_MAX,
    HEAD_SECONDS_MAX,
    HEADS_WAITING_MAX,
    URL_BYTES_MAX,
)

FDS_RESERVED = 128
"""File descriptors kept for the exchange, the tape, stores and logs."""
WRITE_SECONDS_MAX = 15.0
RETRY_AFTER_S = 5
"""What clients are told that come while the engine stops."""
LINGER_S = 1.0
"""How long a refused connection may take to read its answer."""
READ_BUFFER_FIRST_BYTES = 2_048
"""Of a WebSocket client: requests are short."""

LATE_HEAD_S = 1.0
"""A connection whose request has not come after this long goes when another needs its place."""

HttpFactory = Callable[[], asyncio.Protocol]
Upgrade = Callable[..., Any]
"""An upgrade request (and `admission=`, where there is a session) to a picows listener, or to a picows
response with or without one."""

HandOver = Callable[[Any, bytes, Admission], bool]
"""(transport, bytes that have come, whose it is): True when somebody else has taken the connection."""

HandHistory = Callable[[Any, bytes], bool]
"""(transport, bytes that have come): True when somebody else has taken the connection."""

_log = logging.getLogger("tradeback.feed")


class Front:
    """The listening port. `port` is the real one once `open` is through."""

    def __init__(
        self,
        http_factory: HttpFactory,
        upgrade: Upgrade,
        *,
        head_seconds_max: float = HEAD_SECONDS_MAX,
        write_seconds_max: float = WRITE_SECONDS_MAX,
    ) -> None:
        self.http_factory = http_factory
        self.upgrade = upgrade
        self.head_seconds_max = head_seconds_max
        self.write_ms_max = int(write_seconds_max * 1_000)
        self.port = 0
        self.refused = 0
        self.gate: Gate | None = None
        """Says who may open a WebSocket, and whose it is; without one everybody may, for nobody."""
        self.shed: Callable[[], object] = lambda: None
        """Called when descriptors run out: close HTTP connections that nobody uses just now."""
        self.hand_over: HandOver = _nobody
        """Asked first about every upgrade that is let in: another process may serve it."""
        self.hand_history: HandHistory = _nobody_reads
        """Asked first about connections that begin with a request for history: another process may answer."""
        self.turning_away = False
        """Every request is answered by 503: the engine is stopping."""
        self.heads: dict[HeadReader, float] = {}
        """Connections whose head is still coming, and since when (loop time), the oldest first."""
        backlog, self.fd_max = _descriptor_limits()
        self._backlog = backlog
        self._servers: list[asyncio.AbstractServer] = []

    async def open(self, host: str, port: int) -> None:
        """Listen. StartupError with the remedy when the address cannot be had."""
        await self.serve(bind(host, port))

    async def serve(self, sockets: Sequence[socket.socket]) -> None:
        """Accept on these from now on; they are closed with the front."""
        loop = asyncio.get_running_loop()
        self.port = sockets[0].getsockname()[1]
        for sock in sockets:
            server = await aiofastnet.create_server(
                loop, lambda: HeadReader(self), sock=sock, backlog=self._backlog
            )
            self._servers.append(server)

    async def close(self) -> None:
        """Stop listening and drop the connections whose head has not come."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        for reader in list(self.heads):
            reader.cut()
        await asyncio.sleep(0)

    async def adopt(self, sock: socket.socket, data: bytes) -> None:
        """Serve a connection that another process gives back, on which `data` has been read."""
        sock.setblocking(False)
        try:
            transport, reader = await aiofastnet.connect_accepted_socket(
                asyncio.get_running_loop(), lambda: HeadReader(self), sock
            )
        except OSError:
            sock.close()  # it has gone in the meantime
            return
        if not transport.is_closing():
            reader.data_received(data)

    def make_room(self) -> bool:
        """Room for one more connection without a request, by cutting the one that has taken longest if it
        must be: whoever opens thousands and says nothing keeps nobody out. False: they have all just come."""
        if len(self.heads) < HEADS_WAITING_MAX:
            return True
        oldest, since_s = next(iter(self.heads.items()))
        if asyncio.get_running_loop().time() - since_s < LATE_HEAD_S:
            return False
        oldest.cut()
        return True


def _nobody_reads(transport: Any, data: bytes) -> bool:
    """There is no other process."""
    return False


def _nobody(transport: Any, data: bytes, admission: Admission) -> bool:
    """There is no other process."""
    return False


class HeadReader(asyncio.Protocol):
    """Reads one connection's first request head, then is replaced."""

    __slots__ = ("_admitting", "_front", "_refused", "_seen", "_timer", "_transport")

    def __init__(self, front: Front) -> None:
        self._front = front
        self._seen = b""
        self._refused = False
        self._admitting: asyncio.Task[None] | None = None
        self._transport: Any = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        room = self._front.make_room()
        loop = asyncio.get_running_loop()
        self._front.heads[self] = loop.time()
        self._timer = loop.call_later(self._front.head_seconds_max, self._too_slow)
        # The lowest free descriptor is always taken, so its number says how many are in use. Running
        # out of them would spin aiofastnet's accept loop.
        full = transport.get_extra_info("socket").fileno() >= self._front.fd_max
        if full:
            self._front.shed()
        if full or not room:
            self._refuse(503, "too_many_connections", "no room for another connection; try again later")

    def connection_lost(self, error: Exception | None) -> None:
        self._done()
        if self._admitting is not None:
            self._admitting.cancel()

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        seen = self._seen = self._seen + data if self._seen else data
        if self._admitting is not None:
            return  # reading is paused; this was on its way
        end = seen.find(HEAD_END)
        if end > HEAD_BYTES_MAX or (end < 0 and len(seen) > HEAD_BYTES_MAX):
            limit = f"the request head is longer than {HEAD_BYTES_MAX} bytes"
            self._refuse(431, "head_too_large", limit)
        elif end >= 0:
            self._hand_on(seen[:end], seen[end:])
        elif not may_become_request(seen):
            self._refuse(400, "bad_request", "this is not HTTP/1.1")

    def cut(self) -> None:
        """Drop the connection."""
        self._done()
        self._transport.abort()

    def _hand_on(self, head: bytes, rest: bytes) -> None:
        parsed = parse_head(head)
        if parsed is None:
            self._refuse(400, "bad_request", "this head is not HTTP/1.1: a request line, then name: value")
            return
        if self._front.turning_away:
            self._refuse(503, "stopping", "the engine is stopping; try again later", RETRY_AFTER_S)
        elif head.find(b" HTTP/1.") > URL_BYTES_MAX:
            self._refuse(414, "too_large", f"the URL is longer than {URL_BYTES_MAX} bytes")
        elif parsed.upgrade and self._front.gate is not None:
            self._seen = rest
            self._ask(self._front.gate, head)
        elif parsed.upgrade:
            self._seen = rest
            self._let_in(head, NOBODY)
        else:
            self._done()
            self._seen = b""
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                # The kernel cuts a client that takes nothing of an answer for this long.
                sock = self._transport.get_extra_info("socket")
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._front.write_ms_max)
            if may_go(head) and self._front.hand_history(self._transport, head + rest):
                return
            http = self._front.http_factory()
            self._transport.set_protocol(http)
            http.connection_made(self._transport)
            http.data_received(head + rest)

    def _ask(self, gate: Gate, head: bytes) -> None:
        """Let the gate decide. The head's timer goes on meanwhile."""
        peer = self._transport.get_extra_info("peername")
        verdict = gate.admit(read_request(head), peer[0] if isinstance(peer, tuple) else "")
        if isinstance(verdict, Admission | Declined):
            self._decide(head, verdict)
            return
        self._transport.pause_reading()
        self._admitting = asyncio.get_running_loop().create_task(self._wait(head, verdict))

    async def _wait(self, head: bytes, asked: Coroutine[Any, Any, Verdict]) -> None:
        verdict: Verdict
        try:
            verdict = await asked
        except Exception:
            # The boundary: whatever is wrong with the gate, it stays shut, and the log says why.
            _log.exception("a WebSocket could not be admitted")
            verdict = Declined(500, "internal_error", "something went wrong here")
        self._admitting = None
        if not self._refused and not self._transport.is_closing():
            self._transport.resume_reading()
            self._decide(head, verdict)

    def _decide(self, head: bytes, verdict: Verdict) -> None:
        if isinstance(verdict, Admission):
            self._let_in(without_credentials(head), verdict)
        else:
            self._refuse(verdict.status, verdict.code, verdict.message, verdict.retry_after_s)

    def _let_in(self, head: bytes, admission: Admission) -> None:
        self._done()
        data, self._seen = with_plain_connection(head) + self._seen, b""
        front = self._front
        if not front.hand_over(self._transport, data, admission):
            upgrade = front.upgrade if admission == NOBODY else partial(front.upgrade, admission=admission)
            become_websocket(self._transport, upgrade, data)

    def _too_slow(self) -> None:
        if self._admitting is not None:
            self._admitting.cancel()
            self._transport.resume_reading()
            self._refuse(503, "not_ready", "whose this is could not be looked up in time")
        else:
            self._refuse(408, "request_timeout", "the request head took too long")

    def _refuse(self, status: int, code: str, message: str, retry_after_s: int = 0) -> None:
        """Answer and close; what still comes is read and dropped, or the answer would be lost to a reset."""
        self._front.refused += 1
        self._refused = True
        asked, self._seen = self._seen, b""
        if self._timer is not None:
            self._timer.cancel()
        self._transport.write(refusal(status, code, message, retry_after_s=retry_after_s, asked=asked))
        with contextlib.suppress(OSError):  # the client has gone, which nobody saw while reading was paused
            self._transport.write_eof()
        self._timer = asyncio.get_running_loop().call_later(LINGER_S, self._transport.abort)

    def _done(self) -> None:
        self._front.heads.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Logger:
    """What picows logs per connection, reduced to what is a fault of ours.

    picows makes a logging.Logger for every connection when it is given one, which costs a kilobyte and
    two formatted lines per client. A client that breaks the protocol is closed and is no news.
    """

    def isEnabledFor(self, level: int) -> bool:
        return False

    def exception(self, message: str, *args: object) -> None:
        _log.exception(message, *args)

    def debug(self, message: str, *args: object) -> None:
        """Dropped."""

    info = warning = error = debug

    def log(self, level: int, message: str, *args: object) -> None:
        """Dropped."""


_quiet = _Logger()


def become_websocket(transport: Any, upgrade: Upgrade, data: bytes) -> None:
    """Replace the protocol by picows' own and feed it `data`: the head of a request, and what follows.

    The head's Connection line must be one that picows understands, see `head.with_plain_connection`.
    """
    protocol = WSProtocol(
        None,  # host_port: of clients only
        None,  # ws_path: of clients only
        False,  # is_client_side
        upgrade,
        _quiet,
        True,  # disconnect_on_exception
        None,  # websocket_handshake_timeout: the whole head is here
        False,  # enable_auto_ping: a task per client; the feed's sweep does it
        0,  # auto_ping_idle_timeout
        0,  # auto_ping_reply_timeout
        picows.WSAutoPingStrategy.PING_WHEN_IDLE,
        False,  # enable_auto_pong: the client answers, and knows that the peer lives
        CLIENT_MESSAGE_BYTES_MAX,
        None,  # extra_headers: of clients only
        READ_BUFFER_FIRST_BYTES,
    )
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    view = memoryview(data)
    while view:
        room = protocol.get_buffer(-1)
        size = min(len(room), len(view))
        room[:size] = view[:size]
        protocol.buffer_updated(size)
        view = view[size:]


def _descriptor_limits() -> tuple[int, int]:
    """Raise the soft limit of open files. Returns (backlog, first descriptor number that is refused).

    One accept round may take a whole backlog of connections before any of them can be refused.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (ValueError, OSError):
            _log.info("the limit of open files stays at %d", soft)
    if soft == resource.RLIM_INFINITY:
        return BACKLOG, 1 << 30
    backlog = min(BACKLOG, soft // 4)
    return backlog, soft - backlog - FDS_RESERVED
