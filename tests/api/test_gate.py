"""The gate of the socket: sessions, origins, limits; and that no session works after log-out."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import websockets

from tests.api.access_world import LOGOUT, SESSION, WATCH, AccessWorld, ask, guarded, token_of
from tests.feed.harness import subscribe, text
from tradeback.model.config import AuthConfig, FeedConfig, LimitConfig, ServerConfig
from tradeback.model.errors import StoreError

SITE = "https://charts.example"
REQUIRED = AuthConfig(mode="required")


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


async def refused(connecting: Any) -> tuple[int, str, Any]:
    """Status, code and headers of a handshake that must not succeed."""
    with pytest.raises(websockets.InvalidStatus) as caught:
        async with connecting:
            pass
    response = caught.value.response
    return response.status_code, orjson.loads(response.body)["error"]["code"], response.headers


async def gone(ws: Any) -> tuple[int | None, str | None]:
    """Wait until the server has closed; code and reason."""
    async with asyncio.timeout(30):
        await ws.wait_closed()
    return ws.close_code, ws.close_reason


async def test_open_lets_everybody_in(world: AccessWorld) -> None:
    async with world.connect() as ws:
        assert (await subscribe(ws, "BTCUSDT"))["type"] == "subscribed"
    async with world.connect("an-old-cookie") as ws:
        assert (await subscribe(ws, "BTCUSDT"))["type"] == "subscribed"


async def test_a_token_that_is_named_must_be_one(world: AccessWorld) -> None:
    for token in ("nonsense", "a" * 5_000, "%00", "x&token=y"):
        found = await refused(world.connect(url=f"{world.ws_url}?token={token}"))
        assert found[:2] == (401, "unauthorized")
    bearer = {"Authorization": "Bearer nonsense"}
    assert (await refused(world.connect(additional_headers=bearer)))[0] == 401
    async with world.connect(url=f"{world.ws_url}?token=") as ws:
        assert (await subscribe(ws, "BTCUSDT"))["type"] == "subscribed"


async def test_required_wants_a_user(closed: AccessWorld) -> None:
    assert (await refused(closed.connect()))[:2] == (401, "unauthorized")
    assert (await refused(closed.connect("nonsense")))[0] == 401
    anonymous = await closed.access.sessions.create()
    assert (await refused(closed.connect(anonymous.token)))[0] == 401
    token = token_of(await closed.logged_in())
    ways = (
        closed.connect(token),
        closed.connect(url=f"{closed.ws_url}?token={token}"),
        closed.connect(additional_headers={"Authorization": f"Bearer {token}"}),
    )
    for connecting in ways:
        async with connecting as ws:
            assert (await subscribe(ws, "BTCUSDT"))["type"] == "subscribed"


async def test_what_follows_the_head_is_not_lost_while_the_session_is_looked_up(closed: AccessWorld) -> None:
    token = token_of(await closed.logged_in())
    reader, writer = await asyncio.open_connection("127.0.0.1", closed.front.port)
    ping = bytes((0x81, 0x80 | 15, 0, 0, 0, 0)) + b'{"type":"ping"}'
    writer.write(
        b"GET /api/v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Cookie: session_token=%s\r\n\r\n%s" % (token.encode(), ping)
    )
    async with asyncio.timeout(30):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        first, size = await reader.readexactly(2)
        assert b"pong" in await reader.readexactly(size)
    assert first == 0x81
    writer.close()


@pytest.mark.parametrize(
    "way", ["logout", "everywhere", "disabled", "password", "removed", "expired", "elsewhere"]
)
async def test_no_socket_outlives_its_session(tmp_path: Path, way: str) -> None:
    async with guarded(tmp_path, interval_s=0.02, auth=REQUIRED) as world:
        await world.user()
        await world.user("bob")
        http, other, bob = [await world.logged_in(name) for name in ("alice", "alice", "bob")]
        token, users = token_of(http), world.access.users
        async with (
            world.connect(token) as one, world.connect(token) as two, world.connect(token_of(bob)) as bobs,
        ):  # fmt: skip
            if way == "logout":
                assert (await ask(http, "POST", LOGOUT))[0] == 204
            elif way == "everywhere":
                assert (await ask(other, "POST", f"{LOGOUT}?everywhere=true"))[0] == 204
            elif way == "disabled":
                await users.set_active("alice", False)
            elif way == "password":
                await users.set_password("alice", "another-password")
            elif way == "removed":
                await users.remove("alice")
            elif way == "expired":
                await world.registry.touch_session(
                    (await world.access.sessions.find(token)).token_hash,  # type: ignore[union-attr]
                    world.clock.now_ns,
                    world.clock.now_ns,
                )
            else:
                found = await world.access.sessions.find(token)
                assert found is not None
                await world.registry.end_session(found.token_hash)
                world.access.ended_elsewhere(found.token_hash)
            for ws in (one, two):
                assert await gone(ws) == (1008, "the session has ended; log in again")
            world.clock.move(2)
            assert (await refused(world.connect(token)))[0] == 401
            assert (await ask(world.jar(), "GET", SESSION, cookies={"session_token": token}))[0] == 401
            assert (await subscribe(bobs, "BTCUSDT"))["type"] == "subscribed", "others stay"


async def test_a_socket_that_was_on_its_way_when_the_session_ended(
    closed: AccessWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was admitted, but its session had ended elsewhere: nobody tells, so the registry is asked."""
    token = token_of(await closed.logged_in())
    found = await closed.access.sessions.find(token)
    assert found is not None
    await closed.registry.end_session(found.token_hash)  # what was looked up just now still holds here
    async with closed.connect(token) as ws:
        assert (await gone(ws))[0] == 1008


