"""The floor of the latency: a C process that copies bytes from the exchange's socket to the subscriber's."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.harness.children import Child, Pipe
from benchmarks.harness.exchange import Exchange
from benchmarks.harness.native import library
from benchmarks.harness.receivers import Receive, receive_relayed
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


@contextmanager
def relayed(exchange: Exchange, core: int, *, spin: bool = False) -> Iterator[tuple[int, Receive]]:
    """A relay on a core, subscribed, and a receiver behind it: its process id, and what receives a run."""
    child = Child(core, serve, exchange.stream_port, spin)
    try:
        with receive_relayed(child.hello, exchange.frames) as receive:
            yield child.pid, receive
    finally:
        child.close()
