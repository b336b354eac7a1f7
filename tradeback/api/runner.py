"""aiohttp's server, answering what is no HTTP in the one shape of errors, and without telling its version.

Such a request reaches no application, so no middleware can do this. The hook is
`RequestHandler.handle_error`; how the handler gets there is internal to aiohttp: test_access_attacks is the
thing to run when it is raised.
"""

from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from tradeback.api.errors import code_of, error_response
from tradeback.api.headers import protect
from tradeback.stores.sessions import cleaned

MESSAGE_CHARACTERS_MAX = 200


SHED_AT_ONCE = 64


class _Handler(RequestHandler):
    __slots__ = ()

    @property
    def is_idle(self) -> bool:
        """It is kept alive between two requests."""
        return self._current_request is None and not self._messages

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
    def __call__(self) -> RequestHandler:
        return _Handler(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application; `server` makes its protocols after `setup`."""

    def shed(self) -> int:
        """Close some idle connections, those first that are open for the longest; how many."""
        connections = self.server.connections if self.server is not None else []
        idle = [each for each in connections if isinstance(each, _Handler) and each.is_idle]
        for handler in idle[:SHED_AT_ONCE]:
            handler.force_close()
        return len(idle[:SHED_AT_ONCE])

    async def _make_server(self) -> web.Server:
        server: Any = await super()._make_server()
        server.__class__ = _Server
        found: web.Server = server
        return found
