"""Log-in, log-out and session: good and bad input, and what ends a session."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.api.access_world import LOGIN, LOGOUT, SECRET, SESSION, AccessWorld, ask, guarded, token_of
from tradeback.api import auth
from tradeback.api.throttle import PAIR
from tradeback.model.config import AuthConfig, ServerConfig
from tradeback.model.errors import StoreError
from tradeback.stores.sessions import token_hash

GOOD = {"username": "alice", "password": SECRET}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[AccessWorld]:
    async with guarded(tmp_path) as made:
        await made.user()
        yield made


async def test_in_who_and_out(world: AccessWorld) -> None:
    http = world.jar()
    assert (await ask(http, "GET", SESSION))[0] == 401
    async with http.post(LOGIN, json={**GOOD, "username": " ALICE "}) as answer:
        assert answer.status == 200
        told = await answer.json()
        cookie = answer.headers["Set-Cookie"]
        assert answer.headers["Cache-Control"] == "no-store"
    assert told == {"user_id": 1, "username": "alice", "expires_at": told["expires_at"]}
    assert told["expires_at"] == world.clock.now_ns // 1_000_000 + 7 * 86_400_000
    flags = {part.strip() for part in cookie.split(";")[1:]}
    assert flags == {"HttpOnly", "Path=/", "SameSite=Lax", "Max-Age=2592000"}
    assert await ask(http, "GET", SESSION) == (200, told)
    token = token_of(http)
    async with http.post(LOGOUT) as answer:
        assert (answer.status, await answer.read()) == (204, b"")
        assert "Max-Age=0" in answer.headers["Set-Cookie"]
    assert token_of(http) == ""
    assert (await ask(http, "GET", SESSION))[0] == 401
    for way in ({"Cookie": f"session_token={token}"}, {"Authorization": f"Bearer {token}"}):
        assert (await ask(world.jar(), "GET", SESSION, headers=way))[0] == 401, "the token is worth nothing"
    assert (await ask(http, "POST", LOGOUT))[0] == 204, "nobody is out already"


async def test_the_token_works_as_bearer_and_goes_before_the_cookie(world: AccessWorld) -> None:
    await world.user("bob")
    alice, bob = await world.logged_in("alice"), await world.logged_in("bob")
    bearer = {"Authorization": f"Bearer {token_of(bob)}"}
    assert (await ask(alice, "GET", SESSION, headers=bearer))[1]["username"] == "bob"
    assert (await ask(alice, "GET", SESSION, headers={"Authorization": "Basic x"}))[1]["username"] == "alice"


async def test_a_token_that_is_named_must_be_a_session(
    world: AccessWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nobody needs one (auth.mode open): its sender would think that it works."""
    http = await world.logged_in()
    token = token_of(http)
    named, shown = {"Authorization": f"Bearer {token}"}, {"Cookie": f"session_token={token}"}
    assert (await ask(world.jar(), "GET", "/api/v1/symbols", headers=named))[0] == 200
    assert (await ask(http, "POST", LOGOUT))[0] == 204
    async with world.jar().get("/api/v1/symbols", headers=named) as answer:
        assert answer.status == 401
        assert "invalid_token" in answer.headers["WWW-Authenticate"]
        assert (await answer.json())["error"]["code"] == "unauthorized"
    async with world.jar().get("/udf/config", headers=named) as answer:
        assert (answer.status, (await answer.json())["s"]) == (401, "error")
    assert (await ask(world.jar(), "GET", "/api/v1/symbols", headers=shown))[0] == 200, "an old cookie"
    for path in ("/health/live", "/"):
        async with world.jar().get(path, headers=named) as answer:
            assert answer.status == 200, path
    good = {"username": "alice", "password": SECRET}
    assert (await ask(world.jar(), "POST", LOGIN, json=good, headers=named))[0] == 200
    assert (await ask(world.jar(), "POST", LOGOUT, headers=named))[0] == 204

    async def away(*values: Any) -> Any:
        raise StoreError("away")

    monkeypatch.setattr(world.registry, "_read", away)
    world.clock.move(2)
    assert (await ask(world.jar(), "GET", "/api/v1/symbols", headers=named))[0] == 503
    assert (await ask(world.jar(), "GET", "/api/v1/symbols", headers=shown))[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'"alice"', b"{}", b'{"username":"alice"}', b'{"password":"x"}',
        b'{"username":1,"password":"x"}', b'{"username":"alice","password":null}',
        b'{"username":["alice"],"password":"x"}', b'{"username":"alice","password":"x","admin":true}',
        b'{"username":"alice","password":"x","symbols":[]}',
        b'{"username":"alice","password":"x","symbols":"A"}',
        b'{"username":"alice","password":"x","symbols":[1]}',
        b'{"username":"alice","password":"x","symbols":["A,B"]}',
        b"username=alice&password=x", b"\xff\xfe", b"[" * 10_000,
    ],
)  # fmt: skip
async def test_a_body_that_is_none(world: AccessWorld, body: bytes) -> None:
    status, told = await ask(world.jar(), "POST", LOGIN, data=body)
    assert (status, told["error"]["code"]) == (400, "bad_request")
    assert "hunter2" not in told["error"]["message"]


