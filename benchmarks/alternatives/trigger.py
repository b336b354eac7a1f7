"""The asyncio side of a baseline's source: calls back once per whole burst of the exchange."""

import asyncio
from collections.abc import Callable

from benchmarks.harness.source import subscribed


class Trigger(asyncio.Protocol):
    """Counts bytes; `broadcast()` for each `burst_bytes`. The baselines decode nothing."""

    def __init__(self, burst_bytes: int, broadcast: Callable[[], None]) -> None:
        self._burst_bytes = burst_bytes
        self._broadcast = broadcast
        self._pending = 0

    def data_received(self, data: bytes) -> None:
        """Bytes of the exchange."""
        self._pending += len(data)
        while self._pending >= self._burst_bytes:
            self._pending -= self._burst_bytes
            self._broadcast()


async def listen_to(exchange_port: int, burst_bytes: int, broadcast: Callable[[], None]) -> None:
    """Subscribe to the exchange and call `broadcast` per burst from now on."""
    source = subscribed(exchange_port, ["btcusdt@trade"])
    source.sock.setblocking(False)
    await asyncio.get_running_loop().create_connection(
        lambda: Trigger(burst_bytes, broadcast), sock=source.sock
    )
