"""The market watch over HTTP, and what of it reaches open sockets."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.access_world import WATCH, AccessWorld, ask, guarded, token_of
from tests.feed.harness import entries, subscribe, text


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[AccessWorld]:
    async with guarded(tmp_path) as made:
        yield made


async def test_an_anonymous_session_comes_with_the_first_use(world: AccessWorld) -> None:
    http = world.jar()
    async with http.get(WATCH) as answer:
        assert (answer.status, await answer.json()) == (200, {"symbols": []})
        assert "HttpOnly" in answer.headers["Set-Cookie"]
        assert answer.headers["Cache-Control"] == "no-store"
    token = token_of(http)
    async with http.get(WATCH) as answer:
        assert "Set-Cookie" not in answer.headers
    assert token_of(http) == token
    assert (await ask(http, "GET", "/api/v1/auth/session"))[0] == 401, "it is nobody's"
    other = world.jar()
    assert (await ask(other, "POST", f"{WATCH}/BTCUSDT"))[0] == 201
    assert token_of(other) not in ("", token)
    assert (await ask(http, "GET", WATCH))[1] == {"symbols": []}, "each has its own"
    for path in ("/api/v1/symbols", "/", "/api/v1/health/live"):
        async with world.jar().get(path) as answer:
            assert "Set-Cookie" not in answer.headers, "reading needs none"


async def test_in_display_order(world: AccessWorld) -> None:
    http = world.jar()
    assert await ask(http, "POST", f"{WATCH}/solusdt") == (201, {"symbols": ["SOLUSDT"]})
    assert await ask(http, "POST", f"{WATCH}/BTCUSDT") == (201, {"symbols": ["SOLUSDT", "BTCUSDT"]})
    assert await ask(http, "POST", f"{WATCH}/SolUsdt") == (200, {"symbols": ["SOLUSDT", "BTCUSDT"]})
    assert await ask(http, "DELETE", f"{WATCH}/SOLUSDT") == (204, None)
    assert await ask(http, "DELETE", f"{WATCH}/SOLUSDT") == (204, None)
    assert await ask(http, "POST", f"{WATCH}/SOLUSDT") == (201, {"symbols": ["BTCUSDT", "SOLUSDT"]})
    assert await ask(http, "GET", WATCH) == (200, {"symbols": ["BTCUSDT", "SOLUSDT"]})


@pytest.mark.parametrize(
    "name", ["NOPE", "%00", "..%2Fsymbols", "a" * 500, "%F0%9F%92%B8", "'; DROP TABLE users"]
)
async def test_no_such_symbol(world: AccessWorld, name: str) -> None:
    http = world.jar()
    for method in ("POST", "DELETE"):
        status, told = await ask(http, method, f"{WATCH}/{name}")
        assert (status, told["error"]["code"]) == (404, "unknown_symbol")
    assert (await ask(http, "GET", WATCH))[1] == {"symbols": []}


async def test_a_symbol_that_nobody_follows_yet(world: AccessWorld) -> None:
    told: list[int] = []
    world.access.exists = lambda name: name == "NEWUSDT"
    world.access.on_watch_change.append(lambda: told.append(len(told)))
    http = world.jar()
    assert await ask(http, "POST", f"{WATCH}/newusdt") == (201, {"symbols": ["NEWUSDT"]})
    assert told == [0]
    assert await world.access.watch.union() == {"NEWUSDT"}
    world.access.exists = lambda name: False
    assert (await ask(http, "DELETE", f"{WATCH}/NEWUSDT"))[0] == 204, "also when it is gone"
    assert told == [0, 1]


async def test_a_full_watch(world: AccessWorld) -> None:
    world.access.watch.symbols_max = 1
    http = world.jar()
    await ask(http, "POST", f"{WATCH}/BTCUSDT")
    status, told = await ask(http, "POST", f"{WATCH}/ETHUSDT")
    assert (status, told["error"]["code"]) == (409, "watch_full")
    assert (await ask(http, "POST", f"{WATCH}/BTCUSDT"))[0] == 200


@pytest.mark.parametrize(("method", "path"), [("PATCH", WATCH), ("POST", WATCH), ("GET", f"{WATCH}/BTCUSDT")])
async def test_other_methods(world: AccessWorld, method: str, path: str) -> None:
    assert (await ask(world.jar(), method, path))[0] == 405


async def test_arranging_it(world: AccessWorld) -> None:
    http = world.jar()

    async def put(*symbols: str) -> tuple[int, Any]:
        return await ask(http, "PUT", WATCH, json={"symbols": list(symbols)})

    assert await put("solusdt", "BTCUSDT") == (200, {"symbols": ["SOLUSDT", "BTCUSDT"]})
    assert await put("BTCUSDT", "SOLUSDT", "btcusdt") == (200, {"symbols": ["BTCUSDT", "SOLUSDT"]})
    assert await ask(http, "POST", f"{WATCH}/ETHUSDT") == (
        201,
        {"symbols": ["BTCUSDT", "SOLUSDT", "ETHUSDT"]},
    )
    assert await put("ETHUSDT", "BTCUSDT") == (200, {"symbols": ["ETHUSDT", "BTCUSDT"]})
    status, told = await put("ETHUSDT", "NOPE")
    assert (status, told["error"]["code"]) == (404, "unknown_symbol")
    world.access.watch.symbols_max = 2
    status, told = await put("ETHUSDT", "BTCUSDT", "SOLUSDT")
    assert (status, told["error"]["code"]) == (409, "watch_full")
    assert await ask(http, "GET", WATCH) == (200, {"symbols": ["ETHUSDT", "BTCUSDT"]}), "refused as a whole"
    async with world.connect(token_of(http)) as ws:
        assert [(await watched(ws))["symbol"] for _ in range(2)] == ["ETHUSDT", "BTCUSDT"]
        assert (await put("SOLUSDT", "BTCUSDT"))[0] == 200
        told = [await text(ws) for _ in range(2)]
        assert {each["type"] for each in told} == {"unsubscribed", "auto_subscribe"}
    assert await put() == (200, {"symbols": []})


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"symbols":"BTCUSDT"}', b'{"symbols":[1]}', b'{"symbols":[],"x":1}']
)
async def test_a_body_that_is_no_watch(world: AccessWorld, body: bytes) -> None:
    status, told = await ask(world.jar(), "PUT", WATCH, data=body)
    assert (status, told["error"]["code"]) == (400, "bad_request")


async def test_what_a_session_may_not_see_it_cannot_arrange(world: AccessWorld) -> None:
    await world.user()
    whole, narrow = await world.logged_in(), await world.logged_in(symbols=["ETHUSDT", "SOLUSDT"])
    await ask(whole, "PUT", WATCH, json={"symbols": ["BTCUSDT", "ETHUSDT"]})
    assert await ask(narrow, "GET", WATCH) == (200, {"symbols": ["ETHUSDT"]})
    assert (await ask(narrow, "PUT", WATCH, json={"symbols": ["BTCUSDT"]}))[0] == 403
    assert await ask(narrow, "PUT", WATCH, json={"symbols": ["SOLUSDT"]}) == (200, {"symbols": ["SOLUSDT"]})
    assert await ask(whole, "GET", WATCH) == (200, {"symbols": ["SOLUSDT", "BTCUSDT"]})


async def test_a_users_watch_is_the_same_everywhere_and_adopts_the_anonymous_one(
    world: AccessWorld,
) -> None:
    await world.user()
    here = world.jar()
    for name in ("ETHUSDT", "SOLUSDT"):
        await ask(here, "POST", f"{WATCH}/{name}")
    there = await world.logged_in()
    await ask(there, "POST", f"{WATCH}/BTCUSDT")
    anonymous = token_of(here)
    login = {"username": "alice", "password": "hunter2-correct-horse"}
    assert (await ask(here, "POST", "/api/v1/auth/login", json=login))[0] == 200
    assert await world.access.sessions.find(anonymous) is None
    for http in (here, there):
        assert (await ask(http, "GET", WATCH))[1] == {"symbols": ["BTCUSDT", "ETHUSDT", "SOLUSDT"]}


# Sockets.


async def watched(ws: Any) -> dict[str, Any]:
    """The next message, which must be an auto_subscribe; its data."""
    message = await text(ws)
    assert message["type"] == "auto_subscribe", message
    data: dict[str, Any] = message["data"]
    return data


async def test_a_session_with_a_watch_is_subscribed_at_once(world: AccessWorld) -> None:
    http = world.jar()
    for name in ("SOLUSDT", "BTCUSDT"):
        await ask(http, "POST", f"{WATCH}/{name}")
    async with world.connect(token_of(http)) as ws:
        first, second = await watched(ws), await watched(ws)
        assert (first["symbol"], first["id"]) == ("SOLUSDT", 3)
        assert (second["symbol"], second["id"], second["price_precision"]) == ("BTCUSDT", 1, 2)
        world.trade((1, 10.0, 1.0), (2, 20.0, 1.0), (3, 30.0, 1.0))
        assert sorted(await entries(ws, 2)) == [(1, 10.0, 1.0), (3, 30.0, 1.0)]
    by_token = f"{world.ws_url}?token={token_of(http)}"
    async with world.connect(url=by_token) as ws:
        assert (await watched(ws))["symbol"] == "SOLUSDT"
    async with world.connect() as ws:
        await subscribe(ws, "ETHUSDT")
        world.trade((1, 11.0, 1.0), (2, 22.0, 1.0))
        found = await entries(ws, 2)
        assert found == [(2, 20.0, 0.0), (2, 22.0, 1.0)], "nobody's socket gets what it asks for alone"


async def test_changes_reach_open_sockets_at_once(world: AccessWorld) -> None:
    http = world.jar()
    await ask(http, "GET", WATCH)
    async with world.connect(token_of(http)) as one, world.connect(token_of(http)) as two:
        while len(world.access.attendance._by_watch) < 1:
            await asyncio.sleep(0.001)
        await ask(http, "POST", f"{WATCH}/ETHUSDT")
        for ws in (one, two):
            assert (await watched(ws))["symbol"] == "ETHUSDT"
        world.trade((2, 20.0, 1.0))
        for ws in (one, two):
            assert await entries(ws, 1) == [(2, 20.0, 1.0)]
        await ask(http, "DELETE", f"{WATCH}/ETHUSDT")
        for ws in (one, two):
            assert await text(ws) == {"type": "unsubscribed", "symbols": ["ETHUSDT"]}
        world.trade((2, 21.0, 1.0))
        await one.send('{"type":"ping"}')
        assert (await text(one))["type"] == "pong", "and no trade before it"


async def test_what_the_client_asked_for_itself_stays(world: AccessWorld) -> None:
    http = world.jar()
    for name in ("BTCUSDT", "ETHUSDT", "SOLUSDT"):
        await ask(http, "POST", f"{WATCH}/{name}")
    async with world.connect(token_of(http)) as ws:
        for _ in range(3):
            await watched(ws)
        assert (await subscribe(ws, "BTCUSDT"))["type"] == "subscribed"
        await ws.send('{"type":"unsubscribe","symbols":["SOLUSDT"]}')
        assert (await text(ws))["symbols"] == ["SOLUSDT"]
        for name in ("BTCUSDT", "ETHUSDT"):
            await ask(http, "DELETE", f"{WATCH}/{name}")
        assert (await text(ws))["symbols"] == ["ETHUSDT"], "of the other the client says"
        world.trade((1, 10.0, 1.0), (2, 20.0, 1.0), (3, 30.0, 1.0))
        assert await entries(ws, 1) == [(1, 10.0, 1.0)]


async def test_what_was_changed_elsewhere_is_found(tmp_path: Path) -> None:
    """By another node or program, which says nothing: the registry is read again."""
    async with guarded(tmp_path, interval_s=0.02) as world:
        http = world.jar()
        await ask(http, "GET", WATCH)
        session = await world.access.sessions.find(token_of(http))
        assert session is not None
        async with world.connect(token_of(http)) as ws:
            await world.registry.watch(session.watch_id, "ETHUSDT", 10, world.clock.now_ns)
            assert (await watched(ws))["symbol"] == "ETHUSDT"
            await world.registry.watch(session.watch_id, "LATERUSDT", 10, world.clock.now_ns)
            await world.registry.unwatch(session.watch_id, "ETHUSDT")
            assert (await text(ws))["symbols"] == ["ETHUSDT"]
            from tradeback.model.symbols import Symbol

            world.context.symbols.put(Symbol(9, "LATERUSDT"))
            assert (await watched(ws))["symbol"] == "LATERUSDT", "once it is known"
            await world.registry.end_session(session.token_hash)
            async with asyncio.timeout(30):
                await ws.wait_closed()
            assert ws.close_code == 1008
