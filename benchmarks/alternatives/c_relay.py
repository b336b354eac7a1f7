"""The floor of the latency: a C process that copies bytes from the exchange's socket to the subscriber's."""

import socket

from benchmarks.harness.children import Pipe
from benchmarks.harness.native import library
from benchmarks.harness.source import subscribed
from benchmarks.harness.websocket import listen, port_of


def serve(pipe: Pipe, exchange_port: int, spin: bool) -> None:
    """Child: says its port, takes one subscriber (plain TCP), relays until the exchange hangs up."""
    relay = library().relay
    source = subscribed(exchange_port, ["btcusdt@trade"])
    server = listen()
    pipe.send(port_of(server))
    target, _ = server.accept()
    target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    relay(source.sock.fileno(), target.fileno(), int(spin))
