"""Subscribers of the feed: handshake and subscribe in Python, reading in C."""

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.websocket import TEXT, Wire, client_frame, connect

FEED_PATH = "/api/v1/ws"
FRAMES_BEFORE_REPLY = 100


def open_one(port: int, names: Sequence[str]) -> tuple[Wire, dict[str, int]]:
    """A connected, subscribed client of v1 and the wire ids of its symbols. Raises ConnectionError."""
    wire = connect(port, FEED_PATH)
    if not names:
        return wire, {}
    return wire, {name: int(about["id"]) for name, about in subscribe(wire, names).items()}


def subscribe(wire: Wire, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Subscribe to trades; what the feed says of each symbol. Raises ConnectionError.

    The stream stands at the start of a frame then, as the C readers need it.
    """
    wire.sock.sendall(client_frame(json.dumps({"type": "subscribe", "symbols": list(names)}).encode()))
    for _ in range(FRAMES_BEFORE_REPLY):
        opcode, payload = wire.frame()
        if opcode != TEXT:
            continue
        reply = json.loads(payload)
        if reply["type"] == "error":
            raise ConnectionError(f"the feed refuses: {payload!r}")
        if reply["type"] == "subscribed":
            while wire.rest:
                wire.frame()
            described: dict[str, dict[str, int]] = reply["symbols"]
            return described
    raise ConnectionError("the feed does not answer a subscribe")


def open_many(port: int, count: int, names: Sequence[str]) -> list[Wire]:
    """`count` clients, ready for the C reader. What they were sent so far is left unread or dropped."""
    return [open_one(port, names)[0] for _ in range(count)]


def place_of_id(ids: dict[str, int], names: Sequence[str]) -> NDArray[np.int32]:
    """Wire id -> place of the symbol in `names`, -1 for others; 65,536 entries."""
    places = np.full(65_536, -1, np.int32)
    for place, name in enumerate(names):
        places[ids[name]] = place
    return places
