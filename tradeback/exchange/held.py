"""A connection to the exchange: how it begins, how whoever keeps it sees it, and how it ends."""

import asyncio
from typing import Any, Protocol

import picows

from tradeback.exchange.streams import stream_address
from tradeback.model.config import ExchangeConfig
from tradeback.model.errors import ExchangeError

CLOSED = "the exchange closed the connection"
LOST = (OSError, TimeoutError, picows.WSError, ExchangeError)
"""What a connection that fails raises."""


class Held(Protocol):
    """A connection as its keeper sees it. It is never opened twice."""

    ended: str | None
    """Why it has ended; None while it lives."""
    is_leaving: bool
    """The exchange has announced that it will cut it."""
    up_ns: int | None
    """Steady time at which everything was subscribed."""

    @property
    def bytes_read(self) -> int:
        """Bytes that have come, of any kind."""

    @property
    def market_bytes(self) -> int:
        """Those of them that are market data."""

    async def open(self) -> None:
        """Connect and subscribe. Raises one of LOST."""

    async def passed(self) -> bool:
        """Until everything the exchange had queued for it has come; False when that cannot be known."""

    def close(self, *, politely: bool = False) -> None:
        """End it. Calling it again does nothing."""


class Silence:
    """How long a connection has brought no byte at all, while somebody listened."""

    def __init__(self, most_s: float) -> None:
        self._most_ns = int(most_s * 1e9)
        self._heard: tuple[object, ...] = ()
        self._heard_ns = 0

    def is_too_long(self, now_ns: int, connection: Held, pauses: tuple[bool, int]) -> bool:
        """Whether to give the connection up."""
        heard = (id(connection), connection.bytes_read, pauses[1])
        if heard != self._heard or pauses[0]:
            self._heard, self._heard_ns = heard, now_ns
            return False
        return now_ns - self._heard_ns >= self._most_ns


async def dial(listener: picows.WSListener, endpoint: str, config: ExchangeConfig, **buffers: Any) -> None:
    """Connect `listener`, within `exchange.connect_timeout`. Raises one of LOST.

    Pings are the listener's business.
    """
    async with asyncio.timeout(config.connect_timeout_s):
        await picows.ws_connect(
            lambda: listener,
            stream_address(endpoint),
            enable_auto_ping=False,
            enable_auto_pong=False,
            websocket_handshake_timeout=config.connect_timeout_s,
            extra_headers={"User-Agent": "tradeback"},
            **buffers,
        )


def words_of(error: BaseException) -> str:
    """What an error says; a timeout says nothing by itself."""
    text = str(error) or type(error).__name__
    return "timed out" if isinstance(error, TimeoutError) and not str(error) else text
