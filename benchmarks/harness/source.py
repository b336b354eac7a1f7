"""How a baseline gets its data: subscribed to the fake exchange like the engine."""

import json

from benchmarks.harness.websocket import Wire, client_frame, connect

STREAM_PATH = "/stream?timeUnit=MICROSECOND"


def subscribed(exchange_port: int, streams: list[str]) -> Wire:
    """A connection that has its reply and first frame behind it. Raises ConnectionError."""
    wire = connect(exchange_port, STREAM_PATH)
    wire.sock.sendall(client_frame(json.dumps({"method": "SUBSCRIBE", "params": streams, "id": 1}).encode()))
    reply = json.loads(wire.frame()[1])
    if reply != {"result": None, "id": 1}:
        raise ConnectionError(f"not subscribed: {reply}")
    wire.frame()
    if wire.rest:
        raise ConnectionError("the exchange sends more than was asked for")
    return wire
