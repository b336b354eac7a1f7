"""A v2 subscriber that keeps every frame in C while it is measured, and decodes them afterwards.

A v2 frame says when it was sent, so a trade has two latencies: until it arrives here, and until the engine
sends it. Where others use this process's core, only the second is the engine's: the kernel does not wake the
subscriber at once then.
"""

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.exchange import Paced
from benchmarks.harness.machine import urgent
from benchmarks.harness.native import Ints, address, library
from benchmarks.harness.subscribers import FEED_PATH, subscribe
from benchmarks.harness.trades import FIRST_ID, PRICE_STEPS, PRICE_STRIDE, STAMP_OFFSET
from benchmarks.harness.websocket import BINARY, Wire, connect, timeval
from tradeback.model.record import REPAIRED, STAND_IN
from tradeback.wire.v2 import Decoder
from tradeback.wire.v2_layout import FRAME_SNAPSHOT

BYTES_PER_TRADE = 128
"""Room for a trade in a frame of its own, twice over."""
SPARE_FRAMES = 10_000
"""Heartbeats and the like."""
QUIET_SECONDS = 0.05
PRICE_BASE = 6_000_000
"""Cents of the lowest price."""
ARRIVE_SECONDS_MAX = 10.0
FULL = -2
"""What keep_frames returns when there is no more room."""


@dataclass(frozen=True)
class Arrived:
    """Trades as they came, in order: their number, when (ns after base), when the engine sent them (the same,
    in whole us) and when the exchange did, whether they came by REST.
    """

    number: Ints
    arrived_ns: Ints
    sent_ns: Ints
    stamp_ns: Ints
    repaired: NDArray[np.bool_]
    strange: int
    """Entries that are no such trade: another price, an unknown symbol, a stand-in."""


@dataclass(frozen=True)
class Judged:
    """A run's latencies in ns in order of arrival, until a trade arrived and until the engine sent it; how
    many trades are doubled, strange, or repaired though lines had them.
    """

    latency_ns: Ints
    sent_ns: Ints
    wrong: int


def judge(arrived: Sequence[Arrived], plan: Paced) -> Judged:
    """What came of a run."""
    number = np.concatenate([part.number for part in arrived])
    latency = np.concatenate([part.arrived_ns - part.stamp_ns for part in arrived])
    sent = np.concatenate([part.sent_ns - part.stamp_ns for part in arrived])
    repaired = sum(int(np.count_nonzero(part.repaired)) for part in arrived)
    mine = (number >= plan.first) & (number < plan.first + plan.count)
    doubled = int(mine.sum()) - len(np.unique(number[mine]))
    strange = sum(part.strange for part in arrived) + int((~mine).sum())
    return Judged(latency[mine], sent[mine], doubled + strange + repaired)


class KeptFrames:
    """Use `keep_feed`. Nothing of Python runs while frames come."""

    def __init__(self, wire: Wire, names: Sequence[str], base_ns: int, trades_max: int) -> None:
        described = subscribe(wire, names)
        self._decoder = Decoder()
        self._places: NDArray[np.int64] = np.full(65_536, -1, np.int64)
        for place, name in enumerate(names):
            about = described[name]
            self._decoder.learn(about["id"], about["price_precision"], about["quantity_precision"])
            self._places[about["id"]] = place
        self._decoder.accelerate()
        self._symbols = len(names)
        self._base_ns = base_ns
        # Written to once now: a first touch in the middle of a run would cost a page fault.
        self._bytes = np.ones(trades_max * BYTES_PER_TRADE, np.uint8)
        self._frames = np.ones((trades_max + SPARE_FRAMES, 3), np.int64)
        self._state = np.zeros(2, np.int64)
        self._read = 0
        self._result = 0
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(QUIET_SECONDS))
        self._thread = threading.Thread(target=self._keep, args=(wire.sock.fileno(), base_ns))
        self._thread.start()

    def _keep(self, descriptor: int, base_ns: int) -> None:
        with urgent():
            self._result = library().keep_frames(
                descriptor, base_ns, address(self._bytes), len(self._bytes), address(self._frames),
                len(self._frames), address(self._state),
            )  # fmt: skip

    def take(self) -> Arrived:
        """Decode what has come since the last time. Raises ConnectionError when no more can come."""
        count = int(self._state[1])
        if not self._thread.is_alive():
            why = {FULL: "more came than there is room for"}.get(self._result, "the feed has hung up")
            raise ConnectionError(why)
        found: list[NDArray[np.int64]] = []
        strange = 0
        wall_base_ns = time.time_ns() - time.monotonic_ns() + self._base_ns
        for start, packed, arrived in self._frames[self._read : count].tolist():
            if packed & 15 != BINARY:
                continue
            frame = self._decoder.decode(self._bytes[start : start + (packed >> 4)].tobytes())
            trades = frame.trades
            if frame.flags & FRAME_SNAPSHOT or not len(trades):
                continue
            place = self._places[trades["symbol_id"]]
            number = (trades["id"] - FIRST_ID) * self._symbols + place
            right = np.rint(trades["price"] * 100) - PRICE_BASE == number * PRICE_STRIDE % PRICE_STEPS
            known = (place >= 0) & (number >= 0) & right & (trades["flags"] & STAND_IN == 0)
            strange += int(np.count_nonzero(~known))
            one = np.empty((len(trades), 5), np.int64)
            one[:, 0] = number
            one[:, 1] = arrived
            one[:, 2] = np.rint(trades["quantity"] * 1e8)
            one[:, 3] = trades["flags"] & REPAIRED
            one[:, 4] = (frame.recv_us + frame.delay_us) * 1_000 - wall_base_ns
            found.append(one[known])
        self._read = count
        whole = np.concatenate(found) if found else np.empty((0, 5), np.int64)
        number, arrived_ns, stamp, flags, sent_ns = (np.ascontiguousarray(column) for column in whole.T)
        return Arrived(number, arrived_ns, sent_ns, stamp - STAMP_OFFSET, flags != 0, strange)

    def receive(self, plan: Paced) -> Judged:
        """All trades of a run whose sender is through; what of them has not come 10 s later is missing."""
        arrived, deadline = [self.take()], time.monotonic() + ARRIVE_SECONDS_MAX
        while sum(len(part.number) for part in arrived) < plan.count and time.monotonic() < deadline:
            time.sleep(QUIET_SECONDS)
            arrived.append(self.take())
        return judge(arrived, plan)

    def close(self) -> None:
        """Stop reading."""
        self._state[0] = 1
        self._thread.join()


@contextmanager
def keep_feed(port: int, names: Sequence[str], base_ns: int, trades_max: int) -> Iterator[KeptFrames]:
    """A subscriber of all `names`; trade number n is of names[n % len(names)]. Times count from `base_ns`."""
    wire = connect(port, FEED_PATH, subprotocol="tradeback.v2")
    with wire.sock:
        kept = KeptFrames(wire, names, base_ns, trades_max)
        try:
            yield kept
        finally:
            kept.close()
