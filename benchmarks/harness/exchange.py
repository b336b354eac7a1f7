"""The fake exchange: a child process with REST, streams and the C sender. It also opens the subscribers,
because sender and last receiver of a broadcast must be one process to time it.
"""

import ctypes
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from benchmarks.harness import subscribers
from benchmarks.harness.certificate import Certificate
from benchmarks.harness.children import Child, ChildError, Pipe
from benchmarks.harness.exchange_line import Line
from benchmarks.harness.machine import urgent
from benchmarks.harness.market import MarketPool, Tally
from benchmarks.harness.native import Ints, address, library, touched
from benchmarks.harness.rest import RestServer
from benchmarks.harness.trades import TradeFrames, trade_frames
from benchmarks.harness.websocket import Wire, listen, port_of

SETTLE_SECONDS = 0.3
ROUND_MS_MAX = 5_000


@dataclass(frozen=True)
class Paced:
    """One run of the paced sender: trades number first.. at `rate` per second, `burst` per send.

    A sender that is late sends what is overdue at once (`catch_up`), or moves its schedule: where others use
    its core, bursts would be of its making.
    """

    base_ns: int
    rate: float
    first: int
    count: int
    burst: int
    catch_up: bool = True


@dataclass(frozen=True)
class Rounds:
    """One run of broadcasts: `rounds` times `burst` trades, each waited for by every subscriber."""

    first: int
    burst: int
    rounds: int
    pause_us: int = 0


@dataclass
class Broadcasts:
    """What `Rounds` gave. `last_ns`: send to last subscriber, per broadcast."""

    last_ns: Ints
    frames: int
    entries: int
    total_bytes: int
    price_sum: int


