"""One stream connection's protocol as a state machine: messages and times in, replies out. Pure.

Rules: sections 2 and 3 of the Binance fact sheet. Times are steady nanoseconds. What to do with the
replies, and all sockets, is the server's business.
"""

import re
from collections import deque
from dataclasses import dataclass, field
from json import JSONDecodeError, dumps, loads
from typing import Any
from urllib.parse import parse_qsl, unquote

from tradeback.sim.config import SECOND_NS, SimConfig

STREAM_NAME = re.compile(
    r"(![A-Za-z]|[^\s@#!/?&\"\\]+@[A-Za-z])[A-Za-z0-9_]*(@[A-Za-z0-9+:\-]+)*|[A-Za-z0-9_\-]+"
)
"""What the exchange takes for a name, whether there is such a stream or not. A plain word is one as well:
streams of accounts had such names, and ccxt connects to `/ws/0`. Of unknown ones nothing ever comes."""
METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
UNITS = {"MICROSECOND": True, "microsecond": True, "MILLISECOND": False, "millisecond": False}
_ID = re.compile(r"[A-Za-z0-9_\-]{0,36}")


class BadPath(Exception):
    """A handshake that is refused; `status` is the HTTP status, `reason` its body."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Target:
    """What a handshake asks for."""

    combined: bool
    microseconds: bool
    streams: tuple[str, ...]


def parse_target(raw: str) -> Target:
    """The meaning of a request target, percent-encoded or not; BadPath when refused.

    `/ws`, `/ws/<a>/<b>`, `/stream`, `/stream?streams=<a>/<b>`; any other path is 404. Names of streams that
    do not exist are let pass. A malformed name or time unit is 400 (Binance does not document it).
    """
    path, _, query = raw.partition("?")
    path = unquote(path)
    parameters = dict(parse_qsl(query.replace("+", "%2B"), keep_blank_values=True))
    unit = parameters.get("timeUnit", "MILLISECOND")
    if unit not in UNITS:
        raise BadPath(400, "Invalid value for time unit; expected either MICROSECOND or MILLISECOND.")
    if path.rstrip("/") == "/stream":
        combined, names = True, parameters.get("streams", "")
    elif path == "/ws" or path.startswith("/ws/"):
        combined, names = False, path[4:]
    else:
        raise BadPath(404, "Not Found")
    streams = tuple(dict.fromkeys(name for name in names.split("/") if name))
    for name in streams:
        if not STREAM_NAME.fullmatch(name):
            raise BadPath(400, f"Invalid stream: {name}")
    return Target(combined, UNITS[unit], streams)


@dataclass(slots=True)
class Reply:
    """What a message leads to: a text to send, streams to add and drop, a close (code, reason) after it."""

    text: bytes = b""
    added: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    reshaped: bool = False
    """`combined` has changed: the shape of every subscription does."""
    close: tuple[int, str] | None = None


class _Refused(Exception):
    def __init__(self, code: int, message: str, *, closes: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.closes = closes


class Session:
    """State of one connection: streams, properties, the message limit, ping and life span."""

    def __init__(self, config: SimConfig, target: Target, now_ns: int) -> None:
        self._config = config
        self.combined = target.combined
        self.microseconds = target.microseconds
        self.streams: dict[str, None] = dict.fromkeys(target.streams)
        self._born_ns = now_ns
        self._messages: deque[int] = deque(maxlen=config.client_messages_per_s)
        self._next_ping_ns = now_ns + int(config.ping_interval_s * SECOND_NS)
        self._ping_payload = b""
        self._pong_due_ns: int | None = None
        self._pings = 0

    def on_control(self, now_ns: int, pong: bytes | None = None) -> Reply:
        """A PING (pong None) or a PONG with this payload has come."""
        if pong is not None and pong == self._ping_payload and self._ping_payload:
            self._pong_due_ns = None
        return self._count(now_ns) or Reply()

    def _count(self, now_ns: int) -> Reply | None:
        full = len(self._messages) == self._messages.maxlen
        if full and now_ns - self._messages[0] < SECOND_NS:
            return Reply(close=(1008, "Too many requests"))
        self._messages.append(now_ns)
        return None

    def on_time(self, now_ns: int) -> tuple[bytes, tuple[int, str] | None]:
        """(ping payload to send or empty, close or None). Call a few times per ping interval."""
        if now_ns - self._born_ns >= self._config.connection_life_s * SECOND_NS:
            return b"", (1001, "connection life is over")
        if self._pong_due_ns is not None and now_ns >= self._pong_due_ns:
            return b"", (1008, "Pong timeout")
        if now_ns < self._next_ping_ns:
            return b"", None
        self._next_ping_ns = now_ns + int(self._config.ping_interval_s * SECOND_NS)
        self._pings += 1
        self._ping_payload = str(now_ns // 1_000_000 + self._pings).encode()
        if self._pong_due_ns is None:
            self._pong_due_ns = now_ns + int(self._config.pong_timeout_s * SECOND_NS)
        return self._ping_payload, None

    def on_text(self, data: bytes, now_ns: int) -> Reply:
        """A text message has come."""
        over = self._count(now_ns)
        if over is not None:
            return over
        if len(data) > self._config.control_bytes_max:
            column = self._config.control_bytes_max
            return Reply(_error(3, f"Invalid JSON: expected value at line 1 column {column}"))
        try:
            message = loads(data)
        except JSONDecodeError as error:
            return Reply(
                _error(3, f"Invalid JSON: expected value at line {error.lineno} column {error.colno}")
            )
        except (UnicodeDecodeError, RecursionError):
            return Reply(_error(3, "Invalid JSON: expected value at line 1 column 1"))
        request_id = message.get("id") if isinstance(message, dict) else None
        try:
            return self._answer(message, len(data))
        except _Refused as refused:
            known = isinstance(message, dict) and _is_id(request_id)
            reply = Reply(_error(refused.code, str(refused), request_id, known=known))
            if refused.closes:
                reply.close = (1008, "Invalid request")
            return reply

    def _answer(self, message: Any, size: int) -> Reply:
        if not isinstance(message, dict) or "method" not in message:
            raise _Refused(2, f"Invalid request: missing field `method` at line 1 column {size}")
        method, params = message["method"], message.get("params", [])
        if method not in METHODS:
            expected = ", ".join(f"`{name}`" for name in METHODS)
            raise _Refused(
                2,
                f"Invalid request: unknown variant `{method}`, expected one of {expected} "
                f"at line 1 column {size}",
            )
        if not _is_id(message.get("id")):
            raise _Refused(2, "Invalid request: request ID must be an unsigned integer")
        if not isinstance(params, list):
            raise _Refused(2, f"Invalid request: invalid type, expected a sequence at line 1 column {size}")
        reply, result = Reply(), None
        if method == "SUBSCRIBE":
            reply.added = self._subscribe(params)
        elif method == "UNSUBSCRIBE":
            reply.dropped = [name for name in _names(params) if name in self.streams]
            for name in reply.dropped:
                del self.streams[name]
        elif method == "LIST_SUBSCRIPTIONS":
            if params:
                raise _Refused(2, "Invalid request: too many parameters")
            result = list(self.streams)
        else:
            result, reply.reshaped = self._property(method, params)
        reply.text = _dump({"result": result, "id": message.get("id")})
        return reply

    def _subscribe(self, params: list[Any]) -> list[str]:
        added = [name for name in dict.fromkeys(_names(params)) if name not in self.streams]
        if len(self.streams) + len(added) > self._config.streams_per_connection_max:
            raise _Refused(2, "Invalid request: too many streams")
        self.streams.update(dict.fromkeys(added))
        return added

    def _property(self, method: str, params: list[Any]) -> tuple[Any, bool]:
        wanted = 2 if method == "SET_PROPERTY" else 1
        if len(params) > wanted:
            raise _Refused(2, "Invalid request: too many parameters")
        if not params or not isinstance(params[0], str):
            raise _Refused(2, "Invalid request: property name must be a string")
        if params[0] != "combined":
            raise _Refused(0, "Unknown property")
        if wanted == 1:
            return self.combined, False
        if len(params) < 2 or not isinstance(params[1], bool):
            raise _Refused(1, "Invalid value type: expected Boolean")
        changed = self.combined != params[1]
        self.combined = params[1]
        return None, changed


def _names(params: list[Any]) -> list[str]:
    """The stream names of a request; a malformed one costs the connection."""
    for name in params:
        if not isinstance(name, str) or not STREAM_NAME.fullmatch(name):
            raise _Refused(2, "Invalid request: invalid stream", closes=True)
    return params


def _is_id(value: Any) -> bool:
    if value is None:
        return True
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def _error(code: int, message: str, request_id: Any = None, *, known: bool = False) -> bytes:
    body: dict[str, Any] = {"error": {"code": code, "msg": message}}
    if known:
        body["id"] = request_id
    return _dump(body)


def _dump(value: Any) -> bytes:
    return dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
