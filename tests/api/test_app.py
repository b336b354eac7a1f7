"""api/app, errors and health: one shape for every failure, nothing leaked, health by component."""

import asyncio
import logging
from dataclasses import dataclass

import aiohttp
import orjson
import pytest
from aiohttp import web

from tests.feed.harness import World, fronted, get, world
from tradeback.api.app import make_app
from tradeback.api.errors import json_response
from tradeback.api.health import overall
from tradeback.model.limits import BODY_BYTES_MAX
from tradeback.ops.health import ComponentHealth, State


@dataclass
class Part:
    name: str
    state: State
    last_error: str | None = None

    def health(self) -> ComponentHealth:
        return ComponentHealth(self.name, self.state, 1_700_000_000_123_456_789, self.last_error, 0.5)


async def test_unknown_routes_and_wrong_methods_are_json() -> None:
    async with world() as running:
        status, answer = await get(running, "/nowhere")
        assert (status, answer["error"]["code"]) == (404, "not_found")
        async with aiohttp.ClientSession() as session, session.post(running.http + "/health") as wrong:
            assert wrong.status == 405
            assert "GET" in wrong.headers["Allow"]
            assert (await wrong.json())["error"]["code"] == "method_not_allowed"


async def test_a_fault_of_ours_leaks_nothing_but_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with world() as running:
        running.context.derived = object()  # type: ignore[assignment]
        with caplog.at_level(logging.ERROR, "tradeback.api"):
            status, answer = await get(running, "/api/v1/symbols/BTCUSDT/price")
        assert status == 500
        assert answer["error"]["code"] == "internal_error"
        assert "latest" not in orjson.dumps(answer).decode()
        assert answer["error"]["id"] in caplog.text
        assert "AttributeError" in caplog.text


async def test_a_body_beyond_the_limit_is_413() -> None:
    async def read(request: web.Request) -> web.Response:
        return json_response(len(await request.read()))

    async with world() as running:
        app = make_app(running.context)
        app.router.add_post("/read", read)
        async with fronted(app) as http, aiohttp.ClientSession() as session:
            url = f"{http}/read"
            async with session.post(url, data=bytes(BODY_BYTES_MAX)) as answer:
                assert await answer.json() == BODY_BYTES_MAX
            async with session.post(url, data=bytes(BODY_BYTES_MAX + 1)) as answer:
                assert answer.status == 413
                assert (await answer.json())["error"]["code"] == "too_large"


async def test_a_broken_header_is_400_and_no_news(caplog: pytest.LogCaptureFixture) -> None:
    async with world() as running:
        for before in (b"", b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", running.front.port)
            writer.write(before + b"GET /health HTTP/1.1\r\nHost x\r\n\r\n")
            async with asyncio.timeout(5):
                assert b" 400 " in await reader.read()
            writer.close()
    assert not caplog.records


async def test_the_api_lists_what_there_is() -> None:
    async with (
        world() as running,
        aiohttp.ClientSession() as session,
        session.get(f"{running.http}/api/v1") as answer,
    ):
        assert answer.status == 200
        text = await answer.text()
    for path in ("/api/v1/symbols/{symbol}/bars", "/api/v1/ws", "/metrics", "/health/ready"):
        assert path in text


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([], "ok"),
        ([Part("tape", "ok"), Part("line:a", "ok")], "ok"),
        ([Part("tape", "ok"), Part("line:a", "down")], "degraded"),
        ([Part("tape", "ok"), Part("store:series", "degraded")], "degraded"),
        ([Part("feed", "starting")], "degraded"),
        ([Part("line:a", "down"), Part("tape", "down")], "down"),
        ([Part("feed", "down")], "down"),
    ],
)
def test_overall(parts: list[Part], expected: str) -> None:
    assert overall(part.health() for part in parts) == expected


async def expect(running: World, path: str, status: int, word: str) -> None:
    for prefix in ("", "/api/v1"):
        found, answer = await get(running, prefix + path)
        assert (found, answer["status"]) == (status, word)


async def test_health_routes() -> None:
    async with world(attach=False) as running:
        tape, line = Part("tape", "ok"), Part("line:a:trade", "starting")
        running.context.components += [tape, line]
        await expect(running, "/health/live", 200, "ok")
        await expect(running, "/health/ready", 503, "not_ready")
        await expect(running, "/health", 200, "degraded")
        running.feed.attach_kernels()
        status, answer = await get(running, "/health/ready")
        assert "no exchange line delivers yet" in answer["error"]["message"]
        assert "kernels" not in answer["error"]["message"]
        line.state = "ok"
        await expect(running, "/health/ready", 200, "ok")
        await expect(running, "/health", 200, "ok")
        tape.state, tape.last_error = "down", "no space left"
        await expect(running, "/health", 503, "down")
        status, answer = await get(running, "/health/detailed")
        assert status == 503
        assert answer["components"][1] == {
            "name": "tape",
            "state": "down",
            "since": 1_700_000_000_123,
            "last_error": "no space left",
            "lag": 0.5,
        }
        running.context.not_ready = lambda: ["because"]
        assert (await get(running, "/health/ready"))[1]["error"]["message"] == "because"


async def test_metrics_are_prometheus_text() -> None:
    from prometheus_client.parser import text_string_to_metric_families

    async with world() as running, aiohttp.ClientSession() as session:
        running.trade((1, 1.0, 1.0))
        async with session.get(running.http + "/metrics") as answer:
            assert answer.content_type == "text/plain"
            families = {family.name: family for family in text_string_to_metric_families(await answer.text())}
    assert families["tradeback_feed_trades"].samples[0].value == 1
    latency = families["tradeback_publish_latency_seconds"]
    assert {sample.name for sample in latency.samples} >= {
        "tradeback_publish_latency_seconds_bucket",
        "tradeback_publish_latency_seconds_sum",
    }


def test_nan_and_infinity_never_leave() -> None:
    assert json_response({"a": float("nan"), "b": float("inf")}).body == b'{"a":null,"b":null}'
