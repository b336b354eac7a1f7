"""One connection to the feed: its callbacks only copy what arrives, so that nothing can fail inside them."""

import asyncio
import time
from collections import deque

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

WAITING_FRAMES_MAX = 1_024
"""Frames that wait for the program before the socket is left alone."""


class Line(WSListener):
    """A bounded queue behind a socket, and a watch over its silence."""

    transport: WSTransport

    def __init__(self, silence_max_s: float) -> None:
        super().__init__()
        self.reason = ""
        self.version = 1
        self._silence_max_s = silence_max_s
        self._heard_s = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._waiting: deque[tuple[WSMsgType, bytes, int]] = deque()
        self._arrived = asyncio.Event()
        self._paused = False
        self._over = False
        self._parts: list[bytes] = []
        self._parts_kind = WSMsgType.BINARY

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        chosen = str(transport.response.headers.get("Sec-WebSocket-Protocol") or "")
        self.version = 2 if chosen.strip() == "tradeback.v2" else 1
        self._heard_s = asyncio.get_running_loop().time()
        self._look_later()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        recv_ns = time.time_ns()
        kind = frame.msg_type
        self._heard_s = asyncio.get_running_loop().time()
        if kind in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION):
            self._take(kind, frame.get_payload_as_bytes(), bool(frame.fin), recv_ns)
        elif kind == WSMsgType.CLOSE:
            words = (frame.get_close_message() or b"").decode("utf-8", "replace")
            code = frame.get_close_code()
            self.reason = self.reason or f"closed by the engine: {code} {words}".rstrip()
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()

    def _take(self, kind: WSMsgType, payload: bytes, final: bool, recv_ns: int) -> None:
        if self._over:
            return
        if kind != WSMsgType.CONTINUATION:
            self._parts_kind = kind
        if not final or self._parts:
            self._parts.append(payload)
            if not final:
                return
            payload = b"".join(self._parts)
            self._parts.clear()
        self._waiting.append((self._parts_kind, payload, recv_ns))
        self._arrived.set()
        if len(self._waiting) >= WAITING_FRAMES_MAX and not self._paused:
            self._paused = True
            self.transport.underlying_transport.pause_reading()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._over = True
        if self._watch is not None:
            self._watch.cancel()
        self.reason = self.reason or "the connection broke"
        self._arrived.set()

    def _look_later(self) -> None:
        self._watch = asyncio.get_running_loop().call_later(self._silence_max_s / 4, self._look)

    def _look(self) -> None:
        """Ask an engine that is silent, give up one that stays so. While the socket is left alone, silence
        is our own doing."""
        silent_s = asyncio.get_running_loop().time() - self._heard_s
        if self._paused:
            self._heard_s += silent_s
        elif silent_s >= self._silence_max_s:
            self.reason = self.reason or f"nothing came for {silent_s:.1f} s"
            self.transport.disconnect(False)
            return
        elif silent_s >= self._silence_max_s / 2:
            self.transport.send_ping()
        self._look_later()

    @property
    def waiting(self) -> int:
        """Messages not read yet."""
        return len(self._waiting)

    @property
    def over(self) -> bool:
        """The connection has ended; what came before may still wait."""
        return self._over

    async def next(self) -> tuple[WSMsgType, bytes, int] | None:
        """The next message with its arrival; None when the connection is over and all is read."""
        while not self._waiting:
            if self._over:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        held = self._waiting.popleft()
        if self._paused and len(self._waiting) < WAITING_FRAMES_MAX // 2:
            self._paused = False
            if not self._over:
                self.transport.underlying_transport.resume_reading()
        return held

    def send(self, message: bytes) -> None:
        """One text message; dropped when the connection is over."""
        if not self._over:
            self.transport.send(WSMsgType.TEXT, message)

    def give_up(self, reason: str) -> None:
        """End it at once: what came behind a message that cannot be read is of no worth."""
        self.reason, self._over = self.reason or reason, True
        self._waiting.clear()
        self.transport.disconnect(False)

    async def close(self) -> None:
        """Say goodbye and wait until the socket is closed."""
        if not self._over:
            self.transport.send_close(WSCloseCode.OK)
            self.transport.disconnect()
            await self.transport.wait_disconnected()
