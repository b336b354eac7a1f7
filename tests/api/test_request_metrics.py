"""api.request_metrics: requests by route, whatever paths and methods people think of."""

from collections import Counter

from aiohttp import ClientSession, web

from tests.feed.harness import fronted
from tradeback.api.request_metrics import RequestMetrics
from tradeback.ops.metrics import Histogram


async def answer(request: web.Request) -> web.Response:
    if request.match_info["name"] == "broken":
        raise ValueError("a fault of ours")
    if request.match_info["name"] == "absent":
        raise web.HTTPNotFound
    return web.Response(text="here")


async def test_routes_are_patterns_and_odd_paths_make_no_series() -> None:
    metrics = RequestMetrics("engine")
    app = web.Application(middlewares=[metrics.count])
    app.router.add_get("/things/{name}", answer)
    async with fronted(app) as url, ClientSession(url) as http:
        asked = ["/things/a", "/things/b", "/things/absent", "/things/broken", "/odd/1", "/odd/2"]
        statuses = []
        for path in asked:
            async with http.get(path) as response:
                statuses.append(response.status)
        async with http.request("PROPFIND", "/things/a"):
            pass
    assert statuses == [200, 200, 404, 500, 404, 404]
    requests, failures, times = metrics.collect()
    counted = Counter({tuple(labels.values()): value for labels, value in requests.samples})
    assert counted == {
        ("engine", "/things/{name}", "GET", "2xx"): 2,
        ("engine", "/things/{name}", "GET", "4xx"): 1,
        ("engine", "/things/{name}", "GET", "5xx"): 1,
        ("engine", "other", "GET", "4xx"): 2,
        ("engine", "other", "other", "4xx"): 1,
    }
    assert failures.samples == [({"process": "engine"}, 1)]
    totals = {}
    for labels, held in times.samples:
        assert isinstance(held, Histogram)
        totals[labels["route"]] = held.total
    assert totals == {"/things/{name}": 4, "other": 3}