async def test_the_loser_of_a_log_in_race_is_closed(world: AccessWorld) -> None:
    http = world.jar()
    await ask(http, "POST", f"{WATCH}/BTCUSDT")
    async with world.connect(token_of(http)) as ws:
        assert (await text(ws))["type"] == "auto_subscribe"
        login = {"username": "alice", "password": "hunter2-correct-horse"}
        assert (await ask(http, "POST", "/api/v1/auth/login", json=login))[0] == 200
        assert (await gone(ws))[0] == 1008, "it would get the changes of a watch that is no more"


async def test_sockets_keep_a_session_alive(tmp_path: Path) -> None:
    async with guarded(tmp_path, interval_s=0.01, auth=REQUIRED) as world:
        await world.user()
        token = token_of(await world.logged_in())
        async with world.connect(token) as ws:
            for _ in range(4):
                world.clock.move(6 * 86_400)
                while True:
                    found = await world.access.sessions.find(token)
                    if found is not None and found.last_activity_ns == world.clock.now_ns:
                        break
                    await asyncio.sleep(0.005)
            assert (await subscribe(ws, "BTCUSDT"))["type"] == "subscribed"


# Origins and limits.


@pytest.mark.parametrize(
    ("listed", "origin", "status"),
    [
        ((), None, 101), ((), "http://127.0.0.1:{port}", 101), ((), "http://localhost:{port}", 403),
        ((), "https://evil.example", 403), ((), "null", 403), ((), "http://127.0.0.1:1", 403),
        ((SITE,), SITE, 101), ((SITE,), "https://evil.example", 403), (("*",), "https://evil.example", 101),
    ],
)  # fmt: skip
async def test_cross_origin_sockets(
    tmp_path: Path, listed: tuple[str, ...], origin: str | None, status: int
) -> None:
    async with guarded(tmp_path, server=ServerConfig(origins=listed)) as world:
        headers = {"Origin": origin.format(port=world.front.port)} if origin else {}
        connecting = world.connect(additional_headers=headers)
        if status == 101:
            async with connecting as ws:
                assert (await subscribe(ws, "BTCUSDT"))["type"] == "subscribed"
        else:
            assert (await refused(connecting))[:2] == (403, "forbidden_origin")


