"""A crowd of charts: asks for history on a schedule, over connections that stay open, and looks at the
answers.

It runs in a child process under SCHED_IDLE, so that on a core which it shares with sender and receiver of
the feed it takes what they leave.
"""

import contextlib
import os
import selectors
import socket
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.harness.children import Child, Pipe
from benchmarks.harness.native import Ints

CONNECTIONS = 8
READ_BYTES = 1 << 18
CHECK_EVERY = 10
"""Of so many answers one is looked at in full: it takes the time of a request."""
RUN_SECONDS_MAX = 120.0


@dataclass(frozen=True)
class Asked:
    """What came of a run. Latencies from the scheduled moment to the last byte, in order of the answers."""

    latency_ns: Ints
    wrong: list[str]
    answer_bytes: int


class _Connection:
    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.due_ns = 0
        self.parts: list[bytes] = []
        self.left = -1

    def ask(self, target: str, due_ns: int) -> None:
        """Send one request."""
        self.due_ns, self.parts, self.left = due_ns, [], -1
        self.sock.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    def read(self) -> bytes | None:
        """The whole answer, once it is there. Raises ConnectionError."""
        while True:
            try:
                data = self.sock.recv(READ_BYTES)
            except BlockingIOError:
                return None
            if not data:
                raise ConnectionError("the engine has closed a connection")
            self.parts.append(data)
            if self.left < 0:
                self.left = self._length(data)
            self.left -= len(data)
            if not self.left:
                return b"".join(self.parts)

    def _length(self, data: bytes) -> int:
        """Bytes of head and body; the head comes in one piece on the loopback."""
        head, end, _ = data.partition(b"\r\n\r\n")
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:") and end:
                return len(head) + len(end) + int(line.partition(b":")[2])
        raise ConnectionError(f"an answer without a length: {head[:200]!r}")


def look(answer: bytes, bars: int) -> str:
    """What is wrong with an answer of /history; empty when nothing is."""
    import orjson

    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0]:
        return f"answered {head[:40]!r}: {body[:100]!r}"
    found = orjson.loads(body)
    times = found.get("t", [])
    if len(times) != bars:
        return f"{len(times)} bars instead of {bars}: {body[:100]!r}"
    rising = bool((np.diff(np.array(times)) > 0).all())
    same = all(len(found[name]) == bars for name in "ohlcv")
    return "" if rising and same else "columns of other lengths, or times that do not rise"


def _run(port: int, targets: list[str], rate: float, count: int, bars: int) -> Asked:
    chooser = selectors.DefaultSelector()
    idle = [_Connection(port) for _ in range(CONNECTIONS)]
    for one in idle:
        chooser.register(one.sock, selectors.EVENT_READ, one)
    step_ns, size, sent = int(1e9 / rate), 0, 0
    latencies, wrong = list[int](), list[str]()
    next_ns = time.monotonic_ns() + step_ns
    while len(latencies) < count:
        now_ns = time.monotonic_ns()
        while idle and sent < count and now_ns >= next_ns:
            idle.pop().ask(targets[sent % len(targets)], next_ns)
            sent, next_ns = sent + 1, next_ns + step_ns
        wait_s = max(0.0, (next_ns - now_ns) / 1e9) if idle and sent < count else 1.0
        for key, _ in chooser.select(wait_s):
            connection: _Connection = key.data
            answer = connection.read()
            if answer is None:
                continue
            latencies.append(time.monotonic_ns() - connection.due_ns)
            size += len(answer)
            idle.append(connection)
            if len(latencies) % CHECK_EVERY == 0:
                said = look(answer, bars)
                if said:
                    wrong.append(said)
    for one in idle:
        one.sock.close()
    return Asked(np.array(latencies, np.int64), wrong[:5], size)


def serve(pipe: Pipe, port: int, targets: list[str], bars: int) -> None:
    """The child: runs on demand."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    pipe.send("ready")
    while True:
        rate, count = pipe.recv()
        pipe.send(_run(port, targets, rate, count, bars))


class Charts:
    """The parent's handle of the child."""

    def __init__(self, core: int, port: int, targets: list[str], bars: int) -> None:
        """Start it on `core`; it asks for `targets` in turn, each of which has `bars` bars."""
        self._child = Child(core, serve, port, targets, bars)

    def ask(self, rate: float, count: int) -> Asked:
        """Run and wait."""
        self.begin(rate, count)
        return self.end()

    def begin(self, rate: float, count: int) -> None:
        """Begin a run of `count` requests at `rate` per second."""
        self._child.tell(rate, count)

    def end(self) -> Asked:
        """Wait for it."""
        found: Any = self._child.answer(RUN_SECONDS_MAX)
        assert isinstance(found, Asked)
        return found

    def __enter__(self) -> "Charts":
        return self

    def __exit__(self, *_: object) -> None:
        self._child.close()
