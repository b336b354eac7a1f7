"""A second reader of the same streams, that notes for every trade when the simulator stamped and sent it.

It sits on the simulator's core and asks the kernel when each piece came off the wire (SO_TIMESTAMPNS), so
it does not matter when it is woken up itself. Nothing of it runs on the core of the peer.
"""

import json
import os
import select
import socket
import struct
import time
from typing import NamedTuple
from urllib.parse import urlsplit

from benchmarks.harness.children import Pipe
from benchmarks.harness.websocket import TEXT, Wire, connect
from benchmarks.peers.place import Place

SO_TIMESTAMPNS = 35
READ_BYTES = 1 << 18
LOOK_S = 0.02

Sent = dict[tuple[str, int], tuple[int, int]]
"""(symbol, id) -> (exchange stamp in us, when it was sent in ns since 1970)."""


class Sendings(NamedTuple):
    """What the reference has noted."""

    trades: Sent
    aggs: Sent
    by_kernel: bool
    """Whether the kernel told the times; otherwise they are those of the reads."""


def _read(wire: Wire) -> tuple[int, bool]:
    """Read once into the wire; (time in ns, whether it is the kernel's)."""
    data, ancillary, _, _ = wire.sock.recvmsg(READ_BYTES, 64)
    now_ns = time.time_ns()
    if not data:
        raise ConnectionError("the simulator closed the reference's connection")
    wire.rest += data
    for level, kind, value in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(value) >= 16:
            seconds, nanoseconds = struct.unpack("@qq", value[:16])
            return seconds * 1_000_000_000 + nanoseconds, True
    return now_ns, False


def _note(payload: bytes, at_ns: int, found: Sendings) -> None:
    data = json.loads(payload).get("data", {})
    if data.get("e") == "trade":
        found.trades[(data["s"], data["t"])] = (data["E"], at_ns)
    elif data.get("e") == "aggTrade":
        found.aggs[(data["s"], data["a"])] = (data["E"], at_ns)


def follow(pipe: Pipe, place: Place, ws_endpoint: str, streams: list[str]) -> None:
    """Say `ready` when connected; read until something is said, then answer with the Sendings."""
    place.take()
    if not place.real_time:
        # A batch task pushes nobody aside when it wakes up: the simulator finishes its sends first.
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    target = f"/stream?streams={'/'.join(streams)}&timeUnit=MICROSECOND"
    wire = connect(urlsplit(ws_endpoint).port or 80, target)
    wire.sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    found, at_ns, all_by_kernel = Sendings({}, {}, True), time.time_ns(), True
    pipe.send("ready")
    while not pipe.poll():
        if select.select([wire.sock], [], [], LOOK_S)[0]:
            at_ns, by_kernel = _read(wire)
            all_by_kernel = all_by_kernel and by_kernel
        while wire.has_frame():
            opcode, payload = wire.frame()
            if opcode == TEXT:
                _note(payload, at_ns, found)
    pipe.recv()
    pipe.send(found._replace(by_kernel=all_by_kernel))