async def test_any_site_gets_no_visitors_session(tmp_path: Path) -> None:
    async with guarded(tmp_path, server=ServerConfig(origins=("*",))) as world:
        http = world.jar()
        await ask(http, "POST", f"{WATCH}/BTCUSDT")
        foreign = {"Origin": "https://evil.example"}
        async with world.connect(token_of(http), additional_headers=foreign) as ws:
            await ws.send('{"type":"ping"}')
            assert (await text(ws))["type"] == "pong", "and no watch of the visitor before it"
            assert not world.access.attendance._by_session


@pytest.mark.parametrize("way", ["nobody", "session"])
async def test_one_address_does_not_take_all_places(tmp_path: Path, way: str) -> None:
    feed, server = FeedConfig(clients_per_address=2), ServerConfig(proxies=("127.0.0.1/32",))
    async with guarded(tmp_path, feed=feed, server=server) as world:
        await world.user()
        token = token_of(await world.logged_in()) if way == "session" else ""

        def from_(address: str) -> Any:
            return world.connect(token, additional_headers={"X-Forwarded-For": address})

        one = await from_("2001:db8::1")
        async with from_("2001:db8::2"), from_("192.0.2.1"):
            status, code, headers = await refused(from_("2001:db8::3"))
            assert (status, code) == (429, "too_many_sockets")
            assert headers["Retry-After"]
            async with from_("2001:db8:0:1::1"), from_("192.0.2.2"):
                assert len(world.feed.clients) == 5
            await one.close()
            async with asyncio.timeout(30):
                while world.feed.by_address.get("2001:db8::/64") != 1:
                    await asyncio.sleep(0.001)
            async with from_("2001:db8::3"):
                assert world.feed.by_address["2001:db8::/64"] == 2
        async with asyncio.timeout(30):
            while world.feed.by_address:
                await asyncio.sleep(0.001)


async def test_connections_are_limited(tmp_path: Path) -> None:
    async with guarded(tmp_path, limit=LimitConfig(connect_per_second=1)) as world:
        for _ in range(4):
            async with world.connect():
                pass
        status, code, headers = await refused(world.connect())
        assert (status, code, headers["Retry-After"]) == (429, "too_many_requests", "1")
        world.clock.move(1)
        async with world.connect():
            pass


# When the registry is away.


async def test_a_registry_that_is_away_stops_no_feed(
    world: AccessWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    http = world.jar()
    await ask(http, "POST", f"{WATCH}/BTCUSDT")
    token = token_of(http)
    world.clock.move(2)
    async with world.connect(token) as before:
        assert (await text(before))["type"] == "auto_subscribe"

        async def away(*values: Any) -> Any:
            raise StoreError("away")

        monkeypatch.setattr(world.registry, "_read", away)
        world.clock.move(2)
        world.access.attendance.changed(next(iter(world.access.attendance._by_watch)))
        async with world.connect(token) as ws:
            assert (await subscribe(ws, "BTCUSDT"))["type"] == "subscribed"
        assert (await subscribe(before, "BTCUSDT"))["type"] == "subscribed"
        assert (await refused(world.connect(url=f"{world.ws_url}?token={token}")))[0] == 503


async def test_a_registry_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with guarded(tmp_path, auth=REQUIRED, head_seconds_max=0.1) as world:
        await world.user()
        token = token_of(await world.logged_in())
        world.clock.move(2)

        async def hangs(*values: Any) -> Any:
            await asyncio.Event().wait()

        monkeypatch.setattr(world.registry, "_read", hangs)
        assert (await refused(world.connect(token)))[:2] == (503, "not_ready")
        while world.front.heads:
            await asyncio.sleep(0.001)
        _, writer = await asyncio.open_connection("127.0.0.1", world.front.port)
        writer.write(
            b"GET /api/v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Cookie: session_token=%s\r\n\r\n" % token.encode()
        )
        while not world.front.heads:
            await asyncio.sleep(0.001)
        writer.transport.abort()
        while world.front.heads:
            await asyncio.sleep(0.001)


async def test_a_gate_that_breaks_stays_shut(world: AccessWorld, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(token: str) -> None:
        raise RuntimeError("a bug")

    world.access.sessions.find = broken  # type: ignore[method-assign]
    assert (await refused(world.connect("x")))[:2] == (500, "internal_error")
    assert "a bug" in caplog.text
    caplog.clear()
