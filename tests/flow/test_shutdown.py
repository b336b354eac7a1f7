"""Stopping and restarting the real processes: nobody is cut off without a word, and nobody waits for ever."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.cli.running import tradeback
from tests.flow.running import Engine, Process, children_of, running_engine, running_market, until
from tests.flow.watching import Watcher
from tests.ops.metric_names import problems
from tests.web.test_feed import page
from tradeback.client import connect

PROCESSES = {"supervisor", "engine", "recorder", "worker:0"}
BODY = b'{"username": "nobody", "password": "wrong password"}'


@pytest.fixture
async def market(tmp_path: Path) -> AsyncIterator[Process]:
    async with running_market(tmp_path, 2, 200.0) as found:
        yield found


class OpenRequest:
    """A request whose body is still coming: it is in flight until `finish`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def begin(cls, url: str) -> "OpenRequest":
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        head = f"POST /api/v1/auth/login HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {len(BODY)}\r\n"
        writer.write(head.encode() + b"Content-Type: application/json\r\n\r\n" + BODY[:10])
        await writer.drain()
        return cls(reader, writer)

    async def finish(self) -> tuple[int, Any]:
        """Send the rest; status and body of the answer."""
        self._writer.write(BODY[10:])
        async with asyncio.timeout(30):
            whole = await self._reader.read()
        head, _, body = whole.partition(b"\r\n\r\n")
        self._writer.close()
        assert head, "the connection was closed without an answer"
        return int(head.split()[1]), json.loads(body)


async def text_of(engine: Engine, path: str) -> str:
    async with aiohttp.ClientSession(engine.url) as http, http.get(path) as answer:
        assert answer.status == 200
        return await answer.text()


async def pid_of(engine: Engine, name: str) -> int:
    """Of a process that is well."""
    found: dict[str, Any] = {}

    async def there() -> bool:
        nonlocal found
        with suppress(aiohttp.ClientConnectionError):
            detailed = await engine.get("/api/v1/health/detailed")
            (found,) = (part for part in detailed["components"] if part["name"] == f"process:{name}")
            return bool(found["state"] == "ok")
        return False

    await until(there, name, 60)
    return int(found["details"]["pid"])


def told(engine: Engine, event: str) -> list[dict[str, Any]]:
    """Lines of the log with this event; every line must be JSON, but for progress."""
    lines = [line for line in engine.log.read_text().splitlines() if not line.startswith("... ")]
    return [held for held in map(json.loads, lines) if held["event"] == event]


async def check_metrics(engine: Engine) -> None:
    """All of /metrics follows the conventions, and quantiles can be had of times."""

    async def whole() -> bool:
        text = await text_of(engine, "/metrics")
        asked = [line for line in text.splitlines() if line.startswith("tradeback_http_requests_total")]
        return 'worker="0"' in text and any('process="recorder"' in line for line in asked)

    await engine.get("/udf/history", symbol="SYM0USDT", resolution="1", to="1")
    await until(whole, "numbers of worker and recorder")
    text = await text_of(engine, "/metrics")
    assert list(problems(text)) == []
    for name in ("publish_latency", "receive_latency", "line_lag", "http_request", "series_flush"):
        assert f"tradeback_{name}_seconds_bucket{{" in text, name


async def check_log_levels(engine: Engine) -> None:
    """All processes take a level up while they run, and one that is started later, too."""
    where = ("--data-dir", str(engine.data_dir))
    done = await asyncio.to_thread(tradeback, "log-level", "line", "error", *where)
    assert done.returncode == 0, done.stderr

    def taken() -> bool:
        lines = told(engine, "log levels set at run time")
        return {line["process"] for line in lines} == PROCESSES

    await until(taken, "all processes to see it", 30)
    assert all(line["levels"] == {"line": "error"} for line in told(engine, "log levels set at run time"))


async def restart(engine: Engine, name: str) -> None:
    """Ask one process to end; back when another has taken its place."""
    before = await pid_of(engine, name)
    os.kill(before, signal.SIGTERM)

    async def replaced() -> bool:
        return await pid_of(engine, name) != before

    await until(replaced, f"another {name}", 60)
    assert told(engine, "a process has ended and is started again")[-1]["how"] == "exit code 0"


