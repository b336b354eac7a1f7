"""Whose a WebSocket is, as decided before the handshake. Pure."""

import sys
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tradeback.feed.head import UpgradeRequest
from tradeback.feed.negotiate import Declined


@dataclass(frozen=True, slots=True)
class Admission:
    """The session of a socket. Nobody's: all None."""

    session: str | None = None
    """The token's hash: when this session ends the socket is closed."""
    watch_id: str | None = None
    """The market watch that it is subscribed to."""
    symbols: frozenset[str] | None = None
    """All that it may subscribe to; None: everything."""
    watch: tuple[str, ...] = ()
    """The watch as it was when the socket was let in: so it is delivered before any request is served, and a
    resume that comes first of all is for it, too."""
    client: str = ""
    """Whom limits count: the address at the other end, of IPv6 its /64; empty: nobody is counted."""

    def packed(self) -> dict[str, Any]:
        """As JSON, for another process."""
        allowed = None if self.symbols is None else sorted(self.symbols)
        return {
            "session": self.session,
            "watch_id": self.watch_id,
            "symbols": allowed,
            "watch": self.watch,
            "client": self.client,
        }


NOBODY = Admission()
Verdict = Admission | Declined


def unpacked(held: Mapping[str, Any]) -> Admission:
    """The inverse of `Admission.packed`."""
    allowed = held["symbols"]
    symbols = None if allowed is None else frozenset(allowed)
    watch = tuple(held["watch"])
    return Admission(held["session"], held["watch_id"], symbols, watch, sys.intern(held["client"]))


class Gate(Protocol):
    """Whoever decides."""

    def admit(self, request: UpgradeRequest, peer: str) -> Verdict | Coroutine[Any, Any, Verdict]:
        """At once where nothing has to be looked up. `peer`: the address of the other end."""
