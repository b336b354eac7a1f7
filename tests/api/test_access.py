"""The guard: who needs a session, limits, CORS, allow-lists, bodies, headers of every answer."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from tests.api.access_world import LOGIN, SECRET, SESSION, WATCH, AccessWorld, ask, guarded, token_of
from tests.feed.harness import ask as say
from tests.feed.harness import subscribe, text
from tradeback.api.app import make_app
from tradeback.model.config import AuthConfig, LimitConfig, ServerConfig
from tradeback.model.errors import StoreError
from tradeback.model.limits import BODY_BYTES_MAX

REQUIRED = AuthConfig(mode="required")
GOOD = {"username": "alice", "password": SECRET}
SITE = "https://charts.example"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[AccessWorld]:
    async with guarded(tmp_path) as made:
        await made.user()
        yield made


@pytest.fixture
async def closed(tmp_path: Path) -> AsyncIterator[AccessWorld]:
    async with guarded(tmp_path, auth=REQUIRED) as made:
        await made.user()
        yield made


# auth.mode.


def routes(world: AccessWorld) -> list[tuple[str, str]]:
    """(method, path) of everything that is served."""
    found = []
    for resource in make_app(world.context).router.resources():
        path = resource.canonical
        for name, value in (("symbol", "BTCUSDT"), ("id", "1"), ("version", "0"), ("name", "page.js")):
            path = path.replace("{" + name + "}", value)
        found += [(route.method, path) for route in resource if route.method not in ("*", "HEAD")]
    return found


async def test_required_shuts_everything_but_health_log_in_and_the_page(closed: AccessWorld) -> None:
    http, opened = closed.jar(), set()
    for method, path in routes(closed):
        status, _ = await raw(http, method, path)
        if status != 401:
            opened.add(path)
    health = {
        f"{prefix}/health{name}"
        for prefix in ("", "/api/v1")
        for name in ("", "/live", "/ready", "/detailed")
    }
    assert opened == health | {"/", "/page/0/page.js", LOGIN, "/api/v1/auth/logout"}
    assert (await raw(http, "GET", SESSION))[0] == 401
    for path in (
        "/nowhere",
        "/api/v1/nowhere",
        "/health/%2e%2e/metrics",
        "//metrics",
    ):
        assert (await raw(http, "GET", path))[0] == 401, path
    for path in ("/health/live/../../api/v1/symbols", "/page/..%2fapi/v1/symbols", "/page/../api/v1/symbols"):
        assert (await raw(http, "GET", path))[0] in (401, 404), path


async def raw(http: aiohttp.ClientSession, method: str, path: str, **options: Any) -> tuple[int, bytes]:
    """Status and body, the path as it is written here."""
    from yarl import URL

    url = URL(f"{str(http._base_url).rstrip('/')}{path}", encoded=True)
    async with http.request(method, url, **options) as answer:
        return answer.status, await answer.read()


async def test_a_session_opens_it(closed: AccessWorld) -> None:
    http = await closed.logged_in()
    for path in ("/api/v1/symbols", "/metrics", "/udf/config", WATCH, "/api/v1/stats"):
        assert (await raw(http, "GET", path))[0] == 200, path
    bearer = {"Authorization": f"Bearer {token_of(http)}"}
    assert (await raw(closed.jar(), "GET", "/metrics", headers=bearer))[0] == 200, "as Prometheus would"
    async with http.get("/api/v1/symbols") as answer:
        assert "private" in answer.headers["Cache-Control"]
        assert "Cookie" in answer.headers["Vary"]
    async with closed.jar().get("/api/v1/symbols") as answer:
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert (await answer.json())["error"]["code"] == "unauthorized"
    async with closed.jar().get("/udf/history?symbol=BTCUSDT") as answer:
        assert (answer.status, (await answer.json())["s"]) == (401, "error")


async def test_an_anonymous_session_is_not_enough(closed: AccessWorld) -> None:
    made = await closed.access.sessions.create()
    headers = {"Cookie": f"session_token={made.token}"}
    for path in ("/api/v1/symbols", WATCH):
        assert (await raw(closed.jar(), "GET", path, headers=headers))[0] == 401


async def test_a_registry_that_is_away_opens_nothing(
    closed: AccessWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    http = await closed.logged_in()

    async def away(*values: Any) -> Any:
        raise StoreError("away")

    monkeypatch.setattr(closed.registry, "_read", away)
    closed.clock.move(2)
    assert (await raw(http, "GET", "/api/v1/symbols"))[0] == 503
    assert (await raw(closed.jar(), "GET", "/api/v1/symbols"))[0] == 401
    assert (await raw(http, "GET", "/api/v1/health/live"))[0] == 200


# Limits.


async def test_rate_limits_per_client_and_group(tmp_path: Path) -> None:
    limits = LimitConfig(read_per_second=2, history_per_second=1, write_per_second=1)
    server = ServerConfig(proxies=("127.0.0.1/32",))
    async with guarded(tmp_path, limit=limits, server=server) as world:
        http = world.jar()
        for path, most in (("/api/v1/symbols", 8), ("/api/v1/symbols/BTCUSDT/ticks", 4)):
            statuses = [(await raw(http, "GET", path))[0] for _ in range(most + 2)]
            assert statuses[-2:] == [429, 429]
            assert 429 not in statuses[:most]
        async with http.get("/api/v1/symbols") as answer:
            assert answer.headers["Retry-After"] == "1"
            assert (await answer.json())["error"]["code"] == "too_many_requests"
        async with http.get("/udf/history?symbol=BTCUSDT") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
            assert (await answer.json())["s"] == "error"
        assert (await raw(http, "GET", "/api/v1/symbols/BTCUSDT/price?at=1"))[0] == 429, "that reads files"
        other = {"X-Forwarded-For": "192.0.2.9"}
        assert (await raw(http, "GET", "/api/v1/symbols", headers=other))[0] == 200
        world.clock.move(1)
        assert (await raw(http, "GET", "/api/v1/symbols"))[0] == 200
        for _ in range(50):
            assert (await raw(http, "GET", "/health/live"))[0] == 200, "whoever watches is never refused"
        statuses = [(await raw(http, "POST", f"{WATCH}/NOPE"))[0] for _ in range(6)]
        assert statuses[-1] == 429
        assert (await raw(world.jar(), "GET", WATCH))[0] == 429, "to make a session is a change, too"
        world.clock.move(3_600)
        made = [(await raw(world.jar(), "GET", WATCH))[0] for _ in range(4)]
        assert made == [200] * 4
        world.clock.move(4)
        kept = world.jar()
        assert (await raw(kept, "GET", WATCH))[0] == 429, "and one that is kept for long"
        world.clock.move(10)
        assert [(await raw(kept, "GET", WATCH))[0] for _ in range(8)] == [200] * 8, (
            "who has one needs no other"
        )


async def test_a_header_that_nobody_trusts_makes_no_other_client(tmp_path: Path) -> None:
    async with guarded(tmp_path, limit=LimitConfig(read_per_second=1)) as world:
        statuses = [
            (
                await raw(
                    world.jar(), "GET", "/api/v1/symbols", headers={"X-Forwarded-For": f"192.0.2.{number}"}
                )
            )[0]
            for number in range(6)
        ]
        assert statuses == [200] * 4 + [429] * 2


async def test_zero_is_no_limit(tmp_path: Path) -> None:
    none = LimitConfig(read_per_second=0)
    async with guarded(tmp_path, limit=none) as world:
        http = world.jar()
        assert {(await raw(http, "GET", "/api/v1/symbols"))[0] for _ in range(60)} == {200}


# CORS.


async def test_cors_by_the_list(tmp_path: Path) -> None:
    async with guarded(tmp_path, server=ServerConfig(origins=(SITE,))) as world:
        http = world.jar()
        for path, status in (
            ("/api/v1/symbols", 200),
            ("/api/v1/symbols/NOPE/price", 404),
            ("/udf/config", 200),
        ):
            async with http.get(path, headers={"Origin": SITE}) as answer:
                assert answer.status == status
                assert answer.headers["Access-Control-Allow-Origin"] == SITE
                assert answer.headers["Access-Control-Allow-Credentials"] == "true"
                assert "Origin" in answer.headers["Vary"]
            async with http.get(path, headers={"Origin": "https://evil.example"}) as answer:
                assert "Access-Control-Allow-Origin" not in answer.headers
                assert "Origin" in answer.headers["Vary"]
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
        async with http.options(f"{WATCH}/BTCUSDT", headers={"Origin": SITE, **asked}) as answer:
            assert answer.status == 204
            assert answer.headers["Access-Control-Allow-Origin"] == SITE
            assert "POST" in answer.headers["Access-Control-Allow-Methods"]
            assert "Content-Type" in answer.headers["Access-Control-Allow-Headers"]
        async with http.options(WATCH, headers={"Origin": "https://evil.example", **asked}) as answer:
            assert answer.status == 403
            assert "Access-Control-Allow-Origin" not in answer.headers
        async with http.options(WATCH, headers={"Origin": SITE}) as answer:
            assert answer.status == 405, "this is no preflight"


async def test_any_site_may_read_but_never_with_the_visitors_session(tmp_path: Path) -> None:
    async with guarded(tmp_path, server=ServerConfig(origins=("*",))) as world:
        await world.user()
        http = await world.logged_in()
        async with http.get(SESSION, headers={"Origin": "https://any.example"}) as answer:
            assert answer.status == 401
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            assert "Access-Control-Allow-Credentials" not in answer.headers
        assert (await raw(http, "GET", SESSION, headers={"Origin": world.url}))[0] == 200


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_other_sites_change_nothing(world: AccessWorld, method: str) -> None:
    http = await world.logged_in()
    for origin in ("https://evil.example", "null", "http://localhost:1"):
        status, told = await ask(http, method, f"{WATCH}/BTCUSDT", headers={"Origin": origin})
        assert (status, told["error"]["code"]) == (403, "forbidden_origin")
    assert (await ask(http, "POST", LOGIN, json=GOOD, headers={"Origin": "https://evil.example"}))[0] == 403
    assert (await ask(http, "GET", SESSION, headers={"Origin": "https://evil.example"}))[0] == 401
    assert (await ask(http, "GET", WATCH))[1] == {"symbols": []}
    assert (await ask(http, method, f"{WATCH}/BTCUSDT", headers={"Origin": world.url}))[0] in (201, 204)


# Allow-lists.


async def test_a_session_sees_its_symbols_only(tmp_path: Path) -> None:
    async with guarded(tmp_path, auth=REQUIRED) as world:
        await world.user("bob", frozenset({"BTCUSDT", "ETHUSDT"}))
        bob, narrow = (
            await world.logged_in("bob"),
            await world.logged_in("bob", symbols=["ethusdt", "SOLUSDT"]),
        )
        for http, seen in ((bob, ["BTCUSDT", "ETHUSDT"]), (narrow, ["ETHUSDT"])):
            assert [each["symbol"] for each in (await ask(http, "GET", "/api/v1/symbols"))[1]] == seen
            found = (await ask(http, "GET", "/udf/search?query=&type=&exchange=&limit=30"))[1]
            assert sorted(each["symbol"] for each in found) == seen
            for path in (
                "/api/v1/symbols/SOLUSDT/price", "/api/v1/symbols/solusdt/ticks",
                "/api/v1/symbols/SOLUSDT/bars", "/api/v1/symbols/SOLUSDT/enigma",
                "/api/v1/gaps?symbol=SOLUSDT", "/api/v1/stats?symbol=SOLUSDT",
                "/udf/history?symbol=SOLUSDT&resolution=1&from=1&to=2", "/udf/symbols?symbol=BINANCE:SOLUSDT",
                "/udf/quotes?symbols=ETHUSDT,SOLUSDT", "/udf/marks?symbol=SOLUSDT&from=1&to=2&resolution=1",
            ):  # fmt: skip
                assert (await raw(http, "GET", path))[0] == 403, path
            assert (await ask(http, "POST", f"{WATCH}/SOLUSDT"))[0] == 403
            settle = {"symbol": "SOLUSDT", "time": 1}
            assert (await ask(http, "POST", "/api/v1/settlements", json=settle))[0] == 403
            async with http.get("/api/v1/symbols") as answer:
                assert "private" in answer.headers["Cache-Control"]
        assert (await ask(narrow, "POST", f"{WATCH}/ETHUSDT"))[0] == 201


async def test_a_restricted_socket(tmp_path: Path) -> None:
    async with guarded(tmp_path) as world:
        await world.user("bob", frozenset({"BTCUSDT", "ETHUSDT"}))
        http = await world.logged_in("bob")
        await world.registry.watch("user:1", "SOLUSDT", 10, world.clock.now_ns)
        await world.registry.watch("user:1", "ETHUSDT", 10, world.clock.now_ns)
        async with world.connect(token_of(http)) as ws:
            assert (await text(ws))["data"]["symbol"] == "ETHUSDT"
            answer = await subscribe(ws, "*")
            assert set(answer["symbols"]) == {"BTCUSDT", "ETHUSDT"}
            refused = await say(ws, {"type": "subscribe", "symbols": ["SOLUSDT"]})
            assert refused["code"] == "forbidden_symbol"
            both = await say(ws, {"type": "subscribe", "symbols": ["BTCUSDT", "solusdt"]})
            assert set(both["symbols"]) == {"BTCUSDT"}
            assert (await text(ws))["code"] == "forbidden_symbol"
            (client,) = world.feed.clients
            assert client.interest == {1, 2}
            refused = await say(ws, {"type": "unsubscribe", "symbols": ["SOLUSDT"]})
            assert refused["code"] == "forbidden_symbol"
            gone = await say(ws, {"type": "unsubscribe", "symbols": "*"})
            assert set(gone["symbols"]) == {"BTCUSDT", "ETHUSDT"}, "the others' names are not told"
            assert client.interest == set()


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_a_socket_that_may_see_nothing_is_answered(tmp_path: Path, version: str) -> None:
    async with guarded(tmp_path) as world:
        await world.user("bob", frozenset({"NOPEUSDT"}))
        http = await world.logged_in("bob")
        async with world.connect(token_of(http), subprotocols=[f"tradeback.{version}"]) as ws:
            answer = await subscribe(ws, "*", channels=["trades", "enigma"])
            assert (answer["type"], answer["symbols"]) == ("subscribed", {})
            world.trade((1, 100.0, 1.0))
            assert (await say(ws, {"type": "ping"}))["type"] == "pong"


async def test_a_list_that_is_changed_ends_the_sessions(tmp_path: Path) -> None:
    async with guarded(tmp_path, auth=REQUIRED) as world:
        await world.user("bob")
        http = await world.logged_in("bob")
        await world.access.users.allow("bob", frozenset({"BTCUSDT"}))
        world.clock.move(2)
        assert (await raw(http, "GET", "/api/v1/symbols"))[0] == 401


# Bodies, headers.


@pytest.mark.parametrize("path", [LOGIN, "/api/v1/settlements", f"{WATCH}/BTCUSDT", "/api/v1/auth/logout"])
async def test_huge_bodies(world: AccessWorld, path: str) -> None:
    async def drops() -> AsyncIterator[bytes]:
        for _ in range(2 + BODY_BYTES_MAX // 8_192):
            yield bytes(8_192)

    bomb = gzip.compress(bytes(50_000_000), 9)
    assert len(bomb) < BODY_BYTES_MAX
    for data, headers in (
        (bytes(BODY_BYTES_MAX + 1), {}), (drops(), {}), (bomb, {"Content-Encoding": "gzip"}),
    ):  # fmt: skip
        status, body = await raw(world.jar(), "POST", path, data=data, headers=headers)
        assert (status, orjson.loads(body)["error"]["code"]) == (413, "too_large")


async def test_a_body_that_never_comes(tmp_path: Path) -> None:
    async with guarded(tmp_path, server=ServerConfig(read_timeout_s=0.05)) as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.front.port)
        writer.write(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{" % LOGIN.encode())
        async with asyncio.timeout(30):
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"request_timeout" in answer
        writer.close()


async def test_every_answer_is_protected(world: AccessWorld) -> None:
    for method, path in routes(world):
        async with world.jar().request(method, path) as answer:
            assert answer.headers["X-Content-Type-Options"] == "nosniff", path
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
            if answer.content_type == "text/html":
                policy = answer.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "frame-ancestors 'none'" in policy
                assert "unsafe" not in policy
                assert answer.headers["X-Frame-Options"] == "DENY"
