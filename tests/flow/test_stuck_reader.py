"""One client that never reads, twenty that do, on the real engine: only the first is given up."""

import asyncio
import json
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.flow.replaying import joined, symbols_of, trades_of
from tests.flow.running import Engine, running_engine, running_market, until
from tests.flow.watching import Watcher, window
from tradeback.feed.client import CLOSE_GRACE_S

GOOD = 20
LAG_MAX_S = 1.0
SLACK_S = 1.0
"""The engine looks four times per lag_max; the rest is a busy machine."""
UPGRADE = (
    "GET /api/v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def stuck_client(url: str) -> socket.socket:
    """Subscribed to everything, with a small receive buffer, reading nothing."""
    where = urlsplit(url)
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
    line.connect((where.hostname, where.port))
    text = json.dumps({"type": "subscribe", "symbols": ["*"]}).encode()
    assert len(text) < 126
    line.sendall(UPGRADE.encode() + bytes((0x81, 0x80 | len(text))) + bytes(4) + text)
    return line


async def feed_numbers(engine: Engine) -> dict[str, float]:
    """The feed's plain numbers of /metrics."""
    async with aiohttp.ClientSession(engine.url) as http, http.get("/metrics") as answer:
        text = await answer.text()
    prefix = "tradeback_feed_"
    return {
        sample.name.removeprefix(prefix).removesuffix("_total"): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith(prefix) and not sample.labels
    }


def hung_up(line: socket.socket) -> bool:
    """Read what was left in the buffers; True at the end of the connection."""
    line.setblocking(False)
    try:
        while line.recv(65_536):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        pass
    return True


async def test_a_stuck_reader_is_given_up_and_nobody_else_notices(tmp_path: Path) -> None:
    variables = {"FEED_LAG_MAX": f"{LAG_MAX_S}s", "FEED_SEND_BUFFER_BYTES": "16KiB"}
    async with running_market(tmp_path, 5, 4_000) as market, running_engine(
        tmp_path / "data", market.announced, **variables
    ) as engine:  # fmt: skip
        good = await asyncio.gather(*(Watcher.subscribe(engine.feed_url) for _ in range(GOOD)))
        numbers: dict[str, float] = {}

        async def reaches(name: str, value: float) -> bool:
            numbers.update(await feed_numbers(engine))
            return numbers[name] == value

        with stuck_client(engine.url) as stuck:
            await until(lambda: reaches("lagging", 1), "the stuck client to be noticed")
            noticed = time.monotonic()
            await until(lambda: reaches("aborted", 1), "the stuck client to be given up")
            given_up = time.monotonic() - noticed
            await until(lambda: reaches("clients", GOOD), "the stuck client to be gone")
            gone = time.monotonic() - noticed
            await until(lambda: hung_up(stuck), "the end of its connection")
        assert LAG_MAX_S * 0.8 <= given_up <= LAG_MAX_S * 1.25 + SLACK_S
        assert gone <= given_up + CLOSE_GRACE_S + SLACK_S
        await asyncio.gather(*(one.saw(one.count + 50) for one in good))
        numbers.update(await feed_numbers(engine))
        assert (numbers["aborted"], numbers["silent"], numbers["clients"]) == (1, 0, GOOD)
        for one in good:
            await one.close()
        rows = joined(engine.tape())
        for name, symbol in symbols_of(engine.data_dir).items():
            trades = trades_of(rows, symbol.id)
            truth = list(zip(trades["price"].tolist(), trades["quantity"].tolist(), strict=True))
            for place, one in enumerate(good):
                assert window(truth, one.by_symbol()[name]) is not None, f"client {place} missed {name}"
