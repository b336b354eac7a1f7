"""Who may do what: the middleware before every handler, and what it leaves for them.

In the order of their cost: how often the client asks, whose page asks (CORS), whose session it is, whether
this needs one (`auth.mode`), whether the session may see the symbol, and then the body, within its bounds.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import hdrs, web

from tradeback.api import headers
from tradeback.api.errors import ApiError, Handler
from tradeback.api.origins import Origins, Peer, Proxies, Site, bearer_of, cookie_of
from tradeback.api.page import PREFIX as PAGE_PREFIX
from tradeback.api.rates import Rate, Rates
from tradeback.api.throttle import LoginThrottle
from tradeback.feed.attendance import Attendance
from tradeback.model.clock import Clock
from tradeback.model.config import Config
from tradeback.model.errors import StoreError
from tradeback.model.limits import BODY_BYTES_MAX
from tradeback.ops.log import RepeatLimiter
from tradeback.ops.metrics import Family
from tradeback.stores.market_watch import MarketWatch
from tradeback.stores.ports import SessionRecord
from tradeback.stores.sessions import NewSession, Sessions
from tradeback.stores.users import Users

COOKIE: Final = "session_token"
HEALTH: Final = ("", "/live", "/ready", "/detailed")
PUBLIC_PATHS: Final = frozenset(
    {
        "/",
        "/favicon.ico",
        "/api/v1/auth/login",
        "/api/v1/auth/logout",
        "/api/v1/auth/session",
        *(f"{prefix}/health{path}" for prefix in ("", "/api/v1") for path in HEALTH),
    }
)
"""Routes that need no session in any mode, as the router knows them."""
PUBLIC_PREFIXES: Final = (f"{PAGE_PREFIX}/",)
LOGIN_PATH: Final = "/api/v1/auth/login"
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
HISTORY: Final = frozenset({"bars", "ticks", "gaps", "history", "marks", "timescale_marks"})
"""Last words of paths whose answers need files or a store."""
BURST_SECONDS = 4
LOGIN_BURST = 10
WRITES_PER_SESSION = 10
"""Sessions without a user are made at this part of the rate of changes: each is kept for days."""
REGISTRY_AWAY_S: Final = "2"

_log = logging.getLogger("tradeback.api")
_limiter = RepeatLimiter(60.0)


@dataclass(slots=True)
class Caller:
    """The other end of one request."""

    peer: Peer
    site: Site
    origin: str
    token: str = field(default="", repr=False)
    """What it has shown, whether that is a session or not."""
    named: bool = False
    """It was named (Authorization) and did not just come along in a cookie."""
    session: SessionRecord | None = None
    fresh: NewSession | None = None
    """A session made by this request: its cookie goes out with the answer."""
    left: bool = False
    """Its cookie is to be cleared."""


_CALLER: Final = web.RequestKey("tradeback.caller", Caller)


@dataclass(slots=True)
class Access:
    """All that sessions and limits need; one per engine. Loop thread only."""

    config: Config
    clock: Clock
    users: Users
    sessions: Sessions
    watch: MarketWatch
    attendance: Attendance
    rates: Rates
    throttle: LoginThrottle
    origins: Origins
    proxies: Proxies
    on_watch_change: list[Callable[[], None]] = field(default_factory=list)
    """Called after a change of a market watch made here."""
    tell_workers: Callable[[dict[str, Any]], None] = field(default=lambda message: None)
    """To the processes that serve sockets beside this one."""
    exists: Callable[[str], bool] = field(default=lambda symbol: False)
    """Whether the exchange has a symbol that nobody follows yet: it may be watched, too."""

    def __post_init__(self) -> None:
        self.sessions.on_end.append(self._ended)
        self.watch.on_change.append(self._watch_changed)

    @property
    def required(self) -> bool:
        """Reading needs a session of a user."""
        return self.config.auth.mode == "required"

    def suffices(self, session: SessionRecord | None) -> bool:
        """Whether this session may read."""
        return not self.required or (session is not None and session.user_id is not None)

    def push(self, owner: str, message: dict[str, Any]) -> int:
        """Send JSON to all open sockets of an owner (`owner_of`); how many are in this process."""
        self.tell_workers({"push": owner, "message": message})
        return self.attendance.push(owner, message)

    def ended_elsewhere(self, session: str) -> None:
        """Another node has ended this session: here it is over, too."""
        self.sessions.forget(session)
        self._ended(session)

    def collect(self) -> Iterator[Family]:
        """Sessions, refusals, brakes."""
        counts = self.sessions.counts
        found = Family(
            "tradeback_sessions", "counter", "sessions created, ended, deleted, and tokens unknown"
        )
        for what in ("created", "ended", "purged", "unknown"):
            found.add(getattr(counts, what), what=what)
        yield found
        limited = Family("tradeback_http_limited", "counter", "requests above a limit, by group")
        for group, count in self.rates.refused.items():
            limited.add(count, group=group)
        yield limited
        braked = Family("tradeback_logins_braked", "counter", "log-ins told to wait after wrong passwords")
        yield braked.add(self.throttle.refused)

    def _ended(self, session: str) -> None:
        self.attendance.ended(session)
        self.tell_workers({"ended": session})

    def _watch_changed(self, watch_id: str, symbol: str, added: bool) -> None:
        self.attendance.changed(watch_id)
        self.tell_workers({"watch": watch_id})
        for notify in self.on_watch_change:
            notify()


def rates_of(config: Config) -> Rates:
    """The limits of a configuration."""
    limit = config.limit
    per_second = {
        "read": limit.read_per_second,
        "history": limit.history_per_second,
        "write": limit.write_per_second,
        "connect": limit.connect_per_second,
    }
    rates = {group: Rate(value, BURST_SECONDS * value) for group, value in per_second.items()}
    rates["session"] = Rate(
        limit.write_per_second / WRITES_PER_SESSION, BURST_SECONDS * limit.write_per_second
    )
    return Rates({**rates, "login": Rate(limit.login_per_minute / 60, LOGIN_BURST)})


# What handlers ask.


def caller_of(request: web.Request) -> Caller:
    """The other end of a request that has passed the middleware."""
    return request[_CALLER]


def session_of(request: web.Request) -> SessionRecord | None:
    """Its session, if it has one."""
    caller = request.get(_CALLER)
    return caller.session if caller is not None else None


def owner_of(request: web.Request) -> str | None:
    """`ServingContext.owner_of`: the user, who is the same on all devices, or a session without one."""
    session = session_of(request)
    return None if session is None else session.watch_id


def permits(request: web.Request, symbol: str) -> bool:
    """Whether the caller may see this symbol."""
    session = session_of(request)
    return session is None or session.symbols is None or symbol.upper() in session.symbols


def forbidden(symbol: str) -> ApiError:
    """The refusal of a symbol that is not on the session's list."""
    return ApiError(403, "forbidden_symbol", f"this session may not see {symbol[:40]!r}")


