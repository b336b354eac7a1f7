"""feed/listening: all addresses of a host on one port, or one line that says what to do."""

import errno
import socket

import pytest

from tradeback.feed import listening
from tradeback.feed.listening import bind
from tradeback.model.errors import StartupError


def test_every_address_gets_the_same_port() -> None:
    sockets = bind("localhost", 0)
    try:
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
        socket.create_connection(("127.0.0.1", sockets[0].getsockname()[1])).close()
    finally:
        for sock in sockets:
            sock.close()


def test_an_address_that_this_machine_lacks_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    (sock,) = bind("both", 0)
    sock.close()
    found.pop()
    with pytest.raises(StartupError, match="SERVER_HOST"):
        bind("only", 0)


def test_a_busy_port_on_one_address_is_refused_and_nothing_stays_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        opened: list[socket.socket] = []
        real = listening._listen

        def noted(family: int, address: tuple[object, ...]) -> socket.socket:
            opened.append(real(family, address))
            return opened[-1]

        monkeypatch.setattr(listening, "_listen", noted)
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", port)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        with pytest.raises(StartupError, match="SERVER_PORT") as refused:
            bind("both", port)
        assert refused.value.__cause__.errno == errno.EADDRINUSE  # type: ignore[union-attr]
        assert [sock.fileno() for sock in opened] == [-1]
