"""Health and metrics routes.

`/health`: is the engine doing its work? down (503) when the tape or the feed is down, because then
nothing can be recorded or served; degraded when any other part is not ok. `/health/live`: the process
serves. `/health/ready`: an exchange line delivers and the kernels are loaded.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from tradeback.api.context import ServingContext
from tradeback.api.describe import Answer, operation, ref
from tradeback.api.errors import json_response
from tradeback.ops.health import ComponentHealth
from tradeback.ops.metrics import Family
from tradeback.version import VERSION

VITAL = ("tape", "feed")
"""Components without which nothing works."""
LINE_PREFIX = "line"


def overall(parts: Iterable[ComponentHealth]) -> str:
    """ok, degraded or down."""
    worst = "ok"
    for part in parts:
        if part.state == "down" and part.name in VITAL:
            return "down"
        if part.state != "ok":
            worst = "degraded"
    return worst


def missing(context: ServingContext, parts: Iterable[ComponentHealth] | None = None) -> list[str]:
    """What keeps the engine from being ready; empty when it is. `parts`: the components' health, if known."""
    if context.not_ready is not None:
        return list(context.not_ready())
    reasons = []
    if context.feed is not None and not context.feed.ready:
        reasons.append("the kernels are still loading")
    known = [part.health() for part in context.components] if parts is None else parts
    if not any(part.name.startswith(LINE_PREFIX) and part.state == "ok" for part in known):
        reasons.append("no exchange line delivers yet")
    return reasons


def describe(part: ComponentHealth) -> dict[str, Any]:
    """One component as JSON: `since` in unix ms, `lag` in seconds, `details` where it has any."""
    found: dict[str, Any] = {
        "name": part.name,
        "state": part.state,
        "since": part.since_ns // 1_000_000,
        "last_error": part.last_error,
        "lag": part.lag,
    }
    if part.details is not None:
        found["details"] = dict(part.details)
    return found


class HealthRoutes:
    """The handlers, over one context."""

    def __init__(self, context: ServingContext) -> None:
        self._context = context

    def routes(self) -> list[web.RouteDef]:
        """For `Application.add_routes`."""
        found: list[web.RouteDef] = []
        for prefix in ("", "/api/v1"):
            found += [
                web.get(f"{prefix}/health", self.health),
                web.get(f"{prefix}/health/live", self.live),
                web.get(f"{prefix}/health/ready", self.ready),
                web.get(f"{prefix}/health/detailed", self.detailed),
                web.get(f"{prefix}/metrics", self.metrics),
            ]
        return found

    @operation(
        "How the engine is",
        tag="health",
        answers={
            200: Answer("ok or degraded", ref("Health")),
            503: Answer("down: nothing can be recorded or served", ref("Health")),
        },
    )
    async def health(self, request: web.Request) -> web.Response:
        """200 ok or degraded, 503 down."""
        status = overall(self._context.health())
        return json_response({"status": status}, 503 if status == "down" else 200)

    @operation("Does the process serve?", tag="health", answers={200: Answer("yes", ref("Health"))})
    async def live(self, request: web.Request) -> web.Response:
        """200 while the process serves."""
        return json_response({"status": "ok"})

    @operation(
        "Are clients served well?",
        tag="health",
        answers={
            200: Answer("a line delivers and the kernels are loaded", ref("Health")),
            503: Answer("what is missing", ref("NotReady")),
        },
    )
    async def ready(self, request: web.Request) -> web.Response:
        """200, or 503 with what is missing."""
        reasons = missing(self._context)
        if not reasons:
            return json_response({"status": "ok"})
        error = {"code": "not_ready", "message": "; ".join(reasons)}
        return json_response({"status": "not_ready", "error": error}, 503)

    @operation(
        "Every component",
        tag="health",
        answers={
            200: Answer("state, since when, last error, lag", ref("HealthDetailed")),
            503: Answer("the same, while the engine is down", ref("HealthDetailed")),
        },
    )
    async def detailed(self, request: web.Request) -> web.Response:
        """Every component."""
        parts = self._context.health()
        status = overall(parts)
        ready = not missing(self._context)
        answer = {"status": status, "ready": ready, "components": [describe(part) for part in parts]}
        return json_response(answer, 503 if status == "down" else 200)

    @operation(
        "Metrics",
        tag="health",
        answers={200: Answer("Prometheus text", {"type": "string"}, "text/plain")},
    )
    async def metrics(self, request: web.Request) -> web.Response:
        """Prometheus text. Collected on the loop, written by a thread: it takes milliseconds."""
        from tradeback.ops.exposition import render

        ready = Family("tradeback_ready", "gauge", "1 while clients are served well, see /health/ready.")
        families = [ready.add(float(not missing(self._context)))]
        build = Family("tradeback_build_info", "gauge", "1, with the version that runs.")
        families.append(build.add(1.0, version=VERSION))
        for collector in self._context.collectors:
            families.extend(collector.collect())
        body = await asyncio.get_running_loop().run_in_executor(None, render, families)
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
