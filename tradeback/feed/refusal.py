"""An HTTP error as bytes, for whoever answers before there is a request or an application. Pure.

The same shape and the same headers as every other error has: `api.errors`, `api.headers`, and `api.udf` for
what charts read (they look at nothing but `s`).
"""

from typing import Final

import orjson

_PHRASES: Final = {
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    408: b"Request Timeout",
    414: b"URI Too Long",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    503: b"Service Unavailable",
}
_HEAD: Final = (
    b"HTTP/1.1 %d %s\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n%s"
    b"X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
    b"Cross-Origin-Resource-Policy: same-origin\r\nServer: tradeback\r\nConnection: close\r\n\r\n%s"
)
UDF: Final = b"/udf"


def refusal(status: int, code: str, message: str, *, retry_after_s: int = 0, asked: bytes = b"") -> bytes:
    """The whole answer; the connection is closed behind it. `asked`: what came of the request's head."""
    error = {"error": {"code": code, "message": message}}
    body = orjson.dumps({"s": "error", "errmsg": message} if is_udf(asked) else error)
    retry = b"Retry-After: %d\r\n" % retry_after_s if retry_after_s else b""
    return _HEAD % (status, _PHRASES[status], len(body), retry, body)


def is_udf(asked: bytes) -> bool:
    """Whether a head, or the start of one, asks for something of the datafeed."""
    _, _, rest = asked[:64].partition(b" ")
    return rest.startswith(UDF) and rest[len(UDF) : len(UDF) + 1] in (b"", b"/", b"?", b" ")
