"""What attackers send: traversal, injected headers and log lines, slow heads, crowds of idle connections."""

import asyncio
import itertools
import logging
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import orjson
import pytest

from tests.api.access_world import LOGIN, SECRET, AccessWorld, ask, guarded, token_of
from tests.feed.harness import subscribe
from tradeback.api.page import SECURITY_HEADERS
from tradeback.feed import front
from tradeback.model.config import AuthConfig, ServerConfig
from tradeback.model.limits import HEAD_BYTES_MAX, URL_BYTES_MAX

WAIT_S = 60


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[AccessWorld]:
    async with guarded(tmp_path) as made:
        await made.user()
        yield made


async def send(world: AccessWorld, data: bytes) -> bytes:
    """Everything that is answered to these bytes, until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.front.port)
    writer.write(data)
    async with asyncio.timeout(WAIT_S):
        answer = await reader.read()
    writer.close()
    return answer


def get(target: str, *lines: str) -> bytes:
    head = (f"GET {target} HTTP/1.1", "Host: x", "Connection: close", *lines, "", "")
    return "\r\n".join(head).encode("latin-1")


TRAVERSALS = (
    "/../../etc/passwd", "/..%2f..%2fetc%2fpasswd", "/page/../../../../etc/passwd",
    "/page/x/../../etc/passwd",
    "/page/0/..%2f..%2f..%2fetc%2fpasswd", "/page/0/....//....//etc/passwd", "/page/0//etc/passwd",
    "/page/0/%2e%2e/%2e%2e/pyproject.toml", "/page/0/..\\..\\etc\\passwd", "/page/0/%00/etc/passwd",
    "//etc/passwd", "/api/v1/symbols/..%2f..%2f..%2fetc%2fpasswd/price", "/udf/..%2f..%2fetc/passwd",
    "file:///etc/passwd", "/etc/passwd", "/registry.sqlite", "/page/0/%c0%ae%c0%ae/etc/passwd",
)  # fmt: skip


@pytest.mark.parametrize("target", TRAVERSALS)
async def test_traversal(world: AccessWorld, target: str) -> None:
    answer = await send(world, get(target))
    status = int(answer.split(b" ", 2)[1])
    assert status in (400, 401, 404)
    assert b"root:" not in answer
    assert b"SQLite" not in answer


@pytest.mark.parametrize(
    "data",
    [
        get("/health/live", "X: a\nSet-Cookie: forged=1"),
        get("/health/live", "X: a\rSet-Cookie: forged=1"),
        get("/health/live", "X\x00Y: a"),
        get("/health/live", " folded: a"),
        get("/health/live", "Content-Length: 5", "Transfer-Encoding: chunked"),
        get("/health/live", "Content-Length: 5", "Content-Length: 6"),
        get("/health/live", "Content-Length: +5"),
        get("/health/live", "Transfer-Encoding: chunked, identity"),
    ],
)
async def test_smuggled_headers(world: AccessWorld, data: bytes) -> None:
    """Answered with 400, or as one request; never is a second one seen, or a header of the client's own."""
    answer = await send(world, data + b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"forged" not in answer
    assert len(re.findall(rb"HTTP/1\.[01] [0-9]{3} ", answer)) == 1
    assert b"smuggled" not in answer
    if b" 400 " in answer.split(b"\r\n")[0]:
        body = orjson.loads(answer.partition(b"\r\n\r\n")[2])
        assert body["error"]["code"] == "bad_request"
        assert body["error"]["message"]
    assert b"aiohttp" not in answer
    assert b"Python" not in answer


@pytest.mark.parametrize("line_end", ["%0d%0a", "%0a", "%0d", "%e2%80%a8"])
async def test_a_path_forges_no_header_and_no_line_of_the_log(
    world: AccessWorld, caplog: pytest.LogCaptureFixture, line_end: str
) -> None:
    world.context.symbols = None  # type: ignore[assignment]
    forged = f"x{line_end}Set-Cookie:forged=1{line_end}ERROR%20forged%20%1b[31m"
    target = f"/api/v1/symbols/{forged}/price?token=hunter2"
    with caplog.at_level(logging.DEBUG):
        answer = await send(world, get(target))
    assert b" 500 " in answer.split(b"\r\n")[0]
    assert b"set-cookie" not in answer.lower()
    (record,) = (record for record in caplog.records if "failed" in record.getMessage())
    line = record.getMessage()
    assert "forged" in line, "it is there to be read"
    assert not set(line) & set("\r\n\x1b\u2028")
    assert "hunter2" not in line
    caplog.clear()


async def test_a_symbol_in_an_answer_is_no_markup(world: AccessWorld) -> None:
    answer = await send(world, get("/api/v1/symbols/%3Cscript%3Ealert(1)%3C%2Fscript%3E/price"))
    assert b"Content-Type: application/json" in answer
    assert b"nosniff" in answer


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (get("/" + "a" * URL_BYTES_MAX), 414),
        (get("/health/live?" + "a" * URL_BYTES_MAX), 414),
        (get("/health/live", "X: " + "a" * HEAD_BYTES_MAX), 431),
        (get("/health/live", *(f"X{number}: a" for number in range(1_500))), 400),
        (get("/health/live", *(f"X{number}: a" for number in range(300))), 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"\x00" * 100, 400),
    ],
)
async def test_heads_have_bounds(world: AccessWorld, data: bytes, status: int) -> None:
    answer = await send(world, data)
    assert int(answer.split(b" ", 2)[1]) == status


