"""The gate of the WebSocket: the same rules as for HTTP, before the handshake."""

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any
from urllib.parse import parse_qs

from tradeback.api.access import COOKIE, LOGIN_PATH, Access
from tradeback.api.origins import Site, bearer_of, cookie_of
from tradeback.feed.admission import NOBODY, Admission, Verdict
from tradeback.feed.head import UpgradeRequest
from tradeback.feed.negotiate import WS_PATH, Declined
from tradeback.model.errors import StoreError

LOOKUP_S = 5.0


class SocketGate:
    """See `feed.admission.Gate`. Loop thread only."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def admit(self, request: UpgradeRequest, peer: str) -> Verdict | Coroutine[Any, Any, Verdict]:
        """At once when no session is shown. Browsers cannot send Authorization with a WebSocket, so a
        token may also stand in the query."""
        if request.path != WS_PATH:
            return NOBODY  # the feed answers 404
        access = self._access
        client = access.proxies.client(peer, request.all)
        wait_s = access.rates.take("connect", client.key, access.clock.steady_ns())
        if wait_s:
            message = f"too many connections from {client.key}; come again in {wait_s} s"
            return Declined(429, "too_many_requests", message, wait_s)
        site = access.origins.judge(request.all("origin"), client)
        if site is Site.FOREIGN:
            message = "pages of this site may not open sockets here (server.origins)"
            return Declined(403, "forbidden_origin", message)
        named = parse_qs(request.query, max_num_fields=100).get("token", [""])[0] if request.query else ""
        named = named or bearer_of(request.all("authorization"))
        shown = cookie_of(request.all("cookie"), COOKIE) if site is not Site.ANYONE else ""
        key = sys.intern(client.key)  # one text for all sockets of an address
        if named or shown:
            return self._find(named, shown, key)
        return _unauthorized() if access.required else Admission(client=key)

    async def _find(self, named: str, shown: str, key: str) -> Verdict:
        """By the token that was named, else by the cookie. A wrong token is refused, for its sender counts on
        it; an old cookie is as good as none."""
        access = self._access
        try:
            async with asyncio.timeout(LOOKUP_S):
                session = await access.sessions.find(named or shown)
                watch = await access.watch.symbols(session.watch_id) if session else []
        except (StoreError, TimeoutError):
            if access.required or named:
                return Declined(503, "not_ready", "sessions cannot be looked up now; try again", 2)
            return Admission(client=key)
        if not access.suffices(session) or (named and session is None):
            return _unauthorized()
        if session is None:
            return Admission(client=key)
        return Admission(session.token_hash, session.watch_id, session.symbols, tuple(watch), key)


def _unauthorized() -> Declined:
    return Declined(401, "unauthorized", f"a session is needed: POST {LOGIN_PATH}")
