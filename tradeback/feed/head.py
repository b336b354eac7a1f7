"""The head of an HTTP request, as far as the front must understand it to hand the connection on. Pure."""

import re
from dataclasses import dataclass
from typing import Final

HEAD_END: Final = b"\r\n\r\n"
_HEADER_LINE: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*:[^\x00\r\n]*\Z")
_REQUEST_LINE: Final = re.compile(rb"[A-Z]{1,20} [!-~\x80-\xff]+ HTTP/1\.[01]\Z")
_LINE_START: Final = re.compile(rb"[A-Z]{1,20}(?: [!-~\x80-\xff]*(?: [HTP/1.0\r]*)?)?\Z")


@dataclass(frozen=True, slots=True)
class Head:
    """`upgrade`: a GET over HTTP/1.1 that asks for a WebSocket."""

    upgrade: bool


def may_become_request(start: bytes) -> bool:
    """False when the bytes that came so far cannot be the start of an HTTP/1 request."""
    line, _, _ = start.partition(b"\n")
    return not line or _LINE_START.match(line) is not None


def parse_head(head: bytes) -> Head | None:
    """A request head without its blank line; None when it is not one of HTTP/1."""
    lines = head.split(b"\r\n")
    if _REQUEST_LINE.match(lines[0]) is None or not all(map(_HEADER_LINE.match, lines[1:])):
        return None
    wanted = lines[0].startswith(b"GET ") and lines[0].endswith(b"HTTP/1.1")
    return Head(wanted and b"websocket" in _values(lines, b"upgrade"))


def with_plain_connection(head: bytes) -> bytes:
    """The head with `Connection: Upgrade` where the client listed more, as Firefox does.

    picows 2.3.1 answers 400 to `Connection: keep-alive, Upgrade`.
    """
    lines = head.split(b"\r\n")
    for place, line in enumerate(lines[1:], 1):
        name, _, value = line.partition(b":")
        tokens = [token.strip() for token in value.lower().split(b",")]
        if name.strip().lower() == b"connection" and b"upgrade" in tokens:
            lines[place] = b"Connection: Upgrade"
    return b"\r\n".join(lines)


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """What decides about a WebSocket: request target, and headers by lower-case name in their order."""

    target: str
    headers: tuple[tuple[str, str], ...]

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """What follows the question mark."""
        return self.target.partition("?")[2]

    def all(self, name: str) -> list[str]:
        """All values of a header, in order."""
        return [value for held, value in self.headers if held == name]


def read_request(head: bytes) -> UpgradeRequest:
    """A head that `parse_head` accepts."""
    lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines[1:])
    headers = tuple((name.strip().lower(), value.strip()) for name, _, value in pairs)
    return UpgradeRequest(lines[0].split(" ")[1], headers)


def without_credentials(head: bytes) -> bytes:
    """The head without query, cookies and Authorization: who has been admitted needs them no more, and what
    is not there gets into no log and no other process."""
    lines = head.split(b"\r\n")
    method, target, version = lines[0].split(b" ")
    kept = [
        line
        for line in lines[1:]
        if line.partition(b":")[0].strip().lower() not in (b"cookie", b"authorization")
    ]
    return b"\r\n".join((b" ".join((method, target.partition(b"?")[0], version)), *kept))


def _values(lines: list[bytes], wanted: bytes) -> list[bytes]:
    """All values of a header, in lower case, comma lists taken apart."""
    found: list[bytes] = []
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == wanted:
            found.extend(token.strip() for token in value.lower().split(b","))
    return found
