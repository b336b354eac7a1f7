"""How many requests were answered, how, and how fast, by route.

A route is the pattern (`/api/v1/symbols/{symbol}/bars`), so nobody makes series by asking for odd paths.
"""

import time
from collections.abc import Iterator

from aiohttp import web

from tradeback.api.errors import Handler
from tradeback.ops.metrics import Family, Histogram

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
OTHER = "other"


class RequestMetrics:
    """The middleware of one application, outside of all others; under the name of its process."""

    def __init__(self, process: str) -> None:
        self._process = process
        self._counts: dict[tuple[str, str, str], int] = {}
        self._times: dict[str, Histogram] = {}
        self.failures = 0

    @web.middleware
    async def count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer by `handler`, and note how that went."""
        begun_ns = time.perf_counter_ns()
        status = 500
        try:
            response = await handler(request)
            status = response.status
        except web.HTTPException as error:
            status = error.status
            raise
        finally:
            self._note(request, status, (time.perf_counter_ns() - begun_ns) // 1_000)
        return response

    def collect(self) -> Iterator[Family]:
        """Requests, those that failed by a fault of ours, and their times."""
        requests = Family("tradeback_http_requests", "counter", "Requests answered, by route and outcome.")
        for (route, method, status), count in self._counts.items():
            requests.add(count, process=self._process, route=route, method=method, status=status)
        yield requests
        failures = Family("tradeback_http_failures", "counter", "Requests answered by 500: a fault of ours.")
        yield failures.add(self.failures, process=self._process)
        times = Family("tradeback_http_request_seconds", "histogram", "Time to make an answer, by route.")
        for route, held in self._times.items():
            times.add(held, process=self._process, route=route)
        yield times

    def _note(self, request: web.Request, status: int, took_us: int) -> None:
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else OTHER
        method = request.method if request.method in METHODS else OTHER
        key = route, method, f"{status // 100}xx"
        self._counts[key] = self._counts.get(key, 0) + 1
        self.failures += status == 500
        held = self._times.get(route)
        if held is None:
            held = self._times[route] = Histogram()
        held.observe(took_us)
