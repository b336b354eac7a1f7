"""Messages between two processes over a stream socket: JSON, raw bytes behind it, and open files.

    u32 bytes of JSON, u32 bytes behind it, u32 open files | JSON | bytes

Files travel beside the first bytes of their message (SCM_RIGHTS), in order, so they are there when it is.
Nothing blocks: what the other side does not take waits here, up to a bound; beyond it the link is cut.
"""

import array
import asyncio
import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import orjson

HEAD = struct.Struct("<III")
READ_BYTES = 256 * 1024
FILES_MAX = 16
"""Open files taken with one read; a message carries one or two."""
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
WAITING_BYTES_MAX = 16 * 1024 * 1024

Message = dict[str, Any]
OnMessage = Callable[[Message, bytes, list[int]], None]
"""(message, bytes behind it, open files, which are the receiver's from then on)."""


class Link:
    """One end of a connection. Loop thread only."""

    def __init__(self, sock: socket.socket, on_message: OnMessage, on_end: Callable[[], None]) -> None:
        """`on_end` is called once, when the other side has gone; not after `close`."""
        sock.setblocking(False)
        self._sock = sock
        self._on_message, self._on_end = on_message, on_end
        self._seen = bytearray()
        self._files: deque[int] = deque()
        self._waiting: deque[tuple[memoryview, list[int]]] = deque()
        self._waiting_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._read)
        self.open = True

    def send(self, message: Message, behind: bytes = b"", files: Sequence[int] = ()) -> bool:
        """Send, or keep until the other side reads. False when the link is closed, or is cut for its queue.

        The files stay the caller's, who may close them at once.
        """
        if not self.open:
            return False
        text = orjson.dumps(message)
        data = memoryview(HEAD.pack(len(text), len(behind), len(files)) + text + behind)
        if not self._waiting:
            data = self._write(data, list(files))
            if not self.open:
                return False
            if not data:
                return True
            files = () if len(data) < HEAD.size + len(text) + len(behind) else files
            self._loop.add_writer(self._sock, self._flush)
        self._waiting.append((data, [os.dup(file) for file in files]))
        self._waiting_bytes += len(data)
        if self._waiting_bytes > WAITING_BYTES_MAX:
            self._end()
            return False
        return True

    def read_rest(self) -> None:
        """Take what the other side has sent before it ended."""
        while self.open and self._read():
            pass

    def close(self) -> None:
        """Close this end; what waits is dropped."""
        if not self.open:
            return
        self.open = False
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        for _, files in self._waiting:
            _close_all(files)
        _close_all(self._files)
        self._waiting.clear()
        self._files.clear()
        self._sock.close()

    def _end(self) -> None:
        self.close()
        self._on_end()

    def _write(self, data: memoryview, files: list[int]) -> memoryview:
        """What could not be written now. The files go with the first byte."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else []
        try:
            return data[self._sock.sendmsg([data], rights) :]
        except (BlockingIOError, InterruptedError):
            return data
        except OSError:
            self._end()
            return data

    def _flush(self) -> None:
        while self._waiting:
            data, files = self._waiting[0]
            rest = self._write(data, files)
            if not self.open:
                return
            if len(rest) < len(data):
                _close_all(files)
                files = []
                self._waiting_bytes -= len(data) - len(rest)
            if rest:
                self._waiting[0] = rest, files
                return
            self._waiting.popleft()
        self._loop.remove_writer(self._sock)

    def _read(self) -> bool:
        """Read once; False when there was nothing."""
        try:
            data, files, _, _ = socket.recv_fds(self._sock, READ_BYTES, FILES_MAX)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data, files = b"", []
        if not data:
            self._end()
            return False
        self._files.extend(files)
        self._seen += data
        while self.open and self._take():
            pass
        return True

    def _take(self) -> bool:
        """Hand over the first whole message, if there is one."""
        seen = self._seen
        if len(seen) < HEAD.size:
            return False
        text_bytes, behind_bytes, count = HEAD.unpack_from(seen)
        end = HEAD.size + text_bytes + behind_bytes
        if end > MESSAGE_BYTES_MAX:
            self._end()
            return False
        if len(seen) < end or len(self._files) < count:
            return False
        message = orjson.loads(seen[HEAD.size : HEAD.size + text_bytes])
        behind = bytes(seen[HEAD.size + text_bytes : end])
        del seen[:end]
        self._on_message(message, behind, [self._files.popleft() for _ in range(count)])
        return True


def _close_all(files: Sequence[int] | deque[int]) -> None:
    for file in files:
        with contextlib.suppress(OSError):
            os.close(file)


class Listener:
    """Accepts links of our own processes on a listening socket. `links` are those that live."""

    def __init__(self, sock: socket.socket, on_link: Callable[[Link], None], on_message: Any) -> None:
        """`on_message(link, message, behind, files)`."""
        sock.setblocking(False)
        self._sock, self._on_link, self._on_message = sock, on_link, on_message
        self.links: set[Link] = set()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return
        if not is_ours(sock):
            sock.close()
            return

        def receive(message: Message, behind: bytes, files: list[int]) -> None:
            self._on_message(link, message, behind, files)

        link = Link(sock, receive, lambda: self.links.discard(link))
        self.links.add(link)
        self._on_link(link)

    def close(self) -> None:
        """Close all links and this process's end of the listening socket."""
        self._loop.remove_reader(self._sock)
        for link in list(self.links):
            link.close()
        self.links.clear()
        self._sock.close()


def is_ours(sock: socket.socket) -> bool:
    """Whether the other end belongs to a process of the same user: abstract addresses have no permissions."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", raw)[1] == os.getuid())


def listen() -> socket.socket:
    """A listening socket under an address that Linux chooses, outside of the file system."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind("")
    sock.listen(16)
    return sock


def connect(address: str) -> socket.socket | None:
    """A connection to a listening socket (its `address_of`), or None when that is not possible now."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        sock.connect(b"\0" + address.encode())
    except OSError:
        sock.close()
        return None
    return sock


def address_of(sock: socket.socket) -> str:
    """The address of a socket made by `listen`, as text."""
    name: bytes = sock.getsockname()
    return name[1:].decode()
