"""One shape for every HTTP error: {"error": {"code": ..., "message": ...}}."""

import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping

import orjson
from aiohttp import web

from tradeback.model.errors import TapeError
from tradeback.ops.log import RepeatLimiter
from tradeback.stores.sessions import cleaned

LOGGED_CHARACTERS_MAX = 200

_log = logging.getLogger("tradeback.api")
_limiter = RepeatLimiter(60.0)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    411: "length_required",
    413: "too_large",
    414: "too_large",
    415: "unsupported_media_type",
    417: "expectation_failed",
    426: "upgrade_required",
    429: "too_many_requests",
    503: "not_ready",
}


def code_of(status: int) -> str:
    """The code of an error that has no better one."""
    return _CODES.get(status, "error")


class ApiError(Exception):
    """An answer other than 2xx, raised by a handler. Never carries internals."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers or {}


def json_response(value: object, status: int = 200) -> web.Response:
    """A value as JSON. numpy scalars are understood; NaN and Infinity become null."""
    return raw_response(json_bytes(value), status)


def json_bytes(value: object) -> bytes:
    """The body of `json_response`: a thread makes it where the answer is large."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def raw_response(body: bytes, status: int = 200) -> web.Response:
    """JSON that is ready."""
    return web.Response(body=body, status=status, content_type="application/json", charset="utf-8")


def error_response(status: int, code: str, message: str, **more: object) -> web.Response:
    """An error in the one shape."""
    return json_response({"error": {"code": code, "message": message, **more}}, status)


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure in the one shape; an unforeseen one gets an id that is found again in the log."""
    try:
        return await handler(request)
    except ApiError as error:
        response = error_response(error.status, error.code, str(error))
        response.headers.update(error.headers)
        return response
    except web.HTTPException as error:
        if error.status < 400:
            raise
        response = error_response(error.status, code_of(error.status), _explain(request, error))
        for name in ("Allow", "Retry-After", "Upgrade"):
            if name in error.headers:
                response.headers[name] = error.headers[name]
        return response
    except TapeError as error:
        # Damaged records in the way: whoever asks can do nothing about it, the operator can.
        if _limiter.allow("tape", time.monotonic_ns()) is not None:
            _log.error("the tape cannot be read for an answer: %s", error)
        return error_response(503, "not_ready", "the tape cannot be read there; the server's log says why")
    except Exception:
        # The boundary: whatever a handler did wrong, the client gets no traceback and the log does.
        reference = secrets.token_hex(6)
        # Cleaned: a path may hold line ends, which would forge lines of the log. Without the query, where
        # a token may stand.
        path = cleaned(request.path, LOGGED_CHARACTERS_MAX)
        _log.exception("request %s failed: %s %s", reference, request.method, path)
        message = "something went wrong here; the id names it in the server's log"
        return error_response(500, "internal_error", message, id=reference)


def _explain(request: web.Request, error: web.HTTPException) -> str:
    if error.status == 404:
        return f"nothing is at {request.path[:200]}; GET /api/v1 lists what there is"
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return f"{error.method} is not allowed here; allowed: {allowed}"
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return "the body is too large"
    return error.reason
