"""The C receivers of the end-to-end benchmark, for relayed JSON frames and for the v1 feed."""

import ctypes
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from benchmarks.harness.exchange import Paced
from benchmarks.harness.machine import urgent
from benchmarks.harness.native import Ints, address, library, touched
from benchmarks.harness.subscribers import open_one, place_of_id
from benchmarks.harness.trades import TradeFrames
from benchmarks.harness.websocket import timeval

RECEIVE_SECONDS_MAX = 10.0
Receive = Callable[[Paced], "Received"]


@dataclass(frozen=True)
class Received:
    """Latencies in order of arrival, trades that were not the next one, and binary frames they came in."""

    latency_ns: Ints
    wrong: int
    frames: int


@contextmanager
def receive_relayed(port: int, frames: TradeFrames) -> Iterator[Receive]:
    """A receiver of the exchange's own frames on a plain socket."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(RECEIVE_SECONDS_MAX))

    def receive(plan: Paced) -> Received:
        latency, wrong = touched(plan.count), np.zeros(1, np.int64)
        with urgent():
            taken = library().receive_relayed(
                sock.fileno(), ctypes.byref(frames.layout), plan.base_ns, plan.first, plan.count,
                address(latency), address(wrong),
            )  # fmt: skip
        return Received(latency[:taken], int(wrong[0]), taken)

    with sock:
        yield receive


@contextmanager
def receive_feed(port: int, names: Sequence[str]) -> Iterator[Receive]:
    """A subscriber of all `names`; names[n % len(names)] is the symbol of trade number n."""
    wire, ids = open_one(port, names)
    places = place_of_id(ids, names)

    def receive(plan: Paced) -> Received:
        latency, wrong, frames = touched(plan.count), np.zeros(1, np.int64), np.zeros(1, np.int64)
        count = len(names)
        coming = np.array([plan.first + (place - plan.first) % count for place in range(count)], np.int64)
        with urgent():
            taken = library().receive_v1(
                wire.sock.fileno(), address(places), address(coming), count, plan.base_ns, plan.count,
                address(latency), address(wrong), address(frames),
            )  # fmt: skip
        return Received(latency[:taken], int(wrong[0]), int(frames[0]))

    with wire.sock:
        yield receive