async def test_wrong_user_and_wrong_password_are_alike(world: AccessWorld) -> None:
    await world.user("off")
    await world.access.users.set_active("off", False)
    answers = []
    for name, password in (
        ("alice", "wrong-password"), ("nobody", SECRET), ("off", SECRET), ("no such name", SECRET),
        ("", ""), ("alice", "x" * 5_000), ("x" * 500, SECRET),
    ):  # fmt: skip
        async with world.jar().post(LOGIN, json={"username": name, "password": password}) as answer:
            assert "Set-Cookie" not in answer.headers
            answers.append((answer.status, await answer.read()))
    assert set(answers) == {
        (401, b'{"error":{"code":"bad_credentials","message":"no user has this name and password"}}')
    }


async def test_every_failure_costs_one_check_of_a_password(
    world: AccessWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    from argon2 import PasswordHasher

    checked = []
    original = PasswordHasher.verify

    def verify(self: PasswordHasher, held: str, password: bytes) -> bool:
        checked.append(held)
        return original(self, held, password)

    monkeypatch.setattr(PasswordHasher, "verify", verify)
    for name in ("alice", "nobody", "no such name", "<b>"):
        await ask(world.jar(), "POST", LOGIN, json={"username": name, "password": "wrong-password"})
    assert len(checked) == 4


async def test_guessing_is_braked_whether_the_user_exists_or_not(world: AccessWorld) -> None:
    for name in ("alice", "nobody"):
        wrong = {"username": name, "password": "wrong-password"}
        statuses = [(await ask(world.jar(), "POST", LOGIN, json=wrong))[0] for _ in range(PAIR.free + 1)]
        assert statuses == [401] * PAIR.free + [429]
        async with world.jar().post(LOGIN, json={"username": name, "password": SECRET}) as answer:
            assert answer.status == 429, "the right password has to wait, too"
            assert answer.headers["Retry-After"] == "1"
            assert (await answer.json())["error"]["code"] == "too_many_attempts"
        world.clock.move(40)  # of the limit of log-ins of one address, too
    world.clock.move(2)
    assert (await ask(world.jar(), "POST", LOGIN, json=GOOD))[0] == 200


async def test_brute_force_in_parallel(world: AccessWorld) -> None:
    http = world.jar(connector=aiohttp.TCPConnector(limit=50))
    tries = [{"username": "alice", "password": f"guess-{number}"} for number in range(60)]
    answers = await asyncio.gather(*(ask(http, "POST", LOGIN, json=each) for each in tries))
    statuses = [status for status, _ in answers]
    assert statuses.count(401) <= PAIR.free
    assert set(statuses) <= {401, 429}


async def test_log_ins_queue_in_bounds(world: AccessWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "WAITING_MAX", 1)
    held = asyncio.Event()

    async def slow(name: str, password: str) -> None:
        await held.wait()

    monkeypatch.setattr(world.access.users, "log_in", slow)
    first = asyncio.create_task(ask(world.jar(), "POST", LOGIN, json=GOOD))
    while not world.access.throttle._pairs.held:
        await asyncio.sleep(0.001)
    async with world.jar().post(LOGIN, json=GOOD) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    held.set()
    assert (await first)[0] == 401


async def test_a_new_token_at_every_log_in_and_the_old_one_ends(world: AccessWorld) -> None:
    http = await world.logged_in()
    before = token_of(http)
    planted = {"Cookie": "session_token=planted-by-somebody-else"}
    async with world.jar().post(LOGIN, json=GOOD, headers=planted) as answer:
        assert answer.cookies["session_token"].value != "planted-by-somebody-else"
    assert (await ask(http, "POST", LOGIN, json=GOOD))[0] == 200
    assert token_of(http) != before
    assert await world.access.sessions.find(before) is None


async def test_everywhere(world: AccessWorld) -> None:
    await world.user("bob")
    here, there, bob = [await world.logged_in(name) for name in ("alice", "alice", "bob")]
    assert (await ask(here, "POST", LOGOUT + "?everywhere=perhaps"))[0] == 400
    assert (await ask(there, "GET", SESSION))[0] == 200
    assert (await ask(here, "POST", LOGOUT + "?everywhere=true"))[0] == 204
    assert (await ask(there, "GET", SESSION))[0] == 401
    assert (await ask(bob, "GET", SESSION))[0] == 200


async def test_expiry_and_renewal(world: AccessWorld) -> None:
    http = await world.logged_in()
    for _ in range(4):
        world.clock.move(6 * 86_400)
        status, told = await ask(http, "GET", SESSION)
        assert status == 200, "use renews it"
        assert told["expires_at"] <= world.clock.now_ns // 1_000_000 + 7 * 86_400_000
    world.clock.move(6 * 86_400 + 1)
    assert (await ask(http, "GET", SESSION))[0] == 401, "30 days are over, whatever it did"
    idle = await world.logged_in()
    world.clock.move(7 * 86_400 + 1)
    assert (await ask(idle, "GET", SESSION))[0] == 401


@pytest.mark.parametrize(
    ("sections", "headers", "secure"),
    [
        ({}, {}, False),
        ({}, {"X-Forwarded-Proto": "https"}, False),
        ({"server": ServerConfig(proxies=("127.0.0.1/32",))}, {"X-Forwarded-Proto": "https"}, True),
        ({"server": ServerConfig(proxies=("127.0.0.1/32",))}, {"X-Forwarded-Proto": "http"}, False),
        ({"auth": AuthConfig(secure_cookie=True)}, {}, True),
    ],
)
async def test_the_cookie_is_secure_over_tls(
    tmp_path: Path, sections: dict[str, Any], headers: dict[str, str], secure: bool
) -> None:
    async with guarded(tmp_path, **sections) as world:
        await world.user()
        async with world.jar().post(LOGIN, json=GOOD, headers=headers) as answer:
            assert ("Secure" in answer.headers["Set-Cookie"]) is secure


async def test_what_is_kept_of_a_session(world: AccessWorld) -> None:
    """No token; who it was, without what could forge a line of a log."""
    await ask(world.jar(headers={"User-Agent": "Mozilla " + "x" * 2_000}), "POST", LOGIN, json=GOOD)
    logged = await world.logged_in()
    kept = b"".join(path.read_bytes() for path in Path(world.registry._file.path).parent.iterdir())
    assert token_of(logged).encode() not in kept
    assert token_hash(token_of(logged)).encode() in kept
    assert b"x" * 600 not in kept


async def test_a_registry_that_is_away(world: AccessWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    http = await world.logged_in()

    async def away(*values: Any) -> Any:
        raise StoreError("the disk is on fire at /secret/path")

    monkeypatch.setattr(world.registry, "_read", away)
    monkeypatch.setattr(world.registry, "_write", away)
    world.clock.move(2)
    for method, path in (("POST", LOGIN), ("POST", LOGOUT), ("GET", "/api/v1/marketwatch")):
        async with http.request(method, path, json=GOOD if path == LOGIN else None) as answer:
            told = await answer.json()
            assert (answer.status, told["error"]["code"]) == (503, "not_ready")
            assert int(answer.headers["Retry-After"]) > 0
            assert "/secret" not in told["error"]["message"]
    assert (await ask(http, "GET", "/api/v1/symbols"))[0] == 200, "who needs no session is served"


async def test_without_a_registry_at_all(world: AccessWorld) -> None:
    world.context.access = None
    for method, path in (("POST", LOGIN), ("POST", LOGOUT), ("GET", SESSION), ("GET", "/api/v1/marketwatch")):
        assert (await ask(world.jar(), method, path))[0] == 503
