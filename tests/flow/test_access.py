"""Sessions and market watches over processes: the socket is a worker's, what ends it happens elsewhere."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import websockets

from tests.flow.running import Engine, Process, running_engine, running_market, until

SECRET = "hunter2-correct-horse"
LOGIN = {"username": "alice", "password": SECRET}
WAIT_S = 45


@pytest.fixture
async def market(tmp_path: Path) -> AsyncIterator[Process]:
    async with running_market(tmp_path, 3, 50.0) as found:
        yield found


async def user(data_dir: Path, *arguments: str, stdin: bytes = b"") -> None:
    """`tradeback user`, as an operator types it."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tradeback", "user", *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={"DATA_DIR": str(data_dir), "PATH": ""},
    )  # fmt: skip
    said, _ = await asyncio.wait_for(child.communicate(stdin), WAIT_S)
    assert child.returncode == 0, said


async def log_in(engine: Engine) -> tuple[aiohttp.ClientSession, str]:
    """A browser with a session, and its token."""
    http = aiohttp.ClientSession(engine.url, cookie_jar=aiohttp.CookieJar(unsafe=True))
    async with http.post("/api/v1/auth/login", json=LOGIN) as answer:
        assert answer.status == 200, await answer.text()
    (token,) = (cookie.value for cookie in http.cookie_jar if cookie.key == "session_token")
    return http, token


async def told(ws: Any, kind: str) -> dict[str, Any]:
    """The next text of this type."""
    async with asyncio.timeout(WAIT_S):
        while True:
            message = await ws.recv()
            if isinstance(message, str) and orjson.loads(message)["type"] == kind:
                found: dict[str, Any] = orjson.loads(message)
                return found


async def ended(ws: Any) -> int | None:
    async with asyncio.timeout(WAIT_S):
        await ws.wait_closed()
    code: int | None = ws.close_code
    return code


@pytest.mark.parametrize("workers", [1, 0])
async def test_a_session_from_log_in_to_its_end(tmp_path: Path, market: Process, workers: int) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    await user(folder, "add", "alice", "--password-stdin", stdin=SECRET.encode())
    variables = {"AUTH_MODE": "required", "FEED_WORKERS": str(workers), "LOG_LEVEL": "debug"}
    async with running_engine(folder, market.announced, **variables) as engine:
        tokens: list[str] = []
        with pytest.raises(websockets.InvalidStatus):
            await websockets.connect(engine.feed_url)
        http, token = await log_in(engine)
        tokens.append(token)
        names = [each["symbol"] for each in await json_of(http, "/api/v1/symbols")]
        async with http.post(f"/api/v1/marketwatch/{names[0]}") as answer:
            assert answer.status == 201
        if workers:
            await until(lambda: served_by_workers(http), "a worker that serves", WAIT_S)
        async with websockets.connect(f"{engine.feed_url}?token={token}") as ws:
            assert (await told(ws, "auto_subscribe"))["data"]["symbol"] == names[0]
            async with asyncio.timeout(WAIT_S):
                while not isinstance(await ws.recv(), bytes):
                    pass
            async with http.post(f"/api/v1/marketwatch/{names[1]}") as answer:
                assert answer.status == 201
            assert (await told(ws, "auto_subscribe"))["data"]["symbol"] == names[1]
            async with http.delete(f"/api/v1/marketwatch/{names[0]}") as answer:
                assert answer.status == 204
            assert (await told(ws, "unsubscribed"))["symbols"] == [names[0]]
            await settled_on_all_devices(engine, http, ws, names[1])
            if workers:
                assert await handed_over(http) > 0, "the socket is a worker's"
            async with http.post("/api/v1/auth/logout") as answer:
                assert answer.status == 204
            assert await ended(ws) == 1008
        with pytest.raises(websockets.InvalidStatus):
            await websockets.connect(f"{engine.feed_url}?token={token}")
        await http.close()
        http, token = await log_in(engine)
        tokens.append(token)
        async with websockets.connect(f"{engine.feed_url}?token={token}") as ws:
            await told(ws, "auto_subscribe")
            await user(folder, "disable", "alice")
            assert await ended(ws) == 1008, "found out by asking the registry"
        await http.close()
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for secret in (*tokens, SECRET):
        assert [path for path, data in kept.items() if secret.encode() in data] == []


async def settled_on_all_devices(engine: Engine, http: aiohttp.ClientSession, ws: Any, symbol: str) -> None:
    """Asked for on one, told on both, read on both, and by nobody without the user's session."""
    # Of a symbol that has not traded since the start there is nothing to prove at any time.
    await until(lambda: has_traded(http, symbol), f"a trade of {symbol}", WAIT_S)
    other, token = await log_in(engine)
    async with other, websockets.connect(f"{engine.feed_url}?token={token}") as second:
        await told(second, "auto_subscribe")
        settle = {"symbol": symbol, "time": int(time.time() * 1_000) + 500}
        async with http.post("/api/v1/settlements", json=settle) as answer:
            assert answer.status == 201, await answer.text()
            number = (await answer.json())["id"]
        for socket in (ws, second):
            data = (await told(socket, "settlement"))["data"]
            assert (data["id"], data["status"], data["complete"]) == (number, "settled", True), data
        assert await json_of(other, f"/api/v1/settlements/{number}") == data
        async with other.post("/api/v1/auth/logout") as answer:
            assert answer.status == 204
        async with other.get(f"/api/v1/settlements/{number}") as answer:
            assert answer.status == 401
    assert await json_of(http, f"/api/v1/settlements/{number}") == data


async def has_traded(http: aiohttp.ClientSession, symbol: str) -> bool:
    """Whether the tape has a trade of this symbol."""
    return bool((await json_of(http, f"/api/v1/symbols/{symbol}/ticks?limit=1"))["ticks"])


async def json_of(http: aiohttp.ClientSession, path: str) -> Any:
    async with http.get(path) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def handed_over(http: aiohttp.ClientSession) -> int:
    """Sockets that workers have been given."""
    async with http.get("/metrics") as answer:
        lines = (await answer.text()).splitlines()
    found = (line for line in lines if line.startswith("tradeback_workers_handed_over_total"))
    return sum(int(float(line.split()[-1])) for line in found)


async def served_by_workers(http: aiohttp.ClientSession) -> bool:
    """Whether all processes are well."""
    detailed = await json_of(http, "/api/v1/health/detailed")
    parts = (part for part in detailed["components"] if part["name"].startswith("process:"))
    return all(part["state"] == "ok" for part in parts)