def registry_away(error: StoreError) -> ApiError:
    """The refusal of what cannot be known while the registry is away."""
    if _limiter.allow("away", time.monotonic_ns()) is not None:
        _log.warning("sessions cannot be looked up: %s", error)
    message = "sessions cannot be looked up now; try again in a moment"
    return ApiError(503, "not_ready", message, {"Retry-After": REGISTRY_AWAY_S})


async def need_session(access: Access, request: web.Request) -> SessionRecord:
    """The caller's session; in open mode one without a user is made for who has none."""
    caller = caller_of(request)
    if caller.session is None:
        _limit(access, "write", caller)
        _limit(access, "session", caller)
        agent = request.headers.get(hdrs.USER_AGENT, "")
        try:
            caller.fresh = await access.sessions.create(ip_address=caller.peer.address, user_agent=agent)
        except StoreError as error:
            raise registry_away(error) from error
        caller.session, caller.token = caller.fresh.record, caller.fresh.token
    return caller.session


# The middleware.


def guard(access_of: Callable[[], Access | None], read_timeout_s: float) -> Any:
    """The middleware. Without access (small tests) everybody may everything, within the bounds of bodies."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        access = access_of()
        if access is not None:
            refusal = await _enter(access, request)
            if refusal is not None:
                return refusal
        await _read_body(request, read_timeout_s)
        return await handler(request)

    return guarded


def finish(access_of: Callable[[], Access | None]) -> Any:
    """What `Application.on_response_prepare` calls: headers and cookies of every answer."""

    async def prepare(request: web.Request, response: web.StreamResponse) -> None:
        access, caller = access_of(), request.get(_CALLER)
        if access is None or caller is None:
            headers.protect(response, private=False)
            return
        restricted = caller.session is not None and caller.session.symbols is not None
        private = restricted or caller.fresh is not None or (access.required and not _is_public(request))
        headers.protect(response, private=private)
        headers.allow(response, caller.site, caller.origin)
        if access.config.server.origins:
            headers.vary(response, "Origin")
        if private:
            headers.vary(response, "Cookie")
        _set_cookie(access, caller, response)

    return prepare


async def _enter(access: Access, request: web.Request) -> web.StreamResponse | None:
    """Leave a Caller on the request, or refuse; an answer when that is all there is to say."""
    peer = access.proxies.client(request.remote or "", lambda name: request.headers.getall(name, []))
    origins = request.headers.getall(hdrs.ORIGIN, [])
    site = access.origins.judge(origins, peer)
    caller = request[_CALLER] = Caller(peer, site, origins[0] if origins else "")
    group = _group(request)
    if group:
        _limit(access, group, caller)
    if request.method == "OPTIONS" and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers:
        if site not in (Site.LISTED, Site.ANYONE, Site.SAME):
            raise _foreign()
        return headers.preflight()
    if request.method not in SAFE and site is Site.FOREIGN:
        raise _foreign()
    await _find_session(access, request, caller)
    if not access.suffices(caller.session) and not _is_public(request):
        challenge = {"WWW-Authenticate": "Bearer"}
        raise ApiError(401, "unauthorized", f"a session is needed: POST {LOGIN_PATH}", challenge)
    if caller.named and caller.session is None and not _is_public(request):
        # Its sender counts on it; an old cookie is as good as none.
        challenge = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
        raise ApiError(401, "unauthorized", f"this token is no session: POST {LOGIN_PATH}", challenge)
    _check_symbols(request, caller)
    return None


async def _find_session(access: Access, request: web.Request, caller: Caller) -> None:
    """Authorization before the cookie; the cookie only for pages that may speak for the visitor."""
    token = bearer_of(request.headers.getall(hdrs.AUTHORIZATION, []))
    caller.named = bool(token)
    if not token and caller.site not in (Site.ANYONE, Site.FOREIGN):
        token = cookie_of(request.headers.getall(hdrs.COOKIE, []), COOKIE)
    if not token:
        return
    caller.token = token
    try:
        caller.session = await access.sessions.find(token)
    except StoreError as error:
        # Who needs no session is served without: a registry that is away stops nothing else.
        if (access.required or caller.named) and not _is_public(request):
            raise registry_away(error) from error


def _limit(access: Access, group: str, caller: Caller) -> None:
    wait_s = access.rates.take(group, caller.peer.key, access.clock.steady_ns())
    if wait_s:
        message = f"too many requests of this kind from {caller.peer.key}; come again in {wait_s} s"
        raise ApiError(429, "too_many_requests", message, {"Retry-After": str(wait_s)})


def _group(request: web.Request) -> str:
    """Which limit a request counts against; empty: none."""
    path = _canonical(request)
    if path.startswith(("/health", "/api/v1/health")):
        return ""  # whoever watches the engine must not take it for dead because others ask too often
    if path == LOGIN_PATH:
        return "login"
    if request.method not in SAFE:
        return "write"
    return "history" if path.rpartition("/")[2] in HISTORY or "at" in request.query else "read"


def _canonical(request: web.Request) -> str:
    """The path as the router knows it: however a client writes it, it is the one that is served."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else ""


