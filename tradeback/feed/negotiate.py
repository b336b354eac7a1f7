"""What an upgrade request must bring, and which version of the feed it gets. Pure.

A browser that asked for subprotocols fails the connection when the server picks none of them
(WHATWG WebSockets, "establish a WebSocket connection"), so a list of unknown ones is refused with a
400 that names the known, instead of a connection that the browser drops without a word. A client that
names none gets v1.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

WS_PATH: Final = "/api/v1/ws"
V1: Final = "tradeback.v1"
V2: Final = "tradeback.v2"
KNOWN: Final = (V2, V1)
"""Subprotocols by preference."""
_VERSION: Final = "13"  # RFC 6455 section 4.1
_NONCE_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Accepted:
    """The upgrade goes on. `subprotocol` is echoed; None when the client named none."""

    subprotocol: str | None

    @property
    def version(self) -> int:
        """Version of the feed that the client gets."""
        return 2 if self.subprotocol == V2 else 1


@dataclass(frozen=True, slots=True)
class Declined:
    """The upgrade is answered with an HTTP error."""

    status: int
    code: str
    message: str
    retry_after_s: int = 0


def negotiate(target: str, headers: Mapping[str, str]) -> Accepted | Declined:
    """Decide about one upgrade: its request target, and headers found whatever the case of their names."""
    path = target.partition("?")[0]
    if path != WS_PATH:
        return Declined(404, "not_found", f"no WebSocket at {path[:100]}; the feed is at {WS_PATH}")
    if headers.get("Sec-WebSocket-Version") != _VERSION:
        return Declined(426, "unsupported_version", f"Sec-WebSocket-Version must be {_VERSION} (RFC 6455)")
    if not _is_nonce(headers.get("Sec-WebSocket-Key", "")):
        return Declined(400, "bad_request", "Sec-WebSocket-Key must be 16 bytes in base64 (RFC 6455)")
    asked = headers.get("Sec-WebSocket-Protocol")
    if asked is None:
        return Accepted(None)
    offered = {name.strip() for name in asked.split(",")}
    for name in KNOWN:
        if name in offered:
            return Accepted(name)
    known = ", ".join(KNOWN)
    return Declined(400, "unsupported_protocol", f"none of the asked subprotocols is known; known: {known}")


def _is_nonce(key: str) -> bool:
    try:
        return len(base64.b64decode(key.encode("ascii"), validate=True)) == _NONCE_BYTES
    except (binascii.Error, UnicodeEncodeError):
        return False
