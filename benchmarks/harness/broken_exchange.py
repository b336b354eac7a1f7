"""The fake exchange with two lines that break: single connections are cut, ids are lost on all of them.

Every trade goes to every open connection that has subscribed to trades. What no line brings is in REST.
"""

import ctypes
import json
import random
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.certificate import Certificate
from benchmarks.harness.children import Child, Pipe
from benchmarks.harness.exchange import Exchange
from benchmarks.harness.exchange_line import Line
from benchmarks.harness.machine import giving_way, urgent
from benchmarks.harness.native import Ints, address, library, touched
from benchmarks.harness.rest import RestServer
from benchmarks.harness.trades import FIRST_ID, PRICE_STEPS, PRICE_STRIDE, STAMP_OFFSET, trade_frames
from benchmarks.harness.websocket import Wire, listen, port_of

TRADES_MAX = 8_000_000
"""Trades of one exchange."""
LINES_MAX = 16
SETTLED_SECONDS = 0.2
"""A connection counts as up this long after its subscription: then its partner may be cut. By then all that
only the partner was sent should have been read; what has not is lost with it."""
PAGE_MAX = 1_000
LOSSES_END = 0.8
"""Share of a run after which no more ids are lost, so that their repair falls into it, too."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Play:
    """One run: trades number first.. at `rate` per second, and what goes wrong meanwhile."""

    base_ns: int
    rate: float
    first: int
    count: int
    seed: int
    cuts_per_s: float = 0.0
    """Single connections cut, of any kind, and only while their partner is up."""
    losses_per_s: float = 0.0
    """Times at which ids of one symbol are lost on all lines."""
    ids_per_loss: int = 1
    burst: int = 1
    """Trades per send."""
    lag_s: tuple[float, float] = (0.0, 0.0)
    """How long after the first line the others are sent the same: each send anew, at random between these."""
    awake: bool = False
    """Wait for the moment of a send by looking at the clock, not by a timer, and give the core to whoever
    wants it meanwhile: the subscriber, whose core then neither sleeps nor sets timers."""


@dataclass(frozen=True)
class Played:
    """What came of it. `lost`: numbers of the trades that no line brought."""

    late_ns: Ints
    cuts: int
    cuts_of_trades: int
    lost: Ints


class _Line(Line):
    """One connection, which says when it is subscribed and when it ends."""

    def __init__(self, sock: socket.socket, owner: "_BrokenExchange") -> None:
        super().__init__(sock, None)
        self.joined_s = float("inf")
        self._owner = owner

    def cut(self) -> None:
        """End it by RST."""

        def reset(sock: socket.socket) -> None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            raise ConnectionResetError("cut")

        self.run_job(reset)

    def _serve(self, wire: Wire) -> None:
        try:
            super()._serve(wire)
        finally:
            self._owner.left(self, wire.sock.fileno())

    def _control(self, opcode: int, payload: bytes) -> bool:
        fresh = not self.streams
        goes_on = super()._control(opcode, payload)
        if fresh and self.streams:
            self._owner.joined(self, self._sock.fileno())
            self.joined_s = time.monotonic()
        return goes_on


class _Rest(RestServer):
    """REST that knows every trade, whether a line brought it or not."""

    def __init__(self, symbols: Sequence[str], owner: "_BrokenExchange") -> None:
        self._owner = owner
        super().__init__(symbols)

    def answer(self, target: str) -> tuple[int, bytes]:
        """Trades and the newest aggregate beside what the others have."""
        path, query = self.parts(target)
        name = query.get("symbol", "")
        if path == "/api/v3/historicalTrades" and name in self._owner.names:
            first_id = int(query["fromId"]) if "fromId" in query else None
            return 200, json.dumps(self._owner.page(name, first_id, int(query.get("limit", 500)))).encode()
        if path == "/api/v3/aggTrades" and name in self._owner.names:
            return 200, json.dumps(self._owner.newest_aggregate(name, "fromId" in query)).encode()
        if path == "/api/v3/ticker/bookTicker" and name in self._owner.names:
            quote = {"bidPrice": "60000.00000000", "bidQty": "1.00000000"}
            return 200, json.dumps(
                {"symbol": name, **quote, "askPrice": "60000.01000000", "askQty": "1.00000000"}
            ).encode()
        return super().answer(target)


class _BrokenExchange:
    """The process' state. Every public method without a line in its name is a command."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self.names = list(symbols)
        self.frames = trade_frames(symbols)
        self.lines: list[_Line] = []
        self.stamps = np.zeros(TRADES_MAX, np.int64)
        self.wall_us = 0
        """Wall clock at stamp 0."""
        self._fds: NDArray[np.int32] = np.full(LINES_MAX, -1, np.int32)
        self._rounds = np.zeros(1, np.int64)
        """Trades that have happened."""
        self._seats = threading.Lock()
        self._playing = False
        self.rest = _Rest(symbols, self)
        self.server = listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            line = _Line(self.server.accept()[0], self)
            self.lines = [held for held in self.lines if not held.closed]
            self.lines.append(line)
            line.start()

    def ports(self) -> tuple[int, int]:
        """(streams, REST)."""
        return port_of(self.server), self.rest.port

    def streams(self, kind: str) -> int:
        """How many streams of a kind are subscribed on open connections."""
        return sum(
            stream.endswith(f"@{kind}") for line in list(self.lines) if not line.closed
            for stream in list(line.streams)
        )  # fmt: skip

    # Who is sent to. Called by the connections' threads.

    def joined(self, line: _Line, fd: int) -> None:
        """A connection has subscribed: trades go to it from now on."""
        if "trade" in line.kinds:
            with self._seats:
                self._fds[int(np.flatnonzero(self._fds < 0)[0])] = fd

    def left(self, line: _Line, fd: int) -> None:
        """Before its socket is closed: the sender must have let go of the descriptor, which comes again."""
        line.joined_s = float("inf")
        with self._seats:
            mine = self._fds == fd
            held, self._fds[mine] = bool(mine.any()), -1
        before = int(self._rounds[0])
        while held and self._playing and int(self._rounds[0]) == before:
            time.sleep(0.0002)

    # Playing.

    def play(self, plan: Play) -> Played:
        """Send trades on schedule while things break."""
        assert plan.first == int(self._rounds[0]), "numbers run on from one run to the next"
        rng = random.Random(plan.seed)
        lost, late = self._losses(plan, rng), touched(plan.count)
        sends = -(-plan.count // plan.burst)
        lags = (np.random.default_rng(plan.seed).uniform(*plan.lag_s, sends) * 1e9).astype(np.int64)
        self.stamps[plan.first : plan.first + plan.count] = 0
        self.wall_us = (time.time_ns() - time.monotonic_ns() + plan.base_ns) // 1_000

        def send() -> None:
            with giving_way() if plan.awake else urgent():
                library().paced_on_lines(
                    address(self._fds), LINES_MAX, self.frames.frames, ctypes.byref(self.frames.layout),
                    plan.base_ns, plan.rate, plan.first, plan.count, plan.burst, address(lags),
                    int(plan.awake), address(lost), address(self.stamps[plan.first :]), address(late),
                    address(self._rounds),
                )  # fmt: skip

        sender = threading.Thread(target=send)
        self._playing = True
        sender.start()
        cuts = self._cut_while(sender, plan.cuts_per_s, rng)
        sender.join()
        self._playing = False
        numbers = np.flatnonzero(lost).astype(np.int64) + plan.first
        return Played(late, len(cuts), sum("trade" in line.kinds for line in cuts), numbers)

    def _losses(self, plan: Play, rng: random.Random) -> NDArray[np.uint8]:
        """Which trades no line brings: runs of ids of one symbol, spread over the run."""
        lost, symbols = np.full(plan.count, 0, np.uint8), len(self.names)
        times = int(plan.losses_per_s * plan.count / plan.rate)
        span = int(plan.count * LOSSES_END) // max(1, times)
        for number in range(times):
            start = number * span + rng.randrange(max(1, span // 2))
            ids = rng.randint(1, plan.ids_per_loss)
            lost[start : start + ids * symbols : symbols] = 1
        return lost

    def _cut_while(self, sender: threading.Thread, per_s: float, rng: random.Random) -> list[_Line]:
        cuts: list[_Line] = []
        if per_s <= 0:
            return cuts
        due_s = time.monotonic() + rng.expovariate(per_s)
        while sender.is_alive():
            wait_s = due_s - time.monotonic()
            if wait_s > 0:
                sender.join(wait_s)
                continue
            victims = self._victims()
            if not victims:
                sender.join(0.002)
                continue
            cuts.append(rng.choice(victims))
            cuts[-1].joined_s = float("inf")
            cuts[-1].cut()
            due_s += rng.expovariate(per_s)
        return cuts

    def _victims(self) -> list[_Line]:
        """Connections that may be cut: their partner has been up for a while."""
        settled_s = time.monotonic() - SETTLED_SECONDS
        by_kind: dict[str, list[_Line]] = defaultdict(list)
        for line in list(self.lines):
            if not line.closed and line.joined_s <= settled_s:
                by_kind["".join(sorted(line.kinds))].append(line)
        return [line for lines in by_kind.values() if len(lines) > 1 for line in lines]

    # What REST knows.

    def page(self, name: str, first_id: int | None, limit: int) -> list[dict[str, object]]:
        """Trades of one symbol from an id on, or the newest."""
        symbols, place = len(self.names), self.names.index(name)
        next_id = FIRST_ID + max(0, int(self._rounds[0]) - place + symbols - 1) // symbols
        limit = min(limit, PAGE_MAX)
        start = max(FIRST_ID, next_id - limit if first_id is None else first_id)
        return [
            self._trade(number, (number - FIRST_ID) * symbols + place)
            for number in range(start, min(next_id, start + limit))
        ]

    def _trade(self, trade_id: int, number: int) -> dict[str, object]:
        stamp = int(self.stamps[number])
        price, quantity = number * PRICE_STRIDE % PRICE_STEPS, stamp + STAMP_OFFSET
        return {
            "id": trade_id,
            "price": f"6{price // 100:04d}.{price % 100:02d}000000",
            "qty": f"{quantity // 10**8:05d}.{quantity % 10**8:08d}",
            "quoteQty": "0.00000000",
            "time": self.wall_us + stamp // 1_000,
            "isBuyerMaker": False,
            "isBestMatch": True,
        }

    def newest_aggregate(self, name: str, from_id: bool) -> list[dict[str, object]]:
        """There is one aggregate per symbol, sent when it is subscribed; asked by id there are none."""
        if from_id:
            return []
        newest = self.page(name, None, 1)
        last_id = newest[0]["id"] if newest else FIRST_ID - 1
        return [
            {"a": FIRST_ID - 1, "p": "60000.00000000", "q": "1.00000000", "f": last_id, "l": last_id,
             "T": time.time_ns() // 1_000, "m": False, "M": True}
        ]  # fmt: skip


def _process(pipe: Pipe, symbols: Sequence[str]) -> None:
    exchange = _BrokenExchange(symbols)
    pipe.send(exchange.ports())
    while True:
        command, *arguments = pipe.recv()
        pipe.send(("done", getattr(exchange, command)(*arguments)))


class BrokenExchange(Exchange):
    """The parent's handle of the process; its commands are `streams` and `play`."""

    def _start(self, core: int, tls: Certificate | None) -> Child:
        return Child(core, _process, self.symbols)
