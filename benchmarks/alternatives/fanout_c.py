"""The floor of the fan-out: a C loop of blocking sends, one per subscriber."""

import numpy as np

from benchmarks.harness.children import Pipe
from benchmarks.harness.native import address, library
from benchmarks.harness.source import subscribed
from benchmarks.harness.websocket import Wire, accept_upgrade, listen, port_of


def serve(pipe: Pipe, exchange_port: int, trigger_bytes: int, frame: bytes, clients: int) -> None:
    """Child: says its port, takes `clients` subscribers, broadcasts `frame` per `trigger_bytes` received."""
    send_loop = library().send_loop
    source = subscribed(exchange_port, ["btcusdt@trade"])
    server = listen(backlog=clients)
    pipe.send(port_of(server))
    wires = []
    for _ in range(clients):
        wire = Wire(server.accept()[0])
        accept_upgrade(wire)
        wires.append(wire)
    sockets = np.array([wire.sock.fileno() for wire in wires], np.int32)
    send_loop(source.sock.fileno(), trigger_bytes, address(sockets), clients, frame, len(frame))
