"""benchmarks.harness.history_client: charts ask on schedule, and notice answers that are wrong."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from aiohttp import web

from benchmarks.harness.history_client import Charts, look
from tests.feed.harness import fronted

BARS = 50


def body(count: int = BARS, **more: Any) -> bytes:
    times = list(range(60, 60 * (count + 1), 60))
    return orjson.dumps({"s": "ok", "t": times, **{name: [1.5] * count for name in "ohlcv"}, **more})


def answer(content: bytes, status: int = 200) -> bytes:
    return b"HTTP/1.1 %d OK\r\nContent-Length: %d\r\n\r\n%s" % (status, len(content), content)


def test_answers_are_looked_at() -> None:
    assert look(answer(body()), BARS) == ""
    assert "49 bars" in look(answer(body(49)), BARS)
    assert "do not rise" in look(answer(body(t=[60] * BARS)), BARS)
    assert "other lengths" in look(answer(body(v=[])), BARS)
    assert "503" in look(answer(b"{}", 503), BARS)


@pytest.fixture
async def url() -> AsyncIterator[str]:
    app = web.Application()

    async def good(request: web.Request) -> web.Response:
        return web.Response(body=body())

    async def short(request: web.Request) -> web.Response:
        return web.Response(body=body(3))

    app.router.add_get("/good", good)
    app.router.add_get("/short", short)
    async with fronted(app) as found:
        yield found


async def test_charts_ask_and_count(url: str) -> None:
    port, core = int(url.rpartition(":")[2]), max(os.sched_getaffinity(0))

    def run(targets: list[str]) -> Any:
        with Charts(core, port, targets, BARS) as charts:
            return charts.ask(400.0, 40)

    asked = await asyncio.to_thread(run, ["/good"])
    assert len(asked.latency_ns) == 40
    assert (asked.latency_ns > 0).all()
    assert asked.wrong == []
    assert asked.answer_bytes > 40 * len(body())
    asked = await asyncio.to_thread(run, ["/short"])
    assert asked.wrong
    assert "3 bars instead of 50" in asked.wrong[0]
