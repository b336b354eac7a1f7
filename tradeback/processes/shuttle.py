"""A connection that answers history here, and goes back to the engine as soon as something else is asked on
it.

Between the transport and aiohttp's own protocol: every request head is looked at before aiohttp sees it,
one request at a time. What aiohttp is busy with is read from its protocol's internals; test_shuttle is the
thing to run when aiohttp is raised.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from tradeback.feed.head import HEAD_END
from tradeback.feed.passage import may_go
from tradeback.feed.refusal import refusal
from tradeback.model.limits import HEAD_BYTES_MAX, HEAD_SECONDS_MAX

GoBack = Callable[[Any, bytes], None]
"""(transport, bytes that have come): somebody else serves the connection from here on."""


class Shuttle(asyncio.Protocol):
    """One connection."""

    __slots__ = ("_go_back", "_going", "_head_seconds_max", "_inner", "_seen", "_timer", "_transport")

    def __init__(self, inner: Any, go_back: GoBack, head_seconds_max: float = HEAD_SECONDS_MAX) -> None:
        """`inner`: a fresh protocol of aiohttp's server. A head may take `head_seconds_max`."""
        self._inner, self._go_back, self._head_seconds_max = inner, go_back, head_seconds_max
        self._timer: asyncio.TimerHandle | None = None
        self._seen = b""
        self._going = False
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._inner.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._stop_timer()
        self._inner.connection_lost(error)

    def eof_received(self) -> bool | None:
        found: bool | None = self._inner.eof_received()
        return found

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._going:
            return
        waited = bool(self._seen)
        self._seen += data
        if not waited or self._is_idle():
            self._look()

    def _is_idle(self) -> bool:
        """aiohttp waits for a request."""
        inner = self._inner
        return inner._waiter is not None and not inner._waiter.done() and not inner._messages

    def _look(self) -> None:
        """Hand the next request to aiohttp once it is idle, or the connection to the engine."""
        if self._going or not self._seen or self._transport.is_closing():
            return
        end = self._seen.find(HEAD_END)
        if end < 0 and len(self._seen) <= HEAD_BYTES_MAX:  # the rest of the head is to come
            if self._timer is None:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(self._head_seconds_max, self._too_slow)
            return
        self._stop_timer()
        if not self._is_idle():
            asyncio.get_running_loop().call_later(0.0005, self._look)
            return
        if end < 0 or not may_go(self._seen[:end]):
            self._going = True
            self._transport.pause_reading()  # what comes now is read by whoever serves it
            self._go_back(self._transport, self._seen)
            return
        whole = end + len(HEAD_END)
        request, self._seen = self._seen[:whole], self._seen[whole:]
        self._inner.data_received(request)
        if self._seen:
            asyncio.get_running_loop().call_soon(self._look)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if not self._is_idle():
            self._look()  # the answer before it takes long: the head gets its time again
        elif not self._going and not self._transport.is_closing():
            slow = refusal(408, "request_timeout", "the request head took too long", asked=self._seen)
            self._transport.write(slow)
            self._transport.close()
