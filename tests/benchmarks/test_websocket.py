import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.harness.trades import ws_header
from benchmarks.harness.websocket import (
    BINARY,
    TEXT,
    Wire,
    accept_upgrade,
    client_frame,
    connect,
    listen,
    mask_bytes,
    port_of,
)


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_masking_is_the_byte_wise_xor(payload: bytes, mask: bytes) -> None:
    assert mask_bytes(payload, mask) == bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_frames_of_every_length_form(size: int) -> None:
    payload = bytes(size)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(
            target=ours.sendall, args=(client_frame(payload) + ws_header(size, BINARY) + payload,)
        )
        sender.start()
        wire = Wire(theirs)
        assert wire.frame() == (TEXT, payload)
        assert wire.frame() == (BINARY, payload)
        assert not wire.rest
        sender.join()


def test_both_ends_shake_hands() -> None:
    with listen() as server:
        paths: list[str] = []

        def serve() -> None:
            with server.accept()[0] as sock:
                paths.append(accept_upgrade(Wire(sock)))

        thread = threading.Thread(target=serve)
        thread.start()
        wire = connect(port_of(server), "/stream?timeUnit=MICROSECOND")
        thread.join()
        wire.sock.close()
        assert paths == ["/stream?timeUnit=MICROSECOND"]


def test_a_refusal_is_an_error() -> None:
    with listen() as server:

        def refuse() -> None:
            with server.accept()[0] as sock:
                Wire(sock).head()
                sock.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(ConnectionError, match="no upgrade"):
            connect(port_of(server), "/nowhere")
        thread.join()