async def test_restarts_and_the_end(tmp_path: Path, market: Process) -> None:
    async with running_engine(tmp_path / "data", market.announced, FEED_WORKERS="1") as engine:
        await pid_of(engine, "worker:0")
        await check_metrics(engine)
        await check_log_levels(engine)
        watcher = await Watcher.subscribe(engine.feed_url)
        async with (
            connect(engine.url, version=2) as feed,
            page(engine.url) as client,
            aclosing(cast("AsyncGenerator[Any, None]", feed.events())) as events,
        ):
            await anext(events)
            await client.told("open")
            await watcher.saw(1)
            await restart(engine, "worker:0")
            await watcher.end()
            assert watcher.code == 1012
            assert "1012" in (await client.told("waiting"))["reason"]
            await client.told("open")
            async for _ in events:
                if feed.reconnects:
                    break
        assert len(told(engine, "log levels set at run time")) == len(PROCESSES) + 1, "the new worker, too"
        fresh = await Watcher.subscribe(engine.feed_url)
        await fresh.saw(1)
        await restart(engine, "engine")
        assert fresh.closed is None, "the worker's clients notice nothing"

        request = await OpenRequest.begin(engine.url)
        await pid_of(engine, "recorder")
        engine.child.send_signal(signal.SIGTERM)
        await until(lambda: refused_politely(engine), "a polite refusal")
        assert (await request.finish())[0] == 401, "what is in flight is answered"
        assert await asyncio.wait_for(engine.child.wait(), 30) == 0
        await fresh.end()
        assert fresh.code == 1001
    assert "Traceback" not in engine.log.read_text()


async def refused_politely(engine: Engine) -> bool:
    """Whether a new connection is answered 503 and told when to come again."""
    async with aiohttp.ClientSession(engine.url) as http, http.get("/api/v1/health/live") as answer:
        if answer.status == 200:
            return False
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 0
        return bool((await answer.json())["error"]["code"] == "stopping")


async def test_one_process_for_all_ends_the_same_way(tmp_path: Path, market: Process) -> None:
    variables = {
        "EXCHANGE_WS_ENDPOINT": market.announced["ws"], "EXCHANGE_REST_ENDPOINT": market.announced["rest"],
        "EXCHANGE_SYMBOLS": "*", "SERVER_PORT": "0", "DATA_DIR": str(tmp_path / "data"),
    }  # fmt: skip
    engine = await Engine.start(
        "run", "--single-process", "--announce", log=tmp_path / "log", variables=variables
    )
    try:
        await engine.announcement()
        await engine.ready()
        watcher = await Watcher.subscribe(engine.feed_url)
        await watcher.saw(1)
        request = await OpenRequest.begin(engine.url)
        await engine.get("/api/v1/health/live")  # what came before has been read by then
        engine.child.send_signal(signal.SIGTERM)
        await until(lambda: refused_politely(engine), "a polite refusal")
        assert (await request.finish())[0] == 401
        assert await asyncio.wait_for(engine.child.wait(), 30) == 0
        await watcher.end()
        assert watcher.code == 1001
    finally:
        await engine.kill()


async def test_a_second_signal_ends_all_at_once(tmp_path: Path, market: Process) -> None:
    async with running_engine(tmp_path / "data", market.announced) as engine:
        children = children_of(engine.child.pid)
        os.kill(await pid_of(engine, "engine"), signal.SIGSTOP)  # it would be waited for, for ten seconds
        engine.child.send_signal(signal.SIGTERM)
        while engine.child.returncode is None:
            with suppress(TimeoutError):
                await asyncio.wait_for(engine.child.wait(), 0.6)
            with suppress(ProcessLookupError):
                engine.child.send_signal(signal.SIGTERM)
        assert engine.child.returncode == 128 + signal.SIGTERM
        await until(
            lambda: not any(Path(f"/proc/{child}").exists() for child in children), "the children's end"
        )
    assert "ending at once" in engine.log.read_text()
