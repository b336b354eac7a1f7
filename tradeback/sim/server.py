"""The sockets of the simulated exchange: stream connections by picows, REST by aiohttp."""

import asyncio
import contextlib
import ssl
from collections import deque
from typing import Any

from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

from tradeback.model.clock import Clock
from tradeback.ops.clock import SystemClock
from tradeback.sim.book import Source
from tradeback.sim.channels import Hub, Listener, frame
from tradeback.sim.config import SECOND_NS, SimConfig
from tradeback.sim.faults import Faults
from tradeback.sim.periodic import Periodic
from tradeback.sim.player import Player
from tradeback.sim.session import BadPath, Reply, Session, Target, parse_target

CLIENT_FRAME_BYTES_MAX = 64 * 1024


class Connection(WSListener):
    """One stream connection: feeds its session, keeps what is to be written."""

    def __init__(self, server: "SimServer", target: Target, number: int) -> None:
        self._server = server
        self._target = target
        self.number = number
        self.frames: list[bytes] = []
        """Complete WebSocket frames that wait for the end of the chunk."""
        self.frames_sent = 0
        self.transport: WSTransport | None = None
        self._raw: Any = None
        self._session: Session | None = None
        self._parts: list[bytes] = []

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport, self._raw = transport, transport.underlying_transport
        self._session = Session(self._server.config, self._target, self._server.clock.steady_ns())
        self._server.connections[self.number] = self
        self._subscribe(list(self._session.streams))
        self._server.on_subscribed()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.transport = None
        self._server.connections.pop(self.number, None)
        if self._session is not None:
            for name in self._session.streams:
                self._server.hub.unsubscribe(name, self.number)

    def on_ws_frame(self, transport: WSTransport, ws_frame: WSFrame) -> None:
        session = self._session
        if session is None:
            return
        now_ns, kind = self._server.clock.steady_ns(), ws_frame.msg_type
        payload = ws_frame.get_payload_as_bytes()
        if kind == WSMsgType.CLOSE:
            transport.send_close(ws_frame.get_close_code())
            transport.disconnect()
        elif kind == WSMsgType.PING:
            reply = session.on_control(now_ns)
            transport.send_pong(payload)
            self._obey(reply)
        elif kind == WSMsgType.PONG:
            self._obey(session.on_control(now_ns, payload))
        else:
            self._parts.append(payload)
            if sum(map(len, self._parts)) > CLIENT_FRAME_BYTES_MAX:
                self.close(1009, "Message too big")
            elif ws_frame.fin:
                data = b"".join(self._parts)
                self._parts.clear()
                self._obey(session.on_text(data, now_ns))

    def _obey(self, reply: Reply) -> None:
        session = self._session
        assert session is not None
        # The reply first, then the first data: clients of every kind expect no other order.
        for name in reply.dropped:
            self._server.hub.unsubscribe(name, self.number)
        if reply.text:
            self.frames.append(frame(reply.text))
        self._subscribe(list(session.streams) if reply.reshaped else reply.added)
        self.flush()
        if reply.close is not None:
            self.close(*reply.close)
        elif reply.added:
            self._server.on_subscribed()

    def _subscribe(self, names: list[str]) -> None:
        session = self._session
        assert session is not None
        listener = Listener(self.frames.append, session.combined, session.microseconds)
        for name in names:
            self._server.hub.subscribe(name, self.number, listener)

    def on_time(self, now_ns: int) -> None:
        """Pings, the pong deadline and the end of the connection's life."""
        session, transport = self._session, self.transport
        if session is None or transport is None:
            return
        ping, close = session.on_time(now_ns)
        if close is not None:
            self.close(*close)
        elif ping:
            transport.send_ping(ping)

    @property
    def backlog(self) -> int:
        """Bytes that the system has not taken yet."""
        return self._raw.get_write_buffer_size() if self.transport is not None else 0

    def flush(self) -> None:
        """Write what has gathered, in one piece; cut a reader that is too far behind."""
        frames, transport = self.frames, self.transport
        if not frames:
            return
        faults = self._server.faults
        going = frames if faults is None else faults.on_frames(self.number, list(frames))
        if transport is not None and going:
            self.frames_sent += len(going)
            self._raw.write(b"".join(going))
            if self.backlog > self._server.config.backlog_bytes_max:
                self._server.slow_readers_cut += 1
                frames.clear()
                transport.disconnect(graceful=False)
        frames.clear()

    def announce_shutdown(self, now_us: int) -> None:
        """Send the serverShutdown event in this connection's shape."""
        session = self._session
        assert session is not None
        event = b'{"e":"serverShutdown","E":%d}' % (now_us if session.microseconds else now_us // 1_000)
        if session.combined:
            event = b'{"stream":"!serverShutdown","data":%b}' % event
        self.frames.append(frame(event))
        self.flush()

    def close(self, code: int, reason: str) -> None:
        """Send a close frame and hang up."""
        if self.transport is not None:
            self.transport.send_close(WSCloseCode(code), reason.encode())
            self.transport.disconnect()


class SimServer:
    """A running double. Make one with `await SimServer.start(source, config)`; end it with `stop()`."""

    def __init__(self, source: Source, config: SimConfig, clock: Clock, faults: Faults | None) -> None:
        self.config, self.clock, self.faults = config, clock, faults
        self.source = source
        self.hub = Hub()
        self.connections: dict[int, Connection] = {}
        self.slow_readers_cut = 0
        source.attach(self.hub)
        self.player: Player | None = None
        self.ws_url = self.rest_url = ""
        self._attempts: deque[int] = deque()
        self._numbers = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._ws_server: asyncio.Server | None = None
        self._rest: Any = None

    @classmethod
    async def start(
        cls,
        source: Source,
        config: SimConfig | None = None,
        *,
        clock: Clock | None = None,
        faults: Faults | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> "SimServer":
        """Listen and answer. OSError when a port is taken."""
        from tradeback.sim.rest import RestServer

        server = cls(source, config or SimConfig(), clock or SystemClock(), faults)
        settings = server.config
        periodic = Periodic(source, server.hub)
        server.player = player = Player(
            source, periodic, settings, server.clock, server.flush, server._crowded
        )
        server._ws_server = await ws_create_server(
            server._welcome, settings.host, settings.port, ssl=tls, enable_auto_pong=False,
            max_frame_size=CLIENT_FRAME_BYTES_MAX * 2,
        )  # fmt: skip
        server._rest = RestServer(source, settings, server.clock, player.now_us, lambda: server.faults)
        try:
            rest_port = await server._rest.start(settings.host, settings.rest_port, tls)
        except OSError:
            server._ws_server.close()
            raise
        # Listening everywhere is the user's choice; clients on this machine are told the loopback.
        host = "127.0.0.1" if settings.host in ("0.0.0.0", "") else settings.host  # noqa: S104
        port = server._ws_server.sockets[0].getsockname()[1]
        secure = "s" if tls is not None else ""
        server.ws_url, server.rest_url = f"ws{secure}://{host}:{port}", f"http{secure}://{host}:{rest_port}"
        server._tasks = [asyncio.create_task(player.run()), asyncio.create_task(server._watch_time())]
        if settings.start_after_streams == 0:
            server.play()
        return server

    async def stop(self) -> None:
        """Close everything."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for connection in list(self.connections.values()):
            connection.close(1001, "going away")
        if self._ws_server is not None:
            self._ws_server.close()
        await asyncio.sleep(0)
        for connection in list(self.connections.values()):
            if connection.transport is not None:
                connection.transport.disconnect(graceful=False)
        if self._rest is not None:
            await self._rest.stop()

    def play(self) -> None:
        """Let the market begin, whoever listens."""
        assert self.player is not None
        self.player.start()

    async def finished(self) -> None:
        """Wait until the source has nothing more and everything is handed to the sockets."""
        assert self.player is not None
        await self.player.finished.wait()

    def announce_shutdown(self) -> None:
        """Tell every connection that the server will go down; the caller then stops it."""
        assert self.player is not None
        for connection in self.connections.values():
            connection.announce_shutdown(self.player.now_us())

    def on_subscribed(self) -> None:
        """A connection has added streams."""
        wanted = self.config.start_after_streams
        if wanted > 0 and self.hub.subscriptions >= wanted:
            self.play()

    def flush(self) -> None:
        """Write what every connection has gathered."""
        for connection in list(self.connections.values()):
            connection.flush()

    def _crowded(self) -> bool:
        limit = self.config.backlog_bytes_max // 2
        return any(connection.backlog > limit for connection in self.connections.values())

    def _welcome(self, request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener:
        """The handshake: a connection, or the refusal."""
        try:
            self._count_attempt()
            target = parse_target(request.path.decode("utf-8", "replace"))
            if len(target.streams) > self.config.streams_per_connection_max:
                raise BadPath(400, "too many streams")
        except BadPath as refused:
            response = WSUpgradeResponse.create_error_response(refused.status, refused.reason.encode())
            return WSUpgradeResponseWithListener(response, None)
        self._numbers += 1
        return Connection(self, target, self._numbers)

    def _count_attempt(self) -> None:
        """All clients count as one address: the handshake callback does not show theirs."""
        now_ns, attempts = self.clock.steady_ns(), self._attempts
        while attempts and now_ns - attempts[0] >= self.config.connection_window_s * SECOND_NS:
            attempts.popleft()
        if len(attempts) >= self.config.connections_per_window:
            raise BadPath(429, "Too many connection attempts")
        attempts.append(now_ns)

    async def _watch_time(self) -> None:
        spans = (self.config.ping_interval_s, self.config.pong_timeout_s, self.config.connection_life_s)
        period_s = min(0.25, max(0.002, min(spans) / 4))
        while True:
            await asyncio.sleep(period_s)
            now_ns = self.clock.steady_ns()
            for connection in list(self.connections.values()):
                connection.on_time(now_ns)
