"""Names, addresses and control messages of Binance Spot streams, and who subscribes to what. Pure.

Rules: binance.md sections 2 and 3 (1,024 streams a connection, control frames below 4,096 bytes).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from tradeback.model.errors import ConfigError
from tradeback.model.limits import CONTROL_BYTES_MAX, CONTROL_NAMES_MAX, STREAMS_PER_CONNECTION_MAX
from tradeback.model.record import AGG, QUOTE, TRADE

STREAMS: Final = ("trade", "bookTicker", "aggTrade")
"""The stream kinds; each has connections of its own, so that a burst of quotes does not delay trades."""
KINDS: Final = {"trade": TRADE, "bookTicker": QUOTE, "aggTrade": AGG}
LINE_NAMES: Final = ("a", "b")
SAME_OR_OTHER: Final = "auto"
_OTHER_HOSTS: Final = {
    "stream.binance.com": "wss://data-stream.binance.vision:443",
    "data-stream.binance.vision": "wss://stream.binance.com:9443",
}
"""Public hosts of the same market data (binance.md section 1): line B goes where line A does not."""


@dataclass(frozen=True, slots=True)
class LinePlan:
    """What one connection carries: stream kind, line 0 (A) or 1 (B), shard, symbols."""

    stream: str
    line: int
    shard: int
    symbols: tuple[str, ...]

    @property
    def name(self) -> str:
        """Unique and stable: "a:trade:0"."""
        return f"{LINE_NAMES[self.line]}:{self.stream}:{self.shard}"


def plan_lines(symbols: Sequence[str], lines: int, connections_max: int) -> list[LinePlan]:
    """Spread symbols over connections; all of line A first.

    Raises ConfigError when more connections are needed than allowed; one is kept free for rollovers.
    """
    shards = -(-len(symbols) // STREAMS_PER_CONNECTION_MAX)
    needed = shards * len(STREAMS) * lines + 1
    if needed > connections_max:
        raise ConfigError(
            f"{len(symbols)} symbols on {lines} line(s) need {needed} connections, one of them to replace "
            f"another, and "
            f"exchange.max_connections is {connections_max}: raise EXCHANGE_MAX_CONNECTIONS or name "
            "fewer symbols"
        )
    plans = []
    for line in range(lines):
        for shard in range(shards):
            # Even shards: no connection is full, so symbols can be added without a new one.
            part = tuple(symbols[shard::shards])
            plans += [LinePlan(stream, line, shard, part) for stream in STREAMS]
    return plans


def stream_name(symbol: str, stream: str) -> str:
    """`btcusdt@trade`."""
    return f"{symbol.lower()}@{stream}"


def endpoint_of(line: int, endpoint: str, endpoint_b: str) -> str:
    """Where a line connects: line 1 (B) to `endpoint_b`; "auto" there is another host where one is known."""
    if line == 0:
        return endpoint
    if endpoint_b != SAME_OR_OTHER:
        return endpoint_b
    return _OTHER_HOSTS.get(urlsplit(endpoint).hostname or "", endpoint)


def stream_address(endpoint: str) -> str:
    """Where to connect: the combined stream without names (they are subscribed), times in microseconds."""
    return f"{endpoint.rstrip('/')}/stream?timeUnit=MICROSECOND"


def control_messages(method: str, names: Sequence[str], first_id: int) -> Iterator[bytes]:
    """SUBSCRIBE or UNSUBSCRIBE for `names` in as few messages as the limits allow, ids rising by one."""
    chunk: list[str] = []
    size = 0
    for name in names:
        cost = len(json.dumps(name, ensure_ascii=False).encode()) + 1
        if chunk and (len(chunk) >= CONTROL_NAMES_MAX or size + cost > CONTROL_BYTES_MAX - 80):
            yield _control(method, chunk, first_id)
            first_id += 1
            chunk, size = [], 0
        chunk.append(name)
        size += cost
    if chunk:
        yield _control(method, chunk, first_id)


def _control(method: str, names: Sequence[str], request_id: int) -> bytes:
    body = {"method": method, "params": list(names), "id": request_id}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
