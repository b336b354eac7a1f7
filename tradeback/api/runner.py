"""aiohttp's server, answering what is no HTTP in the one shape of errors, and without telling its version.

Such a request reaches no application, so no middleware can do this. The hook is
`RequestHandler.handle_error`; how the handler gets there is internal to aiohttp: test_access_attacks is the
thing to run when it is raised. So is what it waits for, by which the later heads of a connection get the same
time as the first one, which the front has read.
"""

import asyncio
import contextlib
import logging
from contextlib import suppress
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from tradeback.api.errors import code_of, error_response
from tradeback.api.headers import protect
from tradeback.feed.refusal import refusal
from tradeback.model.limits import HEAD_SECONDS_MAX
from tradeback.stores.sessions import cleaned

MESSAGE_CHARACTERS_MAX = 200


SHED_AT_ONCE = 64
DRAIN_POLL_S = 0.01
LINGER_S = 1.0
"""How long a connection that is cut may take to read why."""


class _Handler(RequestHandler):
    __slots__ = ("_head_timer", "head_seconds_max")

    def __init__(self, *values: Any, **options: Any) -> None:
        super().__init__(*values, **options)
        self.head_seconds_max = HEAD_SECONDS_MAX
        self._head_timer: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """It is kept alive between two requests."""
        return self._waiter is not None and not self._waiter.done() and not self._messages

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.is_idle:
            self._stop_timer()
        elif data and self._head_timer is None:  # a part of a head
            self._head_timer = self._loop.call_later(self.head_seconds_max, self._too_slow)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if self.is_idle and self.transport is not None:
            self._force_close = True  # what still comes is read and dropped, or the answer would be lost
            self.transport.write(refusal(408, "request_timeout", "the request head took too long"))
            with suppress(OSError):  # the client has gone
                self.transport.write_eof()
            self._loop.call_later(LINGER_S, self.force_close)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        super().handle_error(request, status, exc, message)  # logs it
        first_line = (message or "").strip().partition("\n")[0] if status < 500 else ""
        words = cleaned(first_line, MESSAGE_CHARACTERS_MAX).rstrip(":")
        response = error_response(status, code_of(status), words or "something went wrong here")
        protect(response, private=False)
        response.force_close()
        return response


class _Server(web.Server):
    head_seconds_max = HEAD_SECONDS_MAX

    def __call__(self) -> RequestHandler:
        made = _Handler(self, loop=self._loop, **self._kwargs)
        made.head_seconds_max = self.head_seconds_max
        return made


class Runner(web.AppRunner):
    """Runs an application; `server` makes its protocols after `setup`."""

    def __init__(
        self, app: web.Application, *, head_seconds_max: float = HEAD_SECONDS_MAX, **options: Any
    ) -> None:
        """`head_seconds_max`: the time that a request head may take, also one that is not the first."""
        super().__init__(app, access_log=None, handle_signals=False, logger=_http_log(), **options)
        self._head_seconds_max = head_seconds_max

    def shed(self) -> int:
        """Close some idle connections, those first that are open for the longest; how many."""
        connections = self.server.connections if self.server is not None else []
        idle = [each for each in connections if isinstance(each, _Handler) and each.is_idle]
        for handler in idle[:SHED_AT_ONCE]:
            handler.force_close()
        return len(idle[:SHED_AT_ONCE])

    async def drain(self, seconds_max: float) -> None:
        """Close idle connections, and the others when their requests are answered or the time is up.

        aiohttp's own shutdown reads nothing any more: a request whose body is still coming would be cut.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds_max):
                while self._close_idle():  # noqa: ASYNC110  aiohttp tells nobody when a request ends
                    await asyncio.sleep(DRAIN_POLL_S)
        if self.server is not None:
            await self.server.shutdown(0.0)

    def _close_idle(self) -> int:
        """How many connections have a request that is not answered."""
        connections = self.server.connections if self.server is not None else []
        busy = 0
        for each in connections:
            if isinstance(each, _Handler) and each.is_idle:
                each.close()
            else:
                busy += 1
        return busy

    async def _make_server(self) -> web.Server:
        server: Any = await super()._make_server()
        server.__class__ = _Server
        server.head_seconds_max = self._head_seconds_max
        found: web.Server = server
        return found


def _http_log() -> logging.Logger:
    """aiohttp's log, without the traceback that it writes for every request a client got wrong."""
    log = logging.getLogger("tradeback.http")
    if not log.filters:
        log.addFilter(_is_ours)
    return log


def _is_ours(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)