async def test_slow_heads_are_cut_and_delay_nobody(tmp_path: Path) -> None:
    async with guarded(tmp_path, head_seconds_max=0.3) as world:
        slow = [await asyncio.open_connection("127.0.0.1", world.front.port) for _ in range(50)]

        async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
            for byte in get("/health/live", *(f"X{number}: a" for number in range(1_000))):
                if writer.transport.is_closing() or reader.at_eof():
                    break
                writer.write(bytes([byte]))
                await asyncio.sleep(0.01)
            with suppress(OSError):  # it was cut while this wrote
                return await reader.read()
            return b"cut"

        drips = [asyncio.create_task(drip(*each)) for each in slow]
        assert (await ask(world.jar(), "GET", "/health/live"))[0] == 200
        async with world.connect() as ws:
            assert (await subscribe(ws, "BTCUSDT"))["type"] == "subscribed"
            async with asyncio.timeout(WAIT_S):
                answers = await asyncio.gather(*drips)
        assert all(answer == b"cut" or answer.startswith(b"HTTP/1.1 408") for answer in answers)
        assert world.front.refused == 50
        for _, writer in slow:
            writer.transport.abort()


async def test_later_heads_of_a_connection_have_no_more_time_than_the_first(tmp_path: Path) -> None:
    """Kept alive it could drip for ever."""
    async with guarded(tmp_path, server=ServerConfig(read_timeout_s=0.3)) as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.front.port)
        for _ in range(2):  # between two requests there is time
            writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            async with asyncio.timeout(WAIT_S):
                await reader.readuntil(b'{"status":"ok"}')
        reading = asyncio.create_task(reader.read())
        async with asyncio.timeout(WAIT_S):
            writer.write(b"GET /health/live HTTP/1.1\r\n")
            for byte in itertools.cycle(b"X: a\r\n"):
                if reading.done():
                    break
                writer.write(bytes([byte]))
                await asyncio.sleep(0.01)
            answer = await reading
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"request_timeout" in answer
        writer.close()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (get("/udf/history?symbol=" + "a" * URL_BYTES_MAX), 414),
        (get("/udf/history?symbol=a", "X: " + "a" * HEAD_BYTES_MAX), 431),
        (get("/udf/config", " folded: a"), 400),
        (get("/udf/nowhere"), 404),
    ],
)
async def test_errors_of_the_datafeed_have_its_shape_wherever_they_are_found(
    world: AccessWorld, data: bytes, status: int
) -> None:
    answer = await send(world, data)
    assert int(answer.split(b" ", 2)[1]) == status
    said = orjson.loads(answer.partition(b"\r\n\r\n")[2])
    assert said["s"] == "error"
    assert said["errmsg"]


