"""The sockets of the simulated exchange: stream connections by picows, REST by aiohttp."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections import deque
from collections.abc import Mapping
from math import ceil
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
from tradeback.sim.clock import ScaledClock, SkewedClock
from tradeback.sim.config import SECOND_NS, SimConfig
from tradeback.sim.fault_play import Act, FaultPlay
from tradeback.sim.faults import RestAnswer
from tradeback.sim.periodic import Periodic
from tradeback.sim.player import Player
from tradeback.sim.session import BadPath, Reply, Session, Target, parse_target

CLIENT_FRAME_BYTES_MAX = 64 * 1024
FAULT_PERIOD_S = 0.05
"""How often faults are told the time while the market is quiet."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends RST and forgets what is unsent."""


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
        self._session = Session(self._server.config, self._target, self._server.life.steady_ns())
        self._server.connections[self.number] = self
        if self._server.faults is not None:
            self._server.faults.opened(self.number)
        self._subscribe(list(self._session.streams))
        self._server.on_subscribed()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.transport = None
        self._server.connections.pop(self.number, None)
        if self._server.faults is not None:
            self._server.faults.closed(self.number)
        if self._session is not None:
            for name in self._session.streams:
                self._server.hub.unsubscribe(name, self.number)

    def on_ws_frame(self, transport: WSTransport, ws_frame: WSFrame) -> None:
        session, faults = self._session, self._server.faults
        if session is None or (faults is not None and faults.is_deaf(self.number)):
            return
        now_ns, kind = self._server.life.steady_ns(), ws_frame.msg_type
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
        if self._server.faults is not None:
            self._server.faults.subscribed(self.number, names)

    def on_time(self, now_ns: int) -> None:
        """Pings, the pong deadline and the end of the connection's life."""
        session, transport, faults = self._session, self.transport, self._server.faults
        if session is None or transport is None or (faults is not None and faults.is_deaf(self.number)):
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
        frames, transport, faults = self.frames, self.transport, self._server.faults
        if not frames and faults is None:
            return
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

    def obey(self, act: Act, now_us: int) -> None:
        """Do what a fault asks for."""
        transport = self.transport
        if transport is None:
            return
        if act.data:
            self._raw.write(act.data)
        if act.doing == "announce":
            self.announce_shutdown(now_us)
        elif act.doing == "close":
            self.close(act.code, "")
        elif act.doing == "drop":
            transport.disconnect()
        elif act.doing == "reset":
            self._raw.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE
            )
            transport.disconnect(graceful=False)

    def close(self, code: int, reason: str) -> None:
        """Send a close frame and hang up."""
        if self.transport is not None:
            self.transport.send_close(WSCloseCode(code), reason.encode())
            self.transport.disconnect()


class SimServer:
    """A running double. Make one with `await SimServer.start(source, config)`; end it with `stop()`."""

    def __init__(self, source: Source, config: SimConfig, clock: Clock, faults: FaultPlay | None) -> None:
        self.config, self.clock, self.faults = config, clock, faults
        self.life: Clock = clock if config.life_rate == 1 else ScaledClock(clock, config.life_rate)
        """Ages, pings and limits go by this one."""
        self._exchange_clock: Clock = clock
        self._skewed: SkewedClock | None = None
        self._started_ns: int | None = None
        self.started_us = 0
        """Market time at which the market began."""
        if faults is not None:
            faults.life_rate = config.life_rate
            self._exchange_clock = self._skewed = SkewedClock(clock)
            for act in faults.first_clock():
                self._skewed.skew(act.ahead_ms, act.drift_ppm)
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
        faults: FaultPlay | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> "SimServer":
        """Listen and answer. OSError when a port is taken."""
        from tradeback.sim.rest import RestServer

        server = cls(source, config or SimConfig(), clock or SystemClock(), faults)
        settings = server.config
        periodic = Periodic(source, server.hub)
        server.player = player = Player(
            source, periodic, settings, server._exchange_clock, server.flush, server._crowded
        )
        server._ws_server = await ws_create_server(
            server._welcome, settings.host, settings.port, ssl=tls, enable_auto_pong=False,
            max_frame_size=CLIENT_FRAME_BYTES_MAX * 2,
        )  # fmt: skip
        spoil, hides = (
            (server._spoil, server._hides) if faults is not None and faults.faults else (None, None)
        )
        server._rest = RestServer(source, settings, server.life, player.now_us, spoil, hides)
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
        if self._started_ns is None:
            self._started_ns, self.started_us = self.clock.steady_ns(), self.player.market_us

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
        if self.faults is not None:
            self._act_out(self.faults)
        for connection in list(self.connections.values()):
            connection.flush()

    def _act_out(self, faults: FaultPlay) -> None:
        """Tell the faults the time, and do what they ask for."""
        if self._started_ns is None:
            return
        player = self.player
        assert player is not None
        for act in faults.on_time((self.clock.steady_ns() - self._started_ns) / SECOND_NS):
            if act.doing == "clock":
                assert self._skewed is not None
                player.shift(self._skewed.skew(act.ahead_ms, act.drift_ppm))
            elif act.connection in self.connections:
                self.connections[act.connection].obey(act, player.now_us())

    def _spoil(self, path: str, query: Mapping[str, str], answer: RestAnswer) -> RestAnswer:
        assert self.faults is not None
        assert self.player is not None
        return self.faults.on_rest(path, query, answer, self.player.now_us())

    def _hides(self, path: str, symbol: str, number: int, time_us: int) -> bool:
        assert self.faults is not None
        return self.faults.hides(path, symbol, number, time_us, self.started_us)

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
        refusal = self.faults.on_handshake() if self.faults is not None else None
        if refusal is not None:
            headers = {"Retry-After": str(ceil(refusal.retry_after_s))} if refusal.retry_after_s else None
            response = WSUpgradeResponse.create_error_response(refusal.status, b"try again later", headers)
            return WSUpgradeResponseWithListener(response, None)
        self._numbers += 1
        return Connection(self, target, self._numbers)

    def _count_attempt(self) -> None:
        """All clients count as one address: the handshake callback does not show theirs."""
        now_ns, attempts = self.life.steady_ns(), self._attempts
        while attempts and now_ns - attempts[0] >= self.config.connection_window_s * SECOND_NS:
            attempts.popleft()
        if len(attempts) >= self.config.connections_per_window:
            raise BadPath(429, "Too many connection attempts")
        attempts.append(now_ns)

    async def _watch_time(self) -> None:
        spans = (self.config.ping_interval_s, self.config.pong_timeout_s, self.config.connection_life_s)
        period_s = min(0.25, max(0.002, min(spans) / 4 / self.config.life_rate))
        if self.faults is not None:
            period_s = min(period_s, FAULT_PERIOD_S)
        while True:
            await asyncio.sleep(period_s)
            now_ns = self.life.steady_ns()
            for connection in list(self.connections.values()):
                connection.on_time(now_ns)
            if self.faults is not None:
                self.flush()