class _Exchange:
    """The process' state. Every public method is a command."""

    def __init__(self, symbols: Sequence[str], tls: Certificate | None) -> None:
        self.names = list(symbols)
        self.frames: TradeFrames = trade_frames(symbols[:10])
        self.context: ssl.SSLContext | None = None
        if tls is not None:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(tls.certificate, tls.key)
        self.lines: list[Line] = []
        self.rest = RestServer(symbols)
        self.server = listen()
        self.halt = threading.Event()
        self.sent = 0
        self.wires: list[Wire] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            sock, _ = self.server.accept()
            line = Line(sock, self.context)
            self.lines.append(line)
            line.start()

    def _line(self, kind: str) -> Line:
        for line in reversed(self.lines):  # the newest: an older one may not have noticed its end yet
            if kind in line.kinds and not line.closed:
                return line
        raise LookupError(f"nobody has subscribed to {kind}")

    def ports(self) -> tuple[int, int]:
        """(streams, REST)."""
        return port_of(self.server), self.rest.port

    def streams(self, kind: str) -> int:
        """How many streams of a kind are subscribed on open lines."""
        open_lines = [line for line in list(self.lines) if not line.closed]
        return sum(stream.endswith(f"@{kind}") for line in open_lines for stream in list(line.streams))

    def first_frames(self) -> int:
        """How many frames the open lines were sent when they subscribed."""
        return sum(line.first_frames for line in list(self.lines) if not line.closed)

    def rest_quiet_s(self) -> tuple[int, float]:
        """(requests so far, seconds since the last one)."""
        return self.rest.requests, time.monotonic() - self.rest.last_request_s

    def paced(self, plan: Paced) -> Ints:
        """Send trades on schedule; how late each send began, ns."""
        late = touched(plan.count // plan.burst + 2)

        def job(sock: socket.socket) -> int:
            with urgent():
                sent: int = library().paced_trades(
                    sock.fileno(), self.frames.frames, ctypes.byref(self.frames.layout), plan.base_ns,
                    plan.rate, plan.first, plan.count, plan.burst, int(plan.catch_up), address(late),
                )  # fmt: skip
            return sent

        line = self._line("trade")
        line.run_job(job)
        sent = line.job_result(plan.count / plan.rate * 3 + 30.0)
        if sent != plan.count:
            raise ConnectionError(f"only {sent} of {plan.count} trades could be sent")
        return late[: plan.count // plan.burst]

    def make_pool(self, count: int) -> tuple[int, float]:
        """Generate the frames of `blast`: (frames in a round, mean bytes)."""
        self.pool = MarketPool(self.names, count, time.time_ns() // 1_000)
        return self.pool.count, self.pool.mean_bytes

    def blast(self) -> None:
        """Send the pool round after round, as fast as it is taken, until `halt_blast`."""
        self.halt.clear()

        self.blasted = self._line("trade")
        self.blasted.run_job(lambda sock: self.pool.send(sock.sendall, self.halt.is_set))

    def halt_blast(self) -> Tally:
        """End the blast at a chunk's end; what was sent. The first frame of each line is not in it."""
        self.halt.set()
        tally: Tally = self.blasted.job_result(10.0)
        return tally

    def subscribe(self, port: int, count: int, names: Sequence[str]) -> int:
        """Open `count` subscribers of a feed; without names they only connect. How many there are now."""
        self.wires += subscribers.open_many(port, count, names)
        time.sleep(SETTLE_SECONDS)
        return len(self.wires)

    def unsubscribe(self) -> None:
        """Close all subscribers."""
        for wire in self.wires:
            wire.sock.close()
        self.wires.clear()

    def rounds(self, plan: Rounds) -> Broadcasts:
        """Broadcast after broadcast, each waited for."""
        last = np.zeros(plan.rounds, np.int64)
        totals = np.zeros(4, np.int64)
        sockets = np.array([wire.sock.fileno() for wire in self.wires], np.int32)

        def job(sock: socket.socket) -> int:
            done: int = library().broadcast_rounds(
                sock.fileno(), self.frames.frames, ctypes.byref(self.frames.layout), 0, plan.first,
                plan.burst, address(sockets), len(sockets), plan.rounds, plan.pause_us, ROUND_MS_MAX,
                address(last), address(totals),
            )  # fmt: skip
            return done

        line = self._line("trade")
        line.run_job(job)
        done = line.job_result(600.0)
        if done != plan.rounds:
            raise ConnectionError(
                f"broadcast {done + 1} of {plan.rounds} did not reach all {len(sockets)} subscribers"
            )
        return Broadcasts(last, *(int(value) for value in totals))


def _process(pipe: Pipe, symbols: Sequence[str], tls: Certificate | None) -> None:
    exchange = _Exchange(symbols, tls)
    pipe.send(exchange.ports())
    while True:
        command, *arguments = pipe.recv()
        pipe.send(("done", getattr(exchange, command)(*arguments)))


class Exchange:
    """The parent's handle of the process."""

    def __init__(self, core: int, symbols: Sequence[str], tls: Certificate | None = None) -> None:
        """Start it on `core`."""
        self.symbols = list(symbols)
        self.frames = trade_frames(self.symbols[:10])
        self.child = self._start(core, tls)
        self.stream_port, self.rest_port = self.child.hello
        scheme = "wss" if tls else "ws"
        self.ws_endpoint = f"{scheme}://127.0.0.1:{self.stream_port}"
        self.rest_endpoint = f"http://127.0.0.1:{self.rest_port}"

    def _start(self, core: int, tls: Certificate | None) -> Child:
        return Child(core, _process, self.symbols, tls)

    def do(self, command: str, *arguments: Any, timeout_s: float = 120.0) -> Any:
        """Run a command of the process and wait for its result."""
        return self.child.ask(command, *arguments, timeout_s=timeout_s)[1]

    def begin(self, command: str, *arguments: Any) -> None:
        """Start a command; `end` waits for it."""
        self.child.tell(command, *arguments)

    def end(self, timeout_s: float = 120.0) -> Any:
        """The result of what was begun."""
        return self.child.answer(timeout_s)[1]

    def wait_streams(self, kind: str, count: int, timeout_s: float = 30.0) -> None:
        """Wait until `count` streams of a kind are subscribed. Raises ChildError."""
        deadline = time.monotonic() + timeout_s
        while (found := self.do("streams", kind)) < count:
            if time.monotonic() > deadline:
                raise ChildError(f"{found} of {count} {kind} streams subscribed after {timeout_s:.0f} s")
            time.sleep(0.01)

    def close(self) -> None:
        """End it."""
        self.child.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