@pytest.mark.parametrize("data", [get("/" + "a" * URL_BYTES_MAX), b"\x00" * 100, get("/health/live")])
async def test_refusals_of_the_port_are_protected_like_every_answer(world: AccessWorld, data: bytes) -> None:
    head = (await send(world, data)).partition(b"\r\n\r\n")[0].decode().split("\r\n")
    held = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
    for name in ("X-Content-Type-Options", "Referrer-Policy", "Cross-Origin-Resource-Policy"):
        assert held[name.lower()] == SECURITY_HEADERS[name]
    assert held["server"] == "tradeback"
    assert held["content-type"] == "application/json; charset=utf-8"


async def test_thousands_of_idle_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as many as may wait: the oldest go, whoever says something is served, all are gone in the end."""
    monkeypatch.setattr(front, "HEADS_WAITING_MAX", 600)
    monkeypatch.setattr(front, "LATE_HEAD_S", 0.0)
    async with guarded(tmp_path, head_seconds_max=1.0) as world:
        idle = []
        for _ in range(1_500):
            idle.append(await asyncio.open_connection("127.0.0.1", world.front.port))
            assert len(world.front.heads) <= 600
        assert (await ask(world.jar(), "GET", "/health/live"))[0] == 200
        async with world.connect() as ws:
            assert (await subscribe(ws, "BTCUSDT"))["type"] == "subscribed"
        async with asyncio.timeout(WAIT_S):
            ends = [await reader.read() for reader, _ in idle[::50]]
            while world.front.heads:
                await asyncio.sleep(0.01)
        assert all(end == b"" or end.startswith(b"HTTP/1.1 408") for end in ends)
        for _, writer in idle:
            writer.transport.abort()


async def test_idle_connections_go_when_descriptors_run_out(world: AccessWorld) -> None:
    """Kept alive after a request each, they hold what others need."""
    idle = []
    for _ in range(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", world.front.port)
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(WAIT_S):
            await reader.readuntil(b'{"status":"ok"}')
        idle.append((reader, writer))
    held, world.front.fd_max = world.front.fd_max, 0
    assert (await send(world, b"")).startswith(b"HTTP/1.1 503"), "this one has come too early"
    world.front.fd_max = held
    async with asyncio.timeout(WAIT_S):
        assert {await reader.read() for reader, _ in idle} == {b""}
    assert (await ask(world.jar(), "GET", "/health/live"))[0] == 200
    for _, writer in idle:
        writer.close()


async def test_newcomers_all_at_once_are_told_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "HEADS_WAITING_MAX", 20)
    monkeypatch.setattr(front, "LATE_HEAD_S", 3_600.0)
    async with guarded(tmp_path) as world:
        idle = [await asyncio.open_connection("127.0.0.1", world.front.port) for _ in range(20)]
        while len(world.front.heads) < 20:
            await asyncio.sleep(0.001)
        answer = await send(world, b"")
        assert answer.startswith(b"HTTP/1.1 503")
        for _, writer in idle:
            writer.transport.abort()


async def test_no_token_and_no_password_in_any_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        async with guarded(tmp_path, auth=AuthConfig(mode="required")) as world:
            await world.user()
            http = await world.logged_in()
            token = token_of(http)
            async with world.connect(url=f"{world.ws_url}?token={token}") as ws:
                assert (await subscribe(ws, "BTCUSDT"))["type"] == "subscribed"
                (client,) = world.feed.clients
                assert token not in repr(client.admission)
            world.context.symbols = None  # type: ignore[assignment]
            await ask(http, "GET", f"/api/v1/symbols/BTCUSDT/price?token={token}")
            wrong = {"username": SECRET, "password": SECRET[:-1]}
            await ask(world.jar(), "POST", LOGIN, json=wrong)
            await send(world, get(f"/api/v1/ws?token={token}\x7f", f"Cookie: session_token={token}"))
            ours = [record for record in caplog.records if not record.name.startswith("websockets")]
            lines = [logging.Formatter().format(record) for record in ours]
            words = [*lines, *capfd.readouterr(), *world.log.lines, repr(world.access.sessions)]
    assert not any(secret in word for word in words for secret in (token, SECRET[:-1]))
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert token.encode() not in kept
    assert SECRET.encode() not in kept
    caplog.clear()