def _is_public(request: web.Request) -> bool:
    path = _canonical(request)
    return path in PUBLIC_PATHS or path.startswith(PUBLIC_PREFIXES)


def _check_symbols(request: web.Request, caller: Caller) -> None:
    """Symbols in path and query, where the session has a list. What is not named handlers leave out."""
    if caller.session is None or caller.session.symbols is None:
        return
    named = [request.match_info.get("symbol", "")]
    for name in ("symbol", "symbols"):
        named += [word for value in request.query.getall(name, []) for word in value.split(",")]
    for word in named:
        symbol = word.rpartition(":")[2].strip()  # of TradingView's EXCHANGE:SYMBOL
        if symbol and not permits(request, symbol):
            raise forbidden(symbol)


async def _read_body(request: web.Request, timeout_s: float) -> None:
    """Have the body here before the handler runs, so that no slow or huge one reaches it."""
    if not request.can_read_body:
        return
    length = request.content_length
    if length is not None and length > BODY_BYTES_MAX:
        raise ApiError(413, "too_large", f"a body may have {BODY_BYTES_MAX} bytes")
    try:
        async with asyncio.timeout(timeout_s):
            await request.read()
    except TimeoutError:
        raise ApiError(408, "request_timeout", "the body took too long", {"Connection": "close"}) from None


def _foreign() -> ApiError:
    return ApiError(403, "forbidden_origin", "pages of this site may not do that here (server.origins)")


def _set_cookie(access: Access, caller: Caller, response: web.StreamResponse) -> None:
    # As long as the session may last at the most: when it ends earlier the cookie is worth nothing.
    if caller.fresh is not None:
        value, age_s = caller.fresh.token, int(access.config.auth.session_max_s)
    elif caller.left:
        value, age_s = "", 0
    else:
        return
    secure = "; Secure" if access.config.auth.secure_cookie or caller.peer.secure else ""
    # By hand: aiohttp has turned its own cookies into headers before it calls this.
    cookie = f"{COOKIE}={value}; HttpOnly; Max-Age={age_s}; Path=/; SameSite=Lax{secure}"
    response.headers.add(hdrs.SET_COOKIE, cookie)
    response.headers["Cache-Control"] = "no-store"
