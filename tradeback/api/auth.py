"""Routes of sessions: log in, log out, who am I."""

from typing import Any

import orjson
from aiohttp import hdrs, web

from tradeback.api.access import Access, Caller, caller_of, registry_away
from tradeback.api.context import ServingContext
from tradeback.api.describe import Answer, choice, operation, ref
from tradeback.api.errors import ApiError, json_response
from tradeback.api.shapes import Json
from tradeback.model.errors import StoreError
from tradeback.model.symbols import SYMBOL_BYTES_MAX
from tradeback.stores.ports import SessionRecord, UserRecord
from tradeback.stores.users import BadUser, user_name

PREFIX = "/api/v1/auth"
WAITING_MAX = 32
"""Log-ins whose password waits to be looked at; each takes 25 ms of one of two threads."""
SYMBOLS_MAX = 1_000
EVERYWHERE = choice("everywhere", "false", ("true", "false"), "end all sessions of the user, on all devices")
AWAY = "the registry cannot be reached; Retry-After says when to try again"
_KEYS = {"username", "password", "symbols"}


class AuthRoutes:
    """The handlers, over one context."""

    def __init__(self, context: ServingContext) -> None:
        self._context = context
        self._waiting = 0

    def routes(self) -> list[web.RouteDef]:
        """For `Application.add_routes`."""
        return [
            web.post(f"{PREFIX}/login", self.log_in),
            web.post(f"{PREFIX}/logout", self.log_out),
            web.get(f"{PREFIX}/session", self.session),
        ]

    @operation(
        "Log in",
        tag="sessions",
        body="Login",
        answers={
            200: Answer("the session; its token is in the cookie `session_token`", ref("Session")),
            400: "the body is not what it must be; the message says what is wrong",
            401: "no user has this name and password",
            408: "the body took too long",
            413: "the body is too large",
            429: "too many log-ins, or wrong passwords; Retry-After says when to try again",
            503: AWAY,
        },
    )
    async def log_in(self, request: web.Request) -> web.Response:
        """Always a new session; the one that the request has shown ends. The market watch of a session
        without a user is put behind the user's own, and its settlements are his. With `symbols` the session
        sees only these."""
        access, caller = self._access(), caller_of(request)
        name, password, symbols = _read(await request.read())
        try:
            user = await self._check(access, caller, name, password)
            agent = request.headers.get(hdrs.USER_AGENT, "")
            caller.fresh = made = await access.sessions.create(
                user.id,
                ip_address=caller.peer.address,
                user_agent=agent,
                username=user.username,
                symbols=_both(user.symbols, symbols),
            )
            if caller.session is not None:
                if caller.session.user_id is None:
                    await access.watch.adopt(caller.session.watch_id, made.record.watch_id)
                    if self._context.settlements is not None:
                        await self._context.settlements.adopt(caller.session.watch_id, made.record.watch_id)
                await access.sessions.end_by_hash(caller.session.token_hash)
        except StoreError as error:
            caller.fresh = None
            raise registry_away(error) from error
        caller.session = made.record
        return _no_store(json_response(session_json(made.record)))

    @operation(
        "Log out",
        tag="sessions",
        takes=(EVERYWHERE,),
        answers={
            204: Answer("the session is over, here and on every node; so are its sockets"),
            400: "a parameter that is malformed; the message names it",
            503: AWAY,
        },
    )
    async def log_out(self, request: web.Request) -> web.Response:
        """Ends the session and clears the cookie. Without a session there is nothing to do: 204, too."""
        access, caller = self._access(), caller_of(request)
        everywhere = EVERYWHERE.read(request.query) == "true"
        session = caller.session
        caller.left = True
        try:
            if everywhere and session is not None and session.user_id is not None:
                await access.sessions.end_all(session.user_id)
            elif caller.token:  # also when it could not be looked up
                await access.sessions.end(caller.token)
        except StoreError as error:
            raise registry_away(error) from error
        return _no_store(web.Response(status=204))

    @operation(
        "Who am I",
        tag="sessions",
        answers={200: Answer("the session of a user", ref("Session")), 401: "there is none"},
    )
    async def session(self, request: web.Request) -> web.Response:
        """The session of this request. One without a user, as market watches have it, is none."""
        self._access()
        found = caller_of(request).session
        if found is None or found.user_id is None:
            raise ApiError(401, "unauthorized", f"nobody is logged in: POST {PREFIX}/login")
        return _no_store(json_response(session_json(found)))

    async def _check(self, access: Access, caller: Caller, name: str, password: str) -> UserRecord:
        """The user, or 401 with the same words and after the same work whatever is wrong."""
        try:
            counted = user_name(name)
        except BadUser:
            counted = ""
        now_ns, key = access.clock.steady_ns(), caller.peer.key
        if self._waiting >= WAITING_MAX:
            raise ApiError(503, "busy", "many log in just now; try again in a moment", {"Retry-After": "1"})
        wait_s = access.throttle.attempt(counted, key, now_ns)
        if wait_s:
            message = f"too many wrong passwords; try again in {wait_s} s"
            raise ApiError(429, "too_many_attempts", message, {"Retry-After": str(wait_s)})
        self._waiting += 1
        try:
            user = await access.users.log_in(name, password)
        finally:
            self._waiting -= 1
        if user is None:
            raise ApiError(401, "bad_credentials", "no user has this name and password")
        access.throttle.succeeded(counted, key, access.clock.steady_ns())
        return user

    def _access(self) -> Access:
        access: Access | None = self._context.access
        if access is None:
            raise ApiError(503, "not_ready", "there are no sessions here")
        return access


def session_json(session: SessionRecord) -> Json:
    """A session of a user; times in unix ms."""
    return {
        "user_id": session.user_id,
        "username": session.username,
        "expires_at": session.expires_ns // 1_000_000,
    }


def _read(body: bytes) -> tuple[str, str, frozenset[str] | None]:
    try:
        asked: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        asked = None
    if not isinstance(asked, dict):
        raise _bad('the body must be JSON such as {"username":"alice","password":"..."}')
    unknown = sorted(set(asked) - _KEYS)
    if unknown:
        raise _bad(f"the body holds {unknown[0][:40]!r}; it may hold username, password and symbols")
    name, password, symbols = asked.get("username"), asked.get("password"), asked.get("symbols")
    if not isinstance(name, str) or not isinstance(password, str):
        raise _bad("username and password must both be there, as text")
    if symbols is None:
        return name, password, None
    good = isinstance(symbols, list) and 0 < len(symbols) <= SYMBOLS_MAX
    if not good or not all(isinstance(each, str) and 0 < len(each) <= SYMBOL_BYTES_MAX for each in symbols):
        raise _bad(f"symbols is a list of 1 to {SYMBOLS_MAX} names")
    if any("," in each for each in symbols):
        raise _bad("a name in symbols holds a comma")
    return name, password, frozenset(each.upper() for each in symbols)


def _both(first: frozenset[str] | None, second: frozenset[str] | None) -> frozenset[str] | None:
    if first is None or second is None:
        return first if second is None else second
    return first & second


def _no_store(response: web.Response) -> web.Response:
    response.headers["Cache-Control"] = "no-store"
    return response


def _bad(message: str) -> ApiError:
    return ApiError(400, "bad_request", message)
