"""WebSocket on blocking sockets, both ends, as little of it as the benchmarks' ends need (RFC 6455)."""

import base64
import hashlib
import os
import socket
import struct
from dataclasses import dataclass, field

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
HEAD_BYTES_MAX = 16_384


@dataclass
class Wire:
    """A connected socket with the bytes that were read too far."""

    sock: socket.socket
    rest: bytearray = field(default_factory=bytearray)

    def more(self) -> None:
        """Read once. Raises ConnectionError at the end of the stream."""
        got = self.sock.recv(65_536)
        if not got:
            raise ConnectionError("the peer closed the connection")
        self.rest += got

    def head(self) -> bytes:
        """The request or answer head, blank line included."""
        while (end := self.rest.find(b"\r\n\r\n")) < 0:
            if len(self.rest) > HEAD_BYTES_MAX:
                raise ConnectionError("no end of the head")
            self.more()
        head = bytes(self.rest[: end + 4])
        del self.rest[: end + 4]
        return head

    def frame(self) -> tuple[int, bytes]:
        """The next frame: (opcode, payload, unmasked)."""
        while (size := self._frame_bytes()) is None or len(self.rest) < size:
            self.more()
        opcode, masked, short = self.rest[0] & 15, self.rest[1] & 128, self.rest[1] & 127
        start = 2 + {126: 2, 127: 8}.get(short, 0)
        mask = bytes(self.rest[start : start + 4]) if masked else b""
        payload = bytes(self.rest[start + len(mask) : size])
        del self.rest[:size]
        return opcode, mask_bytes(payload, mask) if masked else payload

    def has_frame(self) -> bool:
        """Whether a whole frame lies in what was read already."""
        size = self._frame_bytes()
        return size is not None and len(self.rest) >= size

    def _frame_bytes(self) -> int | None:
        have = len(self.rest)
        if have < 2:
            return None
        mask, short = (4 if self.rest[1] & 128 else 0), self.rest[1] & 127
        if short < 126:
            return 2 + mask + short
        width = 2 if short == 126 else 8
        if have < 2 + width:
            return None
        return 2 + width + mask + int.from_bytes(self.rest[2 : 2 + width], "big")


def mask_bytes(payload: bytes, mask: bytes) -> bytes:
    """XOR with the repeated mask."""
    size = len(payload)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")


def client_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """A masked, final frame, as clients must send it."""
    size, mask = len(payload), os.urandom(4)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 65_536:
        head = bytes((0x80 | opcode, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0x80 | 127)) + size.to_bytes(8, "big")
    return head + mask + mask_bytes(payload, mask)


def connect(port: int, path: str, timeout_s: float = 10.0, subprotocol: str = "") -> Wire:
    """Connect and shake hands as a client. Raises ConnectionError when the server refuses."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    key = base64.b64encode(os.urandom(16)).decode()
    asked = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
    sock.sendall(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{asked}\r\n".encode()
    )
    wire = Wire(sock)
    head = wire.head()
    if b" 101 " not in head.split(b"\r\n", 1)[0]:
        sock.close()
        raise ConnectionError(f"no upgrade: {head[:200]!r}")
    # Blocking for the C helpers, which call recv themselves, but never for ever.
    sock.settimeout(None)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(timeout_s))
    return wire


def accept_upgrade(wire: Wire) -> str:
    """Read a client's handshake, answer it, return the path. Raises ConnectionError when it is none."""
    wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    lines = wire.head().decode("latin-1").split("\r\n")
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
    }
    key = headers.get("sec-websocket-key")
    if key is None:
        raise ConnectionError(f"not a WebSocket handshake: {lines[0]}")
    accept = base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()
    wire.sock.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept.encode() + b"\r\n\r\n"
    )
    return lines[0].split(" ")[1]


def timeval(seconds: float) -> bytes:
    """A `struct timeval` for SO_RCVTIMEO."""
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))


def listen(backlog: int = 1024) -> socket.socket:
    """A listening socket on a free port of the loopback."""
    return socket.create_server(("127.0.0.1", 0), backlog=backlog)


def port_of(server: socket.socket) -> int:
    """The port a socket listens on."""
    return int(server.getsockname()[1])
