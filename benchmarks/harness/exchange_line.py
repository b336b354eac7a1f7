"""One WebSocket connection of the fake exchange: a thread that answers control messages and does jobs."""

import json
import queue
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

from benchmarks.harness.trades import FIRST_ID, trade_frame, ws_header, ws_text
from benchmarks.harness.websocket import CLOSE, PING, PONG, TEXT, Wire, accept_upgrade

KINDS = ("trade", "bookTicker", "aggTrade")


def first_frame(stream: str) -> bytes:
    """What the exchange sends of a stream at once, so that the engine sees its lines deliver."""
    name, _, kind = stream.partition("@")
    symbol, last_id, time_us = name.upper(), FIRST_ID - 1, time.time_ns() // 1_000
    if kind == "trade":
        return trade_frame(symbol, last_id, time_us)
    if kind == "bookTicker":
        data = (
            f'{{"u":{last_id},"s":"{symbol}","b":"60000.00000000","B":"1.00000000",'
            f'"a":"60000.01000000","A":"1.00000000"}}'
        )
    else:
        data = (
            f'{{"e":"aggTrade","E":{time_us},"s":"{symbol}","a":{last_id},"p":"60000.00000000",'
            f'"q":"10000.00000000","f":{last_id},"l":{last_id},"T":{time_us},"m":false,"M":true}}'
        )
    return ws_text(f'{{"stream":"{stream}","data":{data}}}')


class Line(threading.Thread):
    """Serves one client. `streams` is what it subscribed to; `run_job` gives the thread something to send.

    Reading and sending happen in this one thread, because an ssl socket allows no two at a time.
    """

    def __init__(self, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        """The handshake is done by the thread."""
        super().__init__(daemon=True)
        self.streams: list[str] = []
        self.path = ""
        self.first_frames = 0
        self._sock = sock
        self._tls = tls
        self._jobs: queue.SimpleQueue[Callable[[socket.socket], Any]] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._wake, self._waker = socket.socketpair()
        self.closed = False

    @property
    def kinds(self) -> set[str]:
        """The stream kinds subscribed here."""
        return {stream.partition("@")[2] for stream in self.streams}

    def run_job(self, job: Callable[[socket.socket], Any]) -> None:
        """Let the thread run `job(socket)`."""
        self._jobs.put(job)
        self._waker.send(b"j")

    def job_result(self, timeout_s: float) -> Any:
        """What the job returned. Raises its exception, or queue.Empty when it takes too long."""
        result = self._results.get(timeout=timeout_s)
        if isinstance(result, BaseException):
            raise result
        return result

    def run(self) -> None:
        """Serve until the client goes."""
        try:
            if self._tls is not None:
                self._sock = self._tls.wrap_socket(self._sock, server_side=True)
            wire = Wire(self._sock)
            self.path = accept_upgrade(wire)
            self._serve(wire)
        except OSError:
            pass  # the client is gone: how, is of no interest here
        finally:
            self.closed = True
            self._sock.close()

    def _serve(self, wire: Wire) -> None:
        while True:
            while wire.has_frame():
                if not self._control(*wire.frame()):
                    return
            pending = isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0
            ready = [self._sock] if pending else select.select([self._sock, self._wake], [], [])[0]
            if self._wake in ready:
                self._wake.recv(1)
                try:
                    self._results.put(self._jobs.get()(self._sock))
                except OSError as error:
                    self._results.put(error)
                    raise
            if self._sock in ready:
                wire.more()

    def _control(self, opcode: int, payload: bytes) -> bool:
        if opcode == CLOSE:
            self._sock.sendall(ws_header(len(payload), CLOSE) + payload)
            return False
        if opcode == PING:
            self._sock.sendall(ws_header(len(payload), PONG) + payload)
        elif opcode == TEXT:
            request = json.loads(payload)
            self._sock.sendall(
                ws_text(json.dumps({"result": None, "id": request.get("id")}, separators=(",", ":")))
            )
            if request.get("method") == "SUBSCRIBE" and request["params"]:
                fresh = not self.streams
                self.streams += request["params"]
                if fresh:
                    seen = {stream.partition("@")[2]: stream for stream in reversed(self.streams)}
                    self._sock.sendall(b"".join(first_frame(stream) for stream in seen.values()))
                    self.first_frames = len(seen)
        return True
