"""The OpenAPI document: every route is in it as it is, and the answers are as it says."""

import re
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.api.history_world import BEGIN_S, trades
from tests.feed.harness import World, get
from tradeback.api.app import make_app
from tradeback.api.describe import operation_of
from tradeback.api.openapi import DOCS_PATH, DOCUMENT_PATH, document
from tradeback.api.schemas import SCHEMAS


def routes_of(app: web.Application) -> list[tuple[str, str, Any]]:
    return [
        (route.method, resource.canonical, route.handler)
        for resource in app.router.resources()
        for route in resource
        if route.method not in ("HEAD", "*", "OPTIONS")
    ]


async def test_every_route_is_described_by_its_handler(served: World) -> None:
    app = make_app(served.context)
    made = document(app)
    undescribed = []
    for method, path, handler in routes_of(app):
        if path.startswith("/page/") or path.endswith(".css"):
            continue
        entry = made["paths"][path][method.lower()]
        if operation_of(handler) is None:
            undescribed.append(f"{method} {path}")
        names = set(re.findall(r"\{(\w+)", path))
        assert {param["name"] for param in entry["parameters"] if param["in"] == "path"} == names
        assert entry["summary"]
        assert entry["responses"]
    assert undescribed == []


async def test_every_answer_that_is_the_same_is_documented(served: World) -> None:
    """Whoever sends back an ETag gets 304 without a body, and may read that in the document."""
    served.publish(trades([BEGIN_S + 20 * number for number in range(90)]))
    described = document(make_app(served.context))["paths"]
    queries = {
        "/udf/symbols": "symbol=BTCUSDT",
        "/udf/history": f"symbol=BTCUSDT&resolution=1&from={BEGIN_S + 60}&to={BEGIN_S + 600}",
        "/api/v1/symbols/{symbol}/ticks": f"from={BEGIN_S}",
    }
    tagged = set()
    async with aiohttp.ClientSession() as http:
        for path, methods in described.items():
            if "get" not in methods or path == "/api/v1/ws":
                continue
            url = f"{served.http}{path.replace('{symbol}', 'BTCUSDT')}?{queries.get(path, '')}"
            async with http.get(url) as answer:
                tag = answer.headers.get("ETag")
            documented = "304" in methods["get"]["responses"]
            assert (tag is not None) <= documented, path
            if tag is None:
                continue
            tagged.add(path)
            async with http.get(url, headers={"If-None-Match": tag}) as answer:
                assert (answer.status, await answer.read()) == (304, b""), path
                assert answer.headers["ETag"] == tag
    assert tagged >= {*queries, "/", "/api/v1/symbols", "/api/v1/symbols/{symbol}/bars", "/udf/config"}


async def test_ids_are_unique_and_shapes_exist(served: World) -> None:
    status, made = await get(served, DOCUMENT_PATH)
    assert status == 200
    ids = [entry["operationId"] for methods in made["paths"].values() for entry in methods.values()]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"#/components/schemas/(\w+)", str(made)))
    assert used <= set(made["components"]["schemas"])
    assert set(SCHEMAS) == set(made["components"]["schemas"])


async def test_the_page_is_readable_and_asks_nobody(served: World) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.get(served.http + DOCS_PATH) as answer:
            assert answer.status == 200
            assert answer.content_type == "text/html"
            text = await answer.text()
        links = re.findall(r'(?:href|src)="([^"#]+)"', text)
        assert links
        for link in links:
            assert link.startswith("/"), link
            async with http.get(served.http + link) as answer:
                assert answer.status == 200, link
    assert "<script" not in text
    assert " style=" not in text
    assert "/api/v1/symbols/{symbol}/bars" in text
    anchors, targets = set(re.findall(r'href="#([^"]+)"', text)), set(re.findall(r'id="([^"]+)"', text))
    assert anchors <= targets


@pytest.fixture
def validators() -> Any:
    import jsonschema_rs

    definitions = {"components": {"schemas": SCHEMAS}}

    def check(name: str, value: Any) -> None:
        schema = {**definitions, "$ref": f"#/components/schemas/{name}"}
        jsonschema_rs.Draft202012Validator(schema).validate(value)

    return check


async def test_answers_have_the_shapes_of_the_document(served: World, validators: Any) -> None:
    served.publish(trades([BEGIN_S + 20 * place for place in range(30)]))
    base = "/api/v1/symbols/BTCUSDT"
    for path, shape in (
        ("/api/v1/symbols", "Symbols"),
        (f"{base}/price", "Price"),
        (f"{base}/price?at={BEGIN_S * 1000 + 5000}", "Price"),
        (f"{base}/bars", "Bars"),
        (f"{base}/ticks?from={BEGIN_S}&limit=3", "Ticks"),
        (f"{base}/enigma", "Enigma"),
        ("/api/v1/health", "Health"),
        ("/api/v1/health/detailed", "HealthDetailed"),
        ("/api/v1/symbols/NOPE/price", "Error"),
        (f"{base}/bars?resolution=x", "Error"),
        ("/udf/config", "UdfConfig"),
        ("/udf/symbols?symbol=BTCUSDT", "UdfSymbolOrError"),
        ("/udf/symbols?symbol=NOPE", "UdfSymbolOrError"),
        ("/udf/search?query=B", "UdfFound"),
        (f"/udf/history?symbol=BTCUSDT&resolution=1&from=0&to={BEGIN_S + 600}", "UdfHistory"),
        ("/udf/history?symbol=BTCUSDT&resolution=1&from=0&to=60", "UdfHistory"),
        ("/udf/history?symbol=NOPE&resolution=1&from=0&to=60", "UdfHistory"),
        ("/udf/quotes?symbols=BTCUSDT,NOPE", "UdfQuotes"),
        ("/udf/nowhere", "UdfError"),
    ):
        _, answer = await get(served, path)
        validators(shape, answer)
